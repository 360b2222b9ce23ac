"""Reading one file so that the bytes that were hashed are the bytes of one moment."""

from __future__ import annotations

import errno
import os
import stat
from typing import Protocol

import msgspec

from castfs.digest import ReadError
from castfs.ingest.sink import Sink
from castfs.store import StagedFile

#: Files up to this size are read whole: one read, one hash, and nothing written if it is known.
SMALL = 1 << 20
#: How often a file that changes while it is read is tried.
_TRIES = 3

#: Nanoseconds that a manifest can hold: the years 1677 to 2262. ext4 and xfs go further.
_TIMES = range(-(1 << 63), 1 << 63)

#: Out of descriptors or memory: no entry's fault.
EXHAUSTED = (errno.EMFILE, errno.ENFILE, errno.ENOMEM)

_FLAGS = os.O_RDONLY | os.O_CLOEXEC | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_NOCTTY


class Unreadable(Exception):
    """This one file cannot be taken. `vanished` files are not there any more."""

    def __init__(self, reason: str, *, vanished: bool = False) -> None:
        super().__init__(reason)
        self.reason = reason
        self.vanished = vanished


class Status(Protocol):
    """What is recorded of an inode: os.stat_result, or what a reader process sends of one."""

    @property
    def st_mode(self) -> int: ...
    @property
    def st_ino(self) -> int: ...
    @property
    def st_uid(self) -> int: ...
    @property
    def st_gid(self) -> int: ...
    @property
    def st_size(self) -> int: ...
    @property
    def st_mtime_ns(self) -> int: ...
    @property
    def st_ctime_ns(self) -> int: ...


class TakenFile(msgspec.Struct, frozen=True, array_like=True, gc=False):
    """A file that was read: what it was at that moment (see stat(2)), and its content's digest.

    `new` says whether the content was new to the store. Reader processes send it as it is.
    """

    st_mode: int
    st_ino: int
    st_uid: int
    st_gid: int
    st_size: int
    st_mtime_ns: int
    st_ctime_ns: int
    sha256: str
    new: bool
    xattrs: dict[bytes, bytes]


def take_file(dir_fd: int, name: bytes, sink: Sink, *, xattrs: bool) -> TakenFile:
    """Read `name` in directory `dir_fd` into `sink`. Unreadable says why not; OSError is the
    store's."""
    settled = False
    for _ in range(_TRIES):
        try:
            fd = os.open(name, _FLAGS, dir_fd=dir_fd)
        except OSError as exc:
            raise _unreadable(exc) from exc
        try:
            before = _status(fd)
            if not stat.S_ISREG(before.st_mode):
                raise Unreadable("turned into something else while it was read")
            check_time(before)
            try:
                staged = _take_content(fd, before.st_size, sink)
            except ReadError as exc:
                raise _unreadable(exc) from exc
            attributes = read_xattrs(fd) if xattrs else {}
            after = _status(fd)
        finally:
            os.close(fd)
        if (
            staged is not None
            and staged.size == after.st_size
            and before.st_mtime_ns == after.st_mtime_ns
            and before.st_ctime_ns == after.st_ctime_ns
        ):
            return TakenFile(
                after.st_mode,
                after.st_ino,
                after.st_uid,
                after.st_gid,
                after.st_size,
                after.st_mtime_ns,
                after.st_ctime_ns,
                staged.digest,
                staged.new,
                attributes,
            )
        settled = before.st_size == after.st_size and before.st_ctime_ns == after.st_ctime_ns
    if settled:
        raise Unreadable("holds more or less than its size says, as files of /proc and /sys do")
    raise Unreadable(f"changed while it was read, {_TRIES} times")


def _status(fd: int) -> os.stat_result:
    try:
        return os.fstat(fd)
    except OSError as exc:
        raise _unreadable(exc) from exc


def check_time(status: Status) -> None:
    """Unreadable if a manifest cannot hold the time of modification."""
    if status.st_mtime_ns not in _TIMES:
        raise Unreadable("its modification time is beyond the years 1677 to 2262, which are stored")


def _take_content(fd: int, size: int, sink: Sink) -> StagedFile | None:
    """None if the file is not `size` bytes long after all."""
    if size > SMALL:
        return sink.take_file(fd)
    data = _read(fd, size + 1)
    while 0 < len(data) < size:  # a signal or a network filesystem may cut a read short
        more = _read(fd, size + 1 - len(data))
        if not more:
            break
        data += more
    return sink.take_bytes(data) if len(data) == size else None


def _read(fd: int, count: int) -> bytes:
    try:
        return os.read(fd, count)
    except OSError as exc:
        raise _unreadable(exc) from exc


def read_xattrs(target: int | bytes) -> dict[bytes, bytes]:
    """Extended attributes of an open file, or of a path (symlinks not followed), by name."""
    follow = isinstance(target, int)
    values: dict[bytes, bytes] = {}
    try:
        for name in os.listxattr(target, follow_symlinks=follow):
            try:
                values[os.fsencode(name)] = os.getxattr(target, name, follow_symlinks=follow)
            except OSError as exc:
                # Removed meanwhile, or listed by a filesystem that does not give it out.
                if exc.errno not in (errno.ENODATA, errno.EOPNOTSUPP):
                    raise
    except OSError as exc:
        if exc.errno != errno.EOPNOTSUPP:
            raise _unreadable(exc) from exc
    return values


def _unreadable(exc: OSError) -> Unreadable:
    if exc.errno in EXHAUSTED:
        raise exc
    if exc.errno == errno.ELOOP:
        return Unreadable("turned into a symbolic link while it was read")
    vanished = exc.errno in (errno.ENOENT, errno.ENOTDIR)
    reason = "vanished while it was read" if vanished else (exc.strerror or str(exc))
    return Unreadable(reason, vanished=vanished)
