"""Puts scanned entries together to a tree: what is recorded of each, and which are hard links."""

from __future__ import annotations

import os
import stat
from collections.abc import Mapping

import msgspec

from castfs.digest import Digest
from castfs.ingest.beneath import Identity, identity
from castfs.ingest.options import REPRODUCIBLE_MTIME_NS, ScanOptions
from castfs.ingest.reading import Status
from castfs.manifest import Directory, File, Symlink, Tree, encode_xattrs, order_canonically
from castfs.paths import escape

_EMPTY: Mapping[bytes, bytes] = {}


class TreeBuilder:
    """Collects entries by path. Belongs to one thread."""

    def __init__(self, options: ScanOptions) -> None:
        self._owner = options.owner and not options.reproducible
        self._xattrs = options.xattrs and not options.reproducible
        self._reproducible = options.reproducible
        self._root: Directory | None = None
        self.dirs: dict[bytes, Directory] = {}
        self.files: dict[bytes, File] = {}
        self.symlinks: dict[bytes, Symlink] = {}
        self._links: dict[Identity, list[bytes]] = {}

    @property
    def wants_xattrs(self) -> bool:
        return self._xattrs

    def linked_before(self, path: bytes, status: os.stat_result) -> bool:
        """Is this the second or a later name of an inode? Then it needs no reading."""
        members = self._links.setdefault(identity(status), [])
        members.append(path)
        return len(members) > 1

    def next_names(self) -> list[tuple[bytes, Identity]]:
        """Of each hard-linked inode that is in no entry yet, the next name to read it by. The name
        before, which failed, is forgotten."""
        found = []
        for inode, members in self._links.items():
            if members and not any(path in self.files or path in self.symlinks for path in members):
                del members[0]
                found += [(path, inode) for path in members[:1]]
        return found

    def add_dir(
        self, path: bytes, status: os.stat_result, xattrs: Mapping[bytes, bytes] = _EMPTY
    ) -> None:
        entry = Directory(
            mode=self._mode(status),
            mtime_ns=self._mtime(status),
            uid=status.st_uid if self._owner else None,
            gid=status.st_gid if self._owner else None,
            xattrs=encode_xattrs(xattrs),
        )
        if path:
            self.dirs[path] = entry
        else:
            self._root = entry

    def add_single_root(self, status: os.stat_result) -> None:
        """The root of a tree that was made of one file: the same for everybody who has the file."""
        self._root = Directory(mode=0o755, mtime_ns=self._mtime(status))

    def add_file(
        self,
        path: bytes,
        status: Status,
        digest: Digest,
        xattrs: Mapping[bytes, bytes] = _EMPTY,
    ) -> None:
        # Runs once for each file of a tree, so the usual case calls nothing.
        plain, owner = not self._reproducible, self._owner
        self.files[path] = File(
            mode=status.st_mode & 0o7777 if plain else self._mode(status),
            mtime_ns=status.st_mtime_ns if plain else REPRODUCIBLE_MTIME_NS,
            sha256=digest,
            size_bytes=status.st_size,
            uid=status.st_uid if owner else None,
            gid=status.st_gid if owner else None,
            xattrs=encode_xattrs(xattrs) if xattrs else None,
        )

    def add_symlink(
        self,
        path: bytes,
        status: os.stat_result,
        target: bytes,
        xattrs: Mapping[bytes, bytes] = _EMPTY,
    ) -> None:
        self.symlinks[path] = Symlink(
            mtime_ns=self._mtime(status),
            target=escape(target),
            uid=status.st_uid if self._owner else None,
            gid=status.st_gid if self._owner else None,
            xattrs=encode_xattrs(xattrs),
        )

    def _mode(self, status: Status) -> int:
        if not self._reproducible:
            return stat.S_IMODE(status.st_mode)
        return 0o755 if stat.S_ISDIR(status.st_mode) or status.st_mode & 0o100 else 0o644

    def _mtime(self, status: Status) -> int:
        return REPRODUCIBLE_MTIME_NS if self._reproducible else status.st_mtime_ns

    def build(self) -> Tree:
        """The tree. The builder is empty afterwards, so that a million entries exist only once."""
        assert self._root is not None
        self._join_links(self.files)
        self._join_links(self.symlinks)
        tree = Tree(
            root=self._root,
            dirs=order_canonically(self.dirs),
            files=order_canonically(self.files),
            symlinks=order_canonically(self.symlinks),
        )
        self.dirs, self.files, self.symlinks = {}, {}, {}
        return tree

    def _join_links(self, entries: dict[bytes, File] | dict[bytes, Symlink]) -> None:
        """Give every member of a group the entry of the one that was read.

        Clones of a repository have no hard links, so a reproducible tree has none either.
        """
        for members in self._links.values():
            taken = next((path for path in members if path in entries), None)
            if taken is None:
                continue
            entry = entries[taken]
            if len(members) > 1 and not self._reproducible:
                entry = msgspec.structs.replace(entry, hardlink=escape(min(members)))
            for path in members:
                entries[path] = entry  # type: ignore[assignment]  # one kind per call
