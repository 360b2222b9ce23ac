"""The process that puts small files into the kernel's page cache before somebody asks for them.

FUSE_NOTIFY_STORE takes page locks, which readers hold who wait for the lane: so the lane must not
wait for it. And it is no thread, because it would share Python's lock with a lane that waits awake.
It waits awake itself for a moment, as the lane does: the next order mostly comes at once.
"""

from __future__ import annotations

import contextlib
import gc
import logging
import mmap
import os
import select
import signal
import socket
import time
import warnings
from collections.abc import Callable, Iterable
from pathlib import Path
from struct import Struct

from castfs import fuse
from castfs.lane.pace import AWAKE_NS, has_spare_cpu
from castfs.tree import TreeIndex
from castfs.view import Contents

log = logging.getLogger("castfs.lane")

#: Larger files are read ahead well enough by the kernel itself.
SIZE_MAX = 128 << 10
#: Files that are stored before newer orders are looked at.
_BATCH = 4
#: Directories that the reader will come back to from those below.
_LATER_MAX = 256

#: First and last inode; whether the kernel may be about to learn of them only now.
_ORDER = Struct("=QQ?")
#: So long does the kernel take at most, after it was given a directory's page, to know its files;
#: mostly a few microseconds for each.
_NEW_NS = 200_000
_HEADER_SIZE = fuse.OUT_HEADER.size + fuse.NOTIFY_STORE_OUT.size
#: Of an inode: nobody has it yet; it was stored, or asked for.
_UNGIVEN, _GIVEN = 0, 1


class Storing:
    """The end of the process that serves the mount. The other one ends with it, or by `end`."""

    def __init__(self, device: int, index: TreeIndex, contents: Contents) -> None:
        """Forks, so it is best called before there are threads. Without a process nothing is
        stored."""
        #: By inode, for both processes.
        self._given = mmap.mmap(-1, index.inode_count + 1)
        self._orders, theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
        self._orders.setblocking(False)
        self._pidfd = -1
        with theirs, contextlib.suppress(OSError):  # a limit of processes
            pid = _fork()
            if pid == 0:
                _end_with(lambda: _Worker(theirs, device, index, contents, self._given))
            try:
                self._pidfd = os.pidfd_open(pid)
            except OSError:  # out of descriptors
                os.kill(pid, signal.SIGKILL)
                os.waitpid(pid, 0)

    def was_asked_for(self, ino: int) -> None:
        """The kernel has the file, or waits for it: it must not be stored from now on."""
        self._given[ino] = _GIVEN

    def order(self, first: int, last: int, *, are_new: bool = False) -> None:
        """Store these inodes, before what was ordered earlier. Never waits.

        `are_new`: the kernel has just been told of them.
        """
        # It may be busy with older orders, or somebody has killed it: nobody needs to have this.
        with contextlib.suppress(OSError):
            self._orders.send(_ORDER.pack(first, last, are_new))

    def end(self) -> None:
        """Let it end, after a few files at most. More orders go nowhere."""
        with contextlib.suppress(OSError):  # it has ended already
            self._orders.shutdown(socket.SHUT_RDWR)

    def close(self) -> None:
        """Once nobody gives orders any more."""
        self._orders.close()

    def kill(self) -> None:
        """End it whatever it waits for; only what waits in the kernel for a page or a disk goes on
        until it has that."""
        if self._pidfd >= 0:
            with contextlib.suppress(ProcessLookupError):
                signal.pidfd_send_signal(self._pidfd, signal.SIGKILL)

    def is_busy(self, seconds: float = 0.01) -> bool:
        """After `end`: is one still being stored? Waits for its end for a moment."""
        if self._pidfd < 0:
            return False
        poll = select.poll()
        poll.register(self._pidfd, select.POLLIN)
        if not poll.poll(seconds * 1000):
            return True
        with contextlib.suppress(ChildProcessError):  # the program around us has waited for it
            result = os.waitid(os.P_PIDFD, self._pidfd, os.WEXITED)
            if result is not None and result.si_code == os.CLD_EXITED and result.si_status:
                log.error("the process that stores ahead has failed, so nothing was stored")
        os.close(self._pidfd)
        self._pidfd = -1
        return False


