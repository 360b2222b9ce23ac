"""Names of any bytes, symlinks verbatim, hard links, trees deeper than a path may be long."""

from __future__ import annotations

import os
import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest

import castfs
from castfs.errors import UnreadableError
from castfs.repository import Store
from tests.ingest.describing import describe_directory, describe_tree
from tests.ingest.taking import Ingest, ReadNames, Take, before_reading

NAMES = [
    b"-rf", b"--", b"new\nline", b"tab\tbell\a", b" ", b"\\x41", b"caf\xc3\xa9", b"cafe\xcc\x81",
    b"\xff\xfe", b"half \xc3", b"n" * 255, b"\xc3\xa9" * 127, b"...", b".hidden", b"*?[a]", b"%s",
    "\u241b".encode(), b"\xe2\x90", b'"quote\\', b"\x7f\x01", b"\xed\xa0\x80", b"blobs", b"~",
]  # fmt: skip


@pytest.mark.parametrize("kind", ["file", "directory", "symlink", "target"])
def test_names_of_any_bytes(source: Path, take: Take, kind: str) -> None:
    raw = os.fsencode(source)
    for name in NAMES:
        path = raw + b"/" + name
        if kind == "file":
            Path(os.fsdecode(path)).write_bytes(name)
        elif kind == "directory":
            os.mkdir(path)
            Path(os.fsdecode(path + b"/below")).write_bytes(b"x")
        elif kind == "symlink":
            os.symlink(b"target", path)
        else:
            os.symlink(name, raw + b"/%d" % NAMES.index(name))
    snapshot = take()
    assert describe_tree(snapshot.manifest.tree) == describe_directory(source)
    listed = subprocess.run(
        ["find", ".", "-mindepth", "1", "-printf", "%P\\0"],
        cwd=source, capture_output=True, check=True,
    ).stdout  # fmt: skip
    assert {path for path, _ in snapshot.iter_entries()} == set(listed.split(b"\0")) - {b""}
    if kind == "file":
        for name in NAMES:
            with snapshot.open(name) as file:
                assert file.read() == name


def test_symlinks_verbatim(source: Path, take: Take, tmp_path: Path) -> None:
    (tmp_path / "outside").write_bytes(b"secret")
    targets = [
        b"nowhere", b"/absolute/nowhere", b"../outside", os.fsencode(tmp_path / "outside"), b".",
        b"..", b"loop", b"//double//slash/", b"new\nline", b"\xff", b"t" * 4095, b"/",
    ]  # fmt: skip
    for number, target in enumerate(targets):
        os.symlink(target, os.fsencode(source) + b"/%d" % number)
    os.symlink("loop", source / "loop")
    snapshot = take()
    links = {path: link.raw_target for path, link in snapshot.manifest.tree.symlinks.items()}
    assert links == {
        **{b"%d" % number: target for number, target in enumerate(targets)},
        b"loop": b"loop",
    }
    assert snapshot.manifest.tree.files == {}


def test_hard_links(source: Path, take: Take, read_names: ReadNames, tmp_path: Path) -> None:
    (source / "sub").mkdir()
    (source / "sub" / "one").write_bytes(b"linked")
    os.link(source / "sub" / "one", source / "two")
    os.link(source / "sub" / "one", source / "\udcff")
    (source / "link").symlink_to("nowhere")
    os.link(source / "link", source / "sub" / "same link", follow_symlinks=False)
    (source / "leaves").write_bytes(b"has another name outside")
    os.link(source / "leaves", tmp_path / "outside")
    (source / "also").write_bytes(b"linked")
    snapshot = take()
    described = describe_tree(snapshot.manifest.tree)
    assert described == describe_directory(source)
    groups = {path: entry.group for path, entry in described.items() if entry.group is not None}
    assert groups == {
        b"sub/one": b"sub/one", b"two": b"sub/one", b"\xff": b"sub/one",
        b"link": b"link", b"sub/same link": b"link",
    }  # fmt: skip
    # Each inode once.
    assert len(read_names) == 3


def test_a_hard_link_whose_other_names_are_ignored(source: Path, take: Take) -> None:
    (source / "kept").write_bytes(b"x")
    os.link(source / "kept", source / "dropped.o")
    (source / ".castignore").write_text("*.o\n")
    assert take().get(b"kept").hardlink is None  # type: ignore[union-attr]


@pytest.mark.parametrize("lost", ["a", "b", "c"])
@pytest.mark.parametrize("readers", [False, True])
def test_a_hard_link_that_loses_a_name_while_it_is_read(
    source: Path,
    take: Take,
    lost: str,
    readers: bool,
    monkeypatch: pytest.MonkeyPatch,
    request: pytest.FixtureRequest,
) -> None:
    """The other names are still there at the end, so they are in the snapshot."""
    if readers:
        request.getfixturevalue("with_readers")
    (source / "a").write_bytes(b"x")
    os.link(source / "a", source / "b")
    os.link(source / "a", source / "c")
    before_reading(monkeypatch, (source / lost).unlink)
    snapshot = take()
    tree = snapshot.manifest.tree
    assert tree.files.keys() | {lost.encode()} == {b"a", b"b", b"c"}
    assert set(tree.files) >= {b"a", b"b", b"c"} - {lost.encode()}
    for path in tree.files:
        with snapshot.open(path) as file:
            assert file.read() == b"x"


