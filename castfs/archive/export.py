"""An archive by its format, into an open file or under a name."""

from __future__ import annotations

import contextlib
import dataclasses
import errno
import os
import secrets
import time
from collections.abc import Callable
from pathlib import Path
from typing import BinaryIO, Literal, TypeVar

import zstandard

from castfs.archive.sink import Sink
from castfs.archive.tar import write_tar
from castfs.archive.zip import check_zip, write_zip
from castfs.atomic import fsync_dir, is_special
from castfs.errors import TargetError, UsageError
from castfs.manifest import Tree
from castfs.progress import SILENT, Progress
from castfs.store import BlobDir
from castfs.store.reading import check_present

T = TypeVar("T")
Format = Literal["tar", "tar.zst", "zip"]

_SUFFIXES: dict[str, Format] = {
    ".tar": "tar",
    ".tar.zst": "tar.zst",
    ".tzst": "tar.zst",
    ".zip": "zip",
}
#: zstd's own default: level 6 takes twice the time for 3 % less.
_ZSTD_LEVEL = 3
#: Seconds between two calls of a Progress.
_INTERVAL = 0.01
_HINTS = {
    errno.ENOSPC: "free some space and run the command again",
    errno.EDQUOT: "free some of your quota and run the command again",
    errno.EACCES: "you may not write there",
    errno.EPERM: "you may not write there",
    errno.EROFS: "it is on a read-only filesystem",
    errno.ENOENT: "create the directory first (mkdir -p)",
}


@dataclasses.dataclass(frozen=True, slots=True, kw_only=True)
class ArchiveResult:
    """A written archive. `path` is None where an open file was given. `archive_bytes` is its own
    size, `total_size_bytes` that of the files in it."""

    path: Path | None
    format: Format
    file_count: int
    dir_count: int
    symlink_count: int
    total_size_bytes: int
    archive_bytes: int


def format_for(name: str) -> Format:
    """The format that a file name stands for. UsageError lists the known suffixes."""
    for suffix, format in _SUFFIXES.items():
        if name.lower().endswith(suffix):
            return format
    raise UsageError(
        f"no archive format is known for {name!r}",
        hint=f"the name must end in {', '.join(_SUFFIXES)}",
    )


def write_archive(
    tree: Tree,
    blobs: BlobDir,
    output: BinaryIO,
    *,
    format: Format,
    progress: Progress = SILENT,
) -> ArchiveResult:
    """Write `tree` to an open file, which need not be seekable and is not closed.

    Every blob's presence is checked first and its content while it is written: after a BlobError
    for content, or a TargetError, `output` has a part of an archive. UsageError if the format
    cannot hold the tree. BrokenPipeError if the reader went away.
    """
    if format == "zip":
        check_zip(tree)
    check_present(blobs, ((p, f.digest, f.size_bytes) for p, f in tree.files.items()))
    progress.phase("exporting", total=tree.total_size_bytes, unit="bytes")
    meter = _Meter(progress)
    outer = Sink(output)
    try:
        if format == "tar.zst":
            packed = _Zstd(outer)
            inner = Sink(packed)
            write_tar(tree, blobs, inner, meter.advance)
            inner.flush()
            packed.finish()
        elif format == "tar":
            write_tar(tree, blobs, outer, meter.advance)
        else:
            write_zip(tree, blobs, outer, meter.advance)
        outer.flush()
        output.flush()
    except BrokenPipeError:
        raise
    except OSError as exc:
        raise _explain(exc, "the archive") from exc
    meter.report()
    return ArchiveResult(
        path=None,
        format=format,
        file_count=len(tree.files),
        dir_count=len(tree.dirs),
        symlink_count=len(tree.symlinks),
        total_size_bytes=tree.total_size_bytes,
        archive_bytes=outer.position,
    )


def export_archive(
    tree: Tree,
    blobs: BlobDir,
    path: Path,
    *,
    format: Format | None = None,
    replace: bool = False,
    progress: Progress = SILENT,
) -> ArchiveResult:
    """Write `tree` as the file `path`, whole or not at all; by default in the format of its suffix.

    TargetError if something has that name, unless told to `replace` a file, or if it cannot be
    written; the rest as `write_archive`.
    """
    chosen = format or format_for(path.name)
    result = write_target(
        path,
        lambda file: write_archive(tree, blobs, file, format=chosen, progress=progress),
        replace=replace,
    )
    return dataclasses.replace(result, path=path)


def write_target(path: Path, write: Callable[[BinaryIO], T], *, replace: bool) -> T:
    """Make file `path` by what `write` writes, whole or not at all. TargetError as above."""
    _check_free(path, replace=replace)
    if replace and is_special(path):
        with path.open("wb", buffering=0) as file:
            return write(file)
    if replace:
        path = Path(os.path.realpath(path))
    temp = path.with_name(f".castfs-{secrets.token_hex(8)}")
    try:
        try:
            # 0o666 leaves the mode to the user's umask, as for any file that a program writes.
            fd = os.open(temp, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, 0o666)
            with open(fd, "wb", buffering=0) as file:
                result = write(file)
                os.fsync(fd)
            _place(temp, path, replace=replace)
            fsync_dir(path.parent)
        except BaseException:
            with contextlib.suppress(OSError):
                temp.unlink()
            raise
    except OSError as exc:
        raise _explain(exc, str(path)) from exc
    return result


def _check_free(path: Path, *, replace: bool) -> None:
    if path.is_dir():
        raise TargetError(f"{path} is a directory", hint="name a file")
    if not replace and os.path.lexists(path):
        raise _exists(path)


def _exists(path: Path) -> TargetError:
    return TargetError(f"{path} exists", hint="remove it, name another file, or give --force")


def _place(temp: Path, path: Path, *, replace: bool) -> None:
    if replace:
        temp.replace(path)
        return
    try:
        os.link(temp, path)
    except FileExistsError:
        raise _exists(path) from None
    except OSError:
        # No hard links here. Between this look and the rename somebody may be faster.
        _check_free(path, replace=False)
        temp.replace(path)
    else:
        temp.unlink()


def _explain(exc: OSError, what: str) -> TargetError:
    return TargetError(
        f"cannot write {what}: {exc.strerror or exc}", hint=_HINTS.get(exc.errno or 0)
    )


class _Zstd:
    """Compresses on the way to a sink: one frame, one thread."""

    def __init__(self, sink: Sink) -> None:
        self._sink = sink
        compressor = zstandard.ZstdCompressor(level=_ZSTD_LEVEL, write_checksum=True)
        self._state = compressor.compressobj()

    def write(self, data: bytes | memoryview) -> None:
        self._sink.write(self._state.compress(data))

    def finish(self) -> None:
        self._sink.write(self._state.flush())


class _Meter:
    """Sums up what is done, so that a Progress hears of it at most every 10 ms."""

    def __init__(self, progress: Progress) -> None:
        self._progress = progress
        self._count = self._size = 0
        self._next = 0.0

    def advance(self, count: int, size: int) -> None:
        self._count += count
        self._size += size
        if time.monotonic() >= self._next:
            self.report()

    def report(self) -> None:
        if self._count or self._size:
            self._progress.advance(self._count, self._size)
        self._count = self._size = 0
        self._next = time.monotonic() + _INTERVAL
