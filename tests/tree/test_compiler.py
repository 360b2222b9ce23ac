"""The compiled tree: numbers, links, owners, look-ups."""

from __future__ import annotations

import hashlib
import stat
from io import BytesIO
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from castfs.digest import Digest
from castfs.manifest import Directory, File, Symlink, Tree, encode_xattrs, order_canonically
from castfs.paths import RelPath, escape
from castfs.tree import ROOT_INO, IndexEntry, Presentation, TreeIndex, compile_tree
from castfs.tree.compiler import write_index


def make_file(content: bytes = b"", **fields: Any) -> File:
    fields = {"mode": 0o644, "mtime_ns": 0, **fields}
    return File(sha256=hashlib.sha256(content).hexdigest(), size_bytes=len(content), **fields)


def make_tree(
    entries: dict[bytes, File | Symlink | Directory], root: Directory | None = None
) -> Tree:
    """A tree of `entries`; parents that are missing are made."""
    dirs: dict[bytes, Directory] = {}
    for path in entries:
        while path := path.rpartition(b"/")[0]:
            dirs.setdefault(path, Directory(mode=0o755, mtime_ns=0))
    dirs |= {path: entry for path, entry in entries.items() if isinstance(entry, Directory)}
    files = {path: entry for path, entry in entries.items() if isinstance(entry, File)}
    links = {path: entry for path, entry in entries.items() if isinstance(entry, Symlink)}
    return Tree(
        root=root or Directory(mode=0o755, mtime_ns=0),
        dirs=order_canonically(dirs),
        files=order_canonically(files),
        symlinks=order_canonically(links),
    )


def resolve(index: TreeIndex, path: bytes) -> int:
    ino = ROOT_INO
    for name in path.split(b"/") if path else ():
        ino = index.child(ino, name)
    return ino


def names_in(index: TreeIndex, directory: int) -> list[bytes]:
    dots: list[IndexEntry] = []
    names: list[IndexEntry] = []
    for entry in index.iter_entries(directory):
        (dots if entry.name in (b".", b"..") else names).append(entry)
    assert [(entry.name, entry.ino) for entry in dots] == [
        (b".", directory), (b"..", index.parent(directory)),
    ]  # fmt: skip
    return [entry.name for entry in names]


def test_attributes() -> None:
    tree = make_tree(
        {
            b"d/file": make_file(b"12345", mode=0o4751, mtime_ns=-5),
            b"d/link": Symlink(mtime_ns=7, target="a/ü"),
            b"d/e": Directory(mode=0o1700, mtime_ns=9),
        },
        Directory(mode=0o700, mtime_ns=3),
    )
    index = compile_tree(tree, Presentation(owner=10, group=20))
    root, d, e = (index.attributes(resolve(index, path)) for path in (b"", b"d", b"d/e"))
    file, link = (index.attributes(resolve(index, path)) for path in (b"d/file", b"d/link"))
    assert (root.ino, root.mode, root.nlink, root.mtime_ns) == (1, stat.S_IFDIR | 0o700, 3, 3)
    assert (d.mode, d.nlink, d.size, d.blocks) == (stat.S_IFDIR | 0o755, 3, 0, 0)
    assert (e.mode, e.nlink, e.mtime_ns) == (stat.S_IFDIR | 0o1700, 2, 9)
    assert (file.mode, file.nlink, file.size, file.blocks, file.mtime_ns) == (
        stat.S_IFREG | 0o4751, 1, 5, 1, -5,
    )  # fmt: skip
    assert (link.mode, link.nlink, link.size, link.mtime_ns) == (stat.S_IFLNK | 0o777, 1, 4, 7)
    assert index.target(link.ino) == "a/ü".encode()
    assert index.digest(file.ino) == hashlib.sha256(b"12345").hexdigest()
    assert {(item.uid, item.gid) for item in (root, d, e, file, link)} == {(10, 20)}
    assert index.total_blocks == 2


@pytest.mark.parametrize(
    ("presentation", "recorded", "unrecorded"),
    [
        (Presentation(), (5, 6), (0, 0)),
        (Presentation(owner=1, group=2), (5, 6), (1, 2)),
        (Presentation(owner=1, group=2, uid=8), (8, 6), (8, 2)),
        (Presentation(owner=1, group=2, gid=9), (5, 9), (1, 9)),
        (Presentation(uid=0, gid=0), (0, 0), (0, 0)),
    ],
)
def test_owners(
    presentation: Presentation, recorded: tuple[int, int], unrecorded: tuple[int, int]
) -> None:
    tree = make_tree({b"with": make_file(uid=5, gid=6), b"without": make_file()})
    index = compile_tree(tree, presentation)
    shown = [index.attributes(resolve(index, name)) for name in (b"with", b"without")]
    assert [(item.uid, item.gid) for item in shown] == [recorded, unrecorded]


def test_umask_spares_symlinks() -> None:
    tree = make_tree(
        {b"f": make_file(mode=0o6777), b"l": Symlink(mtime_ns=0, target="f")},
        Directory(mode=0o777, mtime_ns=0),
    )
    index = compile_tree(tree, Presentation(umask=0o027))
    modes = [
        stat.S_IMODE(index.attributes(resolve(index, path)).mode) for path in (b"", b"f", b"l")
    ]
    assert modes == [0o750, 0o6750, 0o777]


