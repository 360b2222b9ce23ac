"""What programs can ask of a filesystem: each a function from a root directory to a plain value."""

from __future__ import annotations

import ctypes
import errno
import fcntl
import hashlib
import mmap
import os
import random
import stat
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path

#: A value, or the name of an errno.
Observation = object
Act = Callable[[bytes], object]

_LIBC = ctypes.CDLL(None, use_errno=True)
_AT_FDCWD = -100
_AT_SYMLINK_NOFOLLOW = 0x100
_AT_STATX_FORCE_SYNC = 0x2000
_STATX_ALL = 0xFFF
_TCGETS, _EXT4_IOC_GETVERSION, _SIOCINQ = 0x5401, 0x80087601, 0x541B


class _Dirent(ctypes.Structure):
    """struct dirent64."""

    _fields_ = (
        ("ino", ctypes.c_uint64),
        ("off", ctypes.c_int64),
        ("reclen", ctypes.c_uint16),
        ("type", ctypes.c_uint8),
        ("name", ctypes.c_char * 256),
    )


_LIBC.opendir.restype = ctypes.c_void_p
_LIBC.readdir.restype = ctypes.POINTER(_Dirent)
_LIBC.readdir.argtypes = [ctypes.c_void_p]
_LIBC.telldir.restype = ctypes.c_long
_LIBC.telldir.argtypes = [ctypes.c_void_p]
_LIBC.seekdir.argtypes = [ctypes.c_void_p, ctypes.c_long]
_LIBC.closedir.argtypes = [ctypes.c_void_p]


@dataclass(frozen=True)
class Operation:
    """`native`: a disk's filesystem must give the same, too."""

    text: str
    act: Act
    native: bool


def observe(operation: Operation, root: bytes) -> Observation:
    try:
        return operation.act(root)
    except OSError as exc:
        return errno.errorcode[exc.errno or 0]


# Attributes ------------------------------------------------------------------------------------


def attributes(path: bytes) -> tuple[object, ...]:
    """Without what a copy has its own of: the device, times of access and change, inode numbers,
    and what a disk needs for a directory or to keep a file in."""
    status = os.lstat(path)
    size = None if stat.S_ISDIR(status.st_mode) else status.st_size
    return (
        status.st_mode, status.st_nlink, status.st_uid, status.st_gid, size, status.st_mtime_ns,
    )  # fmt: skip


def all_attributes(path: bytes) -> tuple[object, ...]:
    status = os.lstat(path)
    numbers = (status.st_ino, status.st_blocks, status.st_blksize, status.st_rdev)
    times = (status.st_atime_ns, status.st_ctime_ns, status.st_mtime_ns)
    return (*attributes(path), *numbers, *times)


def asked_again(path: bytes) -> bytes:
    """struct statx up to its times, after the kernel had to ask for it again."""
    result = ctypes.create_string_buffer(256)
    flags = _AT_SYMLINK_NOFOLLOW | _AT_STATX_FORCE_SYNC
    if _LIBC.statx(_AT_FDCWD, path, flags, _STATX_ALL, result) != 0:
        raise OSError(ctypes.get_errno(), "statx")
    return result.raw[4:128]


def totals(path: bytes) -> tuple[int, ...]:
    return tuple(os.statvfs(path))[:10]


def access(path: bytes) -> list[bool]:
    return [os.access(path, mode) for mode in (os.F_OK, os.R_OK, os.W_OK, os.X_OK)]


def xattrs(path: bytes) -> list[tuple[str, bytes]]:
    names = sorted(os.listxattr(path, follow_symlinks=False))
    return [(name, os.getxattr(path, name, follow_symlinks=False)) for name in names]


def missing_xattr(path: bytes) -> bytes:
    return os.getxattr(path, "user.missing", follow_symlinks=False)


def controls(path: bytes) -> list[str]:
    """Requests of terminals, of ext4 and of sockets, which a file of no filesystem's own knows: the
    first is what every open() of Python's asks."""
    fd = os.open(path, os.O_RDONLY | os.O_NONBLOCK)
    answers = []
    for request in (_TCGETS, _EXT4_IOC_GETVERSION, _SIOCINQ, 0xC0FFEE):
        try:
            answers.append(str(fcntl.ioctl(fd, request, bytes(64))))
        except OSError as exc:
            answers.append(errno.errorcode[exc.errno or 0])
    os.close(fd)
    return answers


# Contents --------------------------------------------------------------------------------------


def ranges(path: bytes, wanted: list[tuple[int, int]], flags: int = 0) -> list[tuple[int, str]]:
    """Lengths and digests of what `pread` gives; with O_DIRECT each comes from the server."""
    fd = os.open(path, os.O_RDONLY | flags)
    try:
        found: list[tuple[int, str]] = []
        for offset, count in wanted:
            with mmap.mmap(-1, max(count, 1)) as buffer:  # aligned, as O_DIRECT wants it
                with memoryview(buffer) as view, view[:count] as part:
                    done = os.preadv(fd, [part], offset)
                found.append((done, hashlib.sha256(buffer[:done]).hexdigest()))
        return found
    finally:
        os.close(fd)


