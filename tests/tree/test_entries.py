"""Entries read back from an index are those of the manifest, or are said to be unknown."""

from __future__ import annotations

import os
import shutil
from collections.abc import Callable
from pathlib import Path

import pytest
from hypothesis import given

import castfs
from castfs.digest import Digest
from castfs.errors import NotFoundError
from castfs.manifest import Directory, Entry, Tree
from castfs.paths import RelPath
from castfs.repository.listing import list_tree
from castfs.repository.snapshot import Snapshot
from castfs.store import open_depot
from castfs.tree import (
    IndexedEntries,
    ManifestFile,
    NotIndexedError,
    Presentation,
    compile_tree,
    index_directories,
    open_index,
)
from tests.manifest.strategies import trees
from tests.mount.snapshots import Snapshot as Taken
from tests.mount.snapshots import take_snapshot
from tests.tree.test_compiler import make_file, make_tree

PRESENTATION = Presentation(owner=7, group=8)


def entries_of(tree: Tree) -> IndexedEntries | None:
    try:
        return IndexedEntries(compile_tree(tree, PRESENTATION))
    except NotIndexedError:
        owners = {
            (entry.uid is None, entry.gid is None)
            for entry in (tree.root, *(entry for _, entry in tree.iter_entries()))
        }
        assert owners not in ({(True, True)}, {(False, False)})
        return None


def has_links(entry: Entry) -> bool:
    return getattr(entry, "hardlink", None) is not None


def link_count(tree: Tree, path: bytes) -> int:
    directory = list_tree(tree, path.rpartition(b"/")[0])
    assert directory is not None
    [listed] = [e for e in directory if e.path == path]
    return listed.nlink


@given(trees())
def test_each_entry_is_the_manifests(tree: Tree) -> None:
    entries = entries_of(tree)
    if entries is None:
        return
    for path, entry in (*tree.iter_entries(), (RelPath(b""), tree.root)):
        if has_links(entry) and link_count(tree, path) > 1:
            with pytest.raises(NotIndexedError):
                entries.get(path)
        else:
            got = entries.get(path)
            assert got == entry or has_links(entry)
        assert entries.get(path + b"/\0" if path else b"\0") is None
        for absent in (b".", b".."):
            assert entries.get(path + b"/" + absent if path else absent) is None


@given(trees())
def test_each_directory_is_the_manifests(tree: Tree) -> None:
    entries = entries_of(tree)
    if entries is None:
        return
    for path in (b"", *tree.dirs, *tree.files, *tree.symlinks):
        wanted = list_tree(tree, path)
        got = entries.list(path)
        assert wanted is not None
        assert got is not None
        assert [(e.path, e.nlink, type(e.entry)) for e in got] == [
            (e.path, e.nlink, type(e.entry)) for e in wanted
        ]
        for ours, theirs in zip(got, wanted, strict=True):
            assert ours.entry == theirs.entry or has_links(theirs.entry)
    assert entries.list(b"\0") is None


@given(trees())
def test_a_subtree_is_a_part_of_the_manifest(tree: Tree) -> None:
    entries = entries_of(tree)
    if entries is None or any(has_links(entry) for _, entry in tree.iter_entries()):
        return
    assert entries.subtree([b""]) == tree
    assert entries.subtree([b"\0"]) == Tree(tree.root, {}, {}, {})
    for wanted in (*tree.dirs, *tree.files, *tree.symlinks):
        part = entries.subtree([wanted])
        paths = [
            path
            for path, _ in tree.iter_entries()
            if path == wanted or path.startswith(wanted + b"/") or wanted.startswith(path + b"/")
        ]
        assert list(part.iter_entries()) == [(path, tree.get(path)) for path in paths]


@pytest.mark.parametrize(("uid", "gid"), [(5, None), (None, 5)])
def test_owners_that_are_recorded_in_part(uid: int | None, gid: int | None) -> None:
    """An owner of 7 may be recorded, or be the presentation's."""
    tree = make_tree({b"f": make_file(b"1", uid=uid, gid=gid)})
    with pytest.raises(NotIndexedError):
        IndexedEntries(compile_tree(tree, PRESENTATION))


