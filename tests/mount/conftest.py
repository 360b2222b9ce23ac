"""Mounts that are gone when the test is over, whatever it did."""

from __future__ import annotations

import contextlib
import os
import select
import shutil
import signal
import subprocess
import tempfile
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from castfs.mount import MountStatus, list_mounts, start_mount
from castfs.mount.mountinfo import Mounted, read_mounts
from tests.mount import snapshots
from tests.mount.snapshots import Snapshot, take_snapshot

#: Longest wait for anything that takes milliseconds on an idle machine.
PATIENCE = 20.0


class Mounter:
    """Takes snapshots and mounts them below a test's directory."""

    def __init__(self, base: Path) -> None:
        self.base = base
        self.source = base / "source"
        self.source.mkdir()
        self.store = base / "store"
        self.mountpoint = base / "mnt"
        self.mountpoint.mkdir()
        self.pids: list[int] = []

    def take(self, *, owner: bool = False, xattrs: bool = False) -> Snapshot:
        """A snapshot of `source` as it is now."""
        return take_snapshot(self.source, self.store, owner=owner, xattrs=xattrs)

    def start(
        self, snapshot: Snapshot, options: str = "", *, at: Path | None = None
    ) -> MountStatus:
        status = start_mount(snapshot.request(at or self.mountpoint, options), timeout=PATIENCE)
        assert status.pid is not None
        self.pids.append(status.pid)
        return status

    def mount(self, options: str = "", *, owner: bool = False, xattrs: bool = False) -> Path:
        """Take a snapshot of `source` and mount it."""
        self.start(self.take(owner=owner, xattrs=xattrs), options)
        return self.mountpoint

    def mounts(self) -> list[Mounted]:
        """The kernel's table, without what tests that run at the same time have mounted."""
        return [mount for mount in read_mounts() if mount.mountpoint.is_relative_to(self.base)]

    def listed(self) -> list[MountStatus]:
        """What `list_mounts` says, without the same."""
        return [status for status in list_mounts() if status.mountpoint.is_relative_to(self.base)]

    def clean_up(self) -> None:
        for mounted in reversed(self.mounts()):
            if mounted.filesystem != "tmpfs":
                subprocess.run(["umount", "-l", mounted.mountpoint], timeout=PATIENCE, check=False)
        for pid in self.pids:
            with contextlib.suppress(ProcessLookupError):
                os.kill(pid, signal.SIGCONT)
            if not wait_for_exit(pid, 5.0):
                with contextlib.suppress(ProcessLookupError):
                    os.kill(pid, signal.SIGKILL)


@contextlib.contextmanager
def mounter_below(tmp_path: Path) -> Iterator[Mounter]:
    base = tmp_path / "work"
    base.mkdir()
    # The unprivileged tests come by here; pytest's own directories are closed to others.
    mounter = Mounter(base)
    try:
        yield mounter
    finally:
        mounter.clean_up()


@pytest.fixture(params=[True, False], ids=["lane", "alone"])
def mounter(
    tmp_path: Path, request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch
) -> Iterator[Mounter]:
    """With the fast lane, and pyfuse3 alone: whatever is tested holds for both."""
    monkeypatch.setattr(snapshots, "fast_lane", request.param)
    with mounter_below(tmp_path) as mounter:
        yield mounter


@pytest.fixture
def public(mounter: Mounter) -> Iterator[Mounter]:
    """A mounter whose directory everybody may enter: pytest's own are closed to other users."""
    base = Path(tempfile.mkdtemp(prefix="castfs-test-"))
    base.chmod(0o755)
    public = Mounter(base)
    try:
        yield public
    finally:
        public.clean_up()
        shutil.rmtree(base)


def children_of(pid: int) -> list[int]:
    """The file `children` in /proc may leave some out while others of them end (proc(5))."""
    found = []
    for status in Path("/proc").glob("[0-9]*/stat"):
        with contextlib.suppress(OSError):
            # After the name, which may hold anything, in parentheses.
            if int(status.read_text().rpartition(")")[2].split()[1]) == pid:
                found.append(int(status.parent.name))
    return found


def kill_with_guard(pid: int) -> None:
    """SIGKILL for the process of a mount and those that it has started, one of which would see to
    the mount then. Returns when all have ended."""
    others = children_of(pid)
    assert others
    for each in (*others, pid):
        os.kill(each, signal.SIGKILL)
    assert all(wait_for_exit(each) for each in (pid, *others))


def wait_for_exit(pid: int, seconds: float = PATIENCE) -> bool:
    """Has a process that is nobody's child here ended within `seconds`?"""
    try:
        fd = os.pidfd_open(pid)
    except ProcessLookupError:
        return True
    try:
        poll = select.poll()
        poll.register(fd, select.POLLIN)
        return bool(poll.poll(seconds * 1000))
    finally:
        os.close(fd)


def wait_until(condition: Callable[[], bool], seconds: float = PATIENCE) -> None:
    deadline = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < deadline, "waited too long"
        time.sleep(0.01)


def run(*command: object, **options: object) -> str:
    """What a command prints. It must succeed, within PATIENCE."""
    result = subprocess.run(
        [os.fspath(word) if isinstance(word, Path) else str(word) for word in command],
        capture_output=True,
        timeout=PATIENCE,
        **options,  # type: ignore[call-overload]
    )
    assert result.returncode == 0, result.stderr.decode(errors="replace")
    return str(result.stdout.decode(errors="surrogateescape"))
