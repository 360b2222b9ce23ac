"""The process that stores ahead: it has nothing that it does not need, and nobody needs it."""

from __future__ import annotations

import ctypes
import mmap
import os
import signal
from collections.abc import Callable
from pathlib import Path

import pytest

from castfs.mount import unmount
from tests.lane.serving import ask, served
from tests.mount.conftest import Mounter, children_of, wait_for_exit, wait_until
from tests.mount.trees import write

pytestmark = [pytest.mark.mounted, pytest.mark.needs_root]

COUNT = 300


@pytest.fixture
def source(mounter: Mounter) -> Path:
    (mounter.source / "d").mkdir()
    for number in range(COUNT):
        write(mounter.source / "d" / f"{number:03}", b"%d" % number * 100)
    return mounter.source


def storing_of(pid: int) -> int:
    """The process among a server's children."""
    children = children_of(pid)
    [child] = [c for c in children if Path(f"/proc/{c}/comm").read_text() == "castfs ahead\n"]
    return child


def mount(mounter: Mounter) -> tuple[int, int]:
    """(server, its process that stores)."""
    status = mounter.start(mounter.take())
    assert status.pid is not None
    wait_until(lambda: is_named(status.pid or 0))
    return status.pid, storing_of(status.pid)


def is_named(pid: int) -> bool:
    try:
        storing_of(pid)
    except ValueError:  # it has not got so far
        return False
    return True


def assert_same(mounter: Mounter) -> None:
    done = ask("diff", "-r", mounter.source, mounter.mountpoint)
    assert (done.code, done.out, done.err) == (0, b"", b"")


def resident(path: Path) -> bool:
    """Is a file's first page in the page cache (mincore(2))?"""
    libc = ctypes.CDLL(None, use_errno=True)
    libc.mmap.restype = ctypes.c_void_p
    fd = os.open(path, os.O_RDONLY)
    start = libc.mmap(None, mmap.PAGESIZE, mmap.PROT_READ, mmap.MAP_SHARED, fd, 0)
    os.close(fd)
    pages = ctypes.create_string_buffer(1)
    assert libc.mincore(ctypes.c_void_p(start), mmap.PAGESIZE, pages) == 0
    libc.munmap(ctypes.c_void_p(start), mmap.PAGESIZE)
    return pages.raw[0] & 1 == 1


def test_it_stores(mounter: Mounter, source: Path) -> None:
    mount(mounter)
    place = mounter.mountpoint / "d"
    assert len(list(place.iterdir())) == COUNT
    for number in range(4):
        (place / f"{number:03}").read_bytes()
    wait_until(lambda: resident(place / "006"))
    assert not resident(place / f"{COUNT - 1:03}")
    assert_same(mounter)


def test_it_has_no_other_descriptors(mounter: Mounter, source: Path) -> None:
    """A lease, or the guard's pipe, would outlive the server with it."""
    _, storing = mount(mounter)
    opened = Path(f"/proc/{storing}/fd")
    wait_until(lambda: len(list(opened.iterdir())) == 6)
    targets = sorted(os.readlink(each) for each in opened.iterdir())
    assert targets[:-1] == [
        "/dev/fuse", "/dev/null", "/dev/null", "/dev/null", str(mounter.store / "blobs"),
    ]  # fmt: skip
    assert targets[-1].startswith("socket:")


def kill(pid: int) -> None:
    os.kill(pid, signal.SIGKILL)


def stop(pid: int) -> None:
    os.kill(pid, signal.SIGSTOP)


@pytest.mark.parametrize("hurt", [kill, stop])
def test_it_may_be_gone(mounter: Mounter, source: Path, hurt: Callable[[int], None]) -> None:
    server, storing = mount(mounter)
    hurt(storing)
    assert_same(mounter)
    unmount(mounter.mountpoint)
    assert wait_for_exit(server)
    assert wait_for_exit(storing)
    assert mounter.mounts() == []


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGKILL])
def test_it_ends_with_its_server(mounter: Mounter, source: Path, number: int) -> None:
    server, storing = mount(mounter)
    os.kill(server, number)
    assert wait_for_exit(server)
    assert wait_for_exit(storing)
    wait_until(lambda: mounter.mounts() == [])


def test_signals_of_the_terminal_are_not_for_it(mounter: Mounter, source: Path) -> None:
    _, storing = mount(mounter)
    for number in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP, signal.SIGQUIT):
        os.kill(storing, number)
    place = mounter.mountpoint / "d"
    assert len(list(place.iterdir())) == COUNT
    assert any(is_ahead_of(place, number) for number in range(COUNT - 3))


def is_ahead_of(place: Path, number: int) -> bool:
    """Is a file stored, after this one was read, which nobody has read? Not always: where no CPU is
    idle what was ordered is let be."""
    (place / f"{number:03}").read_bytes()
    try:
        wait_until(lambda: resident(place / f"{number + 3:03}"), 0.2)
    except AssertionError:
        return False
    return True


def test_nothing_stays_of_a_lane_that_cannot_begin(mounter: Mounter, source: Path) -> None:
    patch = """
def fail(*arguments, **options):
    raise OSError(errno.EMFILE, "Too many open files")
lane.Files = lane.Pace = fail
"""
    with served(mounter, mounter.take(), patch) as server:
        assert not is_named(server.process.pid)
        assert_same(mounter)
        server.process.terminate()
        assert server.finish() == 0
    assert "without the fast lane" in server.said


def test_there_can_be_no_process(mounter: Mounter, source: Path) -> None:
    patch = """
from castfs.lane import storing
def fork():
    raise BlockingIOError(errno.EAGAIN, "Resource temporarily unavailable")
storing._fork = fork
"""
    with served(mounter, mounter.take(), patch) as server:
        assert_same(mounter)
        server.process.terminate()
        assert server.finish() == 0
    assert server.said == ""
