"""Look-ups, attributes, directory pages, link targets, extended attributes, totals.

Errors are OSErrors with the errno that a local filesystem would give. Nothing here blocks or does
I/O, and everything may be called from any thread.
"""

from __future__ import annotations

import errno
import os
import stat
from collections.abc import Iterator
from dataclasses import dataclass
from typing import NamedTuple

from castfs.paths import NAME_MAX
from castfs.tree import Attributes, TreeIndex
from castfs.tree.presentation import BLOCK_SIZE


class DirectoryEntry(NamedTuple):
    """`next_offset` is where a listing goes on after this entry; it never changes its meaning."""

    name: bytes
    attributes: Attributes
    next_offset: int


@dataclass(frozen=True, slots=True, kw_only=True)
class Totals:
    """What statvfs(3) tells: `blocks` of `block_size` bytes hold all contents, each inode once."""

    block_size: int
    blocks: int
    inodes: int
    name_max: int


def _error(code: int) -> OSError:
    return OSError(code, os.strerror(code))


class SnapshotView:
    """The metadata of one snapshot. Immutable."""

    def __init__(self, index: TreeIndex) -> None:
        self.index = index

    @property
    def has_xattrs(self) -> bool:
        return self.index.has_xattrs

    @property
    def totals(self) -> Totals:
        return Totals(
            block_size=BLOCK_SIZE,
            blocks=self.index.total_blocks,
            inodes=self.index.inode_count,
            name_max=NAME_MAX,
        )

    def _check(self, ino: int) -> None:
        if not 0 < ino <= self.index.inode_count:
            raise _error(errno.ESTALE)

    def _check_directory(self, ino: int) -> None:
        self._check(ino)
        if not self.index.is_dir(ino):
            raise _error(errno.ENOTDIR)

    def lookup(self, directory: int, name: bytes) -> Attributes | None:
        """The entry `name` of a directory, `.` and `..` included; None if there is none.

        `.` is every inode's own name: the kernel asks so for what a file handle stands for.
        ENOTDIR, ESTALE (no such inode).
        """
        self._check(directory)
        if name == b".":
            return self.index.attributes(directory)
        self._check_directory(directory)
        ino = self.index.child(directory, name)
        if ino == 0:
            if name != b"..":
                return None
            ino = self.index.parent(directory)
        return self.index.attributes(ino)

    def attributes(self, ino: int) -> Attributes:
        """ESTALE if there is no such inode."""
        self._check(ino)
        return self.index.attributes(ino)

    def check_directory(self, ino: int) -> None:
        """ENOTDIR or ESTALE unless `ino` can be listed."""
        self._check_directory(ino)

    def iter_directory(self, directory: int, offset: int) -> Iterator[DirectoryEntry]:
        """The entries from `offset` on: `.`, `..`, then names sorted by their bytes.

        Offset 0 is the start, every other one a `next_offset`. Any may be asked again at any time,
        and costs what is taken from the iterator, however large the directory is.
        """
        attributes = self.index.attributes
        for name, ino, next_offset in self.index.iter_entries(directory, offset):
            yield DirectoryEntry(name, attributes(ino), next_offset)

    def readlink(self, ino: int) -> bytes:
        """The target as it was recorded. EINVAL if `ino` is no symlink."""
        self._check(ino)
        if not stat.S_ISLNK(self.index.attributes(ino).mode):
            raise _error(errno.EINVAL)
        return self.index.target(ino)

    def check_file(self, ino: int) -> None:
        """EISDIR, ELOOP (a symlink) or ESTALE unless `ino` has contents to read."""
        self._check(ino)
        mode = self.index.attributes(ino).mode
        if stat.S_ISDIR(mode):
            raise _error(errno.EISDIR)
        if stat.S_ISLNK(mode):
            raise _error(errno.ELOOP)

    def xattr(self, ino: int, name: bytes) -> bytes:
        """ENODATA if the inode has no such attribute."""
        self._check(ino)
        value = self.index.xattrs(ino).get(name)
        if value is None:
            raise _error(errno.ENODATA)
        return value

    def xattr_names(self, ino: int) -> tuple[bytes, ...]:
        self._check(ino)
        return tuple(self.index.xattrs(ino))
