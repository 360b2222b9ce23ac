"""`log.jsonl` of a run: a line of JSON for each call, whole or not at all.

Several processes append to it. What a power cut left of a line is ended by whoever comes next, and
passed over by readers.
"""

from __future__ import annotations

import contextlib
import errno
import fcntl
import os
import time
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Any

import msgspec

from castfs.errors import BusyError, StoreError
from castfs.paths import display
from castfs.store.locks import find_holders, try_flock

LOG = "log.jsonl"
#: A line takes microseconds: who holds the file for so long has been stopped.
_PATIENCE_SECONDS = 30.0
_POLL_SECONDS = 0.001
_NO_LOCKS = (errno.ENOLCK, errno.EOPNOTSUPP, errno.ENOSYS, errno.EINVAL)


def append_line(path: Path, line: bytes, mode: int) -> None:
    """Write `line`, which ends in a newline. FileNotFoundError if its directory is gone; StoreError
    if it cannot be written (nothing of it stays then), BusyError."""
    flags = os.O_RDWR | os.O_CREAT | os.O_APPEND | os.O_CLOEXEC | os.O_NONBLOCK
    try:
        fd = os.open(path, flags, mode)
        try:
            with _alone(fd, path):
                _append(fd, line)
        finally:
            os.close(fd)
    except FileNotFoundError:
        raise
    except OSError as exc:
        raise StoreError(
            f"cannot write {display(os.fsencode(path))}: {exc.strerror}",
            hint="free some space, or see that you may write there; nothing of it was written",
        ) from exc


@contextlib.contextmanager
def _alone(fd: int, path: Path) -> Iterator[None]:
    """Only who is alone knows what of the file's end is its own."""
    end = time.monotonic() + _PATIENCE_SECONDS
    try:
        while not try_flock(fd, fcntl.LOCK_EX):
            if time.monotonic() > end:
                holders = ", ".join(map(str, find_holders(path))) or "of another machine"
                raise BusyError(
                    f"somebody holds {display(os.fsencode(path))} and does not go on",
                    hint=f"is it stopped? (process {holders})",
                )
            time.sleep(_POLL_SECONDS)
    except OSError as exc:
        if exc.errno not in _NO_LOCKS:
            raise
    try:
        yield
    finally:
        # Said, and not left to the close: a child that was forked meanwhile has it open, too.
        with contextlib.suppress(OSError):
            fcntl.flock(fd, fcntl.LOCK_UN)


def _append(fd: int, line: bytes) -> None:
    before = os.fstat(fd).st_size
    if before and os.pread(fd, 1, before - 1) != b"\n":
        line = b"\n" + line
    rest = memoryview(line)
    try:
        while rest:
            rest = rest[os.write(fd, rest) :]
    except BaseException:
        with contextlib.suppress(OSError):
            os.ftruncate(fd, before)
        raise


def read_lines(path: Path) -> Iterator[dict[str, Any]]:
    """The lines that are objects; none if there is no file. OSError."""
    try:
        file = path.open("rb")
    except FileNotFoundError:
        return
    with file:
        yield from parse_lines(file)


def parse_lines(lines: Iterable[bytes]) -> Iterator[dict[str, Any]]:
    """Those that are objects."""
    for raw in lines:
        with contextlib.suppress(msgspec.DecodeError, UnicodeDecodeError, RecursionError):
            if isinstance(line := msgspec.json.decode(raw), dict):
                yield line
