"""The compiled tree: a file of ready FUSE replies, mapped into memory and never decoded.

Inode numbers are dense. The root is 1, directories follow in the order of their paths' bytes, then
files and symlinks in the order in which the directories list them; so an inode is a directory if
its number is at most `dir_count`, and the same tree gives the same numbers everywhere.

An entry is a name in a directory, `.` and `..` included. A directory's page holds the records of
its entries as READDIRPLUS sends them; all that is known of an inode stands in them.
"""

from __future__ import annotations

import mmap
import os
import stat
from bisect import bisect_left, bisect_right
from collections.abc import Iterator
from typing import Any, BinaryIO, NamedTuple

import msgspec
import xxhash

from castfs import fuse
from castfs.digest import RAW_SIZE, Digest
from castfs.tree import layout
from castfs.tree.presentation import BLOCK_SIZE

#: FUSE_ROOT_ID of linux/fuse.h.
ROOT_INO = 1

_ATTR_START = fuse.ENTRY_OUT.size
_ATTR_END = fuse.ENTRY_SIZE
_DIRENT_START = fuse.ENTRY_SIZE
_NAME_START = fuse.DIRENTPLUS.size
_ATTR_REPLY = fuse.ATTR_OUT.pack(fuse.FOREVER, 0, 0)
#: `.` and `..` come first in every directory.
_DOTS = 2
#: Entries that `first_file` looks at.
_LOOKED_AT = 64
#: How much is hashed at once when an index is checked.
_PIECE = 1 << 20


class BadIndexError(Exception):
    """The file is no index that can be used: damaged, of another version, or something else."""


