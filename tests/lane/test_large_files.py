"""Large files that the kernel reads itself: the same bytes as everywhere, and when it does."""

from __future__ import annotations

import hashlib
import os
import random
import shutil
import signal
from pathlib import Path

import pytest

from castfs.errors import MountBusyError
from castfs.lane.passthrough import SIZE_MIN
from castfs.mount import unmount
from tests.lane.observing import ranges
from tests.lane.readers import is_passed_through, needs_passthrough, reading
from tests.lane.serving import ask, finish, start
from tests.mount import snapshots
from tests.mount.conftest import Mounter, kill_with_guard, run, wait_for_exit, wait_until
from tests.mount.snapshots import Snapshot
from tests.mount.test_damage import log_lines
from tests.mount.trees import write

pytestmark = [pytest.mark.mounted, pytest.mark.needs_root, needs_passthrough]

BIG = random.Random(6).randbytes(3 << 20)
DIGEST = hashlib.sha256(BIG).hexdigest()
SIZES = (0, 1, 4096, SIZE_MIN - 1, SIZE_MIN, SIZE_MIN + 1, (3 << 20) + 1)


@pytest.fixture
def snapshot(mounter: Mounter) -> Snapshot:
    write(mounter.source / "big", BIG)
    os.link(mounter.source / "big", mounter.source / "link")
    write(mounter.source / "small", b"small\n")
    return mounter.take()


# When ------------------------------------------------------------------------------------------


@pytest.mark.parametrize("how", ["", "map", "closed"])
def test_the_server_is_not_asked(mounter: Mounter, snapshot: Snapshot, how: str) -> None:
    status = mounter.start(snapshot, "passthrough")
    assert status.warnings == ()
    assert status.pid is not None
    assert is_passed_through(status.pid, mounter.mountpoint / "big", how)


def test_by_default_if_files_are_large(mounter: Mounter, snapshot: Snapshot) -> None:
    """The mean of `big` and `small` is above 1 MiB; of more small ones it is not."""
    path = mounter.mountpoint / "big"
    for number, (options, passed) in enumerate(
        (("", True), ("nopassthrough", False), ("passthrough,nopassthrough", False))
    ):
        status = mounter.start(snapshot, options)
        assert status.pid is not None
        assert status.warnings == ()
        assert is_passed_through(status.pid, path) is passed, number
        unmount(mounter.mountpoint)
    for number in range(2):
        write(mounter.source / f"more {number}")
    status = mounter.start(mounter.take())
    assert status.pid is not None
    assert not is_passed_through(status.pid, path)


@pytest.mark.parametrize(("options", "lane"), [("verify", True), ("", False)])
def test_not_with_everything(
    mounter: Mounter,
    snapshot: Snapshot,
    monkeypatch: pytest.MonkeyPatch,
    options: str,
    lane: bool,
) -> None:
    monkeypatch.setattr(snapshots, "fast_lane", lane)
    status = mounter.start(snapshot, f"passthrough,{options}")
    (warning,) = status.warnings
    assert warning.startswith("without passthrough, which takes root, ")
    assert status.pid is not None
    assert not is_passed_through(status.pid, mounter.mountpoint / "big")
    unmount(mounter.mountpoint)
    # Nobody has asked for it: no warning.
    assert mounter.start(snapshot, options).warnings == ()


# Contents --------------------------------------------------------------------------------------


@pytest.fixture
def sized(mounter: Mounter) -> Path:
    """The mount point of files of all sizes."""
    for size in SIZES:
        write(mounter.source / f"{size}", random.Random(size).randbytes(size))
    shutil.copy(shutil.which("bash") or "", mounter.source / "bash")
    assert (mounter.source / "bash").stat().st_size > SIZE_MIN
    return mounter.mount("passthrough")