def test_all_names_of_an_unreadable_hard_link_are_listed(
    source: Path, ingest: Ingest, monkeypatch: pytest.MonkeyPatch
) -> None:
    (source / "dir").mkdir()
    for name in ("a", "fine"):
        (source / name).write_bytes(name.encode())
    for name in ("b", "dir/c"):
        os.link(source / "a", source / name)
    original = os.read

    def read(fd: int, count: int) -> bytes:
        if os.fstat(fd).st_ino == (source / "a").stat().st_ino:
            raise OSError(5, "Input/output error")
        return original(fd, count)

    monkeypatch.setattr("castfs.ingest.reading.os.read", read)
    result = ingest(skip_unreadable=True)
    assert [entry.path for entry in result.skipped] == [b"a", b"b", b"dir/c"]
    assert result.file_count == 1


@pytest.fixture
def deep_source(source: Path) -> Iterator[Path]:
    """What pytest could not remove."""
    yield source
    subprocess.run(["rm", "-rf", source], check=True)


def make_deep(root: Path, levels: int, name: bytes) -> int:
    """Directories `name` in each other; returns a descriptor of the deepest."""
    fd = os.open(root, os.O_RDONLY)
    for _ in range(levels):
        os.mkdir(name, dir_fd=fd)
        deeper = os.open(name, os.O_RDONLY, dir_fd=fd)
        os.close(fd)
        fd = deeper
    return fd


@pytest.mark.parametrize(("levels", "name"), [(40, b"n" * 255), (1_600, b"ab")])
def test_trees_beyond_the_longest_path(
    deep_source: Path, take: Take, levels: int, name: bytes
) -> None:
    fd = make_deep(deep_source, levels, name)
    with open(os.open("file", os.O_CREAT | os.O_WRONLY, dir_fd=fd), "wb") as file:
        file.write(b"at the bottom")
    os.symlink("file", "link", dir_fd=fd)
    os.link("file", "second", src_dir_fd=fd, dst_dir_fd=fd)
    os.close(fd)
    snapshot = take(xattrs=True)
    deepest = b"/".join([name] * levels)
    assert len(deepest) > 4096
    assert describe_tree(snapshot.manifest.tree) == describe_directory(deep_source)
    with snapshot.open(deepest + b"/file") as file:
        assert file.read() == b"at the bottom"


def test_deep_trees_again_through_the_cache(
    deep_source: Path, store: Store, tmp_path: Path, later: None
) -> None:
    """In a second store nothing is there, though the cache knows all: read from the root again."""
    fd = make_deep(deep_source, 30, b"n" * 200)
    with open(os.open("file", os.O_CREAT | os.O_WRONLY, dir_fd=fd), "wb") as file:
        file.write(b"at the bottom")
    os.close(fd)
    first = store.ingest(deep_source)
    second = castfs.open(tmp_path / "second", create=True).ingest(deep_source)
    assert second.manifest_id == first.manifest_id
    assert (second.added_count, second.unchanged_count) == (1, 0)


@pytest.mark.semantics("I34")
def test_a_tree_that_no_manifest_can_hold_is_refused(
    deep_source: Path, take: Take, ingest: Ingest, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A snapshot that could not be read back would be worse than none."""
    for module in ("castfs.ingest.walk", "castfs.manifest.checks"):
        monkeypatch.setattr(f"{module}.DEPTH_MAX", 50)
    os.close(make_deep(deep_source, 50, b"d"))
    assert len(take().manifest.tree.dirs) == 50
    os.mkdir(b"/".join([os.fsencode(deep_source), *[b"d"] * 51]))
    with pytest.raises(UnreadableError, match="deeper than 50 levels"):
        ingest()


def test_an_ignored_tree_may_be_as_deep(deep_source: Path, ingest: Ingest) -> None:
    (deep_source / "skip").mkdir()
    os.close(make_deep(deep_source / "skip", 1_600, b"ab"))
    (deep_source / "kept").write_bytes(b"x")
    (deep_source / ".castignore").write_text("skip\n")
    result = ingest()
    assert [(row.rule.pattern, row.entries) for row in result.ignored] == [("skip", 1_601)]


def test_a_directory_with_many_files(source: Path, take: Take) -> None:
    for number in range(1_300):
        (source / f"{number:04}").write_bytes(b"%d" % (number % 7))
    snapshot = take()
    assert describe_tree(snapshot.manifest.tree) == describe_directory(source)
