"""What the end of a mount takes away, and what it leaves: others have mounted there since."""

from __future__ import annotations

import contextlib
import os
import signal
from collections.abc import Iterator
from pathlib import Path

import pytest

from castfs.mount import unmount
from castfs.mount.mountinfo import find_mount
from tests.lane.serving import served
from tests.mount.conftest import Mounter, children_of, run, wait_for_exit, wait_until
from tests.mount.snapshots import Snapshot
from tests.mount.trees import write

pytestmark = [pytest.mark.mounted, pytest.mark.needs_root]


@pytest.fixture
def snapshot(mounter: Mounter) -> Snapshot:
    write(mounter.source / "file", b"content")
    return mounter.take()


@contextlib.contextmanager
def tmpfs(place: Path) -> Iterator[None]:
    """With a file in it. `place` may be renamed meanwhile."""
    run("mount", "-t", "tmpfs", "none", place)
    device = place.stat().st_dev
    write(place / "theirs", b"theirs")
    try:
        yield
    finally:
        found = run("findmnt", "-n", "-o", "TARGET", "-S", f"{os.major(device)}:{os.minor(device)}")
        run("umount", found.strip())


def guard_of(pid: int) -> int:
    """The process that watches over the one that serves."""
    for child in children_of(pid):
        if b"castfs.mount.guard" in Path(f"/proc/{child}/cmdline").read_bytes():
            return child
    raise AssertionError("it has none")


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGKILL])
@pytest.mark.parametrize("renamed", [False, True], ids=["in place", "renamed"])
def test_what_covers_a_mount_stays(
    mounter: Mounter, snapshot: Snapshot, renamed: bool, number: signal.Signals
) -> None:
    """Beneath, ours has ended. It cannot be unmounted: what lies over it would go with it."""
    place = mounter.base / "above" / "mnt"
    place.mkdir(parents=True)
    mounter.start(snapshot, at=place)
    pid, guard = mounter.pids[0], guard_of(mounter.pids[0])
    with tmpfs(place):
        if renamed:
            place = place.parent.rename(mounter.base / "moved") / "mnt"
        os.kill(pid, number)
        assert wait_for_exit(pid)
        assert wait_for_exit(guard)
        assert (place / "theirs").read_bytes() == b"theirs"
        top = find_mount(place)
        assert top is not None
        assert top.filesystem == "tmpfs"
        if number == signal.SIGTERM:
            assert os.listdir(snapshot.depot.leases_dir) == []
    with pytest.raises(OSError, match="not connected"):
        os.statvfs(place)
    unmount(place)
    assert mounter.mounts() == []


def test_what_is_mounted_there_since_a_rename_stays(mounter: Mounter, snapshot: Snapshot) -> None:
    """Another mount of the same snapshot has the old path; ours goes where it lies now."""
    place = mounter.base / "above" / "mnt"
    place.mkdir(parents=True)
    mounter.start(snapshot, at=place)
    place.parent.rename(mounter.base / "moved")
    place.mkdir(parents=True)
    second = mounter.start(snapshot, at=place)
    os.kill(mounter.pids[0], signal.SIGTERM)
    assert wait_for_exit(mounter.pids[0])
    assert [mount.mountpoint for mount in mounter.mounts()] == [place]
    assert (place / "file").read_bytes() == b"content"
    assert mounter.listed() == [second]


@pytest.mark.parametrize("later", ["a snapshot", "tmpfs"])
def test_a_guard_leaves_what_was_mounted_there_since(
    mounter: Mounter, snapshot: Snapshot, later: str
) -> None:
    """The place was free again after a lazy unmount, while somebody still had a file open."""
    mounter.start(snapshot)
    pid, guard = mounter.pids[0], guard_of(mounter.pids[0])
    with contextlib.ExitStack() as stack:
        fd = os.open(mounter.mountpoint / "file", os.O_RDONLY)
        unmount(mounter.mountpoint, lazy=True)
        if later == "tmpfs":
            stack.enter_context(tmpfs(mounter.mountpoint))
        else:
            mounter.start(snapshot)
        before = mounter.mounts()
        os.kill(pid, signal.SIGKILL)
        assert wait_for_exit(pid)
        assert wait_for_exit(guard)
        with contextlib.suppress(OSError):  # FLUSH
            os.close(fd)
        assert mounter.mounts() == before
        assert len(os.listdir(mounter.mountpoint)) == 1


def test_a_guard_notices_whatever_else_its_server_has_started(
    mounter: Mounter, snapshot: Snapshot
) -> None:
    """A child that was given all that children may inherit lives on, and so does its own."""
    # Once the guard's pipe and the device are there.
    patch = """
import subprocess
from castfs.mount import serving
original_init = serving._init
def init(*arguments):
    original_init(*arguments)
    child = subprocess.Popen(
        [sys.executable, "-S", "-c", "import os, signal; os.fork(); signal.pause()"],
        stdout=subprocess.DEVNULL, close_fds=False, start_new_session=True)
    open(place + "/child", "w").write(str(child.pid))
serving._init = init
"""
    with served(mounter, snapshot, patch) as server:
        child = int((server.place / "child").read_text())
        try:
            assert (mounter.mountpoint / "file").read_bytes() == b"content"
            server.process.kill()
            wait_until(lambda: mounter.mounts() == [])
            assert not wait_for_exit(child, 0)
        finally:
            os.killpg(child, signal.SIGKILL)
