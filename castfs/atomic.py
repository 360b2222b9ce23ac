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
        _make_dir(path, mode)
        give_to_owner_of(path.parent, path)
    except FileExistsError:
        status = path.stat()
        actual = stat.S_IMODE(status.st_mode)
        if mode & ~actual and status.st_uid == os.geteuid():
            path.chmod(actual | mode)
        return
    if durable:
        fsync_dir(path.parent)


def give_to_owner_of(directory: Path, made: Path | int) -> None:
    """What root makes in somebody's store is theirs: else they could neither use nor remove it."""
    if os.geteuid() == 0 and (owner := directory.stat()).st_uid != 0:
        os.chown(made, owner.st_uid, owner.st_gid)


def _make_dir(path: Path, mode: int) -> None:
    """FileExistsError. One that others may use appears with its mode: if its maker were killed
    between the two, nobody else could mend it."""
    if not mode & 0o077:
        path.mkdir(mode)
        path.chmod(mode)
        return
    if path.exists():
        raise FileExistsError(errno.EEXIST, os.strerror(errno.EEXIST), path)
    temp = path.parent / f"tmp-{secrets.token_hex(8)}"
    temp.mkdir(0o700)
    try:
        temp.chmod(mode)
        temp.rename(path)  # over an empty one of another maker, which is the same
    except OSError as exc:
        temp.rmdir()
        if exc.errno not in (errno.ENOTEMPTY, errno.EEXIST):
            raise
        raise FileExistsError(errno.EEXIST, os.strerror(errno.EEXIST), path) from exc


def write_temp(
    directory: Path, chunks: Iterable[bytes], *, mode: int | None, name: str | None = None
) -> Path:
    """A new, synced file in `directory` with `chunks` in it. The caller renames or removes it.

    `mode` None leaves it to the umask, as for any file that a program writes. `name` is for who is
    alone: what it left under that name when it was killed makes way.
    """
    path = directory / (name or f"tmp-{secrets.token_hex(8)}")
    if name is not None:
        path.unlink(missing_ok=True)
    flags = os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC
    try:
        fd = os.open(path, flags, 0o666 if mode is None else 0o600)
        with open(fd, "wb") as file:
            for chunk in chunks:
                file.write(chunk)
            file.flush()
            if mode is not None:
                os.fchmod(fd, mode)
            os.fsync(fd)
        return path
    except BaseException:
        with contextlib.suppress(OSError):
            path.unlink()
        raise


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
