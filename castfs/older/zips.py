"""Code snapshots: one zip of a workspace each, read as a tree of files.

A zip is hostile until it has been read to its end: its directory may be a bomb, its names may lead
anywhere, its entries may unpack to more than they say. Nothing is unpacked to a path that it names.
"""

from __future__ import annotations

import contextlib
import os
import stat
import struct
import time
import zipfile
import zlib
from collections.abc import Iterator
from dataclasses import dataclass
from typing import IO, BinaryIO

from castfs.digest import Digest, digest_fd
from castfs.older.contents import Unchecked
from castfs.older.description import Damage, Item, OlderStream
from castfs.older.guarded import MISSING, Refused, SourceTree
from castfs.paths import parse_relpath, shown

#: Bytes of a zip's directory. Entries take about 110 each: 600,000 of them, three times Runicorn's
#: own limit; the smallest that are possible (47 bytes) become about 1.5 GB of objects.
_DIRECTORY_MAX = 64 << 20
#: What the files of one zip may have in all: a gigabyte, or so many times the zip. Runicorn's own
#: limit is 500 MiB; source code shrinks to a quarter, zeros to a thousandth.
_TOTAL_MAX = 1 << 30
_RATIO_MAX = 100
#: Deflate's best: 258 bytes for two bits.
_DEFLATE_MAX = 1032
#: PATH_MAX without its NUL.
_PATH_MAX = 4095
_METHODS = (zipfile.ZIP_STORED, zipfile.ZIP_DEFLATED)

_END = struct.Struct("<4s4H2LH")
_END_MAGIC = b"PK\x05\x06"
_LOCATOR = struct.Struct("<4sLQL")
_LOCATOR_MAGIC = b"PK\x06\x07"
_END64 = struct.Struct("<4sQ2H2L4Q")
_COMMENT_MAX = 0xFFFF
#: What zipfile raises for what it does not expect: some of its checks are missing.
_BAD = (
    zipfile.BadZipFile,
    zlib.error,
    struct.error,
    NotImplementedError,
    EOFError,
    ValueError,
    OverflowError,
    LookupError,
    OSError,
)


@dataclass(frozen=True)
class ZipContents(Unchecked):
    """`places` are copies of the same zip; the first that is what `expected` says is read."""

    tree: SourceTree
    places: tuple[bytes, ...]
    expected: Digest | None

    @property
    def identity(self) -> str:
        if self.expected is not None:
            return self.expected
        with _opened(self.tree, self.places[0]) as file:
            return digest_fd(file.fileno())

    def iter_items(self, damage: list[Damage]) -> Iterator[Item]:
        refusals: list[Damage] = []
        for place in self.places:
            try:
                with _opened(self.tree, place) as file:
                    self._verify(file)
                    damage += refusals
                    yield from _iter_entries(file, place, damage)
                    return
            except Refused as exc:
                refusals.append(Damage(place, exc.reason))
        damage += refusals[:-1]
        raise Refused(refusals[-1].reason if refusals else MISSING)

    def _verify(self, file: BinaryIO) -> None:
        if self.expected is not None and digest_fd(file.fileno()) != self.expected:
            raise Refused(f"its content is not that of its digest {self.expected}")
        file.seek(0)


@contextlib.contextmanager
def _opened(tree: SourceTree, path: bytes) -> Iterator[BinaryIO]:
    with open(tree.open(path), "rb") as file:
        yield file


def _iter_entries(file: BinaryIO, where: bytes, damage: list[Damage]) -> Iterator[Item]:
    length = os.fstat(file.fileno()).st_size
    if _directory_size(file, length) > _DIRECTORY_MAX:
        raise Refused("it names more files than any workspace has")
    try:
        archive = zipfile.ZipFile(file)
        with contextlib.closing(archive):
            entries = archive.infolist()
            _check_total(entries, length)
            yield from _check_entries(archive, entries, where, damage)
    except _BAD as exc:
        raise Refused(f"it is no sound zip: {exc}") from exc


