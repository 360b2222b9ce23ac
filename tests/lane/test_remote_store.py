"""A store on a filesystem that another process or machine serves, and which may hang."""

from __future__ import annotations

import errno
import os
import signal
import subprocess
import threading
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from queue import SimpleQueue

import pytest

from castfs.lane.files import Files
from castfs.mount import start_mount
from castfs.view import Contents, OpenFile
from tests.lane.samples import BIG, Sample
from tests.lane.serving import ask, finish, start
from tests.mount.conftest import PATIENCE, Mounter, wait_until
from tests.mount.trees import write

pytestmark = [pytest.mark.mounted, pytest.mark.needs_root]

CONTENT = bytes(range(256)) * 3000


@pytest.fixture(params=[True, False], ids=["lane", "alone"])
def store_server(mounter: Mounter, request: pytest.FixtureRequest) -> Iterator[int]:
    """Mounts, at `mountpoint`, a snapshot whose blobs another mount serves. The pid of that one,
    which may be suspended."""
    write(mounter.source / "first", CONTENT)
    for number in range(50):
        write(mounter.source / f"{number:02}", b"%d" % number * 100)
    (mounter.source / "directory").mkdir()
    inner = mounter.take()
    base = mounter.base / "outer"
    base.mkdir()
    outer = Mounter(base)
    mounter.store.rename(outer.source / "store")
    outer.mount()
    theirs = outer.mountpoint / "store"
    wanted = replace(
        inner.request(mounter.mountpoint),
        store=theirs,
        blob_dir=theirs / "blobs",
        fast_lane=request.param,
    )
    status = start_mount(wanted, timeout=PATIENCE)
    assert status.pid is not None
    mounter.pids.append(status.pid)
    try:
        yield outer.pids[0]
    finally:
        os.kill(outer.pids[0], signal.SIGCONT)
        mounter.clean_up()
        outer.clean_up()


def test_a_store_that_hangs(mounter: Mounter, store_server: int) -> None:
    """What needs no blob is answered, and so is what is open already; the rest waits, and goes on
    with the store."""
    assert ask("cat", mounter.mountpoint / "07").out == b"7" * 100
    os.kill(store_server, signal.SIGSTOP)
    tasks = Path(f"/proc/{store_server}/task")
    wait_until(lambda: all(") T " in (task / "stat").read_text() for task in tasks.iterdir()))
    waiting = [start("cat", mounter.mountpoint / name) for name in ("first", "20", "30")]
    with pytest.raises(subprocess.TimeoutExpired):
        waiting[0].communicate(timeout=0.3)
    listed = ask("ls", "-lR", mounter.mountpoint)
    assert (listed.code, listed.err) == (0, b"")
    assert len(listed.out.splitlines()) > 50
    assert ask("cat", mounter.mountpoint / "07").out == b"7" * 100
    assert ask("cat", mounter.mountpoint / "missing").code == 1
    os.kill(store_server, signal.SIGCONT)
    assert [finish(each).out for each in waiting] == [CONTENT, b"20" * 100, b"30" * 100]


@pytest.mark.parametrize("store_server", [True], indirect=True)
def test_a_reader_of_a_store_that_hangs_can_be_killed(mounter: Mounter, store_server: int) -> None:
    os.kill(store_server, signal.SIGSTOP)
    waiting = start("cat", mounter.mountpoint / "first")
    with pytest.raises(subprocess.TimeoutExpired):
        waiting.communicate(timeout=0.3)
    waiting.kill()
    assert finish(waiting).code == -signal.SIGKILL
    os.kill(store_server, signal.SIGCONT)
    assert ask("cat", mounter.mountpoint / "first").out == CONTENT


# Without a mount -------------------------------------------------------------------------------


def test_threads_open_what_is_not_local(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    sample = Sample(tmp_path / "blobs", blobs=True)
    replies: SimpleQueue[tuple[int, bytes | int]] = SimpleQueue()
    openers: list[threading.Thread] = []
    original = Contents.open

    def opened(contents: Contents, ino: int) -> OpenFile:
        openers.append(threading.current_thread())
        return original(contents, ino)

    def reply(unique: int, data: bytes | bytearray | int) -> None:
        replies.put((unique, data if isinstance(data, int) else bytes(data)))

    monkeypatch.setattr(Contents, "open", opened)
    files = Files(sample.contents, reply, lambda work: work(), descriptors=100, is_local=False)
    big = sample.ino(b"big")
    assert files.open(big) is None
    files.read_later(1, big, 1000, 5000)
    assert replies.get(timeout=20) == (1, BIG[1000:6000])
    file = files.open(big)
    assert file is not None
    files.read_later(2, big, 0, 100)
    assert replies.get(timeout=20) == (2, BIG[:100])
    assert len(openers) == 1
    assert openers[0] is not threading.current_thread()
    for path, code in ((b"many", errno.EISDIR), (b"link", errno.ELOOP)):
        files.read_later(3, sample.ino(path), 0, 100)
        assert replies.get(timeout=20) == (3, -code)
    del file
    assert files.close()
    sample.close()
