"""Parts of a snapshot's tree as lists."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator

from castfs.manifest import Directory, Tree
from castfs.paths import RelPath, split
from castfs.tree import ListedEntry


def list_tree(tree: Tree, path: bytes, *, recursive: bool = False) -> list[ListedEntry] | None:
    """The entries of directory `path`, or with all below them, by the bytes of their paths. What is
    no directory, alone. None if there is nothing at `path`."""
    top = tree.get(path)
    if top is None:
        return None
    links = _count_links(tree)
    paths = _iter_below(tree, path, recursive) if isinstance(top, Directory) else [RelPath(path)]
    result = []
    for each in sorted(paths):
        entry = tree.get(each)
        assert entry is not None
        result.append(ListedEntry(each, entry, links.get(each, 1)))
    return result


def _iter_below(tree: Tree, start: bytes, recursive: bool) -> Iterator[RelPath]:
    prefix = start + b"/" if start else b""
    for kind in (tree.dirs, tree.files, tree.symlinks):
        for path in kind:
            if path.startswith(prefix) and (recursive or b"/" not in path[len(prefix) :]):
                yield path


def _count_links(tree: Tree) -> dict[bytes, int]:
    """Link counts that are not 1: of hard links in the tree, and of directories as ext4 counts."""
    groups: Counter[str] = Counter()
    for kind in (tree.files, tree.symlinks):
        groups.update(e.hardlink for e in kind.values() if e.hardlink is not None)
    links: dict[bytes, int] = {
        path: groups[entry.hardlink]
        for kind in (tree.files, tree.symlinks)
        for path, entry in kind.items()
        if entry.hardlink is not None
    }
    below = Counter(split(path)[0] for path in tree.dirs)
    return links | {path: 2 + below[path] for path in tree.dirs}
