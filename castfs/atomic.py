"""The one way that castfs makes a file appear: whole, or not at all, also after a power cut."""

from __future__ import annotations

import contextlib
import os
import secrets
from collections.abc import Iterable
from pathlib import Path


def fsync_dir(path: Path) -> None:
    fd = os.open(path, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    try:
        os.fsync(fd)
    finally:
        os.close(fd)


def ensure_dir(path: Path, mode: int) -> None:
    """Directory `path` exists; one made here has `mode` exactly and survives a power cut."""
    try:
        path.mkdir()
    except FileExistsError:
        return
    path.chmod(mode)
    fsync_dir(path.parent)


def write_temp(directory: Path, chunks: Iterable[bytes], *, mode: int) -> Path:
    """A new, synced file in `directory` with `chunks` in it. The caller renames or removes it."""
    path = directory / f"tmp-{secrets.token_hex(8)}"
    fd = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, 0o600)
    try:
        with open(fd, "wb") as file:
            for chunk in chunks:
                file.write(chunk)
            file.flush()
            os.fchmod(fd, mode)
            os.fsync(fd)
    except BaseException:
        with contextlib.suppress(OSError):
            path.unlink()
        raise
    return path


def write_file(
    target: Path, chunks: Iterable[bytes], *, mode: int, temp_dir: Path | None = None
) -> None:
    """Replace `target` by a file with `chunks` as content: temporary file, fsync, rename, fsync.

    `temp_dir` must lie on the same filesystem; the target's own directory by default.
    """
    temp = write_temp(temp_dir or target.parent, chunks, mode=mode)
    try:
        temp.replace(target)
    except BaseException:
        with contextlib.suppress(OSError):
            temp.unlink()
        raise
    fsync_dir(target.parent)
