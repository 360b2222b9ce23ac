"""A zip file as a tree: nothing in it is believed, and nothing is written under its names."""

from __future__ import annotations

import lzma
import os
import stat
import struct
import time
import zipfile
import zlib
from collections.abc import Iterator
from typing import BinaryIO

from castfs.compat.runicorn.assets.writing import BlobWriter
from castfs.digest import CHUNK_SIZE, Digest
from castfs.errors import BlobError, ManifestError
from castfs.manifest import Directory, File, Symlink, Tree, order_canonically
from castfs.manifest.checks import TARGET_MAX, check_tree
from castfs.paths import escape, parse_relpath, shown, split

_SECOND = 1_000_000_000
#: What the files of one zip file may have in all: a gigabyte, or so many times the zip file.
#: Runicorn's own limit is 500 MiB; source code shrinks to a quarter, zeros to a thousandth.
_TOTAL_MAX = 1 << 30
_RATIO_MAX = 100
_BAD_ZIP = (
    zipfile.BadZipFile, zlib.error, lzma.LZMAError, EOFError, struct.error, ValueError,
    NotImplementedError, RuntimeError,
)  # fmt: skip


def unpack_zip(file: BinaryIO, writer: BlobWriter, digest: Digest) -> Tree:
    """Its contents into `writer`. BlobError if it is damaged; ManifestError for names that lead
    out of a directory, are there twice, or are of two kinds. Set-id bits are not kept."""
    try:
        with zipfile.ZipFile(file) as archive:
            tree = _read_entries(archive, writer)
    except _BAD_ZIP as exc:
        raise BlobError(
            f"blob {digest} is no sound zip file: {exc}", digest=digest, hint="is it a snapshot?"
        ) from exc
    check_tree(tree)
    return tree


def _read_entries(archive: zipfile.ZipFile, writer: BlobWriter) -> Tree:
    dirs: dict[bytes, Directory] = {}
    files: dict[bytes, File] = {}
    symlinks: dict[bytes, Symlink] = {}
    _check_total(archive)
    for info in archive.infolist():
        path = _path(info)
        if path in files or path in symlinks or path in dirs:
            raise ManifestError(f"{shown(path)} is in the zip file twice", hint="do not trust it")
        mode, mtime_ns = info.external_attr >> 16, _mtime_ns(info)
        permissions = mode & 0o777 if mode else 0
        if info.orig_filename.endswith("/"):
            dirs[path] = Directory(mode=permissions or 0o755, mtime_ns=mtime_ns)
        elif stat.S_ISLNK(mode):
            with archive.open(info) as member:
                target = member.read(TARGET_MAX + 1)
            symlinks[path] = Symlink(mtime_ns=mtime_ns, target=escape(target))
        else:
            staged = writer.stage_chunks(_chunks(archive, info))
            files[path] = File(
                mode=permissions or 0o644,
                mtime_ns=mtime_ns,
                sha256=staged.digest,
                size_bytes=staged.size,
            )
    now = time.time_ns()
    for path in [*dirs, *files, *symlinks]:
        while (path := split(path)[0]) and path not in dirs:
            dirs[path] = Directory(mode=0o755, mtime_ns=now)
    return Tree(
        root=Directory(mode=0o755, mtime_ns=now),
        dirs=order_canonically(dirs),
        files=order_canonically(files),
        symlinks=order_canonically(symlinks),
    )


def _check_total(archive: zipfile.ZipFile) -> None:
    """No bomb. Honest entries do not share bytes."""
    assert archive.fp is not None
    length = archive.fp.seek(0, os.SEEK_END)
    total = sum(info.file_size for info in archive.infolist())
    if total > max(_TOTAL_MAX, _RATIO_MAX * length):
        raise ManifestError(
            f"the zip file says that it unpacks to {total} bytes", hint="no workspace does"
        )
    if sum(info.compress_size for info in archive.infolist()) > length:
        raise ManifestError("entries of the zip file overlap", hint="do not trust it")


def _path(info: zipfile.ZipInfo) -> bytes:
    # Not `filename`, which ends at a NUL.
    raw = info.orig_filename.encode("utf-8", "surrogateescape").removesuffix(b"/")
    try:
        return parse_relpath(raw)
    except ValueError as exc:
        raise ManifestError(f"a name in the zip file: {exc}", hint="do not trust it") from exc


def _chunks(archive: zipfile.ZipFile, info: zipfile.ZipInfo) -> Iterator[bytes]:
    with archive.open(info) as member:
        while chunk := member.read(CHUNK_SIZE):
            yield chunk


def _mtime_ns(info: zipfile.ZipInfo) -> int:
    """From the extra field 0x5455 (Info-ZIP's proginfo/extrafld.txt), else what DOS can say, which
    is local time."""
    extra = info.extra
    while len(extra) >= 4:
        kind, size = struct.unpack_from("<HH", extra)
        if kind == 0x5455 and size >= 5 and len(extra) >= 9 and extra[4] & 1:
            return int(struct.unpack_from("<l", extra, 5)[0]) * _SECOND
        extra = extra[4 + size :]
    try:
        return int(time.mktime((*info.date_time, 0, 0, -1))) * _SECOND
    except (ValueError, OverflowError):
        return 0
