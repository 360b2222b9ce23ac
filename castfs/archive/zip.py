"""Zip archives (PKWARE's APPNOTE.TXT 6.3), with UNIX modes, symlinks and times.

A file of up to 1 MiB, which is verified whole before it is written, has its sizes in front of it,
as readers of streams like it; a larger one has them behind it.
"""

from __future__ import annotations

import stat
import struct
import zlib
from collections.abc import Callable, Iterable, Iterator
from datetime import UTC, datetime

from castfs.archive.sink import Sink, archive_name, iter_content, iter_in_order
from castfs.digest import CHUNK_SIZE
from castfs.errors import UsageError
from castfs.manifest import Directory, Entry, File, Tree
from castfs.paths import display
from castfs.store import BlobDir

_STORED, _DEFLATED = 0, 8
_LEVEL = 6
_UTF8_FLAG = 0x800
_DESCRIPTOR_FLAG = 0x08
_UNIX = 3 << 8
#: Version needed to extract: 2.0 for deflate and directories, 4.5 for zip64.
_VERSION, _VERSION_64 = 20, 45
_LIMIT = 0xFFFFFFFF
_COUNT_LIMIT = 0xFFFF
#: A larger file may be beyond the limit once it is deflated: 5 bytes more for each 16 KiB.
_ZIP64_FROM = _LIMIT - (_LIMIT >> 10)
_MSDOS_DIRECTORY = 0x10
#: What DOS can say: 1980 to 2107.
_DOS_FIRST, _DOS_LAST = (0, 0x21), (0xBF7D, 0xFF9F)
_SECOND = 1_000_000_000


def check_zip(tree: Tree) -> None:
    """UsageError if a zip archive cannot hold the tree."""
    for path, entry in iter_in_order(tree):
        name = archive_name(path, entry)
        try:
            name.decode()
        except UnicodeDecodeError:
            raise UsageError(
                f"zip cannot hold {display(path)}: its name is not UTF-8",
                hint="use .tar.zst or .tar",
            ) from None
        if len(name) > _COUNT_LIMIT:
            raise UsageError(
                f"zip cannot hold {display(path[:80])}…: its path is longer than 65535 bytes",
                hint="use .tar.zst or .tar",
            )


def write_zip(tree: Tree, blobs: BlobDir, sink: Sink, advance: Callable[[int, int], None]) -> None:
    """All of `tree` below its root, hard links as copies. `advance` gets (files, bytes) done."""
    central: list[bytes] = []
    for path, entry in iter_in_order(tree):
        member = _Member(archive_name(path, entry), entry, sink.position)
        if isinstance(entry, File) and entry.size_bytes > CHUNK_SIZE:
            member.write_stream(sink, iter_content(blobs, path, entry))
        else:
            member.write_whole(sink, b"".join(_content(blobs, path, entry)))
        central.append(member.central_header())
        if isinstance(entry, File):
            advance(1, entry.size_bytes)
    start = sink.position
    sink.write_all(central)
    sink.write(_end(len(central), start, sink.position - start))


def _content(blobs: BlobDir, path: bytes, entry: Entry) -> Iterator[bytes | memoryview]:
    if isinstance(entry, File):
        yield from iter_content(blobs, path, entry)
    elif not isinstance(entry, Directory):
        yield entry.raw_target