def test_every_way_to_read(mounter: Mounter, sized: Path) -> None:
    assert ask("diff", "-r", mounter.source, sized).code == 0
    rng = random.Random(2)
    for size in SIZES:
        source, path = (os.fsencode(root / f"{size}") for root in (mounter.source, sized))
        wanted = [(rng.randrange(size + 10), rng.choice((0, 1, 777, 1 << 20))) for _ in range(9)]
        wanted += [(size - 1, 10), (size, 10), (size + 1, 10), (2**40, 1)] if size else []
        assert ranges(path, wanted) == ranges(source, wanted)
        blocks = [(offset & ~4095, -(-count // 4096) * 4096) for offset, count in wanted]
        assert ranges(path, blocks, os.O_DIRECT) == ranges(source, blocks, os.O_DIRECT)
        copy = mounter.base / "copy"
        for command in (["cp", "--reflink=never"], ["cp", "--sparse=always"], ["install"]):
            assert ask(*command, os.fsdecode(path), copy).code == 0
            assert copy.read_bytes() == Path(os.fsdecode(source)).read_bytes()
        with open(path, "rb") as file, copy.open("wb") as out:
            while os.sendfile(out.fileno(), file.fileno(), None, 100_001):
                pass
        assert ask("cmp", copy, os.fsdecode(source)).code == 0


def test_programs_run_from_there(sized: Path) -> None:
    assert run(sized / "bash", "-c", "echo $((6 * 7))") == "42\n"


def test_many_at_once(mounter: Mounter, sized: Path) -> None:
    """They open and close the same files all the time, by whatever name."""
    names = [f"{size}" for size in SIZES] * 5
    right = run("sha256sum", *names, cwd=mounter.source)
    processes = [
        start("env", "-C", str(sized), "sha256sum", *names[number:], *names[:number])
        for number in range(30)
    ]
    for process in processes:
        finished = finish(process, 60)
        assert finished.code == 0, finished.err
        assert sorted(finished.out.decode().splitlines()) == sorted(right.splitlines())


def test_one_file_with_two_names(mounter: Mounter, snapshot: Snapshot) -> None:
    status = mounter.start(snapshot, "passthrough")
    big, link = mounter.mountpoint / "big", mounter.mountpoint / "link"
    assert big.samefile(link)
    assert status.pid is not None
    with reading(big) as first:
        with reading(link) as second:
            assert first.read() == second.read() == DIGEST
        assert is_passed_through(status.pid, link)
        assert first.read() == DIGEST


# Changes, and the end --------------------------------------------------------------------------


@pytest.mark.parametrize("remounted", [False, True])
def test_nothing_is_opened_for_writing(
    mounter: Mounter, snapshot: Snapshot, remounted: bool
) -> None:
    status = mounter.start(snapshot, "passthrough")
    path = mounter.mountpoint / "big"
    if remounted:
        run("mount", "-i", "-o", "remount,rw", mounter.mountpoint)
    before = path.stat()
    with reading(path) as reader:
        os.close(os.open(path, os.O_RDONLY | os.O_APPEND))
        for flags in (os.O_WRONLY, os.O_RDWR, os.O_WRONLY | os.O_APPEND, os.O_TRUNC):
            with pytest.raises(OSError, match="Read-only file system"):
                os.open(path, flags)
        assert reader.read() == DIGEST
    assert path.stat() == before
    assert snapshot.blob(b"big").read_bytes() == BIG
    assert status.pid is not None
    assert is_passed_through(status.pid, path)


@pytest.mark.parametrize("guarded", [True, False])
@pytest.mark.parametrize("how", ["", "map", "closed"])
def test_the_server_is_killed(
    mounter: Mounter, snapshot: Snapshot, guarded: bool, how: str
) -> None:
    status = mounter.start(snapshot, "passthrough")
    assert status.pid is not None
    with reading(mounter.mountpoint / "big", how) as reader:
        if guarded:
            os.kill(status.pid, signal.SIGKILL)
            wait_until(lambda: mounter.mounts() == [])
        else:
            kill_with_guard(status.pid)
            assert ask("cat", mounter.mountpoint / "big").code != 0
        assert reader.read() == DIGEST


@pytest.mark.parametrize("how", ["", "map", "closed"])
def test_unmounted_while_it_is_read(mounter: Mounter, snapshot: Snapshot, how: str) -> None:
    status = mounter.start(snapshot, "passthrough")
    assert status.pid is not None
    with reading(mounter.mountpoint / "big", how) as reader:
        with pytest.raises(MountBusyError):
            unmount(mounter.mountpoint)
        assert reader.read() == DIGEST
        unmount(mounter.mountpoint, lazy=True)
        assert mounter.mounts() == []
        assert reader.read() == DIGEST
    assert wait_for_exit(status.pid)
    assert log_lines(status) == []


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
def test_the_server_is_told_to_end(mounter: Mounter, snapshot: Snapshot, number: int) -> None:
    status = mounter.start(snapshot, "passthrough")
    assert status.pid is not None
    with reading(mounter.mountpoint / "big") as reader:
        os.kill(status.pid, number)
        assert wait_for_exit(status.pid)
        assert mounter.mounts() == []
        assert reader.read() in (DIGEST, "Transport endpoint is not connected")
    assert log_lines(status) == []