def test_hard_links_share_an_inode() -> None:
    file = make_file(b"x", hardlink="a/one")
    link = Symlink(mtime_ns=0, target="t", hardlink="b/l")
    tree = make_tree(
        {
            b"a/one": file,
            b"b/two": file,
            b"three": file,
            b"b/l": link,
            b"m": link,
            b"alone": make_file(b"x"),
        }
    )
    index = compile_tree(tree, Presentation())
    assert len({resolve(index, path) for path in (b"a/one", b"b/two", b"three")}) == 1
    assert resolve(index, b"b/l") == resolve(index, b"m")
    assert index.attributes(resolve(index, b"three")).nlink == 3
    assert index.attributes(resolve(index, b"m")).nlink == 2
    assert index.attributes(resolve(index, b"alone")).nlink == 1
    assert index.inode_count == 6  # the root, two directories, the groups, the file alone
    assert index.path(resolve(index, b"three")) in {b"a/one", b"b/two", b"three"}


def test_groups_of_files_and_of_symlinks_do_not_mix() -> None:
    """The leader of a group of files may have the path that a symlink's group cannot have, but the
    escaped text is all that the two have in common."""
    tree = make_tree(
        {
            b"f1": make_file(b"x", hardlink="f1"),
            b"f2": make_file(b"x", hardlink="f1"),
            b"l1": Symlink(mtime_ns=0, target="t", hardlink="f1"),
        }
    )
    index = compile_tree(tree, Presentation())
    assert resolve(index, b"f1") == resolve(index, b"f2") != resolve(index, b"l1")


def test_xattrs_are_kept() -> None:
    tree = make_tree({b"f": make_file(xattrs=encode_xattrs({b"user.\xff": b"\0v"}))})
    index = compile_tree(tree, Presentation())
    assert index.xattrs(resolve(index, b"f")) == {b"user.\xff": b"\0v"}
    assert index.xattrs(1) == {}


def test_an_empty_tree() -> None:
    index = compile_tree(make_tree({}), Presentation())
    assert (index.inode_count, index.dir_count, names_in(index, 1)) == (1, 1, [])
    assert (index.child(1, b"x"), index.parent(1), index.path(1)) == (0, 1, b"")


NAMES = st.binary(min_size=1, max_size=4).filter(
    lambda name: b"/" not in name and b"\0" not in name and name not in (b".", b"..")
)
PATHS = st.lists(NAMES, min_size=1, max_size=4).map(b"/".join)
KINDS = st.sampled_from(["file", "directory", "symlink"])


@st.composite
def trees(draw: st.DrawFn) -> Tree:
    entries: dict[bytes, File | Symlink | Directory] = {}
    leaves: set[bytes] = set()
    parents: set[bytes] = set()
    for path, kind in draw(st.dictionaries(PATHS, KINDS, max_size=25)).items():
        parts = path.split(b"/")
        above = {b"/".join(parts[:n]) for n in range(1, len(parts))}
        if above & leaves or (path in parents and kind != "directory"):
            continue
        parents |= above
        if kind == "directory":
            parents.add(path)
            entries[path] = Directory(mode=draw(st.integers(0, 0o7777)), mtime_ns=0)
            continue
        leaves.add(path)
        entries[path] = (
            make_file(draw(st.binary(max_size=3)))
            if kind == "file"
            else Symlink(mtime_ns=0, target=escape(draw(st.binary(min_size=1).map(_no_nul))))
        )
    return make_tree(entries)


def _no_nul(target: bytes) -> bytes:
    return target.replace(b"\0", b"x")


@given(trees())
def test_the_index_says_what_the_tree_says(tree: Tree) -> None:
    index = compile_tree(tree, Presentation())
    paths = [RelPath(b""), *tree.dirs, *tree.files, *tree.symlinks]
    inos = {path: resolve(index, path) for path in paths}
    assert sorted(inos.values()) == list(range(1, index.inode_count + 1))
    for path, ino in inos.items():
        assert index.path(ino) == path
        assert index.parent(ino) == inos[RelPath(path.rpartition(b"/")[0])]
        assert index.is_dir(ino) == (path == b"" or path in tree.dirs)
        if path in tree.files:
            assert index.digest(ino) == tree.files[path].sha256
        if path in tree.symlinks:
            assert index.target(ino) == tree.symlinks[path].raw_target
    for path in (RelPath(b""), *tree.dirs):
        names = names_in(index, inos[path])
        inner = {p.rpartition(b"/")[2] for p in paths if p and p.rpartition(b"/")[0] == path}
        assert names == sorted(inner)
        for absent in (b"\0", b"", b"\xff" * 6, *(name + b"\0" for name in names)):
            assert index.child(inos[path], absent) == 0
        subdirectories = sum(1 for p in tree.dirs if p.rpartition(b"/")[0] == path)
        assert index.attributes(inos[path]).nlink == 2 + subdirectories


def encode(tree: Tree) -> bytes:
    file = BytesIO()
    write_index(file, tree, Presentation(), Digest("0" * 64))
    return file.getvalue()


@given(trees())
def test_the_index_depends_on_the_tree_alone(tree: Tree) -> None:
    shuffled = Tree(
        root=tree.root,
        dirs=dict(reversed(list(tree.dirs.items()))),
        files=dict(reversed(list(tree.files.items()))),
        symlinks=dict(reversed(list(tree.symlinks.items()))),
    )
    assert encode(tree) == encode(shuffled)
