"""What differs between two trees, with rsync and diff as witnesses."""

from __future__ import annotations

import os
import shutil
import subprocess
from collections.abc import Iterable
from pathlib import Path

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from castfs.diff import Change, compare_trees, diff_trees
from castfs.manifest import Directory, Entry, File, Symlink, Tree, encode_xattrs
from castfs.paths import escape
from tests.restore.building import directory, file, make_tree, store_directory, symlink
from tests.restore.oracles import changes_by_rsync
from tests.restore.sources import make_source

replace = msgspec.structs.replace


def shown(changes: Iterable[Change]) -> list[tuple[bytes, str, tuple[str, ...]]]:
    return [(change.path, change.kind, change.what) for change in changes]


def differences(before: dict[bytes, Entry], after: dict[bytes, Entry]) -> object:
    return shown(diff_trees(make_tree(before), make_tree(after)))


@pytest.mark.needs_root
def test_a_tree_does_not_differ_from_itself(tmp_path: Path) -> None:
    tree = store_directory(make_source(tmp_path / "source"), tmp_path / "store").tree
    result = compare_trees(tree, tree)
    assert result.changes == ()
    assert (result.added_count, result.removed_count, result.changed_count) == (0, 0, 0)
    assert (result.added_bytes, result.removed_bytes) == (0, 0)


@pytest.mark.needs_root
def test_every_kind_of_change(tmp_path: Path) -> None:
    """Made on disk, so that rsync's word can be compared: it must name the same paths."""
    before = make_source(tmp_path / "before")
    # Read-only directories are in the way of making changes, for nobody but root.
    after = tmp_path / "after"
    subprocess.run(["cp", "-a", str(before), str(after)], check=True, timeout=60)
    stamps = {path: path.lstat().st_mtime_ns for path in (after, *after.rglob("*"))}
    (after / "new").write_text("added\n")
    (after / "new dir").mkdir()
    (after / "new dir" / "l").symlink_to("x")
    (after / "-rf").unlink()
    shutil.rmtree(after / ("l" * 120))
    (after / "large").chmod(0o644)
    (after / "large").write_bytes(b"other content")
    (after / "run.sh").chmod(0o755)
    os.utime(after / "zeros", ns=(0, 5))
    (after / "up").unlink()
    (after / "up").symlink_to("..")
    (after / "absolute").unlink()
    (after / "absolute").write_text("a file now")
    os.utime(after / "empty", ns=(0, 7))
    for path in (after, after / "sub"):
        os.utime(path, ns=(0, stamps[path]))
    os.utime(after / "up", ns=(0, stamps[after / "up"]), follow_symlinks=False)
    os.utime(after / "large", ns=(0, stamps[after / "large"]))

    old = store_directory(before, tmp_path / "store1").tree
    new = store_directory(after, tmp_path / "store2").tree
    result = compare_trees(old, new)
    deep = b"l" * 120
    assert shown(result.changes) == [
        (b"-rf", "removed", ()),
        (b"absolute", "changed", ("type",)),
        (b"empty", "changed", ("mtime",)),
        (b"large", "changed", ("content", "mode")),
        (deep, "removed", ()),
        (deep + b"/" + b"m" * 120, "removed", ()),
        (deep + b"/" + b"m" * 120 + b"/deep", "removed", ()),
        (b"new", "added", ()),
        (b"new dir", "added", ()),
        (b"new dir/l", "added", ()),
        (b"run.sh", "changed", ("mode",)),
        (b"up", "changed", ("target",)),
        (b"zeros", "changed", ("mtime",)),
    ]
    assert (result.added_count, result.removed_count, result.changed_count) == (3, 4, 6)
    assert result.added_bytes == len("added\n") + len("other content") + len("a file now")
    assert result.removed_bytes == 12 + 3_000_000 + len("beyond a ustar header")
    assert paths_by_rsync(after, before) == {change.path for change in result.changes}


def paths_by_rsync(source: Path, copy: Path) -> set[bytes]:
    """The paths that rsync would touch to make `copy` equal."""
    lines = changes_by_rsync(source, copy, "--out-format=%i|%n|%L").splitlines()
    paths = set()
    for line in lines:
        kind, name, *_ = line.split(b"|")
        paths.add(name.removesuffix(b"/"))
        assert kind.startswith((b"*deleting", b">", b"c", b"."))
    return paths


