"""The compiled tree: parallel arrays by inode number, about 150 bytes an entry with its name.

Inode numbers are dense. The root is 1, directories follow in the order of their paths' bytes, then
files and symlinks in the order in which the directories list them; so an inode is a directory if
its number is at most `dir_count`, and the same tree gives the same numbers everywhere.
"""

from __future__ import annotations

from array import array
from bisect import bisect_left, bisect_right
from collections.abc import Mapping

import msgspec

from castfs.digest import RAW_SIZE, Digest
from castfs.tree.presentation import BLOCK_SIZE

#: FUSE_ROOT_ID of linux/fuse.h.
ROOT_INO = 1


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


class TreeIndex:
    """Immutable once compiled, and safe to read from any thread.

    Arrays by inode number have an unused element 0. Arguments are not checked: the caller passes
    inode numbers between 1 and `inode_count`, and a directory's where one is asked for.
    """

    __slots__ = (
        "digests", "dir_count", "entry_inos", "first_entry", "gids", "modes", "mtimes", "names",
        "nlinks", "sizes", "starts", "targets", "total_blocks", "uids", "xattrs",
    )  # fmt: skip

    def __init__(self) -> None:
        self.dir_count = 0
        #: Names of all directory entries: one run for each directory, sorted by their bytes.
        self.names: list[bytes] = []
        #: Inode of each of those entries.
        self.entry_inos = array("I")
        #: Where the run of a directory begins; that of the last one ends at starts[dir_count + 1].
        self.starts = array("I", [0])
        #: By inode: an entry that names it (the first, for hard links). Nothing names the root.
        self.first_entry = array("I", [0])
        self.modes = array("I", [0])
        self.nlinks = array("I", [0])
        self.uids = array("I", [0])
        self.gids = array("I", [0])
        self.sizes = array("q", [0])
        self.mtimes = array("q", [0])
        #: Raw SHA-256 of each inode after the directories, zeros for symlinks.
        self.digests = b""
        self.targets: dict[int, bytes] = {}
        self.xattrs: dict[int, Mapping[bytes, bytes]] = {}
        #: Sum of st_blocks over all inodes: what `du` counts.
        self.total_blocks = 0

    @property
    def inode_count(self) -> int:
        return len(self.modes) - 1

    def is_dir(self, ino: int) -> bool:
        return ino <= self.dir_count

    def attributes(self, ino: int) -> Attributes:
        return Attributes(
            ino,
            self.modes[ino],
            self.nlinks[ino],
            self.uids[ino],
            self.gids[ino],
            self.sizes[ino],
            self.mtimes[ino],
        )

    def child(self, directory: int, name: bytes) -> int:
        """Inode of an entry; 0 if the directory has none of that name."""
        end = self.starts[directory + 1]
        entry = bisect_left(self.names, name, self.starts[directory], end)
        return self.entry_inos[entry] if entry < end and self.names[entry] == name else 0

    def entries(self, directory: int) -> range:
        """Positions of a directory's entries in `names` and `entry_inos`."""
        return range(self.starts[directory], self.starts[directory + 1])

    def parent(self, ino: int) -> int:
        """The directory that holds `ino` (one of them, for hard links); the root's is itself."""
        if ino == ROOT_INO:
            return ROOT_INO
        return bisect_right(self.starts, self.first_entry[ino], 1) - 1

    def path(self, ino: int) -> bytes:
        """A path of `ino` relative to the root; b"" is the root."""
        parts = []
        while ino != ROOT_INO:
            parts.append(self.names[self.first_entry[ino]])
            ino = self.parent(ino)
        return b"/".join(reversed(parts))

    def digest(self, ino: int) -> Digest:
        """The blob of a regular file."""
        start = (ino - self.dir_count - 1) * RAW_SIZE
        return Digest(self.digests[start : start + RAW_SIZE].hex())
