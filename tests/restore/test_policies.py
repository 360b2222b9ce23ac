"""What happens to what is already in the target."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from castfs.errors import BlobError, NotFoundError, TargetError
from castfs.manifest import Entry
from castfs.restore import IfExists, restore_tree
from castfs.restore.leaf import LeafWriter
from tests.restore.building import (
    Stored,
    directory,
    file,
    make_tree,
    store_blobs,
    store_directory,
    store_files,
    symlink,
)
from tests.restore.oracles import assert_same, fingerprint, temporary_files
from tests.restore.sources import make_source

POLICIES: tuple[IfExists, ...] = ("fail", "skip", "replace")


@pytest.fixture
def stored(tmp_path: Path) -> Stored:
    """a, d/b, d/e/c, and the symlink d/s; d has an unusual mode and time."""
    made = store_files({b"a": b"new a", b"d/b": b"new b", b"d/e/c": b"new c"}, tmp_path / "store")
    entries: dict[bytes, Entry] = dict(made.tree.iter_entries())
    entries |= {b"d": directory(0o711, mtime_ns=42), b"d/s": symlink(b"a")}
    tree = make_tree(entries, root=directory(0o700, mtime_ns=43))
    return Stored(tree, made.depot)


def test_fail_names_the_first_and_writes_nothing(tmp_path: Path, stored: Stored) -> None:
    out = tmp_path / "out"
    (out / "d/e").mkdir(parents=True)
    (out / "d/b").write_text("mine")
    (out / "d/s").symlink_to("elsewhere")
    before = fingerprint(out)
    with pytest.raises(TargetError, match=r"^2 of the files exist in .*, the first is d/b; noth"):
        restore_tree(stored.tree, stored.blobs, out)
    (out / "d/s").unlink()
    before = fingerprint(out)
    with pytest.raises(TargetError, match=r"^d/b exists in .*--if-exists skip"):
        restore_tree(stored.tree, stored.blobs, out)
    assert fingerprint(out) == before


@pytest.mark.semantics("R14")
def test_fail_uses_directories_that_are_there_and_leaves_them_as_they_are(
    tmp_path: Path, stored: Stored
) -> None:
    out = tmp_path / "out"
    (out / "d").mkdir(parents=True)
    (out / "d").chmod(0o750)
    (out / "d/extra").write_text("stays")
    restore_tree(stored.tree, stored.blobs, out)
    assert (out / "d/b").read_text() == "new b"
    assert (out / "d/extra").read_text() == "stays"
    assert (out / "d").stat().st_mode & 0o7777 == 0o750
    assert (out / "d/e").stat().st_mode & 0o7777 == 0o755
    assert out.stat().st_mtime_ns != 43


def test_skip_fills_in_what_is_missing(tmp_path: Path, stored: Stored) -> None:
    out = tmp_path / "out"
    (out / "d").mkdir(parents=True)
    (out / "d/b").write_text("mine")
    (out / "a").symlink_to("nowhere")
    kept = (out / "d/b").stat()
    result = restore_tree(stored.tree, stored.blobs, out, if_exists="skip")
    assert result.skipped_existing == (b"a", b"d/b")
    assert (result.file_count, result.symlink_count, result.total_size_bytes) == (1, 1, 5)
    now = (out / "d/b").stat()
    assert (now.st_ino, now.st_mtime_ns) == (kept.st_ino, kept.st_mtime_ns)
    assert (out / "a").readlink() == Path("nowhere")
    assert (out / "d/e/c").read_text() == "new c"
    assert (out / "d").stat().st_mode & 0o7777 == 0o755


def test_skip_needs_no_blob_for_what_it_skips(tmp_path: Path, stored: Stored) -> None:
    (tmp_path / "out").mkdir()
    (tmp_path / "out/a").write_text("mine")
    stored.blob_path(b"a").unlink()
    restore_tree(stored.tree, stored.blobs, tmp_path / "out", if_exists="skip")
    assert (tmp_path / "out/d/b").read_text() == "new b"


def test_replace_makes_it_equal_but_for_extra_files(tmp_path: Path, stored: Stored) -> None:
    restore_tree(stored.tree, stored.blobs, tmp_path / "wanted")
    out = tmp_path / "out"
    (out / "d/e").mkdir(parents=True)
    (out / "d").chmod(0o777)
    (out / "d/b").write_text("mine")
    (out / "d/e/c").symlink_to("/etc/hostname")
    os.mkfifo(out / "a")
    result = restore_tree(stored.tree, stored.blobs, out, if_exists="replace")
    assert_same(tmp_path / "wanted", out)
    assert result.skipped_existing == ()
    (out / "extra").write_text("stays")
    restore_tree(stored.tree, stored.blobs, out, if_exists="replace")
    assert (out / "extra").read_text() == "stays"
    assert out.stat().st_mtime_ns == 43


@pytest.mark.semantics("R12")
def test_replace_does_not_touch_the_file_that_others_have_open(
    tmp_path: Path, stored: Stored
) -> None:
    out = tmp_path / "out"
    out.mkdir()
    (out / "a").write_text("mine")
    os.link(out / "a", tmp_path / "other name")
    with (out / "a").open() as opened:
        restore_tree(stored.tree, stored.blobs, out, if_exists="replace")
        assert opened.read() == "mine"
    assert (tmp_path / "other name").read_text() == "mine"
    assert (out / "a").read_text() == "new a"


@pytest.mark.parametrize("policy", POLICIES)
def test_a_directory_in_the_place_of_a_file_is_never_removed(
    tmp_path: Path, stored: Stored, policy: IfExists
) -> None:
    out = tmp_path / "out"
    (out / "d/b").mkdir(parents=True)
    before = fingerprint(out)
    with pytest.raises(TargetError, match=r"d/b is a directory in .* and none in the snapshot"):
        restore_tree(stored.tree, stored.blobs, out, if_exists=policy)
    assert fingerprint(out) == before


@pytest.mark.parametrize("policy", ["fail", "skip"])
def test_a_file_in_the_place_of_a_directory_is_an_error(
    tmp_path: Path, stored: Stored, policy: IfExists
) -> None:
    out = tmp_path / "out"
    out.mkdir()
    (out / "d").write_text("a file")
    before = fingerprint(out)
    with pytest.raises(TargetError, match="d is a directory in the snapshot and none in"):
        restore_tree(stored.tree, stored.blobs, out, if_exists=policy)
    assert fingerprint(out) == before


@pytest.mark.parametrize("kind", ["file", "symlink", "fifo"])
def test_replace_replaces_a_file_in_the_place_of_a_directory(
    tmp_path: Path, stored: Stored, kind: str
) -> None:
    out = tmp_path / "out"
    out.mkdir()
    (tmp_path / "elsewhere").mkdir()
    if kind == "file":
        (out / "d").write_text("a file")
    elif kind == "symlink":
        (out / "d").symlink_to(tmp_path / "elsewhere")
    else:
        os.mkfifo(out / "d")
    restore_tree(stored.tree, stored.blobs, out, if_exists="replace")
    assert (out / "d").stat(follow_symlinks=False).st_mode == 0o40711
    assert (out / "d/b").read_text() == "new b"
    assert list((tmp_path / "elsewhere").iterdir()) == []


@pytest.mark.parametrize("policy", POLICIES)
@pytest.mark.parametrize("linkable", [True, False])
def test_a_file_that_appears_meanwhile_is_not_overwritten(
    tmp_path: Path,
    stored: Stored,
    monkeypatch: pytest.MonkeyPatch,
    policy: IfExists,
    linkable: bool,
) -> None:
    """With renameat2, and where there is none with link(2)."""
    out = tmp_path / "out"
    place = LeafWriter._place

    def plant(self: LeafWriter, dir_fd: int, temp: bytes, path: bytes) -> bool:
        if path == b"d/b":
            (out / "d/b").write_text("theirs")
        return place(self, dir_fd, temp, path)

    monkeypatch.setattr(LeafWriter, "_place", plant)
    if not linkable:
        monkeypatch.setattr("castfs.syscalls.rename_noreplace", lambda *_: False)
    if policy == "fail":
        with pytest.raises(TargetError, match="d/b appeared in"):
            restore_tree(stored.tree, stored.blobs, out)
    else:
        result = restore_tree(stored.tree, stored.blobs, out, if_exists=policy)
        assert result.skipped_existing == ((b"d/b",) if policy == "skip" else ())
    assert (out / "d/b").read_text() == ("new b" if policy == "replace" else "theirs")
    assert temporary_files(out) == []


def test_replacing_a_name_of_the_very_same_file(
    tmp_path: Path, stored: Stored, monkeypatch: pytest.MonkeyPatch
) -> None:
    """rename(2) then does nothing and says that it did: the temporary name would stay."""
    out = tmp_path / "out"
    replace = LeafWriter._replace

    def plant(self: LeafWriter, dir_fd: int, temp: bytes, name: bytes, path: bytes) -> None:
        os.link(temp, name, src_dir_fd=dir_fd, dst_dir_fd=dir_fd, follow_symlinks=False)
        replace(self, dir_fd, temp, name, path)

    monkeypatch.setattr(LeafWriter, "_replace", plant)
    restore_tree(stored.tree, stored.blobs, out, if_exists="replace")
    assert temporary_files(out) == []
    assert (out / "d/b").read_text() == "new b"
    assert (out / "d/b").stat().st_nlink == 1


def test_hard_links_and_skip(tmp_path: Path) -> None:
    """The first of a group is kept; the others are linked to each other and not to it."""
    source = tmp_path / "source"
    source.mkdir()
    (source / "1").write_text("linked")
    os.link(source / "1", source / "2")
    os.link(source / "1", source / "3")
    stored = store_directory(source, tmp_path / "store")
    out = tmp_path / "out"
    out.mkdir()
    (out / "1").write_text("mine")
    restore_tree(stored.tree, stored.blobs, out, if_exists="skip")
    assert (out / "1").read_text() == "mine"
    assert (out / "2").read_text() == "linked"
    assert os.path.samefile(out / "2", out / "3")
    assert (out / "2").stat().st_nlink == 2


@pytest.mark.needs_root
def test_hard_links_and_replace(tmp_path: Path) -> None:
    source = make_source(tmp_path / "source")
    stored = store_directory(source, tmp_path / "store")
    for _ in range(2):
        restore_tree(stored.tree, stored.blobs, tmp_path / "out", if_exists="replace")
        assert_same(source, tmp_path / "out")
        assert temporary_files(tmp_path / "out") == []


@pytest.mark.semantics("R8")
@pytest.mark.needs_root
def test_a_filesystem_without_hard_links_gets_copies(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    source = make_source(tmp_path / "source")
    stored = store_directory(source, tmp_path / "store")

    def refuse(*args: object, **kwargs: object) -> None:
        raise PermissionError(1, "Operation not permitted")

    with monkeypatch.context() as patch:
        patch.setattr("castfs.restore.leaf.os.link", refuse)
        result = restore_tree(stored.tree, stored.blobs, tmp_path / "out")
    assert [(n.what, n.count) for n in result.not_set] == [("hard link", 3)]
    assert (tmp_path / "out/hard").read_text() == "hello\n"
    assert (tmp_path / "out/hard").stat().st_nlink == 1


def test_paths_bring_what_is_below_them_and_the_way_to_them(tmp_path: Path, stored: Stored) -> None:
    out = tmp_path / "out"
    result = restore_tree(stored.tree, stored.blobs, out, paths=[b"d/e/"])
    assert sorted(p.name for p in out.rglob("*")) == ["c", "d", "e"]
    assert (result.file_count, result.dir_count) == (1, 2)
    assert (out / "d").stat().st_mode & 0o7777 == 0o711
    assert (out / "d").stat().st_mtime_ns == 42
    assert out.stat().st_mtime_ns == 43


def test_paths_with_replace_leave_the_way_alone(tmp_path: Path, stored: Stored) -> None:
    out = tmp_path / "out"
    (out / "d/e").mkdir(parents=True)
    (out / "d").chmod(0o770)
    (out / "d/e").chmod(0o770)
    (out / "a").write_text("mine")
    os.utime(out, ns=(0, 99))
    os.utime(out / "d", ns=(0, 98))
    restore_tree(stored.tree, stored.blobs, out, paths=[b"d/e"], if_exists="replace")
    assert (out / "d").stat().st_mode & 0o7777 == 0o770
    assert (out / "d").stat().st_mtime_ns == 98
    assert out.stat().st_mtime_ns == 99
    assert (out / "d/e").stat().st_mode & 0o7777 == 0o755
    assert (out / "a").read_text() == "mine"


def test_paths_do_not_take_neighbours(tmp_path: Path) -> None:
    names = [b"a", b"a-b", b"a.c", b"a0", b"b/a", b"ab"]
    stored = store_files({b"a/x": b"1", **dict.fromkeys(names[1:], b"2")}, tmp_path / "store")
    out = tmp_path / "out"
    restore_tree(stored.tree, stored.blobs, out, paths=[b"a", b"b/a", b"./a0"])
    assert sorted(str(p.relative_to(out)) for p in out.rglob("*")) == [
        "a", "a/x", "a0", "b", "b/a",
    ]  # fmt: skip


@pytest.mark.needs_root
def test_part_of_a_group_of_hard_links(tmp_path: Path) -> None:
    stored = store_directory(make_source(tmp_path / "source"), tmp_path / "store")
    out = tmp_path / "out"
    restore_tree(stored.tree, stored.blobs, out, paths=[b"hard", b"sub"])
    assert os.path.samefile(out / "hard", out / "sub/x")
    assert (out / "hard").stat().st_nlink == 2


@pytest.mark.parametrize("path", [b"nope", b"d/nope", b"a/below", b"..", b"../x", b"d/../a"])
def test_a_path_that_is_not_in_the_tree(tmp_path: Path, stored: Stored, path: bytes) -> None:
    with pytest.raises(NotFoundError, match="is not in the snapshot"):
        restore_tree(stored.tree, stored.blobs, tmp_path / "out", paths=[b"a", path])
    assert not (tmp_path / "out").exists()


@pytest.mark.parametrize("whole", [b"", b".", b"/"])
def test_the_root_as_path_is_the_whole_tree(tmp_path: Path, stored: Stored, whole: bytes) -> None:
    restore_tree(stored.tree, stored.blobs, tmp_path / "out", paths=[whole])
    restore_tree(stored.tree, stored.blobs, tmp_path / "wanted")
    assert_same(tmp_path / "wanted", tmp_path / "out")


def test_paths_need_the_blobs_of_these_alone(tmp_path: Path, stored: Stored) -> None:
    stored.blob_path(b"a").unlink()
    restore_tree(stored.tree, stored.blobs, tmp_path / "out", paths=[b"d"])
    with pytest.raises(BlobError):
        restore_tree(stored.tree, stored.blobs, tmp_path / "all")


@pytest.mark.semantics("R19")
@pytest.mark.needs_root
def test_what_a_failed_restore_left_is_made_whole_by_replace(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    source = make_source(tmp_path / "source")
    stored = store_directory(source, tmp_path / "store")
    blob = stored.blob_path(b"zeros")
    good = blob.read_bytes()
    blob.chmod(0o644)
    blob.write_bytes(good[:-1] + b"X")
    with pytest.raises(BlobError):
        restore_tree(stored.tree, stored.blobs, tmp_path / "out")
    blob.unlink()
    store_blobs(stored.depot, good)
    restore_tree(stored.tree, stored.blobs, tmp_path / "out", if_exists="replace")
    assert_same(source, tmp_path / "out")


def test_files_only_differing_in_kind(tmp_path: Path) -> None:
    """A symlink where the target has a file, and the other way round."""
    stored = store_files({b"f": b"file"}, tmp_path / "store")
    tree = make_tree({b"f": file(b"file"), b"l": symlink(b"f")})
    out = tmp_path / "out"
    out.mkdir()
    (out / "f").symlink_to("/etc/hostname")
    (out / "l").write_text("was a file")
    restore_tree(tree, stored.blobs, out, if_exists="replace")
    assert not (out / "f").is_symlink()
    assert (out / "l").readlink() == Path("f")