def test_the_root_has_the_empty_path() -> None:
    before = make_tree({}, root=directory(0o700, 1))
    after = make_tree({}, root=directory(0o755, 2))
    (change,) = diff_trees(before, after)
    assert (change.path, change.kind, change.what) == (b"", "changed", ("mode", "mtime"))
    assert (change.before, change.after) == (before.root, after.root)


def test_ordered_by_the_bytes_of_the_paths() -> None:
    names = [b"a/x", b"a-b", b"a", b"B", b"\xff", b"a\n", "é".encode()]
    after = {name: directory() if name == b"a" else file(b"x") for name in names}
    root = directory(0o700)
    changes = list(diff_trees(make_tree({}), make_tree(after, root=root)))
    assert [change.path for change in changes] == [b"", *sorted(names)]


def test_mtimes_can_be_ignored() -> None:
    before = make_tree({b"a": file(b"x", mtime_ns=1), b"b": symlink(b"t", 1)}, root=directory())
    after = make_tree(
        {b"a": file(b"x", mtime_ns=2), b"b": symlink(b"t", 2)}, root=directory(mtime_ns=3)
    )
    assert len(list(diff_trees(before, after))) == 3
    assert list(diff_trees(before, after, ignore_mtime=True)) == []


@pytest.mark.parametrize(
    ("before", "after", "differ"),
    [
        ({}, {"uid": 1, "gid": 1}, False),
        ({"uid": 1, "gid": 1}, {}, False),
        ({"uid": 1, "gid": 1}, {"uid": 1, "gid": 1}, False),
        ({"uid": 1, "gid": 1}, {"uid": 2, "gid": 1}, True),
        ({"uid": 1, "gid": 1}, {"uid": 1, "gid": 2}, True),
        ({"uid": 0, "gid": 0}, {"uid": 1, "gid": 0}, True),
    ],
)
def test_owners_where_both_recorded_them(
    before: dict[str, int], after: dict[str, int], differ: bool
) -> None:
    changes = differences(
        {b"a": replace(file(b"x"), **before)}, {b"a": replace(file(b"x"), **after)}
    )
    assert changes == ([(b"a", "changed", ("owner",))] if differ else [])


def test_extended_attributes_where_both_trees_recorded_them() -> None:
    plain = file(b"x")
    with_one = replace(plain, xattrs=encode_xattrs({b"user.a": b"1"}))
    with_other = replace(plain, xattrs=encode_xattrs({b"user.a": b"2"}))
    assert differences({b"a": plain}, {b"a": with_one}) == []
    assert differences({b"a": with_one}, {b"a": plain}) == []
    assert differences({b"a": with_one}, {b"a": with_other}) == [(b"a", "changed", ("xattrs",))]
    # Another file shows that both trees looked at attributes.
    assert differences({b"a": plain, b"b": with_one}, {b"a": with_one, b"b": with_one}) == [
        (b"a", "changed", ("xattrs",))
    ]


def linked(data: bytes, *paths: bytes) -> dict[bytes, Entry]:
    entry = replace(file(data), hardlink=escape(min(paths)))
    return dict.fromkeys(paths, entry)


def alone(data: bytes, *paths: bytes) -> dict[bytes, Entry]:
    return dict.fromkeys(paths, file(data))


