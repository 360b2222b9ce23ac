"""Entries of a manifest as its index has them, for those who want a few of a million."""

from __future__ import annotations

import stat
from collections.abc import Iterable, Iterator
from typing import Any, NamedTuple

from castfs.manifest import Directory, Entry, File, Symlink, Tree, encode_xattrs, order_canonically
from castfs.paths import RelPath, escape
from castfs.tree.index import ROOT_INO, TreeIndex
from castfs.tree.layout import Owners

_DOTS = (b".", b"..")
_SLASH = ord("/")


class NotIndexedError(Exception):
    """Only the manifest says it: which names a hard link has, which of the owners are recorded."""


class ListedEntry(NamedTuple):
    """An entry of a directory. Hard links are not named in it, only counted."""

    path: RelPath
    entry: Entry
    nlink: int


class IndexedEntries:
    """What an index holds that was made without `uid=`, `gid=` and `umask=`. NotIndexedError
    wherever it does not say what the manifest does."""

    def __init__(self, index: TreeIndex) -> None:
        if index.owners == Owners.SOME:
            raise NotIndexedError
        self._index = index

    def get(self, path: bytes) -> Entry | None:
        """The entry at `path`; b"" is the root."""
        ino = self._find(path)
        return self._whole_entry(ino) if ino else None

    def list(self, path: bytes) -> list[ListedEntry] | None:
        """The entries of a directory, ordered by their names' bytes; what is no directory, alone.
        None if there is nothing at `path`."""
        ino = self._find(path)
        if not ino:
            return None
        if not self._index.is_dir(ino):
            return [self._listed(path, ino)]
        return [self._listed(below, child) for below, child in self._children(path, ino)]

    def subtree(self, paths: Iterable[bytes]) -> Tree:
        """`paths` with all below them and the directories that lead there; what does not exist is
        left out."""
        root = self._whole_entry(ROOT_INO)
        assert isinstance(root, Directory)
        dirs: dict[bytes, Directory] = {}
        files: dict[bytes, File] = {}
        symlinks: dict[bytes, Symlink] = {}
        for path, ino in self._iter_found(paths):
            match self._whole_entry(ino):
                case File() as file:
                    files[path] = file
                case Symlink() as link:
                    symlinks[path] = link
                case Directory() as directory if path:
                    dirs[path] = directory
        return Tree(
            root, order_canonically(dirs), order_canonically(files), order_canonically(symlinks)
        )

    def _iter_found(self, paths: Iterable[bytes]) -> Iterator[tuple[RelPath, int]]:
        for path in paths:
            ino = self._find(path)
            if not ino:
                continue
            for end in (at for at, byte in enumerate(path) if byte == _SLASH):
                yield RelPath(path[:end]), self._find(path[:end])
            pending = [(RelPath(path), ino)]
            while pending:
                place, ino = pending.pop()
                yield place, ino
                if self._index.is_dir(ino):
                    pending.extend(self._children(place, ino))

    def _find(self, path: bytes) -> int:
        """0 if there is none."""
        ino = ROOT_INO
        for name in path.split(b"/") if path else ():
            if name in _DOTS or not self._index.is_dir(ino):
                return 0
            ino = self._index.child(ino, name)
            if not ino:
                return 0
        return ino

    def _children(self, path: bytes, directory: int) -> Iterator[tuple[RelPath, int]]:
        prefix = path + b"/" if path else b""
        for name, ino, _ in self._index.iter_entries(directory):
            if name not in _DOTS:
                yield RelPath(prefix + name), ino

    def _whole_entry(self, ino: int) -> Entry:
        if self._index.attributes(ino).nlink > 1 and not self._index.is_dir(ino):
            raise NotIndexedError
        return self._entry(ino)

    def _listed(self, path: bytes, ino: int) -> ListedEntry:
        return ListedEntry(RelPath(path), self._entry(ino), self._index.attributes(ino).nlink)

    def _entry(self, ino: int) -> Entry:
        index = self._index
        at = index.attributes(ino)
        recorded = index.owners == Owners.ALL
        rest: dict[str, Any] = {
            "uid": at.uid if recorded else None,
            "gid": at.gid if recorded else None,
            "mtime_ns": at.mtime_ns,
            "xattrs": encode_xattrs(index.xattrs(ino)),
        }
        mode = stat.S_IMODE(at.mode)
        if index.is_dir(ino):
            return Directory(mode=mode, **rest)
        if stat.S_ISLNK(at.mode):
            return Symlink(target=escape(index.target(ino)), **rest)
        return File(mode=mode, sha256=index.digest(ino), size_bytes=at.size, **rest)
