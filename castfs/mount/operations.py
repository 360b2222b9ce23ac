"""The pyfuse3 adapter: translates requests to the view and its answers to the kernel's structs.

The tree never changes, so whatever the kernel has learnt it may keep for ever. Requests that need
no disk are answered without waiting; reads from disk go to threads.
"""

from __future__ import annotations

import errno
import functools
import itertools
import logging
import math
import os
from collections.abc import Callable, Coroutine, Sequence
from typing import Any, ParamSpec, TypeVar

import pyfuse3
import trio

from castfs.paths import NAME_MAX
from castfs.tree import Attributes
from castfs.view import Contents, OpenFile, SnapshotView
from castfs.view.errnos import READ_ONLY, errno_of, is_expected

log = logging.getLogger("castfs.mount")

#: libfuse and the kernel clamp it to the longest they can express: centuries.
FOREVER = math.inf
#: Threads that read blobs from disk. Discs gain nothing above that, and each holds a buffer of one
#: request (1 MiB at most).
READ_THREADS = 16
#: The largest READ: 256 pages (FUSE_MAX_MAX_PAGES of fs/fuse/fuse_i.h).
MAX_READ = 1 << 20

_WRITING = os.O_WRONLY | os.O_RDWR | os.O_TRUNC

P = ParamSpec("P")
T = TypeVar("T")


def answered(handler: Callable[P, Coroutine[Any, Any, T]]) -> Callable[P, Coroutine[Any, Any, T]]:
    """Turn every exception into an errno: pyfuse3 gives the whole mount up for any other."""

    @functools.wraps(handler)
    async def answer(*args: P.args, **kwargs: P.kwargs) -> T:
        try:
            return await handler(*args, **kwargs)
        except pyfuse3.FUSEError:
            raise
        except Exception as exc:  # pyfuse3 would end the mount
            if not is_expected(exc):
                log.exception("%s failed", handler.__name__)
            raise pyfuse3.FUSEError(errno_of(exc)) from None

    return answer


async def _refuse(*_args: Any) -> Any:
    raise pyfuse3.FUSEError(READ_ONLY)


#: Stands for handlers of any signature.
_refused: Any = _refuse


class SnapshotOperations(pyfuse3.Operations):
    """A snapshot without extended attributes.

    What is not defined here, pyfuse3 answers with ENOSYS, and the kernel does not ask again: that
    is wanted for getxattr and listxattr (asked for every file of each `ls -l`), and for flush.
    """

    supports_dot_lookup = True
    enable_writeback_cache = False
    enable_acl = False

    def __init__(self, view: SnapshotView, contents: Contents) -> None:
        super().__init__()
        self._view = view
        self._contents = contents
        self._files: dict[int, OpenFile] = {}
        self._handles = itertools.count(1)
        # pyfuse3 copies an entry or buffer into its reply before another handler runs, and no
        # handler awaits between filling one and returning it: so there is one of each.
        self._entry = pyfuse3.EntryAttributes()
        self._entry.entry_timeout = self._entry.attr_timeout = FOREVER
        self._buffer = memoryview(bytearray(MAX_READ))
        self._absent = pyfuse3.EntryAttributes()
        self._absent.st_ino = 0  # with a timeout: the kernel remembers that there is no such name
        self._absent.entry_timeout = FOREVER
        self._readers = trio.CapacityLimiter(READ_THREADS)

    def _fill(self, attributes: Attributes) -> pyfuse3.EntryAttributes:
        entry = self._entry
        entry.st_ino = attributes.ino
        entry.st_mode = attributes.mode
        entry.st_nlink = attributes.nlink
        entry.st_uid = attributes.uid
        entry.st_gid = attributes.gid
        entry.st_size = attributes.size
        entry.st_blocks = attributes.blocks
        mtime_ns = attributes.mtime_ns
        entry.st_mtime_ns = mtime_ns
        entry.st_ctime_ns = mtime_ns
        entry.st_atime_ns = mtime_ns
        return entry

    @answered
    async def lookup(
        self, parent_inode: int, name: bytes, ctx: pyfuse3.RequestContext
    ) -> pyfuse3.EntryAttributes:
        found = self._view.lookup(parent_inode, name)
        if found is not None:
            return self._fill(found)
        if len(name) > NAME_MAX:  # the kernel lets 1,024 bytes through
            raise pyfuse3.FUSEError(errno.ENAMETOOLONG)
        return self._absent

    @answered
    async def getattr(self, inode: int, ctx: pyfuse3.RequestContext) -> pyfuse3.EntryAttributes:
        return self._fill(self._view.attributes(inode))

    @answered
    async def readlink(self, inode: int, ctx: pyfuse3.RequestContext) -> bytes:
        return self._view.readlink(inode)

    @answered
    async def opendir(self, inode: int, ctx: pyfuse3.RequestContext) -> int:
        self._view.check_directory(inode)
        return inode  # all that readdir is told is the handle

    @answered
    async def readdir(self, fh: int, start_id: int, token: pyfuse3.ReaddirToken) -> None:
        reply, fill = pyfuse3.readdir_reply, self._fill
        for name, attributes, next_offset in self._view.iter_directory(fh, start_id):
            if not reply(token, name, fill(attributes), next_offset):
                return

    async def releasedir(self, fh: int) -> None:
        pass

    @answered
    async def open(self, inode: int, flags: int, ctx: pyfuse3.RequestContext) -> pyfuse3.FileInfo:
        if flags & _WRITING:
            raise pyfuse3.FUSEError(READ_ONLY)
        handle = next(self._handles)
        if self._contents.is_local:
            file = self._contents.open(inode)
        else:  # nothing else would be answered while that waits
            file = await trio.to_thread.run_sync(
                self._contents.open, inode, abandon_on_cancel=True, limiter=self._readers
            )
        self._files[handle] = file
        return pyfuse3.FileInfo(fh=handle, keep_cache=True)

    @answered
    async def read(self, fh: int, off: int, size: int) -> Any:
        file = self._files[fh]
        if size <= MAX_READ:
            count = self._contents.read_cached(file, off, size, self._buffer)
            if count >= 0:
                return self._buffer[:count]
        return await trio.to_thread.run_sync(
            self._contents.read, file, off, size, abandon_on_cancel=True, limiter=self._readers
        )

    @answered
    async def release(self, fh: int) -> None:
        self._files.pop(fh).close()

    @answered
    async def statfs(self, ctx: pyfuse3.RequestContext) -> pyfuse3.StatvfsData:
        totals = self._view.totals
        data = pyfuse3.StatvfsData()
        data.f_bsize = data.f_frsize = totals.block_size
        data.f_blocks = totals.blocks
        data.f_bfree = data.f_bavail = 0
        data.f_files = totals.inodes
        data.f_ffree = data.f_favail = 0
        data.f_namemax = totals.name_max
        return data

    # The mount is read-only, so the kernel refuses all of these itself, until somebody remounts it.

    setattr = mknod = mkdir = unlink = rmdir = symlink = rename = link = _refused
    write = create = setxattr = removexattr = _refused


class XattrOperations(SnapshotOperations):
    """A snapshot of which some entry has extended attributes."""

    @answered
    async def getxattr(self, inode: int, name: bytes, ctx: pyfuse3.RequestContext) -> bytes:
        return self._view.xattr(inode, name)

    @answered
    async def listxattr(self, inode: int, ctx: pyfuse3.RequestContext) -> Sequence[bytes]:
        return self._view.xattr_names(inode)


def make_operations(view: SnapshotView, contents: Contents) -> SnapshotOperations:
    return (XattrOperations if view.has_xattrs else SnapshotOperations)(view, contents)
