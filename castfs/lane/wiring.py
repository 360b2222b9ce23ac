"""Coming between the kernel and libfuse.

libfuse reads and writes the descriptor that it got for /dev/fuse. Here a socket takes its number,
and the device another one: libfuse does not know, and sees what it is sent.
"""

from __future__ import annotations

import contextlib
import os
import socket
from collections.abc import Iterable

from castfs.errors import MountError

_DEVICE = "/dev/fuse"
#: Requests that are passed on and their replies: 64 of the largest, if the kernel grants it.
_SOCKET_BYTES = 1 << 20


class Wires:
    """The descriptors. `device` never blocks; `socket` leads to libfuse."""

    def __init__(self, libfuse_fd: int) -> None:
        """OSError: nothing has changed then."""
        self._libfuse_fd = libfuse_fd
        with contextlib.ExitStack() as undo:
            self.device = os.dup(libfuse_fd)
            undo.callback(os.close, self.device)
            # Of a kind that keeps messages apart, as the device does.
            self.socket, theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
            undo.callback(self.socket.close)
            with theirs:
                for end in (self.socket, theirs):
                    end.setsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF, _SOCKET_BYTES)
                # Of the device itself, however many descriptors it has.
                undo.callback(os.set_blocking, self.device, True)
                os.set_blocking(self.device, False)
                os.dup2(theirs.fileno(), libfuse_fd, inheritable=False)
            undo.pop_all()

    def restore(self) -> None:
        """Give libfuse its device back, so that it sees what has become of the mount.

        What threads that wait for a disk still write to `device` goes nowhere from now on; its
        number stays taken, or it would reach somebody else's file.
        """
        os.set_blocking(self.device, True)
        os.dup2(self.device, self._libfuse_fd, inheritable=False)
        null = os.open(os.devnull, os.O_RDWR | os.O_CLOEXEC)
        os.dup2(null, self.device, inheritable=False)
        os.close(null)
        self.socket.shutdown(socket.SHUT_RDWR)

    def close_device(self) -> None:
        """Once no thread uses its number any more."""
        os.close(self.device)


def device_descriptors() -> set[int]:
    """This process's descriptors of /dev/fuse."""
    found = set()
    for name in os.listdir("/proc/self/fd"):
        try:
            if os.readlink(f"/proc/self/fd/{name}") == _DEVICE:
                found.add(int(name))
        except FileNotFoundError:
            pass  # that of the listing itself
    return found


def intercept(before: Iterable[int]) -> Wires:
    """Call it once libfuse has mounted; `before` are the `device_descriptors` of before that.

    MountError if its descriptor cannot be told.
    """
    made = device_descriptors().difference(before)
    if len(made) != 1:
        raise MountError(f"libfuse has {len(made)} descriptors of {_DEVICE} instead of one")
    return Wires(made.pop())
