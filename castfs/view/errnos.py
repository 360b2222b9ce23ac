"""The one table from exceptions to what a system call on the mount returns."""

from __future__ import annotations

import errno

from castfs.errors import CastfsError

#: Passed on as they are: they say something about the caller's request.
_OWN = frozenset({
    errno.ENOENT, errno.ENOTDIR, errno.EISDIR, errno.EINVAL, errno.ELOOP, errno.ESTALE,
    errno.ENODATA, errno.EROFS, errno.ENOMEM, errno.ENFILE, errno.EINTR,
})  # fmt: skip

#: They say something about the process that serves the mount, not about the caller's.
_TRANSLATED = {errno.EMFILE: errno.ENFILE}

#: What every change is answered with, should the kernel let one through (mount -o remount,rw).
READ_ONLY = errno.EROFS


def errno_of(exc: Exception) -> int:
    """A damaged or missing blob, trouble with the store's disk, and bugs are EIO."""
    if isinstance(exc, OSError) and exc.errno is not None:
        code = _TRANSLATED.get(exc.errno, exc.errno)
        return code if code in _OWN else errno.EIO
    if isinstance(exc, MemoryError):
        return errno.ENOMEM
    return errno.EIO


def is_expected(exc: Exception) -> bool:
    """False for a bug, which deserves a traceback in the log."""
    return isinstance(exc, OSError | CastfsError | MemoryError)