def seeks(path: bytes, offset: int) -> tuple[int, ...]:
    fd = os.open(path, os.O_RDONLY)
    try:
        return tuple(os.lseek(fd, offset, how) for how in (os.SEEK_SET, os.SEEK_END, os.SEEK_DATA))
    finally:
        os.close(fd)


def forget_pages(path: bytes) -> None:
    fd = os.open(path, os.O_RDONLY)
    try:
        os.posix_fadvise(fd, 0, 0, os.POSIX_FADV_DONTNEED)
    finally:
        os.close(fd)


# Listings --------------------------------------------------------------------------------------


def scanned(path: bytes, limit: int | None = None) -> list[tuple[bytes, int, bool, bool]]:
    found: list[tuple[bytes, int, bool, bool]] = []
    with os.scandir(path) as entries:
        for entry in entries:
            if limit is not None and len(found) == limit:
                break
            kind = entry.is_dir(follow_symlinks=False), entry.is_symlink()
            found.append((entry.name, entry.inode(), *kind))
    return found


def told(path: bytes, stops: list[int]) -> list[object]:
    """Lists with readdir(3), `.` and `..` as well, and goes back to each place that telldir(3) gave
    on the way."""
    stream = _LIBC.opendir(path)
    if not stream:
        raise OSError(ctypes.get_errno(), "opendir")
    try:
        places: dict[int, int] = {}
        whole = []
        while entry := _next(stream):
            whole.append(entry)
            if len(whole) in stops:
                places[len(whole)] = _LIBC.telldir(stream)
        again: list[object] = []
        for stop in stops:
            if stop in places:
                _LIBC.seekdir(stream, places[stop])
                found = [_next(stream) for _ in range(3)]
                assert found == [*whole[stop : stop + 3], None, None, None][:3]
                again.append((places[stop], found))
        return [whole, again]
    finally:
        _LIBC.closedir(stream)


def _next(stream: int) -> tuple[bytes, int, int, int] | None:
    entry = _LIBC.readdir(stream)
    if not entry:
        return None
    found: _Dirent = entry.contents
    return found.name, found.ino, found.off, found.type


# Changes ---------------------------------------------------------------------------------------


def _link(path: bytes) -> None:
    os.link(path, path + b".new", follow_symlinks=False)


def _written(path: bytes, flags: int) -> None:
    """The kernel does not ask any more whether a file may be opened, once it has seen that the lane
    does not mind. A mount that somebody has remounted for writing refuses the write then."""
    fd = os.open(path, flags, 0o600)
    try:
        os.write(fd, b"x")
    finally:
        os.close(fd)


CHANGES: dict[str, Callable[[bytes], object]] = {
    "write": lambda path: _written(path, os.O_WRONLY),
    "read and write": lambda path: _written(path, os.O_RDWR),
    "append": lambda path: _written(path, os.O_WRONLY | os.O_APPEND),
    "truncate as it is opened": lambda path: _written(path, os.O_WRONLY | os.O_TRUNC),
    "create": lambda path: _written(path, os.O_WRONLY | os.O_CREAT),
    "create if it is not there": lambda path: _written(path, os.O_RDWR | os.O_CREAT | os.O_EXCL),
    "nameless file": lambda path: _written(path, os.O_RDWR | os.O_TMPFILE),
    "truncate": lambda path: os.truncate(path, 3),
    "mkdir": lambda path: os.mkdir(path),
    "mkdir in it": lambda path: os.mkdir(path + b"/new"),
    "mknod": lambda path: os.mknod(path + b".new"),
    "symlink": lambda path: os.symlink(b"x", path + b".new"),
    "link": _link,
    "unlink": lambda path: os.unlink(path),
    "rmdir": lambda path: os.rmdir(path),
    "rename": lambda path: os.rename(path, path + b".new"),
    "chmod": lambda path: os.chmod(path, 0o600),
    "chown": lambda path: os.chown(path, 1, 1, follow_symlinks=False),
    "utime": lambda path: os.utime(path, ns=(1, 1), follow_symlinks=False),
    "setxattr": lambda path: os.setxattr(path, "user.new", b"x"),
    "removexattr": lambda path: os.removexattr(path, "user.a"),
}


# Choosing --------------------------------------------------------------------------------------


def iter_paths(root: Path) -> Iterator[bytes]:
    """Everything below a directory, in an order that does not depend on it."""
    top = os.fsencode(root)
    for where, dirs, files in os.walk(top):
        dirs.sort()
        for name in sorted(dirs + files):
            yield os.path.relpath(os.path.join(where, name), top)