class Attributes(msgspec.Struct, frozen=True, gc=False):
    """What stat(2) tells. `mode` has the type bits; `size` is in bytes; mtime is every time."""

    ino: int
    mode: int
    nlink: int
    uid: int
    gid: int
    size: int
    mtime_ns: int

    @property
    def blocks(self) -> int:
        """st_blocks: as if every byte of the content were allocated."""
        return -(-self.size // BLOCK_SIZE)


class IndexEntry(NamedTuple):
    """A record of a directory page. `next_offset` is where a listing goes on after it."""

    name: bytes
    ino: int
    next_offset: int


class TreeIndex:
    """Immutable, and safe to read from any thread.

    Arguments are not checked: the caller passes inode numbers between 1 and `inode_count`, and a
    directory's where one is asked for. IndexError, ValueError or struct.error come of an index that
    was damaged after it had been opened.
    """

    def __init__(self, buffer: bytes | mmap.mmap | memoryview) -> None:
        """BadIndexError unless `buffer` holds a whole index of this version."""
        whole = memoryview(buffer)
        header = _check(whole)
        self.manifest_id = Digest(header[4].hex())
        #: What it was made from and for, as `layout.HEADER` has it.
        self.presentation = header[5].rstrip(b"\0").decode()
        self.inode_count: int = header[6]
        self.dir_count: int = header[7]
        self.entry_count: int = header[8]
        #: Sum of st_blocks over all inodes: what `du` counts.
        self.total_blocks: int = header[9]
        self.owners = layout.Owners(header[10])
        views: dict[str, memoryview] = {}
        for number, name in enumerate(layout.SECTIONS):
            start, size = layout.SECTION.unpack_from(
                whole, layout.HEADER.size + number * layout.SECTION.size
            )
            views[name] = whole[start : start + size]
        #: The records, and where each entry's begins, in units of RECORD_ALIGN.
        self.pages = views["pages"]
        self.entry_offsets = views["entry_offsets"].cast("I")
        self.starts = views["starts"].cast("I")
        self.first_entry = views["first_entry"].cast("I")
        self._slots = views["slots"].cast("I")
        self._mask = len(self._slots) - 1
        self._cells = views["cells"]
        self._strings = views["strings"]
        #: (ino, start, size), one after another.
        self._xattr_cells = views["xattr_cells"].cast("Q")
        self._salt = hash_salt(self.manifest_id)

    @property
    def has_xattrs(self) -> bool:
        return len(self._xattr_cells) > 0

    def is_dir(self, ino: int) -> bool:
        return ino <= self.dir_count

    # Ready replies -----------------------------------------------------------------------------

    def entry_reply(self, entry: int) -> memoryview:
        """The fuse_entry_out of an entry: what LOOKUP answers."""
        start = self.entry_offsets[entry] * fuse.RECORD_ALIGN
        return self.pages[start : start + _ATTR_END]

    def inode_reply(self, ino: int) -> memoryview:
        """The same by inode number: what LOOKUP of `.` answers."""
        return self.entry_reply(self.first_entry[ino])

    def attr_reply(self, ino: int) -> bytes:
        """The fuse_attr_out of an inode: what GETATTR answers."""
        start = self.entry_offsets[self.first_entry[ino]] * fuse.RECORD_ALIGN
        return _ATTR_REPLY + self.pages[start + _ATTR_START : start + _ATTR_END]

    def page(self, directory: int, offset: int, size: int) -> memoryview:
        """The records of a directory from `offset` on, as many as fit into `size` bytes.

        Empty at the end. ValueError if not even one fits.
        """
        align, offsets = fuse.RECORD_ALIGN, self.entry_offsets
        first, end = self.starts[directory], self.starts[directory + 1]
        base = offsets[first]
        wanted = base + -(-offset // align)
        entry = bisect_left(offsets, wanted, first, end) if offset else first
        start = offsets[entry]
        after = bisect_right(offsets, start + size // align, entry, end + 1) - 1
        if after == entry and entry < end:
            raise ValueError("no record fits")
        return self.pages[start * align : offsets[after] * align]

    def is_end(self, directory: int, offset: int) -> bool:
        """Is there nothing after `offset` in what `page` gives?"""
        first, end = self.starts[directory], self.starts[directory + 1]
        return offset >= (self.entry_offsets[end] - self.entry_offsets[first]) * fuse.RECORD_ALIGN

    # Look-ups ----------------------------------------------------------------------------------

    def find_entry(self, directory: int, name: bytes) -> int:
        """The entry of a name, `.` and `..` aside; 0 if the directory has none of that name."""
        slots, mask = self._slots, self._mask
        first, end = self.starts[directory], self.starts[directory + 1]
        slot = start = xxhash.xxh3_64_intdigest(name, directory ^ self._salt) & mask
        while entry := slots[slot]:
            if first <= entry < end and self.name(entry) == name:
                return entry
            slot = (slot + 1) & mask
            if slot == start:
                raise ValueError("the hash table is damaged")
        return 0

    def child(self, directory: int, name: bytes) -> int:
        """Inode of an entry; 0 if the directory has none of that name."""
        entry = self.find_entry(directory, name)
        return self._entry_ino(entry) if entry else 0

    def name(self, entry: int) -> bytes:
        start = self.entry_offsets[entry] * fuse.RECORD_ALIGN
        _, _, length, _ = fuse.DIRENT.unpack_from(self.pages, start + _DIRENT_START)
        return bytes(self.pages[start + _NAME_START : start + _NAME_START + length])

    def _entry_ino(self, entry: int) -> int:
        start = self.entry_offsets[entry] * fuse.RECORD_ALIGN
        ino: int = fuse.DIRENT.unpack_from(self.pages, start + _DIRENT_START)[0]
        return ino

    def iter_entries(self, directory: int, offset: int = 0) -> Iterator[IndexEntry]:
        """The entries from byte `offset` of the directory's page on, `.` and `..` first."""
        align, offsets = fuse.RECORD_ALIGN, self.entry_offsets
        first, end = self.starts[directory], self.starts[directory + 1]
        wanted = offsets[first] + -(-max(offset, 0) // align)
        for entry in range(bisect_left(offsets, wanted, first, end), end):
            start = offsets[entry] * align
            ino, after, length, _ = fuse.DIRENT.unpack_from(self.pages, start + _DIRENT_START)
            name = bytes(self.pages[start + _NAME_START : start + _NAME_START + length])
            yield IndexEntry(name, ino, after)

    def attributes(self, ino: int) -> Attributes:
        start = self.entry_offsets[self.first_entry[ino]] * fuse.RECORD_ALIGN
        fields = fuse.ATTR.unpack_from(self.pages, start + _ATTR_START)
        number, size, _, _, mtime, _, _, mtime_nsec, _, mode, nlink, uid, gid, _, _, _ = fields
        if number != ino:
            raise ValueError(f"the record of inode {ino} is damaged")
        return Attributes(ino, mode, nlink, uid, gid, size, mtime * 10**9 + mtime_nsec)

    def first_file(self, directory: int) -> int:
        """The first inode, directories aside, that the directory names before any other; 0 if none
        stands near its start. Those that follow have the numbers that follow."""
        first, end = self.starts[directory] + _DOTS, self.starts[directory + 1]
        for entry in range(first, min(end, first + _LOOKED_AT)):
            ino = self._entry_ino(entry)
            if ino > self.dir_count and self.first_entry[ino] == entry:
                return ino
        return 0

    def last_file(self, directory: int) -> int:
        """The same of its last one."""
        end = self.starts[directory + 1]
        for entry in range(end - 1, max(self.starts[directory] + _DOTS, end - _LOOKED_AT) - 1, -1):
            ino = self._entry_ino(entry)
            if ino > self.dir_count and self.first_entry[ino] == entry:
                return ino
        return 0

    def iter_files(self) -> Iterator[tuple[bytes, Digest, int]]:
        """(path, digest, size) of every regular file, by inode number."""
        for ino in range(self.dir_count + 1, self.inode_count + 1):
            attributes = self.attributes(ino)
            if stat.S_ISREG(attributes.mode):
                yield self.path(ino), self.digest(ino), attributes.size

    def parent(self, ino: int) -> int:
        """The directory that holds `ino` (one of them, for hard links); the root's is itself."""
        if ino == ROOT_INO:
            return ROOT_INO
        return bisect_right(self.starts, self.first_entry[ino], 1) - 1

    def path(self, ino: int) -> bytes:
        """A path of `ino` relative to the root; b"" is the root."""
        parts = []
        while ino != ROOT_INO:
            parts.append(self.name(self.first_entry[ino]))
            above = self.parent(ino)
            if above >= ino:  # else there would be no end to it
                raise ValueError(f"the record of inode {ino} is damaged")
            ino = above
        return b"/".join(reversed(parts))

    def _cell(self, ino: int) -> memoryview:
        start = (ino - self.dir_count - 1) * RAW_SIZE
        return self._cells[start : start + RAW_SIZE]

    def digest(self, ino: int) -> Digest:
        """The blob of a regular file."""
        return Digest(self._cell(ino).hex())

    def target(self, ino: int) -> bytes:
        """What a symlink says."""
        start, size = layout.CELL.unpack(self._cell(ino))
        return bytes(self._strings[start : start + size])

    def xattrs(self, ino: int) -> dict[bytes, bytes]:
        """The extended attributes of an inode, in their recorded order."""
        cells = self._xattr_cells
        number = bisect_left(range(len(cells) // 3), ino, key=lambda each: cells[3 * each])
        result: dict[bytes, bytes] = {}
        if 3 * number == len(cells) or cells[3 * number] != ino:
            return result
        start, size = cells[3 * number + 1], cells[3 * number + 2]
        end = start + size
        while start < end:
            name_size, value_size = layout.XATTR.unpack_from(self._strings, start)
            start += layout.XATTR.size
            middle = start + name_size
            result[bytes(self._strings[start:middle])] = bytes(
                self._strings[middle : middle + value_size]
            )
            start = middle + value_size
        return result


def hash_salt(manifest_id: str) -> int:
    """What the seed of names' hashes is mixed with: whoever chooses names so that they collide
    changes the id by that."""
    return int(manifest_id[:16], 16)


def map_index(file: BinaryIO | int) -> TreeIndex:
    """The index in an open file, which may be closed then. BadIndexError, OSError."""
    fd = file if isinstance(file, int) else file.fileno()
    if os.fstat(fd).st_size < layout.HEADER_SIZE:
        raise BadIndexError("it is too short")
    return TreeIndex(mmap.mmap(fd, 0, prot=mmap.PROT_READ))


def checksum(pieces: Iterator[memoryview], header: bytes) -> bytes:
    """Of all that follows the header's page, and then of the header's fields."""
    state = xxhash.xxh3_128()
    for piece in pieces:
        state.update(piece)
    state.update(header)
    return state.digest()


def _check(whole: memoryview) -> tuple[Any, ...]:
    if len(whole) < layout.HEADER_SIZE:
        raise BadIndexError("it is too short")
    header = layout.HEADER.unpack_from(whole)
    if header[0] != layout.MAGIC:
        raise BadIndexError("it is no tree index")
    if header[1:3] != (layout.INDEX_VERSION, layout.LITTLE):
        raise BadIndexError("it is of another version or machine")
    if header[3] != len(whole):
        raise BadIndexError("its length is wrong")
    end = layout.CHECKSUM_OFFSET
    pieces = (
        whole[start : start + _PIECE] for start in range(layout.HEADER_SIZE, len(whole), _PIECE)
    )
    if checksum(pieces, bytes(whole[:end])) != whole[end : end + layout.CHECKSUM_SIZE]:
        raise BadIndexError("its checksum is wrong")
    return header