class _Member:
    """One entry: its local header and content, then its header in the central directory."""

    def __init__(self, name: bytes, entry: Entry, offset: int) -> None:
        self._name = name
        self._entry = entry
        self._offset = offset
        self._flags = 0 if name.isascii() else _UTF8_FLAG
        self._method = _STORED
        self._zip64 = False
        self._crc = self._size = self._packed_size = 0

    def write_whole(self, sink: Sink, data: bytes) -> None:
        self._crc = zlib.crc32(data)
        self._size = len(data)
        packed = data
        if isinstance(self._entry, File) and data:
            packer = zlib.compressobj(_LEVEL, zlib.DEFLATED, -zlib.MAX_WBITS)
            packed = packer.compress(data) + packer.flush()
            if len(packed) < len(data):
                self._method = _DEFLATED
            else:
                packed = data
        self._packed_size = len(packed)
        sink.write(self._local_header())
        sink.write(packed)

    def write_stream(self, sink: Sink, chunks: Iterable[memoryview]) -> None:
        assert isinstance(self._entry, File)
        self._method = _DEFLATED
        self._flags |= _DESCRIPTOR_FLAG
        self._zip64 = self._entry.size_bytes > _ZIP64_FROM
        sink.write(self._local_header())
        start = sink.position
        packer = zlib.compressobj(_LEVEL, zlib.DEFLATED, -zlib.MAX_WBITS)
        for chunk in chunks:
            self._crc = zlib.crc32(chunk, self._crc)
            self._size += len(chunk)
            sink.write(packer.compress(chunk))
        sink.write(packer.flush())
        self._packed_size = sink.position - start
        descriptor = "<4sLQQ" if self._zip64 else "<4sLLL"
        sink.write(struct.pack(descriptor, b"PK\x07\x08", self._crc, self._packed_size, self._size))

    def _local_header(self) -> bytes:
        extra = self._extra()
        sizes = (self._packed_size, self._size)
        if self._zip64:
            # Both sizes follow the content; that this field is here says how wide they are.
            extra = struct.pack("<HHQQ", 1, 16, 0, 0) + extra
            sizes = (_LIMIT, _LIMIT)
        return (
            struct.pack(
                "<4sHHHHHLLLHH",
                b"PK\x03\x04",
                _VERSION_64 if self._zip64 else _VERSION,
                self._flags,
                self._method,
                *_dos_time(self._entry.mtime_ns),
                self._crc,
                *sizes,
                len(self._name),
                len(extra),
            )
            + self._name
            + extra
        )

    def central_header(self) -> bytes:
        # How wide the sizes behind the content are must be seen here too.
        limit = 0 if self._zip64 else _LIMIT
        large = [number for number in (self._size, self._packed_size) if number >= limit]
        size, packed_size = (
            _LIMIT if number >= limit else number for number in (self._size, self._packed_size)
        )
        if self._offset >= _LIMIT:
            large.append(self._offset)
        offset = min(self._offset, _LIMIT)
        extra = self._extra()
        if large:
            extra = struct.pack(f"<HH{len(large)}Q", 1, 8 * len(large), *large) + extra
        version = _VERSION_64 if large else _VERSION
        return (
            struct.pack(
                "<4sHHHHHHLLLHHHHHLL",
                b"PK\x01\x02",
                _UNIX | version,
                version,
                self._flags,
                self._method,
                *_dos_time(self._entry.mtime_ns),
                self._crc,
                packed_size,
                size,
                len(self._name),
                len(extra),
                0,
                0,
                0,
                self._attributes(),
                offset,
            )
            + self._name
            + extra
        )

    def _attributes(self) -> int:
        if isinstance(self._entry, Directory):
            return (stat.S_IFDIR | self._entry.mode) << 16 | _MSDOS_DIRECTORY
        if isinstance(self._entry, File):
            return (stat.S_IFREG | self._entry.mode) << 16
        return (stat.S_IFLNK | 0o777) << 16

    def _extra(self) -> bytes:
        """The time in seconds (0x5455), and who owns it (0x7875) if that was recorded; Info-ZIP's
        proginfo/extrafld.txt."""
        entry = self._entry
        extra = b""
        seconds = entry.mtime_ns // _SECOND
        if -(2**31) <= seconds < 2**31:
            extra += struct.pack("<HHBl", 0x5455, 5, 1, seconds)
        if entry.uid is not None and entry.gid is not None:
            extra += struct.pack("<HHBBLBL", 0x7875, 11, 1, 4, entry.uid, 4, entry.gid)
        return extra


def _dos_time(mtime_ns: int) -> tuple[int, int]:
    """(time, date), in UTC so that every machine writes the same."""
    seconds = mtime_ns // _SECOND
    if seconds < datetime(1980, 1, 1, tzinfo=UTC).timestamp():
        return _DOS_FIRST
    if seconds >= datetime(2108, 1, 1, tzinfo=UTC).timestamp():
        return _DOS_LAST
    when = datetime.fromtimestamp(seconds, tz=UTC)
    return (
        when.hour << 11 | when.minute << 5 | when.second // 2,
        (when.year - 1980) << 9 | when.month << 5 | when.day,
    )


def _end(count: int, start: int, size: int) -> bytes:
    """The end of central directory record, with its zip64 form before it where that is needed."""
    zip64 = b""
    if count >= _COUNT_LIMIT or start >= _LIMIT or size >= _LIMIT:
        zip64 = struct.pack(
            "<4sQHHLLQQQQ",
            b"PK\x06\x06",
            44,
            _UNIX | _VERSION_64,
            _VERSION_64,
            0,
            0,
            count,
            count,
            size,
            start,
        ) + struct.pack("<4sLQL", b"PK\x06\x07", 0, start + size, 1)
    shown_count = min(count, _COUNT_LIMIT)
    return zip64 + struct.pack(
        "<4sHHHHLLH",
        b"PK\x05\x06",
        0,
        0,
        shown_count,
        shown_count,
        min(size, _LIMIT),
        min(start, _LIMIT),
        0,
    )
