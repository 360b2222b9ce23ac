"""What requests about names and attributes are answered with. No I/O; one thread.

A handler takes the inode number that a request is about and what follows its header, and returns
what follows the header of the reply, or a negative errno. Its exceptions become errnos by the one
table (`castfs.view.errnos`).
"""

from __future__ import annotations

import errno
import os
from collections.abc import Callable
from struct import Struct

from castfs import fuse
from castfs.fuse import Opcode
from castfs.lane.passthrough import Passthrough
from castfs.paths import NAME_MAX
from castfs.view import SnapshotView
from castfs.view.errnos import READ_ONLY

Reply = bytes | memoryview
Handler = Callable[[int, memoryview], Reply | int]

#: A name that is not there: nodeid 0, which the kernel remembers for ever.
_ABSENT = fuse.ENTRY_OUT.pack(0, 0, fuse.FOREVER, 0, 0, 0) + bytes(fuse.ATTR.size)
_WRITING = os.O_WRONLY | os.O_RDWR | os.O_TRUNC
_FLAGS = Struct("=I")
_SIZE = Struct("=II")

#: A read-only mount is sent none of these, until somebody remounts it.
_CHANGES = (
    Opcode.SETATTR, Opcode.SYMLINK, Opcode.MKNOD, Opcode.MKDIR, Opcode.UNLINK, Opcode.RMDIR,
    Opcode.RENAME, Opcode.LINK, Opcode.WRITE, Opcode.SETXATTR, Opcode.REMOVEXATTR, Opcode.CREATE,
    Opcode.FALLOCATE, Opcode.RENAME2, Opcode.COPY_FILE_RANGE,
)  # fmt: skip
#: The kernel asks once, and then does without: OPEN and RELEASE of directories (listings are
#: cached; files see `_open`), FLUSH at every close, STATX where GETATTR says all there is, TMPFILE
#: because that is what pyfuse3 answers.
_UNKNOWN = (Opcode.OPENDIR, Opcode.FLUSH, Opcode.STATX, Opcode.TMPFILE)


class Answers:
    """The handlers of one snapshot, by opcode; what is not among them is somebody else's."""

    def __init__(self, view: SnapshotView, passthrough: Passthrough | None = None) -> None:
        self._view = view
        self._passthrough = passthrough
        self._index = view.index
        self._inode_count = view.index.inode_count
        self._dir_count = view.index.dir_count
        self._statfs = _pack_statfs(view)
        self.handlers: dict[int, Handler] = {
            Opcode.LOOKUP: self._lookup,
            Opcode.GETATTR: self._getattr,
            Opcode.READLINK: self._readlink,
            Opcode.OPEN: self._open,
            Opcode.READDIRPLUS: self._readdirplus,
            Opcode.READDIR: self._readdir,
            Opcode.STATFS: lambda ino, body: self._statfs,
            Opcode.RELEASE: self._release,
            # What isatty(3) asks, and with that every open() of Python's.
            Opcode.IOCTL: lambda ino, body: -errno.ENOTTY,
            Opcode.RELEASEDIR: lambda ino, body: b"",
            **dict.fromkeys(_CHANGES, lambda ino, body: -READ_ONLY),
            **dict.fromkeys(_UNKNOWN, lambda ino, body: -errno.ENOSYS),
            Opcode.GETXATTR: self._getxattr,
            Opcode.LISTXATTR: self._listxattr,
        }

    def _lookup(self, ino: int, body: memoryview) -> Reply | int:
        name = bytes(body[:-1])
        if 0 < ino <= self._dir_count:
            entry = self._index.find_entry(ino, name)
            if entry:
                return self._index.entry_reply(entry)
        found = self._view.lookup(ino, name)  # `.`, `..`, and what is no directory
        if found is not None:
            return self._index.inode_reply(found.ino)
        return _ABSENT if len(name) <= NAME_MAX else -errno.ENAMETOOLONG

    def _getattr(self, ino: int, body: memoryview) -> Reply | int:
        return self._index.attr_reply(ino) if 0 < ino <= self._inode_count else -errno.ESTALE

    def _readlink(self, ino: int, body: memoryview) -> Reply | int:
        return self._view.readlink(ino)

    def _open(self, ino: int, body: memoryview) -> Reply | int:
        (flags,) = _FLAGS.unpack_from(body)
        if flags & _WRITING:
            return -READ_ONLY
        return self._passthrough.open(ino) if self._passthrough else -errno.ENOSYS

    def _release(self, ino: int, body: memoryview) -> Reply | int:
        if self._passthrough:
            self._passthrough.release(ino, *fuse.RELEASE_IN.unpack_from(body))
        return b""

    def _readdirplus(self, ino: int, body: memoryview) -> memoryview:
        _, offset, size, *_ = fuse.READ_IN.unpack_from(body)
        if not 0 < ino <= self._dir_count:
            self._view.check_directory(ino)
        return self._index.page(ino, offset, size)

    def _readdir(self, ino: int, body: memoryview) -> Reply | int:
        """Nobody asks for it while READDIRPLUS is not left to the kernel's choice."""
        page = self._readdirplus(ino, body)  # what fits with attributes fits without
        result = bytearray()
        while page:
            page = page[fuse.ENTRY_SIZE :]
            _, _, length, _ = fuse.DIRENT.unpack_from(page)
            record = fuse.DIRENT.size + length
            record += -record % fuse.RECORD_ALIGN
            result += page[:record]
            page = page[record:]
        return bytes(result)

    def _getxattr(self, ino: int, body: memoryview) -> Reply | int:
        if not self._view.has_xattrs:
            return -errno.ENOSYS
        name = bytes(body[_SIZE.size : -1])
        return _sized(self._view.xattr(ino, name), body)

    def _listxattr(self, ino: int, body: memoryview) -> Reply | int:
        if not self._view.has_xattrs:
            return -errno.ENOSYS
        return _sized(b"".join(name + b"\0" for name in self._view.xattr_names(ino)), body)


def _sized(value: bytes, body: memoryview) -> Reply | int:
    """A value, or its size if that is asked for (fuse_getxattr_in)."""
    room, _ = _SIZE.unpack_from(body)
    if room == 0:
        return _SIZE.pack(len(value), 0)
    return value if len(value) <= room else -errno.ERANGE


def _pack_statfs(view: SnapshotView) -> bytes:
    totals = view.totals
    size = totals.block_size
    return fuse.KSTATFS.pack(totals.blocks, 0, 0, totals.inodes, 0, size, totals.name_max, size)