def test_owners() -> None:
    root = Directory(mode=0o755, mtime_ns=0, uid=1, gid=2)
    recorded = make_tree({b"f": make_file(b"1", uid=7, gid=8)}, root)
    got = IndexedEntries(compile_tree(recorded, PRESENTATION)).get(b"f")
    assert got == recorded.get(b"f")
    unrecorded = make_tree({b"f": make_file(b"1")})
    got = IndexedEntries(compile_tree(unrecorded, PRESENTATION)).get(b"f")
    assert (got and got.uid, got and got.gid) == (None, None)


# Snapshots -------------------------------------------------------------------------------------


def never_read() -> castfs.Manifest:
    raise AssertionError("the manifest was read")


@pytest.fixture
def taken(tmp_path: Path) -> Taken:
    source = tmp_path / "source"
    (source / "d" / "e").mkdir(parents=True)
    (source / "d" / "e" / "f").write_text("content")
    (source / "d" / "l").symlink_to("e/f")
    (source / "other").mkdir()
    (source / "empty").mkdir()
    (source / "other" / "one").write_text("1")
    (source / "other" / "two").hardlink_to(source / "other" / "one")
    return take_snapshot(source, tmp_path / "store")


def snapshot_of(taken: Taken, *, indexed: bool = True) -> Snapshot:
    """One whose manifest nobody may read."""
    depot = open_depot(taken.depot.path)
    manifest_id = Digest(taken.manifest.id)
    if indexed:
        presentation = Presentation(owner=os.getuid(), group=os.getgid())
        file = ManifestFile(path=depot.manifest_path(manifest_id), manifest_id=manifest_id)
        open_index(
            index_directories(depot),
            manifest_id,
            presentation,
            lambda out: file.write_index(out, presentation),
        )
    return Snapshot(manifest_id, never_read, depot.blobs, depot, None)


def test_with_an_index_no_manifest_is_read(taken: Taken, tmp_path: Path) -> None:
    snapshot = snapshot_of(taken)
    with snapshot.open("d/e/f") as file:
        assert file.read() == b"content"
    with pytest.raises(NotFoundError):
        snapshot.get("nothing")
    with pytest.raises(NotFoundError):
        snapshot.list("other/nothing", hardlinks=False)
    assert snapshot.list("empty", hardlinks=False) == []
    listed = snapshot.list("other", hardlinks=False)
    assert [(e.path, e.nlink) for e in listed] == [(b"other/one", 2), (b"other/two", 2)]
    result = snapshot.restore(tmp_path / "again", ["d/e", "d/l"])
    assert (result.file_count, result.symlink_count) == (1, 1)
    assert sorted(p.name for p in (tmp_path / "again").rglob("*")) == ["d", "e", "f", "l"]
    assert (tmp_path / "again" / "d" / "l").read_text() == "content"


def test_what_the_index_does_not_know(taken: Taken, tmp_path: Path) -> None:
    """The manifest is read then, once."""
    questions: tuple[Callable[[Snapshot], object], ...] = (
        lambda s: s.get("other/one"),
        lambda s: s.list("other"),
        lambda s: s.list("", recursive=True, hardlinks=False),
        lambda s: s.restore(tmp_path / "again", ["other"]),
    )
    for question in questions:
        with pytest.raises(AssertionError, match="manifest was read"):
            question(snapshot_of(taken))


def test_an_index_of_others(taken: Taken) -> None:
    """One that this user's mounts would not use is none."""
    snapshot_of(taken)
    [path] = (taken.depot.path / "cache" / "indexes").iterdir()
    os.chmod(path, 0o622)
    with pytest.raises(AssertionError, match="manifest was read"):
        snapshot_of(taken, indexed=False).get("d/e/f")
    os.chmod(path, 0o400)
    assert snapshot_of(taken, indexed=False).get("d/e/f").mtime_ns
    shutil.rmtree(path.parent)
    with pytest.raises(AssertionError, match="manifest was read"):
        snapshot_of(taken, indexed=False).get("d/e/f")
