"""A zip file as a tree: nothing in it is believed, and nothing is written under its names."""

from __future__ import annotations

import time
from collections.abc import Iterator
from typing import BinaryIO

from castfs.compat.runicorn.assets.writing import BlobWriter
from castfs.digest import CHUNK_SIZE, Digest
from castfs.errors import BlobError, ManifestError
from castfs.manifest import Directory, File, Symlink, Tree, order_canonically
from castfs.manifest.checks import check_tree
from castfs.older.description import Damage, OlderDirectory, OlderStream, OlderSymlink
from castfs.older.guarded import Refused
from castfs.older.occupancy import Occupancy
from castfs.older.zips import iter_zip
from castfs.paths import escape, shown, split


def unpack_zip(file: BinaryIO, writer: BlobWriter, digest: Digest) -> Tree:
    """Its contents into `writer`. BlobError if it is damaged; ManifestError for names that lead
    out of a directory, are there twice, or are of two kinds. Set-id bits are not kept."""
    damage: list[Damage] = []
    try:
        tree = _read_entries(file, writer, damage)
    except Refused as exc:
        raise BlobError(
            f"blob {digest} is no sound zip file: {exc.reason}",
            digest=digest,
            hint="is it a snapshot?",
        ) from exc
    check_tree(tree)
    return tree


def _read_entries(file: BinaryIO, writer: BlobWriter, damage: list[Damage]) -> Tree:
    dirs: dict[bytes, Directory] = {}
    files: dict[bytes, File] = {}
    symlinks: dict[bytes, Symlink] = {}
    taken = Occupancy()
    for item in iter_zip(file, b"", damage, strict=True):
        _take(taken, item)
        match item:
            case OlderDirectory():
                dirs[item.path] = Directory(mode=item.mode, mtime_ns=item.mtime_ns)
            case OlderSymlink():
                target = escape(item.target)
                symlinks[item.path] = Symlink(mtime_ns=item.mtime_ns, target=target)
            case OlderStream():
                files[item.path] = _stage(item, writer)
    if damage:
        raise ManifestError(f"the zip file: {damage[0].reason}", hint="do not trust it")
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


def _take(taken: Occupancy, item: OlderDirectory | OlderStream | OlderSymlink) -> None:
    try:
        if isinstance(item, OlderDirectory):
            taken.take_directory(item.path)
        else:
            taken.take(item.path)
    except Refused as exc:
        raise ManifestError(
            f"{shown(item.path)} in the zip file: {exc.reason}", hint="do not trust it"
        ) from exc


def _stage(item: OlderStream, writer: BlobWriter) -> File:
    staged = writer.stage_chunks(_chunks(item))
    if staged.size != item.size:
        raise Refused(f"it unpacks to {staged.size} bytes instead of {item.size}")
    return File(
        mode=item.mode, mtime_ns=item.mtime_ns, sha256=staged.digest, size_bytes=staged.size
    )


def _chunks(item: OlderStream) -> Iterator[bytes]:
    with item.open() as stream:
        while chunk := stream.read(CHUNK_SIZE):
            yield chunk
