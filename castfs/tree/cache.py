"""Compiled indexes between mounts: where they lie, who is trusted with one, and when they go.

A cache directory may vanish at any time, and so may each file in it. What a mount has mapped lives
on, because files are replaced and removed by name only, never written again.
"""

from __future__ import annotations

import contextlib
import logging
import os
import re
import secrets
import stat
import time
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import BinaryIO

from castfs import settings
from castfs.digest import Digest
from castfs.store import Depot
from castfs.tree.index import BadIndexError, TreeIndex, map_index
from castfs.tree.layout import INDEX_VERSION
from castfs.tree.presentation import Presentation

log = logging.getLogger("castfs.tree")

#: How long an index is kept that nobody opens, and a temporary file that nobody renamed.
UNUSED_SECONDS = 30 * 86400.0
_TEMP_SECONDS = 86400.0
#: How exactly its last use is known: writing that down at each mount would be a write for nothing.
_USED_SECONDS = 86400.0
_NAME = re.compile(r"(?P<key>[0-9a-f]{64}|file-[0-9a-f]{64})\.[-a-z0-9]+\.v\d+\.index")
_TEMP = re.compile("tmp-[0-9a-f]{16}")
_MODE = 0o400

#: What writes an index into an empty file.
Writer = Callable[[BinaryIO], None]


def index_directories(depot: Depot | None) -> list[Path]:
    """Where indexes may lie, the best place first."""
    directories = [settings.cache_dir() / "indexes"]
    # In somebody else's store they could change it, or lead us elsewhere.
    if depot is not None and depot.writable and depot.path.stat().st_uid == os.geteuid():
        directories.insert(0, depot.index_dir)
    return directories


def open_index(
    directories: Sequence[Path], key: str, presentation: Presentation, write: Writer
) -> TreeIndex:
    """The index of `key`: a manifest's id, or "file-" and the SHA-256 of a manifest file.

    The first that is found in `directories`, else a new one, left in the first that takes it.

    One that is damaged, of another version or written by somebody who is neither this user nor root
    is not used. Whatever `write` raises; never for the cache's sake.
    """
    name = _file_name(key, presentation)
    for directory in directories:
        index = _find(directory / name, key, presentation, logging.WARNING)
        if index is not None:
            return index
    for directory in directories:
        with contextlib.suppress(OSError):
            return _build(directory / name, key, presentation, write)
    # No place on a disk: it lives as long as its mount, in memory.
    with open(os.memfd_create("castfs-index", os.MFD_CLOEXEC), "w+b") as file:
        write(file)
        return map_index(file)


def find_index(
    directories: Sequence[Path], key: str, presentation: Presentation
) -> TreeIndex | None:
    """The same, but None if there is none that can be used."""
    for directory in directories:
        path = directory / _file_name(key, presentation)
        index = _find(path, key, presentation, logging.DEBUG)
        if index is not None:
            return index
    return None


def keep_index(directories: Sequence[Path], key: str, presentation: Presentation) -> None:
    """Say that the index of `key` is in use, as whoever holds one should from time to time: else it
    is removed as unused, and the next mount makes it again. Never fails."""
    for directory in directories:
        with contextlib.suppress(OSError):
            path = directory / _file_name(key, presentation)
            if time.time() - path.lstat().st_mtime > _USED_SECONDS:
                os.utime(path, follow_symlinks=False)


def _file_name(key: str, presentation: Presentation) -> str:
    return f"{key}.{presentation}.v{INDEX_VERSION}.index"


def _find(path: Path, key: str, presentation: Presentation, level: int) -> TreeIndex | None:
    flags = os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC
    try:
        fd = os.open(path, flags)
    except OSError:
        return None
    try:
        status = os.fstat(fd)
        if not stat.S_ISREG(status.st_mode) or status.st_uid not in (0, os.geteuid()):
            log.log(level, "%s is not used: somebody else wrote it", path)
            return None
        if status.st_mode & 0o022:
            log.log(level, "%s is not used: others may write it", path)
            return None
        try:
            index = map_index(fd)
        except (BadIndexError, OSError) as exc:
            log.log(level, "%s is made again: %s", path, exc)
            return None
        if not _is_of(index, key, presentation):
            log.log(level, "%s is made again: it is of another snapshot", path)
            return None
        if time.time() - status.st_mtime > _USED_SECONDS:
            with contextlib.suppress(OSError):
                os.utime(fd)
        return index
    finally:
        os.close(fd)


def _is_of(index: TreeIndex, key: str, presentation: Presentation) -> bool:
    same = index.presentation == str(presentation)
    return same and (key.startswith("file-") or index.manifest_id == Digest(key))


def _build(path: Path, key: str, presentation: Presentation, write: Writer) -> TreeIndex:
    """OSError if the directory does not take it."""
    directory = path.parent
    temp = directory / f"tmp-{secrets.token_hex(8)}"
    if not directory.is_absolute():
        raise NotADirectoryError(directory)  # a user without a home
    directory.mkdir(mode=0o700, parents=True, exist_ok=True)
    _remove_unused(directory, time.time())
    try:
        fd = os.open(temp, os.O_RDWR | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, 0o600)
        with open(fd, "w+b") as file:
            write(file)
            os.fchmod(fd, _MODE)
            index = map_index(file)
            # Not over one that another mount has just made and mapped: on NFS that would be gone
            # for it. Not synced: after a power cut its checksum says whether it is whole.
            made = _find(path, key, presentation, logging.DEBUG)
            if made is None:
                temp.rename(path)
            return made or index
    finally:
        with contextlib.suppress(OSError):
            temp.unlink(missing_ok=True)


def _remove_unused(directory: Path, now: float) -> None:
    with contextlib.suppress(OSError):
        for path, status, key in _iter_files(directory):
            if status.st_mtime < now - (UNUSED_SECONDS if key else _TEMP_SECONDS):
                path.unlink(missing_ok=True)


def remove_orphans(directory: Path, exists: Callable[[Digest], bool]) -> None:
    """Delete the indexes of manifests that do not exist any more: a collector's last step."""
    with contextlib.suppress(OSError):
        for path, _, key in _iter_files(directory):
            if key and not key.startswith("file-") and not exists(Digest(key)):
                path.unlink(missing_ok=True)
        _remove_unused(directory, time.time())


def _iter_files(directory: Path) -> Iterator[tuple[Path, os.stat_result, str]]:
    """(path, status, key) of what this module has made there; the key of a temporary file is ""."""
    for path in list(directory.iterdir()):
        match = _NAME.fullmatch(path.name)
        if match or _TEMP.fullmatch(path.name):
            with contextlib.suppress(FileNotFoundError):
                yield path, path.lstat(), match["key"] if match else ""