class _Worker:
    """The other process."""

    def __init__(
        self,
        orders: socket.socket,
        device: int,
        index: TreeIndex,
        contents: Contents,
        given: mmap.mmap,
    ) -> None:
        self._orders = orders
        self._device = device
        self._index = index
        self._contents = contents
        self._given = given
        self._may_wait_awake = has_spare_cpu()
        #: (first, last) inode, and until when (ns, monotonic) the kernel may not know them yet.
        #: Newest last.
        self._pending: list[tuple[int, int, int]] = []

    @property
    def descriptors(self) -> set[int]:
        return {self._orders.fileno(), self._device, self._contents.dir_fd}

    def run(self) -> None:
        while self._take_orders():
            ino, last, new_until = self._pending.pop()
            for _ in range(_BATCH):
                ino = self._next(ino, last)
                if ino > last or not self._store(ino, new_until):
                    break
                ino += 1
            else:
                self._pending.append((ino, last, new_until))

    def _take_orders(self) -> bool:
        """Waits for one if there is nothing to do. False when there will be no more."""
        if not self._pending and self._may_wait_awake:
            self._wait_awake()
        while True:
            try:
                order = self._orders.recv(
                    _ORDER.size, 0 if not self._pending else socket.MSG_DONTWAIT
                )
            except BlockingIOError:
                return True
            if not order:
                return False
            first, last, are_new = _ORDER.unpack(order)
            self._pending.append((first, last, time.monotonic_ns() + _NEW_NS if are_new else 0))
            del self._pending[:-_LATER_MAX]

    def _wait_awake(self) -> None:
        poll = select.poll()
        poll.register(self._orders, select.POLLIN)
        end = time.monotonic_ns() + AWAKE_NS
        while time.monotonic_ns() < end and not poll.poll(0):
            os.sched_yield()

    def _next(self, ino: int, last: int) -> int:
        while ino <= last and self._given[ino] != _UNGIVEN:
            ino += 1
        return ino

    def _store(self, ino: int, new_until: int) -> bool:
        """False if what follows is not worth trying, either."""
        data = self._contents.read_small(ino, SIZE_MAX)
        if self._given[ino] != _UNGIVEN:
            return True  # somebody has asked for it meanwhile
        self._given[ino] = _GIVEN
        if not data:
            return True
        header = fuse.OUT_HEADER.pack(_HEADER_SIZE + len(data), fuse.NOTIFY_STORE, 0)
        store = fuse.NOTIFY_STORE_OUT.pack(ino, 0, len(data), 0)
        while True:
            try:
                os.writev(self._device, [header, store, data])
                return True
            except OSError:  # ENOENT: the kernel does not know the inode (any more)
                if time.monotonic_ns() > new_until:
                    break
                os.sched_yield()  # to the reader, who is just making it known
        self._given[ino] = _UNGIVEN  # if it was asked for meanwhile it is stored for nothing
        return False


def _fork() -> int:
    with warnings.catch_warnings():
        # Of the caller's threads, which a mount in the foreground may have: the new process takes
        # none of their locks.
        warnings.simplefilter("ignore", DeprecationWarning)
        return os.fork()


def _end_with(make_worker: Callable[[], _Worker]) -> None:
    """All that the new process does: whatever fails in it, it never becomes a second server."""
    status = 1
    try:
        worker = make_worker()
        gc.disable()
        signal.set_wakeup_fd(-1)
        for number in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP, signal.SIGQUIT):
            signal.signal(number, signal.SIG_IGN)
        # Leases, pipes and sockets of the other process must end with it.
        _close_all_but(worker.descriptors)
        with contextlib.suppress(OSError):
            Path("/proc/self/comm").write_text("castfs ahead")
        worker.run()
        status = 0
    finally:
        os._exit(status)


def _close_all_but(kept: Iterable[int]) -> None:
    null = os.open(os.devnull, os.O_RDWR)
    for number in (0, 1, 2):
        os.dup2(null, number)
    largest = max(map(int, os.listdir("/proc/self/fd")))
    start = 3
    for number in (*sorted(kept), largest + 1):
        os.closerange(start, number)
        start = number + 1
