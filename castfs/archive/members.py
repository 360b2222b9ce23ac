"""The regular files of a tar archive that a stranger may have made, one after the other.

Written here and not by `tarfile`, which follows chains of extended headers by recursion, holds them
whole however long they are, and believes sizes below zero.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from dataclasses import dataclass
from typing import BinaryIO

from castfs.paths import shown

_BLOCK = 512
_RECORD = 20 * _BLOCK
#: Bytes of an extended header: a path, a size, and what other programs add.
_EXTENDED_MAX = 1 << 16
_PIECE = 1 << 20
_SIZE_MAX = 2**63 - 1

_OCTAL = re.compile(rb" *([0-7]*)[ \0]*")
_LENGTH = re.compile(rb"(\d{1,6}) ")
_DECIMAL = re.compile(rb"\d{1,19}")
_REGULAR = (b"0", b"\0")


@dataclass(slots=True)
class Member:
    """A regular file. It is read once, before the next one is asked for."""

    name: str
    size: int
    _file: BinaryIO
    _left: int

    def read(self) -> bytes:
        """All of it."""
        return b"".join(self.iter_pieces())

    def iter_pieces(self) -> Iterator[bytes]:
        """EOFError if it ends too early."""
        while self._left:
            yield self._take(min(self._left, _PIECE))

    def _take(self, count: int) -> bytes:
        data = _read(self._file, count)
        self._left -= count
        return data


def iter_members(file: BinaryIO) -> Iterator[Member]:
    """Reads `file` once, from where it is to the archive's end. EOFError if it ends within a
    member; ValueError for anything that is no regular file, or no tar archive."""
    position = 0
    extended: dict[str, str] = {}
    while block := file.read(_BLOCK):
        block += _read(file, _BLOCK - len(block))
        position += _BLOCK
        if not block.strip(b"\0"):
            # The rest of the last record: whoever writes to a pipe wants to be rid of it.
            file.read(-position % _RECORD)
            return
        kind, name, size = _parse(block)
        padded = size + -size % _BLOCK
        if kind in (b"x", b"L"):
            if size > _EXTENDED_MAX or kind.decode() in extended:
                raise ValueError("it has extended headers that nobody needs")
            extended[kind.decode()] = ""
            extended |= _parse_extended(kind, _read(file, padded)[:size])
            position += padded
            continue
        if kind not in _REGULAR:
            raise ValueError(f"its member {shown(name.encode())} is no regular file")
        size = int(extended.get("size", size))
        if size > _SIZE_MAX:
            raise ValueError(f"its member {shown(name.encode())} is larger than any file")
        member = Member(extended.get("path", name), size, file, size)
        yield member
        for _ in member.iter_pieces():
            pass
        _read(file, -size % _BLOCK)
        position += size + -size % _BLOCK
        extended = {}


def _parse(block: bytes) -> tuple[bytes, str, int]:
    """(type, name, size) of a header."""
    checksum = sum(block) - sum(block[148:156]) + 8 * ord(" ")
    if _number(block[148:156]) != checksum:
        raise ValueError("it has a header that is none")
    name = block[:100].partition(b"\0")[0]
    prefix = block[345:500].partition(b"\0")[0] if block[257:263] == b"ustar\0" else b""
    path = prefix + b"/" + name if prefix else name
    return block[156:157], path.decode(), _number(block[124:136])


def _number(field: bytes) -> int:
    """Octal digits, or 0x80 and the number itself, as GNU tar writes large ones."""
    if field[0] == 0x80:
        return int.from_bytes(field[1:])
    match = _OCTAL.fullmatch(field)
    if match is None:
        raise ValueError("it has a header with an impossible number")
    return int(match[1] or b"0", 8)


def _parse_extended(kind: bytes, data: bytes) -> dict[str, str]:
    """`path` and `size`, where they are given."""
    if kind == b"L":
        return {"path": data.partition(b"\0")[0].decode()}
    found: dict[str, str] = {}
    at = 0
    while at < len(data):
        match = _LENGTH.match(data, at)
        end = at + int(match[1]) if match else 0
        if match is None or not match.end() < end <= len(data) or data[end - 1 : end] != b"\n":
            raise ValueError("it has an extended header that is none")
        key, _, value = data[match.end() : end - 1].partition(b"=")
        if key.startswith(b"GNU.sparse"):
            raise ValueError("a member has holes")  # its size would be anything
        if key == b"size" and not _DECIMAL.fullmatch(value):
            raise ValueError("it has an extended header with an impossible size")
        if key in (b"path", b"size"):
            found[key.decode()] = value.decode()
        at = end
    return found


def _read(file: BinaryIO, count: int) -> bytes:
    """Exactly so many bytes: a pipe may give fewer at a time."""
    data = file.read(count)
    while len(data) < count:
        more = file.read(count - len(data))
        if not more:
            raise EOFError("it ends too early")
        data += more
    return data