class Chooser:
    """Operations on a tree at random; `xattrs` says whether the mount has the source's."""

    def __init__(self, root: Path, rng: random.Random, *, xattrs: bool) -> None:
        self._xattrs = xattrs
        paths = list(iter_paths(root))
        full = {path: os.fsencode(root) + b"/" + path for path in paths}
        # Half of what is asked for is about the few entries that are not among the thousands.
        self._groups = [[p for p in paths if b"many/" not in p], paths]
        self._dirs = [p for p in paths if os.path.isdir(full[p]) and not os.path.islink(full[p])]
        self._dirs.append(b".")
        # What lies outside of the mount is not refused: root would really truncate /etc/passwd. And
        # it changes by itself.
        self._outside = {path for path in paths if _leads_out(root, full[path])}
        self._rng = rng

    def choose(self) -> Operation:
        rng = self._rng
        path = rng.choice(rng.choice(self._groups))
        directory = rng.choice(self._dirs)
        if path in self._outside:
            return self._unfollowed(path)
        kind = rng.choice(
            (self._status, self._content, self._content, self._listing, self._missing, self._change)
        )
        return kind(path, directory)

    def _unfollowed(self, path: bytes) -> Operation:
        return self._rng.choice((
            _on("attributes", path, attributes, native=True),
            _on("all attributes", path, all_attributes),
            _on("asked again", path, asked_again),
            _on("readlink", path, os.readlink, native=True),
        ))  # fmt: skip

    def _status(self, path: bytes, directory: bytes) -> Operation:
        rng = self._rng
        return rng.choice((
            _on("attributes", path, attributes, native=True),
            _on("all attributes", path, all_attributes),
            _on("controls", path, controls),
            _on("asked again", path, asked_again),
            _on("readlink", path, os.readlink, native=True),
            _on("statvfs", path, totals),
            _on("access", path, access),
            _on("xattrs", path, xattrs, native=self._xattrs),
            _on("a missing xattr", path, missing_xattr, native=self._xattrs),
            _on("attributes", directory + b"/.", attributes, native=True),
            _on("attributes", directory + b"/..", all_attributes),
            _on("attributes", path + b"/.", attributes, native=True),
            _on("attributes", path + b"/../.", attributes, native=True),
        ))  # fmt: skip

    def _content(self, path: bytes, directory: bytes) -> Operation:
        rng = self._rng
        top = rng.choice((5, 5000, 200_000, 3_100_000, 2**33))
        counts = (0, 1, 100, 4096, 70_000, 1_100_000)
        wanted = [(rng.randrange(top), rng.choice(counts)) for _ in range(3)]
        blocks = [(offset & ~4095, -(-count // 4096) * 4096) for offset, count in wanted]
        where = rng.randrange(top)
        return rng.choice((
            _on(f"ranges {wanted}", path, lambda full: ranges(full, wanted), native=True),
            _on(f"direct ranges {blocks}", path, lambda full: ranges(full, blocks, os.O_DIRECT)),
            _on("whole", path, lambda full: ranges(full, [(0, 4_000_000)]), native=True),
            _on(f"seeks from {where}", path, lambda full: seeks(full, where)),
            _on("forget pages", path, forget_pages),
            _on("read as a directory", directory, lambda full: ranges(full, wanted), native=True),
        ))  # fmt: skip

    def _listing(self, path: bytes, directory: bytes) -> Operation:
        rng = self._rng
        limit = rng.choice((0, 1, 5, 100, 2000))
        stops = [rng.randrange(rng.choice((4, 20, 3000))) for _ in range(3)]
        return rng.choice((
            _on("names", directory, lambda full: sorted(os.listdir(full)), native=True),
            _on("names in order", directory, os.listdir),
            _on("names of any", path, lambda full: sorted(os.listdir(full)), native=True),
            _on("scan", directory, scanned),
            _on(f"scan {limit}", directory, lambda full: scanned(full, limit)),
            _on(f"telldir {stops}", directory, lambda full: told(full, stops)),
        ))  # fmt: skip

    def _missing(self, path: bytes, directory: bytes) -> Operation:
        rng = self._rng
        name = rng.choice((
            b"missing%d" % rng.randrange(20), b"x" * 254, b"x" * 255, b"x" * 256, b"y" * 1024,
            b"y" * 1025, b"z" * 4000, b"\xff" * 255, b"\xff" * 256, b"...", b"new\nline", b"many ",
            b"a/b",
        ))  # fmt: skip
        where = rng.choice((path, directory))
        native = len(name) <= 1024
        return rng.choice((
            _on("attributes", where + b"/" + name, attributes, native=native),
            _on("open", where + b"/" + name, lambda full: os.close(os.open(full, os.O_RDONLY))),
            _on("names", where + b"/" + name, os.listdir),
        ))  # fmt: skip

    def _change(self, path: bytes, directory: bytes) -> Operation:
        rng = self._rng
        name = rng.choice(sorted(CHANGES))
        where = rng.choice((path, path, directory, path + b".other"))
        return _on(name, where, CHANGES[name])


def _leads_out(root: Path, path: bytes) -> bool:
    top = os.path.realpath(os.fsencode(root))
    return os.path.commonpath([top, os.path.realpath(path)]) != top


def _on(text: str, path: bytes, act: Act, *, native: bool = False) -> Operation:
    return Operation(f"{text} of {path!r}", lambda root: act(root + b"/" + path), native)
