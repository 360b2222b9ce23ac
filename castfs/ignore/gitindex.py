"""The names in a git index: what git tracks. Versions 2 to 4 of gitformat-index(5)."""

from __future__ import annotations

import hashlib
from bisect import bisect_left
from collections.abc import Sequence

_HEADER = 12  # "DIRC", version, number of entries
_STAT = 40  # times, device, inode, mode, owner, size: ten 32-bit numbers
_MODE = slice(26, 28)  # the low half of the mode
_GITLINK = 0o160000.to_bytes(2)
_EXTENDED = 0x4000  # flag: two more bytes of flags follow
_LONGEST = 0xFFF  # a name of this length or longer
#: An index does not say which hash its repository has, but it ends in one of itself.
_HASHES = {20: hashlib.sha1, 32: hashlib.sha256}


class PartialIndexError(ValueError):
    """The index is whole, but not the whole list, or newer than this reader: git must be asked."""


class Tracked:
    """Names in an index, relative to the root of its work tree."""

    __slots__ = ("_names", "_submodules")

    def __init__(self, names: Sequence[bytes] = (), submodules: Sequence[bytes] = ()) -> None:
        """`names` ordered by bytes, as an index has them; `submodules` are some of them."""
        self._names = names
        self._submodules = frozenset(submodules)

    def has(self, path: bytes) -> bool:
        at = bisect_left(self._names, path)
        return at < len(self._names) and self._names[at] == path

    def has_submodule(self, path: bytes) -> bool:
        return path in self._submodules

    def has_below(self, directory: bytes) -> bool:
        """Whether a name begins with `directory`, which ends in '/'."""
        at = bisect_left(self._names, directory)
        return at < len(self._names) and self._names[at].startswith(directory)


def parse_index(data: bytes) -> Tracked:
    """The names in an index file's bytes. ValueError: what is wrong with them; PartialIndexError:
    what is in them that only git knows (a split or a sparse index)."""
    if data[:4] != b"DIRC":
        raise ValueError("it does not begin with DIRC")
    reason = "its checksum is wrong"
    for size, algorithm in _HASHES.items():
        # index.skipHash leaves zeros, which say nothing of the size: the entries then tell.
        digest = algorithm(memoryview(data)[:-size], usedforsecurity=False).digest()
        if data[-size:] in (digest, bytes(size)):
            try:
                return _parse(data[:-size], _STAT + size)
            except PartialIndexError:
                raise
            except IndexError:
                reason = "it ends early"
            except ValueError as error:
                reason = str(error)
    raise ValueError(reason)


def _parse(data: bytes, flags_at: int) -> Tracked:
    version, count = int.from_bytes(data[4:8]), int.from_bytes(data[8:12])
    if version not in (2, 3, 4):
        raise PartialIndexError(f"its version is {version}")
    names: list[bytes] = []
    submodules = []
    name = b""
    at = _HEADER
    for _ in range(count):
        flags = data[at + flags_at] << 8 | data[at + flags_at + 1]
        start = at + flags_at + (4 if flags & _EXTENDED else 2)
        drop = len(name)
        if version == 4:  # each name without the beginning that it shares with the one before
            drop, start = _varint(data, start)
        end = data.find(0, start)
        if end < 0 or drop > len(name):
            raise ValueError("it ends within a name")
        name = name[: len(name) - drop] + data[start:end]
        if min(len(name), _LONGEST) != flags & _LONGEST:
            raise ValueError("the length of a name is wrong")
        names.append(name)
        if data[at + _MODE.start : at + _MODE.stop] == _GITLINK:
            submodules.append(name)
        at = end + 1 if version == 4 else at + (end - at + 8 & ~7)
    _check_extensions(data, at)
    if names != sorted(names):
        raise ValueError("its entries are not in order")
    return Tracked(names, submodules)


def _varint(data: bytes, at: int) -> tuple[int, int]:
    """A number as in pack files' OFS_DELTA, and where it ends."""
    value = data[at] & 0x7F
    while data[at] & 0x80:
        at += 1
        value = (value + 1 << 7) + (data[at] & 0x7F)
    return value, at + 1


def _check_extensions(data: bytes, at: int) -> None:
    """Each is a signature of four letters, a length and that many bytes. A reader must know those
    that begin in lower case: they change the list of names."""
    while at < len(data):
        signature = data[at : at + 4]
        if not signature.isalpha():
            raise ValueError("what follows its entries is no extension")
        if not signature[:1].isupper():
            raise PartialIndexError(f"it has the extension {signature!r}")
        at += 8 + int.from_bytes(data[at + 4 : at + 8])
    if at != len(data):
        raise ValueError("it ends early")