def _directory_size(file: BinaryIO, length: int) -> int:
    """Bytes that the directory at the end of a zip takes, before anything is made of it."""
    tail_size = min(length, _END.size + _COMMENT_MAX + _LOCATOR.size)
    file.seek(length - tail_size)
    tail = file.read(tail_size)
    at = tail.rfind(_END_MAGIC)
    if at < 0 or len(tail) - at < _END.size:
        raise Refused("it is no zip, or its end is missing")
    size: int = _END.unpack_from(tail, at)[5]
    if at >= _LOCATOR.size and tail[at - _LOCATOR.size :].startswith(_LOCATOR_MAGIC):
        offset: int = _LOCATOR.unpack_from(tail, at - _LOCATOR.size)[2]
        if offset > length:
            raise Refused("it is no zip, or its end is missing")
        file.seek(offset)
        record = file.read(_END64.size)
        if len(record) == _END64.size:
            size = max(_END64.unpack(record)[8], size if size != 0xFFFFFFFF else 0)
    return size


def _check_total(entries: list[zipfile.ZipInfo], length: int) -> None:
    total = sum(entry.file_size for entry in entries)
    if total > max(_TOTAL_MAX, _RATIO_MAX * length):
        raise Refused(f"it says that it unpacks to {total} bytes, which no workspace does")
    # Honest entries do not share bytes.
    if sum(entry.compress_size for entry in entries) > length:
        raise Refused("its entries overlap")


def _check_entries(
    archive: zipfile.ZipFile, entries: list[zipfile.ZipInfo], where: bytes, damage: list[Damage]
) -> Iterator[Item]:
    for entry in entries:
        # `filename` ends at a NUL; this is what stands there.
        raw = entry.orig_filename.encode(errors="surrogateescape")
        # Not by `is_dir`, which fails for an empty name.
        is_dir = raw.endswith(b"/")
        path = raw.removeprefix(b"./")
        if is_dir:
            path = path.rstrip(b"/")
        reason = _find_fault(entry, path)
        if reason is not None:
            damage.append(Damage(where + b"/" + raw[:_PATH_MAX], reason))
        elif not is_dir:  # files bring their directories; empty ones are never stored
            yield OlderStream(
                path,
                entry.file_size,
                _mode(entry),
                _mtime_ns(entry),
                _Opener(archive, entry),
                where,
            )


def _find_fault(entry: zipfile.ZipInfo, path: bytes) -> str | None:
    if len(path) > _PATH_MAX:
        return f"the zip holds a name of {len(path)} bytes"
    try:
        parse_relpath(path)
    except ValueError as exc:
        return f"the zip holds a name that leads elsewhere: {exc}"
    kind = stat.S_IFMT(entry.external_attr >> 16)
    if kind not in (0, stat.S_IFREG, stat.S_IFDIR):
        return f"{shown(path)} is no regular file in the zip"
    if entry.flag_bits & 0x1:
        return "it is encrypted"
    if entry.compress_type not in _METHODS:
        return f"it is compressed by an unknown method ({entry.compress_type})"
    if entry.file_size > _DEFLATE_MAX * entry.compress_size + _DEFLATE_MAX:
        return f"it cannot unpack to {entry.file_size} bytes as it says"
    return None


def _mode(entry: zipfile.ZipInfo) -> int:
    """Without set-id bits, as unzip(1) does."""
    mode = entry.external_attr >> 16
    return mode & 0o777 if stat.S_IFMT(mode) == stat.S_IFREG else 0o644


def _mtime_ns(entry: zipfile.ZipInfo) -> int:
    """Zips hold the local time of where they were made; unzip(1) takes it for that of here."""
    try:
        return int(time.mktime((*entry.date_time, 0, 0, -1))) * 1_000_000_000
    except (ValueError, OverflowError):
        return 0


@dataclass(frozen=True)
class _Reader:
    """zipfile's errors are the zip's; those of whoever writes what was read are not."""

    file: IO[bytes]

    def read(self, size: int, /) -> bytes:
        # At the end zipfile compares the checksum.
        with _unpacking():
            return self.file.read(size)


@dataclass(frozen=True)
class _Opener:
    archive: zipfile.ZipFile
    entry: zipfile.ZipInfo

    @contextlib.contextmanager
    def __call__(self) -> Iterator[_Reader]:
        """The unpacked bytes, at most as many as the entry says."""
        with _unpacking():
            file = self.archive.open(self.entry)
        with file:
            yield _Reader(file)


@contextlib.contextmanager
def _unpacking() -> Iterator[None]:
    try:
        yield
    except (*_BAD, RuntimeError) as exc:  # zipfile's own RuntimeError: a password is wanted
        raise Refused(f"it cannot be unpacked: {exc}") from exc
