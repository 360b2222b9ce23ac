"""Between the kernel and libfuse: descriptors, and that everything is as it was afterwards."""

from __future__ import annotations

import errno
import os
import socket
import subprocess
import sys
from collections.abc import Iterator

import pytest

from castfs.errors import MountError
from castfs.lane import Wires, device_descriptors, intercept

pytestmark = pytest.mark.mounted  # needs /dev/fuse


@pytest.fixture
def libfuse() -> Iterator[int]:
    """What libfuse has after a mount."""
    fd = os.open("/dev/fuse", os.O_RDWR | os.O_CLOEXEC)
    yield fd
    os.close(fd)


@pytest.fixture
def wires(libfuse: int) -> Iterator[Wires]:
    wires = Wires(libfuse)
    yield wires
    wires.socket.close()
    os.close(wires.device)


def target(fd: int) -> str:
    return os.readlink(f"/proc/self/fd/{fd}")


def test_libfuse_has_a_socket_instead(libfuse: int, wires: Wires) -> None:
    assert target(wires.device) == "/dev/fuse"
    assert not os.get_blocking(wires.device)
    assert target(libfuse).startswith("socket:")
    wires.socket.send(b"a request")
    wires.socket.send(b"another")
    assert os.read(libfuse, 1000) == b"a request"  # messages stay apart
    assert os.read(libfuse, 1000) == b"another"
    os.writev(libfuse, [b"a ", b"reply"])
    assert wires.socket.recv(1000) == b"a reply"


def test_a_large_message_comes_whole(libfuse: int, wires: Wires) -> None:
    message = os.urandom(132_000)  # a READ's reply of pyfuse3
    wires.socket.settimeout(20)
    assert os.write(libfuse, message) == len(message)
    assert wires.socket.recv(1 << 20) == message


def test_programs_inherit_nothing(libfuse: int, wires: Wires) -> None:
    """A child that had the device would keep the mount alive after its server."""
    for fd in (libfuse, wires.device, wires.socket.fileno()):
        assert not os.get_inheritable(fd)
    script = "import os; print([os.readlink(f'/proc/self/fd/{n}') for n in '3456789'])"
    listing = "import os; print(sorted(os.listdir('/proc/self/fd'))[3:])"
    for code in (listing, script):
        done = subprocess.run(
            [sys.executable, "-c", code], close_fds=False, capture_output=True, timeout=20
        )
        assert b"fuse" not in done.stdout
    wires.restore()
    for fd in (libfuse, wires.device):
        assert not os.get_inheritable(fd)


@pytest.mark.parametrize("step", ["socket.socketpair", "os.set_blocking", "os.dup2"])
def test_nothing_has_changed_if_it_fails(
    libfuse: int, monkeypatch: pytest.MonkeyPatch, step: str
) -> None:
    def fail(*arguments: object, **options: object) -> None:
        monkeypatch.undo()
        raise OSError(errno.EMFILE, "no such luck")

    before = os.listdir("/proc/self/fd")
    monkeypatch.setattr(step, fail)
    with pytest.raises(OSError, match="no such luck"):
        Wires(libfuse)
    assert os.listdir("/proc/self/fd") == before
    assert target(libfuse) == "/dev/fuse"
    assert os.get_blocking(libfuse)


def test_restore(libfuse: int, wires: Wires) -> None:
    wires.restore()
    assert target(libfuse) == "/dev/fuse"
    assert os.get_blocking(libfuse)
    assert wires.socket.recv(100) == b""  # nobody is there any more


def test_late_replies_go_nowhere(libfuse: int, wires: Wires) -> None:
    """A thread that still waits for a disk writes to a number, which must be nobody else's."""
    number = wires.device
    wires.restore()
    assert target(number) == os.devnull
    fd = os.open("/dev/zero", os.O_RDONLY)
    assert fd != number
    os.close(fd)
    assert os.writev(number, [b"late ", b"reply"]) == 10


def test_the_one_that_is_new(libfuse: int) -> None:
    """There may be others: of a server in the same process, say."""
    before = device_descriptors()
    assert libfuse in before
    new = os.open("/dev/fuse", os.O_RDWR | os.O_CLOEXEC)
    try:
        assert device_descriptors() - before == {new}
        wires = intercept(before)
        assert target(new).startswith("socket:")
        assert target(libfuse) == target(wires.device) == "/dev/fuse"
        wires.socket.close()
        os.close(wires.device)
    finally:
        os.close(new)


def test_which_one_cannot_be_told(libfuse: int) -> None:
    with pytest.raises(MountError, match="libfuse has 0 descriptors of /dev/fuse instead of one"):
        intercept(device_descriptors())
    new = os.open("/dev/fuse", os.O_RDWR | os.O_CLOEXEC)
    try:
        with pytest.raises(MountError, match="has 2 descriptors"):
            intercept([])
    finally:
        os.close(new)
    assert target(libfuse) == "/dev/fuse"


def test_a_socket_is_not_the_device() -> None:
    ours, theirs = socket.socketpair()
    with ours, theirs:
        assert not device_descriptors() & {ours.fileno(), theirs.fileno()}
