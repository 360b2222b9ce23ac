"""The one way that castfs makes a file appear: whole, or not at all, also after a power cut."""

from __future__ import annotations

import contextlib
import errno
import os
import secrets
import stat
from collections.abc import Iterable
from pathlib import Path


def fsync_dir(path: Path) -> None:
    fd = os.open(path, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    try:
        os.fsync(fd)
    except OSError as exc:
        # SMB and some FUSE filesystems have no such thing (borg #1287).
        if exc.errno != errno.EINVAL:
            raise
    finally:
        os.close(fd)


def ensure_dir(path: Path, mode: int, *, durable: bool = True) -> None:
    """Directory `path` exists; one made here has `mode` exactly, and survives a power cut if
    `durable` (else the caller syncs the filesystem).

    One that is there gets the bits that it lacks, if it is ours: its maker may have died before.
    """
    try:
        path.mkdir()
    except FileExistsError:
        status = path.stat()
        actual = stat.S_IMODE(status.st_mode)
        if mode & ~actual and status.st_uid == os.geteuid():
            path.chmod(actual | mode)
        return
    path.chmod(mode)
    if durable:
        fsync_dir(path.parent)


def write_temp(directory: Path, chunks: Iterable[bytes], *, mode: int | None) -> Path:
    """A new, synced file in `directory` with `chunks` in it. The caller renames or removes it.

    `mode` None leaves it to the umask, as for any file that a program writes.
    """
    path = directory / f"tmp-{secrets.token_hex(8)}"
    flags = os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC
    fd = os.open(path, flags, 0o666 if mode is None else 0o600)
    try:
        with open(fd, "wb") as file:
            for chunk in chunks:
                file.write(chunk)
            file.flush()
            if mode is not None:
                os.fchmod(fd, mode)
            os.fsync(fd)
    except BaseException:
        with contextlib.suppress(OSError):
            path.unlink()
        raise
    return path


def is_special(path: Path) -> bool:
    """Is there something that cannot be replaced by a file: a device, a FIFO, /dev/stdout?"""
    try:
        mode = path.stat().st_mode
    except (FileNotFoundError, NotADirectoryError):
        return False
    return not stat.S_ISREG(mode) and not stat.S_ISDIR(mode)


def write_file(target: Path, chunks: Iterable[bytes]) -> None:
    """Write a file that the user named: temporary file, fsync, rename, fsync.

    A symlink stays one, and what is special is written to.
    """
    if is_special(target):
        with target.open("wb") as file:
            file.writelines(chunks)
        return
    target = Path(os.path.realpath(target))
    temp = write_temp(target.parent, chunks, mode=None)
    try:
        temp.replace(target)
    except BaseException:
        with contextlib.suppress(OSError):
            temp.unlink()
        raise
    fsync_dir(target.parent)