@pytest.mark.parametrize(
    ("before", "after", "changes"),
    [
        (linked(b"1", b"a", b"b"), linked(b"1", b"a", b"b"), []),
        (linked(b"1", b"a", b"b"), alone(b"1", b"a", b"b"), [b"a", b"b"]),
        (alone(b"1", b"a", b"b"), linked(b"1", b"a", b"b"), [b"a", b"b"]),
        # The group loses the path that named it: the rest are linked as before.
        (linked(b"1", b"a", b"b", b"c"), linked(b"1", b"b", b"c"), []),
        (linked(b"1", b"b", b"c"), linked(b"1", b"a", b"b", b"c"), []),
        (linked(b"1", b"a", b"b"), alone(b"1", b"b"), []),
        (
            {**linked(b"1", b"a", b"b"), **linked(b"1", b"c", b"d")},
            {**linked(b"1", b"a", b"c"), **linked(b"1", b"b", b"d")},
            [b"b", b"c", b"d"],
        ),
        (
            {**linked(b"1", b"a", b"b"), **alone(b"1", b"c")},
            linked(b"1", b"a", b"b", b"c"),
            [b"c"],
        ),
    ],
)
def test_hard_links_are_compared_by_who_is_tied_to_whom(
    before: dict[bytes, Entry], after: dict[bytes, Entry], changes: list[bytes]
) -> None:
    found = list(diff_trees(make_tree(before), make_tree(after)))
    changed = [change for change in found if change.kind == "changed"]
    assert [change.path for change in changed] == changes
    assert all(change.what == ("hardlink",) for change in changed)


@pytest.mark.parametrize("kind", [directory(), file(b"data"), symlink(b"t")])
@pytest.mark.parametrize("other", [directory(), file(b"data"), symlink(b"t")])
def test_a_type_change_stands_alone(kind: Entry, other: Entry) -> None:
    before, after = make_tree({b"a": kind}), make_tree({b"a": replace(other, mtime_ns=1)})
    result = compare_trees(before, after)
    expected = ("mtime",) if type(kind) is type(other) else ("type",)
    assert shown(result.changes) == [(b"a", "changed", expected)]
    if type(kind) is not type(other):
        assert result.removed_bytes == (4 if isinstance(kind, File) else 0)
        assert result.added_bytes == (4 if isinstance(other, File) else 0)


def test_a_directory_that_becomes_a_file_loses_what_was_in_it() -> None:
    assert differences({b"a/x": file(b"1"), b"a/y/z": file(b"2")}, {b"a": file(b"3")}) == [
        (b"a", "changed", ("type",)),
        (b"a/x", "removed", ()),
        (b"a/y", "removed", ()),
        (b"a/y/z", "removed", ()),
    ]


names = st.sampled_from([b"a", b"b", b"a/x", b"a/y", b"a/x/1", b"c", b"\xff", b"a-b"])
entries = st.one_of(
    st.builds(directory, st.sampled_from([0o755, 0o700]), st.integers(0, 1)),
    st.builds(file, st.sampled_from([b"1", b"22"]), st.just(0o644), st.integers(0, 1)),
    st.builds(symlink, st.sampled_from([b"t", b"u"]), st.integers(0, 1)),
)


def possible(entries: dict[bytes, Entry]) -> Tree:
    """Without what lies below something that is no directory."""
    kept: dict[bytes, Entry] = {}
    for path in sorted(entries):
        parent = path.rpartition(b"/")[0]
        while parent and isinstance(kept.get(parent, directory()), Directory):
            parent = parent.rpartition(b"/")[0]
        if not parent:
            kept[path] = entries[path]
    return make_tree(kept)


trees = st.dictionaries(names, entries).map(possible)


@given(trees, trees)
def test_applying_the_changes_gives_the_other_tree(before: Tree, after: Tree) -> None:
    result = dict(before.iter_entries())
    for change in diff_trees(before, after):
        if change.after is None:
            assert result.pop(change.path) == change.before  # type: ignore[call-overload]
        else:
            assert result.get(change.path) == change.before  # type: ignore[call-overload]
            result[change.path] = change.after  # type: ignore[index]
    assert result == dict(after.iter_entries())


@given(trees, trees)
def test_the_other_direction_mirrors_it(before: Tree, after: Tree) -> None:
    there = list(diff_trees(before, after))
    back = list(diff_trees(after, before))
    mirrored = {"added": "removed", "removed": "added", "changed": "changed"}
    assert [(c.path, mirrored[c.kind], c.what, c.after, c.before) for c in back] == [
        (c.path, c.kind, c.what, c.before, c.after) for c in there
    ]


def test_symlinks_have_no_mode() -> None:
    assert differences({b"l": symlink(b"a")}, {b"l": symlink(b"b", mtime_ns=3)}) == [
        (b"l", "changed", ("target", "mtime"))
    ]
    assert isinstance(make_tree({b"l": symlink(b"a")}).get(b"l"), Symlink)
