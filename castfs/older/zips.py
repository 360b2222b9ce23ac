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
from castfs.manifest.checks import TARGET_MAX
from castfs.older.contents import Unchecked, has_leaf
from castfs.older.description import Damage, Item, OlderDirectory, OlderStream, OlderSymlink
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


Entry = OlderStream | OlderSymlink | OlderDirectory


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

    def has_links(self) -> bool:
        # Without its digest at first, which takes a reading of all of it.
        return any(map(self._seems_linked, self.places)) and _has_links(self.iter_items([]))

    def _seems_linked(self, place: bytes) -> bool:
        try:
            with _opened(self.tree, place) as file:
                return _has_links(iter_zip(file, place, []))
        except Refused:
            return False

    def iter_items(self, damage: list[Damage]) -> Iterator[Item]:
        refusals: list[Damage] = []
        for place in self.places:
            try:
                with _opened(self.tree, place) as file:
                    self._verify(file)
                    damage += refusals
                    yield from iter_zip(file, place, damage)
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


def _has_links(items: Iterator[Item]) -> bool:
    directories, others = [], []
    for item in items:
        if isinstance(item, OlderSymlink):
            return True
        if isinstance(item, OlderDirectory):
            directories.append(item.path)
        elif isinstance(item, OlderStream):
            others.append(item.path)
    return has_leaf(directories, others)


def iter_zip(
    file: BinaryIO, where: bytes, damage: list[Damage], *, strict: bool = False
) -> Iterator[Entry]:
    """What the zip in `file` holds, to be read before the next is asked for; names may be there
    twice. `where` it lies is for messages; `strict`: a name that begins with `./` is damage, too.
    Refused if it is none, or a bomb."""
    length = os.fstat(file.fileno()).st_size
    if _directory_size(file, length) > _DIRECTORY_MAX:
        raise Refused("it names more files than any workspace has")
    try:
        archive = zipfile.ZipFile(file)
        with contextlib.closing(archive):
            entries = archive.infolist()
            _check_total(entries, length)
            yield from _check_entries(archive, entries, where, damage, b"" if strict else b"./")
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
    archive: zipfile.ZipFile,
    entries: list[zipfile.ZipInfo],
    where: bytes,
    damage: list[Damage],
    lead: bytes,
) -> Iterator[Entry]:
    for entry in entries:
        # `filename` ends at a NUL; this is what stands there.
        raw = entry.orig_filename.encode(errors="surrogateescape")
        # Not by `is_dir`, which fails for an empty name.
        is_dir = raw.endswith(b"/")
        path = raw.removeprefix(lead)
        if is_dir:
            path = path.rstrip(b"/")
        try:
            _check_entry(entry, path, is_dir)
            item = _make_item(archive, entry, path, is_dir, where)
        except Refused as exc:
            damage.append(Damage(where + b"/" + raw[:_PATH_MAX], exc.reason))
        else:
            yield item


def _make_item(
    archive: zipfile.ZipFile, entry: zipfile.ZipInfo, path: bytes, is_dir: bool, where: bytes
) -> Entry:
    mtime_ns = _mtime_ns(entry)
    opener = _Opener(archive, entry)
    if is_dir:
        return OlderDirectory(path, _mode(entry, stat.S_IFDIR, 0o755), mtime_ns, where)
    if _kind(entry) == stat.S_IFLNK:
        with opener() as stream:
            target = stream.read(TARGET_MAX + 1)
        if len(target) != entry.file_size:
            raise Refused(f"it unpacks to {len(target)} bytes instead of {entry.file_size}")
        return OlderSymlink(path, target, mtime_ns, where)
    mode = _mode(entry, stat.S_IFREG, 0o644)
    return OlderStream(path, entry.file_size, mode, mtime_ns, opener, where)


def _kind(entry: zipfile.ZipInfo) -> int:
    return stat.S_IFMT(entry.external_attr >> 16)


def _check_entry(entry: zipfile.ZipInfo, path: bytes, is_dir: bool) -> None:
    """Refused."""
    if len(path) > _PATH_MAX:
        raise Refused(f"the zip holds a name of {len(path)} bytes")
    try:
        parse_relpath(path)
    except ValueError as exc:
        raise Refused(f"the zip holds a name that leads elsewhere: {exc}") from exc
    kind = _kind(entry)
    if kind not in (0, stat.S_IFREG, stat.S_IFDIR) and (is_dir or kind != stat.S_IFLNK):
        raise Refused(f"{shown(path)} is no regular file in the zip")
    if entry.flag_bits & 0x1:
        raise Refused("it is encrypted")
    if entry.compress_type not in _METHODS:
        raise Refused(f"it is compressed by an unknown method ({entry.compress_type})")
    if entry.file_size > _DEFLATE_MAX * entry.compress_size + _DEFLATE_MAX:
        raise Refused(f"it cannot unpack to {entry.file_size} bytes as it says")
    if kind == stat.S_IFLNK and not 0 < entry.file_size <= TARGET_MAX:
        raise Refused(f"it is a symlink with a target of {entry.file_size} bytes")


def _mode(entry: zipfile.ZipInfo, kind: int, default: int) -> int:
    """Without set-id bits, as unzip(1) does."""
    return entry.external_attr >> 16 & 0o777 if _kind(entry) == kind else default


def _mtime_ns(entry: zipfile.ZipInfo) -> int:
    """From the extra field 0x5455 (Info-ZIP's proginfo/extrafld.txt), else what DOS can say: the
    local time of where it was made; unzip(1) takes it for that of here."""
    extra = entry.extra
    while len(extra) >= 4:
        kind, size = struct.unpack_from("<HH", extra)
        if kind == 0x5455 and size >= 5 and len(extra) >= 9 and extra[4] & 1:
            return int(struct.unpack_from("<l", extra, 5)[0]) * 1_000_000_000
        extra = extra[4 + size :]
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
