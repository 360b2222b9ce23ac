"""The pax interchange format (POSIX.1-2017, pax, "EXTENDED DESCRIPTION"), as GNU tar reads it.

Written here and not by `tarfile`, which stores times as floats (they lose nanoseconds), and whose
bytes may change with Python's version.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping

from castfs.archive.sink import Sink, archive_name, iter_content, iter_in_order
from castfs.manifest import Directory, Entry, File, Tree
from castfs.store import BlobDir

_BLOCK = 512
#: Blocking factor 20: some readers of tapes and pipes want whole records.
_RECORD = 20 * _BLOCK
_NAME_SIZE = 100
#: The largest numbers of 11 and of 7 octal digits.
_MAX_12 = 0o77777777777
_MAX_8 = 0o7777777
_SECOND = 1_000_000_000

_REGULAR, _LINK, _SYMLINK, _DIRECTORY, _PAX = b"0", b"1", b"2", b"5", b"x"


def write_tar(tree: Tree, blobs: BlobDir, sink: Sink, advance: Callable[[int, int], None]) -> None:
    """All of `tree`, the root's own mode and time as `./`. Hard links refer to the first of their
    group that was written. `advance` gets (files, bytes) that are done."""
    sink.write(_header(b"./", tree.root))
    written: dict[str, bytes] = {}
    for path, entry in iter_in_order(tree):
        name = archive_name(path, entry)
        group = None if isinstance(entry, Directory) else entry.hardlink
        if group is not None and group in written:
            sink.write(_header(name, entry, link_to=written[group]))
            advance(1, 0)
            continue
        sink.write(_header(name, entry))
        if group is not None:
            written[group] = path
        if isinstance(entry, File):
            sink.write_all(iter_content(blobs, path, entry))
            sink.write(bytes(-entry.size_bytes % _BLOCK))
            advance(1, entry.size_bytes)
    sink.write(bytes(2 * _BLOCK))
    sink.write(bytes(-sink.position % _RECORD))


def _header(name: bytes, entry: Entry, *, link_to: bytes | None = None) -> bytes:
    """The ustar header of an entry, with a pax header before it for what does not fit in there."""
    records: dict[bytes, bytes] = {}
    kind, mode, size, target = _facts(entry, link_to)
    seconds, nanoseconds = divmod(entry.mtime_ns, _SECOND)
    block = _ustar(
        name=_text(records, b"path", name),
        mode=mode,
        uid=_number(records, b"uid", entry.uid or 0, _MAX_8),
        gid=_number(records, b"gid", entry.gid or 0, _MAX_8),
        size=_number(records, b"size", size, _MAX_12),
        mtime=seconds if 0 <= seconds <= _MAX_12 else 0,
        kind=kind,
        link=_text(records, b"linkpath", target),
    )
    if nanoseconds or not 0 <= seconds <= _MAX_12:
        records[b"mtime"] = _decimal(entry.mtime_ns)
    for attribute, value in entry.iter_xattrs():
        # GNU tar's quoting of what would end the keyword.
        quoted = attribute.replace(b"%", b"%25").replace(b"=", b"%3D")
        records[b"SCHILY.xattr." + quoted] = value
    return (_pax(records) if records else b"") + block


def _facts(entry: Entry, link_to: bytes | None) -> tuple[bytes, int, int, bytes]:
    """(type, mode, size of what follows, link's target)"""
    if isinstance(entry, Directory):
        return _DIRECTORY, entry.mode, 0, b""
    mode = entry.mode if isinstance(entry, File) else 0o777
    if link_to is not None:
        return _LINK, mode, 0, link_to
    if isinstance(entry, File):
        return _REGULAR, mode, entry.size_bytes, b""
    return _SYMLINK, mode, 0, entry.raw_target


def _text(records: dict[bytes, bytes], keyword: bytes, value: bytes) -> bytes:
    """What goes into the ustar field; a longer or not portable one also becomes a pax record."""
    if len(value) <= _NAME_SIZE and value.isascii():
        return value
    records[keyword] = value
    return value[:_NAME_SIZE]


def _number(records: dict[bytes, bytes], keyword: bytes, value: int, limit: int) -> int:
    if value <= limit:
        return value
    records[keyword] = b"%d" % value
    return 0


def _decimal(nanoseconds: int) -> bytes:
    """Seconds, exactly: tarfile's floats are off by up to 100 ns today."""
    sign = b"-" if nanoseconds < 0 else b""
    seconds, fraction = divmod(abs(nanoseconds), _SECOND)
    return (b"%s%d.%09d" % (sign, seconds, fraction)).rstrip(b"0").rstrip(b".")


def _pax(records: Mapping[bytes, bytes]) -> bytes:
    body = b"".join(_record(keyword, records[keyword]) for keyword in sorted(records))
    if any(not _is_utf8(records.get(keyword, b"")) for keyword in (b"path", b"linkpath")):
        # Names that are no text: take the bytes as they are. It must stand before them.
        body = _record(b"hdrcharset", b"BINARY") + body
    header = _ustar(
        name=b"././@PaxHeader",
        mode=0o644,
        uid=0,
        gid=0,
        size=len(body),
        mtime=0,
        kind=_PAX,
        link=b"",
    )
    return header + body + bytes(-len(body) % _BLOCK)


def _is_utf8(value: bytes) -> bool:
    try:
        value.decode()
    except UnicodeDecodeError:
        return False
    return True


def _record(keyword: bytes, value: bytes) -> bytes:
    """`LENGTH keyword=value\\n`, where the length counts its own digits."""
    rest = len(keyword) + len(value) + 3
    length = rest + len(str(rest))
    length = rest + len(str(length))
    return b"%d %s=%s\n" % (length, keyword, value)


def _ustar(
    *, name: bytes, mode: int, uid: int, gid: int, size: int, mtime: int, kind: bytes, link: bytes
) -> bytes:
    before = name.ljust(_NAME_SIZE, b"\0") + b"%07o\0%07o\0%07o\0%011o\0%011o\0" % (
        mode, uid, gid, size, mtime,
    )  # fmt: skip
    after = kind + link.ljust(_NAME_SIZE, b"\0") + b"ustar\x0000"
    after += bytes(64) + b"0000000\x000000000\0"
    after = after.ljust(_BLOCK - len(before) - 8, b"\0")
    # The sum takes the checksum's own field as eight spaces (32 each).
    checksum = sum(before) + sum(after) + 8 * 32
    return before + b"%06o\0 " % checksum + after
