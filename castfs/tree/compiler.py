"""From a manifest's tree to its index: inode numbers, attributes and link counts are decided here.

Written for a million entries: plain loops over local names. Callers drop the tree afterwards.
"""

from __future__ import annotations

import stat
from collections.abc import Mapping
from operator import itemgetter

from castfs.manifest import Directory, Entry, File, Symlink, Tree
from castfs.paths import RelPath
from castfs.tree.index import ROOT_INO, TreeIndex
from castfs.tree.presentation import BLOCK_SIZE, Presentation

_ZERO_DIGEST = "0" * 64
_first = itemgetter(0)

#: An entry of a directory while it is compiled: its name, and a directory's number or what it is.
_Child = tuple[bytes, int | File | Symlink]


def compile_tree(tree: Tree, presentation: Presentation) -> TreeIndex:
    """The index of a checked tree. The same tree gives the same inode numbers."""
    return _Compiler(presentation).compile(tree)


class _Compiler:
    def __init__(self, presentation: Presentation) -> None:
        self.index = TreeIndex()
        self._presentation = presentation
        self._digests: list[str] = []
        #: (kind, leader) of a group of hard links → its inode.
        self._groups: dict[tuple[type, str], int] = {}

    def compile(self, tree: Tree) -> TreeIndex:
        index = self.index
        paths = sorted(tree.dirs)
        index.dir_count = len(paths) + 1
        self._add_inode(tree.root)
        for path in paths:
            self._add_inode(tree.dirs[path])
        for children in _group_by_directory(tree, paths):
            self._add_directory(children)
        index.starts.append(len(index.names))
        index.digests = bytes.fromhex("".join(self._digests))
        return index

    def _add_directory(self, children: list[_Child]) -> None:
        """The entries of the next directory, and the files and symlinks that they name first."""
        index = self.index
        directory = len(index.starts)
        index.starts.append(len(index.names))
        children.sort(key=_first)
        for name, node in children:
            if isinstance(node, int):
                ino = node
                index.first_entry[ino] = len(index.names)
                index.nlinks[directory] += 1
            else:
                ino = self._find_inode(node)
            index.names.append(name)
            index.entry_inos.append(ino)

    def _find_inode(self, node: File | Symlink) -> int:
        """The inode of a directory entry: a new one, or that of its group of hard links."""
        if node.hardlink is None:
            return self._add_inode(node)
        group = (type(node), node.hardlink)
        ino = self._groups.get(group)
        if ino is None:
            ino = self._groups[group] = self._add_inode(node)
        else:
            self.index.nlinks[ino] += 1
        return ino

    def _add_inode(self, node: Entry) -> int:
        """Decide all that stat(2) tells of an inode, except what further links add to nlink.

        A directory starts with 2 links, its name and its own `.`; the `..` of each subdirectory
        adds one. Directories have size 0: what a real one says depends on the filesystem.
        """
        index, presentation = self.index, self._presentation
        ino = len(index.modes)
        kind, size, nlink = stat.S_IFDIR, 0, 2
        permissions = 0o777
        if isinstance(node, File):
            kind, size, nlink = stat.S_IFREG, node.size_bytes, 1
            permissions = node.mode & ~presentation.umask
            self._digests.append(node.sha256)
        elif isinstance(node, Directory):
            permissions = node.mode & ~presentation.umask
        else:
            target = node.raw_target
            kind, size, nlink = stat.S_IFLNK, len(target), 1
            index.targets[ino] = target
            self._digests.append(_ZERO_DIGEST)
        index.modes.append(kind | permissions)
        index.nlinks.append(nlink)
        index.uids.append(presentation.uid_of(node.uid))
        index.gids.append(presentation.gid_of(node.gid))
        index.sizes.append(size)
        index.mtimes.append(node.mtime_ns)
        index.first_entry.append(len(index.names))
        index.total_blocks += -(-size // BLOCK_SIZE)
        if node.xattrs is not None:
            index.xattrs[ino] = dict(node.iter_xattrs())
        return ino


def _group_by_directory(tree: Tree, dir_paths: list[RelPath]) -> list[list[_Child]]:
    """The entries of each directory, in the order of the directories' inode numbers."""
    children: list[list[_Child]] = [[] for _ in range(len(dir_paths) + 1)]
    by_path: dict[bytes, list[_Child]] = {b"": children[0]}
    for number, path in enumerate(dir_paths, ROOT_INO):
        by_path[path] = children[number]
    for ino, path in enumerate(dir_paths, ROOT_INO + 1):
        parent, _, name = path.rpartition(b"/")
        by_path[parent].append((name, ino))
    kinds: tuple[Mapping[RelPath, File] | Mapping[RelPath, Symlink], ...]
    kinds = (tree.files, tree.symlinks)
    for mapping in kinds:
        for path, node in mapping.items():
            parent, _, name = path.rpartition(b"/")
            by_path[parent].append((name, node))
    return children
