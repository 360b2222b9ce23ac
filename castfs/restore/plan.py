"""Which entries are restored, in the order in which a walk meets them."""

from __future__ import annotations

from bisect import bisect_left
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass

from castfs.digest import Digest
from castfs.errors import NotFoundError
from castfs.manifest import File, Symlink, Tree
from castfs.paths import RelPath, display, normalize


def walk_order(path: bytes) -> bytes:
    """Sorts a directory directly before what is below it; plain bytes put `a-b` before `a/b`."""
    return path.replace(b"/", b"\0")


@dataclass(frozen=True, slots=True)
class Plan:
    """`dirs` has every directory to make, parents first. `leaves` has the files and symlinks of
    each directory (b"" is the root). `passed` are directories that only lead to what was asked for.
    """

    tree: Tree
    dirs: Sequence[RelPath]
    leaves: Mapping[bytes, Sequence[RelPath]]
    passed: frozenset[bytes]

    def leaf(self, path: RelPath) -> File | Symlink:
        return self.tree.files.get(path) or self.tree.symlinks[path]

    def size_of(self, path: RelPath) -> int:
        """Bytes to write for a leaf."""
        file = self.tree.files.get(path)
        return file.size_bytes if file else 0

    def iter_leaves(self) -> Iterator[RelPath]:
        for directory in (RelPath(b""), *self.dirs):
            yield from self.leaves.get(directory, ())

    def iter_blobs(self, *, without: frozenset[bytes]) -> Iterator[tuple[bytes, Digest, int]]:
        """(path, digest, size) of every file but those in `without`."""
        files = self.tree.files
        for path in self.iter_leaves():
            if path in files and path not in without:
                yield path, files[path].digest, files[path].size_bytes


def make_plan(tree: Tree, paths: Sequence[bytes]) -> Plan:
    """`paths` and all below them; the whole tree if there are none. NotFoundError."""
    wanted = {normalize(path) for path in paths}
    if not wanted or b"" in wanted:
        dirs: Iterable[RelPath] = tree.dirs
        leaves: Iterable[RelPath] = (*tree.files, *tree.symlinks)
        return Plan(tree, sorted(dirs, key=walk_order), _by_parent(leaves), frozenset())
    for path in sorted(wanted):
        if tree.get(path) is None:
            raise NotFoundError(
                f"{display(path)} is not in the snapshot", hint="`castfs ls` shows what is"
            )
    passed = frozenset(parent for path in wanted for parent in _parents(path)) - wanted
    chosen = _with_all_below(tree, wanted)
    passed -= chosen
    dirs = [path for path in tree.dirs if path in chosen or path in passed]
    leaves = [path for path in (*tree.files, *tree.symlinks) if path in chosen]
    return Plan(tree, sorted(dirs, key=walk_order), _by_parent(leaves), passed)


def _parents(path: bytes) -> Iterator[bytes]:
    while path:
        path = path.rpartition(b"/")[0]
        yield path


def _with_all_below(tree: Tree, wanted: set[bytes]) -> frozenset[bytes]:
    every = sorted((*tree.dirs, *tree.files, *tree.symlinks))
    chosen = set(wanted)
    for path in wanted:
        if RelPath(path) in tree.dirs:
            # b"0" is the byte after b"/".
            chosen.update(every[bisect_left(every, path + b"/") : bisect_left(every, path + b"0")])
    return frozenset(chosen)


def _by_parent(leaves: Iterable[RelPath]) -> dict[bytes, list[RelPath]]:
    result: dict[bytes, list[RelPath]] = {}
    for path in sorted(leaves):
        result.setdefault(path.rpartition(b"/")[0], []).append(path)
    return result
