"""The two lock files and how they are taken.

Writers and readers hold `store` shared for the moments in which they move a root or rely on a blob;
the collector holds it exclusive for its short batches. `gate` stands before it: whoever wants
`store` passes the gate first, so a waiting collector stops newcomers and cannot be starved, and
newcomers wait only for the batch in progress. A single lock starved one side or the other.
"""

from __future__ import annotations

import contextlib
import errno
import fcntl
import os
import time
from collections.abc import Iterator
from pathlib import Path

from castfs.errors import BusyError, StoreError
from castfs.store.failures import hint_for

#: How often and for how long an exclusive holder tries before it lets others through the gate.
_TRIES = 12
_TRY_SECONDS = 5.0
_POLL_SECONDS = 0.0005


def open_lock(path: Path) -> int:
    """A descriptor of lock file `path`: read-write where possible (NFS needs that for an exclusive
    lock), else read-only, which is enough for a shared one on a read-only medium."""
    try:
        return os.open(path, os.O_RDWR | os.O_CLOEXEC | os.O_NONBLOCK)
    except OSError as exc:
        if exc.errno not in (errno.EACCES, errno.EROFS, errno.EPERM):
            raise
    return os.open(path, os.O_RDONLY | os.O_CLOEXEC | os.O_NONBLOCK)


def try_flock(fd: int, operation: int) -> bool:
    """flock without waiting; False if somebody else holds it."""
    try:
        fcntl.flock(fd, operation | fcntl.LOCK_NB)
    except OSError as exc:
        if exc.errno in (errno.EWOULDBLOCK, errno.EACCES):
            return False
        raise
    return True


def _let_go(fd: int) -> None:
    """Said, and not left to the close: a child that was forked meanwhile has it open, too."""
    with contextlib.suppress(OSError):
        fcntl.flock(fd, fcntl.LOCK_UN)
    os.close(fd)


class StoreLocks:
    """The lock files of one store. Safe to use from several threads: each acquisition opens its own
    descriptors, because flock belongs to the open file."""

    def __init__(self, root: Path) -> None:
        self.gate = root / "gate"
        self.store = root / "store"

    @contextlib.contextmanager
    def shared(self) -> Iterator[None]:
        """Hold the store against the collector. Never across hashing, copying or syncfs."""
        with self._held(fcntl.LOCK_SH):
            yield

    @contextlib.contextmanager
    def exclusive(self) -> Iterator[None]:
        """Hold the store alone: the collector's batches, 20 ms each, and quarantine.

        BusyError if others have held it for a minute. They do so for milliseconds, unless they are
        stopped; newcomers are let in every few seconds, so that nobody else waits for those.
        """
        with self._held(fcntl.LOCK_EX):
            yield

    @contextlib.contextmanager
    def _held(self, operation: int) -> Iterator[None]:
        with contextlib.ExitStack() as stack:
            try:
                gate_fd = open_lock(self.gate)
                stack.callback(_let_go, gate_fd)
                fcntl.flock(gate_fd, operation)
                store_fd = open_lock(self.store)
                stack.callback(_let_go, store_fd)
                if operation == fcntl.LOCK_SH:
                    fcntl.flock(store_fd, operation)
                    fcntl.flock(gate_fd, fcntl.LOCK_UN)
                else:
                    self._wait_alone(gate_fd, store_fd)
            except OSError as exc:
                raise StoreError(
                    f"cannot lock the store at {self.store.parent}: {exc.strerror}",
                    hint=hint_for(exc, "does its filesystem support flock, and may you read it?"),
                ) from exc
            yield

    def _wait_alone(self, gate_fd: int, store_fd: int) -> None:
        """Both exclusively; `gate` is held already."""
        for _ in range(_TRIES):
            end = time.monotonic() + _TRY_SECONDS
            while time.monotonic() < end:
                if try_flock(store_fd, fcntl.LOCK_EX):
                    return
                time.sleep(_POLL_SECONDS)
            fcntl.flock(gate_fd, fcntl.LOCK_UN)
            time.sleep(_POLL_SECONDS)
            fcntl.flock(gate_fd, fcntl.LOCK_EX)
        holders = ", ".join(map(str, find_holders(self.store))) or "of another machine"
        raise BusyError(
            f"somebody holds the store at {self.store.parent} and does not go on",
            hint=f"is it stopped? (process {holders})",
        )


def find_holders(path: Path) -> list[int]:
    """Processes of this machine that hold an flock on `path` (proc_locks(5))."""
    status = path.stat()
    wanted = f"{os.major(status.st_dev):02x}:{os.minor(status.st_dev):02x}:{status.st_ino}"
    found = set()
    for line in Path("/proc/locks").read_text().splitlines():
        fields = line.split()
        if len(fields) == 8 and fields[1] == "FLOCK" and fields[5] == wanted:
            found.add(int(fields[4]))
    return sorted(found)
