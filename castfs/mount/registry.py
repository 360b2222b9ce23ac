"""What this user's mounts say of themselves: a file for each below the state directory.

`<key>.json` is a MountStatus, written and flocked by the process that serves the mount; the lock
says that it lives. `<key>.log` is what it has to say, and locked while the mount is being made. The
key stands for the mount point.
"""

from __future__ import annotations

import contextlib
import errno
import fcntl
import hashlib
import os
from collections.abc import Iterator
from pathlib import Path

from castfs import settings
from castfs.errors import MountError
from castfs.mount.request import MountStatus
from castfs.mount.wording import shown

#: How long the log of a mount that has ended is kept after its last line: 30 days.
LOG_SECONDS = 30 * 86400.0


def directory() -> Path:
    return settings.state_dir() / "mounts"


def ensure_directory() -> Path:
    path = directory()
    try:
        if not path.is_absolute():
            raise FileNotFoundError(errno.ENOENT, "no home directory")
        path.mkdir(mode=0o700, parents=True, exist_ok=True)
    except OSError as exc:
        raise MountError(
            f"cannot make {shown(path)}, where mounts keep their logs: {exc.strerror}",
            hint="set XDG_STATE_HOME to a directory that you may write",
        ) from exc
    return path


def _path(mountpoint: Path, suffix: str) -> Path:
    key = hashlib.sha256(os.fsencode(mountpoint)).hexdigest()[:24]
    return directory() / f"{key}{suffix}"


def log_path(mountpoint: Path) -> Path:
    return _path(mountpoint, ".log")


@contextlib.contextmanager
def starting(mountpoint: Path) -> Iterator[None]:
    """Hold the place while a mount is made there. MountError if somebody else is at it.

    By the directory itself, which another user finds, too, and by the log, for filesystems whose
    directories cannot be locked.
    """
    with contextlib.ExitStack() as stack:
        for path, flags in (
            (mountpoint, os.O_RDONLY | os.O_DIRECTORY),
            (log_path(mountpoint), os.O_RDWR | os.O_CREAT),
        ):
            fd = _open(path, flags)
            stack.callback(os.close, fd)
            if not _try_lock(fd):
                raise MountError(
                    f"another snapshot is just being mounted at {shown(mountpoint)}",
                    hint="wait for it, or choose another directory",
                )
        yield


def _open(path: Path, flags: int) -> int:
    try:
        return os.open(path, flags | os.O_CLOEXEC, 0o600)
    except OSError as exc:
        raise MountError(
            f"cannot open {shown(path)}: {exc.strerror}",
            hint=f"is {shown(directory())} yours? XDG_STATE_HOME may name another place",
        ) from exc


@contextlib.contextmanager
def entered(status: MountStatus) -> Iterator[None]:
    """List a mount, by the process that serves it, until the context ends or the process dies."""
    path = _path(status.mountpoint, ".json")
    temp = path.with_suffix(f".{os.getpid()}.tmp")
    fd = os.open(temp, os.O_RDWR | os.O_CREAT | os.O_TRUNC | os.O_CLOEXEC, 0o600)
    try:
        fcntl.flock(fd, fcntl.LOCK_EX)
        os.write(fd, status.encode())
        temp.replace(path)
        try:
            yield
        finally:
            _remove_if_same(path, fd)
    finally:
        os.close(fd)


def _remove_if_same(path: Path, fd: int) -> None:
    """Another mount may have taken the place and the name meanwhile (after a lazy unmount)."""
    with contextlib.suppress(OSError):
        if os.path.samestat(path.stat(), os.fstat(fd)):
            path.unlink()


def find_entry(mountpoint: Path) -> tuple[MountStatus, bool] | None:
    """What is registered for a mount point, and whether the process that wrote it lives."""
    return _read(_path(mountpoint, ".json"))


def is_alive(status: MountStatus) -> bool:
    """Does the process of this very mount live? A later mount at the same place does not count."""
    entry = find_entry(status.mountpoint)
    return entry is not None and entry[1] and entry[0].pid == status.pid


def remove_dead_entries(mounted: set[Path]) -> None:
    """Delete the entries whose process has gone and whose mount has, too."""
    with contextlib.suppress(OSError):
        for path in directory().glob("*.json"):
            entry = _read(path)
            if entry is not None and not entry[1] and entry[0].mountpoint not in mounted:
                path.unlink(missing_ok=True)


def remove_old_logs(now: float) -> None:
    """Delete what mounts said that were made long ago and are not listed any more."""
    with contextlib.suppress(OSError):
        for path in directory().glob("*.log"):
            old = path.stat().st_mtime < now - LOG_SECONDS
            if old and not path.with_suffix(".json").exists():
                path.unlink(missing_ok=True)


def _read(path: Path) -> tuple[MountStatus, bool] | None:
    try:
        fd = os.open(path, os.O_RDONLY | os.O_CLOEXEC)
    except OSError:
        return None
    try:
        alive = not _try_lock(fd, fcntl.LOCK_SH)
        with open(fd, "rb", closefd=False) as file:
            return MountStatus.decode(file.read()), alive
    except (ValueError, TypeError, KeyError, OSError):
        return None
    finally:
        os.close(fd)


def _try_lock(fd: int, operation: int = fcntl.LOCK_EX) -> bool:
    try:
        fcntl.flock(fd, operation | fcntl.LOCK_NB)
    except BlockingIOError:
        return False
    except OSError as exc:
        if exc.errno not in (errno.ENOLCK, errno.EOPNOTSUPP, errno.ENOSYS, errno.EINVAL):
            raise
    return True
