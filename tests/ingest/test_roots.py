"""What may be ingested: directories, one file, symlinks to either; and where the store lies."""

from __future__ import annotations

import os
import stat
from pathlib import Path

import pytest

import castfs
from castfs.errors import SourceError
from castfs.repository import Store
from tests.ingest.describing import describe_directory, describe_tree
from tests.ingest.taking import Ingest, Take
from tests.store.checking import assert_idle


def refused(store: Store, source: Path) -> str:
    with pytest.raises(SourceError) as caught:
        store.ingest(source)
    assert list(store.iter_snapshots()) == []
    assert_idle(store.path)
    message = str(caught.value)
    assert "\n" not in message
    return message


def test_a_missing_root(store: Store, tmp_path: Path) -> None:
    assert "No such file" in refused(store, tmp_path / "missing")
    assert "No such file" in refused(store, tmp_path / "new\nline")
    (tmp_path / "dangling").symlink_to("nowhere")
    assert "No such file" in refused(store, tmp_path / "dangling")


@pytest.mark.parametrize("kind", [stat.S_IFIFO, stat.S_IFCHR])
@pytest.mark.needs_root
def test_a_root_that_is_no_directory(store: Store, tmp_path: Path, kind: int) -> None:
    os.mknod(tmp_path / "special", kind | 0o600, os.makedev(1, 3))
    assert "neither a directory nor a regular file" in refused(store, tmp_path / "special")


@pytest.mark.parametrize("size", [0, 5, 3 << 20])
def test_a_regular_file_is_a_tree_with_one_entry(store: Store, tmp_path: Path, size: int) -> None:
    path = tmp_path / "data.bin"
    path.write_bytes(b"d" * size)
    path.chmod(0o604)
    os.utime(path, ns=(5, 123_456_789))
    (tmp_path / "neighbour").write_bytes(b"not taken")
    result = store.ingest(path)
    snapshot = store.resolve(result.id)
    [(name, entry)] = snapshot.iter_entries()
    assert name == b"data.bin"
    assert (entry.mode, entry.mtime_ns) == (0o604, 123_456_789)  # type: ignore[union-attr]
    with snapshot.open("data.bin") as file:
        assert file.read() == path.read_bytes()
    assert result.source == str(path)
    # Wherever it lies, and whatever its directory is like.
    other = tmp_path / "elsewhere"
    other.mkdir(mode=0o711)
    path.rename(other / "data.bin")
    assert store.ingest(other / "data.bin").manifest_id == result.manifest_id


def test_a_file_with_an_odd_name_and_hard_links(store: Store, tmp_path: Path) -> None:
    name = b"\xff\n-"
    path = Path(os.fsdecode(os.fsencode(tmp_path) + b"/" + name))
    path.write_bytes(b"x")
    os.link(path, tmp_path / "second")
    snapshot = store.resolve(store.ingest(path).id)
    assert [(p, e.hardlink) for p, e in snapshot.manifest.tree.files.items()] == [(name, None)]


def test_a_symlink_to_a_directory_is_followed(source: Path, store: Store, tmp_path: Path) -> None:
    (source / "file").write_bytes(b"x")
    (tmp_path / "link").symlink_to("source")
    tree = store.resolve(store.ingest(tmp_path / "link").id).manifest.tree
    assert describe_tree(tree) == describe_directory(source)


def test_a_symlink_to_a_file_gives_the_name_that_was_said(store: Store, tmp_path: Path) -> None:
    (tmp_path / "dir").mkdir()
    (tmp_path / "dir" / "target").write_bytes(b"content")
    (tmp_path / "link").symlink_to("dir/target")
    snapshot = store.resolve(store.ingest(tmp_path / "link").id)
    assert list(snapshot.manifest.tree.files) == [b"link"]
    with snapshot.open("link") as file:
        assert file.read() == b"content"


@pytest.mark.parametrize("word", [".", "source", "./source/", "source/../source", "source/."])
def test_ways_to_write_a_directory(
    source: Path, store: Store, monkeypatch: pytest.MonkeyPatch, word: str
) -> None:
    (source / "file").write_bytes(b"x")
    monkeypatch.chdir(source if word == "." else source.parent)
    result = store.ingest(word)
    assert result.source == str(source)
    [record] = store.iter_snapshots(source=word)
    assert record.id == result.id


def test_a_source_whose_name_is_not_utf_8(store: Store, tmp_path: Path) -> None:
    path = Path(os.fsdecode(os.fsencode(tmp_path) + b"/\xff \xe2\x90\x9b"))
    path.mkdir()
    (path / "file").write_bytes(b"x")
    result = store.ingest(path)
    [record] = store.iter_snapshots(source=os.fspath(path))
    assert record.id == result.id


def test_a_store_inside_the_tree_is_left_out(source: Path, tmp_path: Path) -> None:
    (source / "sub").mkdir()
    (source / "sub" / "file").write_bytes(b"x")
    store = castfs.open(source / "sub" / "store", create=True)
    first = store.ingest(source)
    second = store.ingest(source)
    assert first.manifest_id == second.manifest_id
    snapshot = store.resolve(first.id)
    assert [path for path, _ in snapshot.iter_entries()] == [b"sub", b"sub/file"]
    assert [row.rule.pattern for row in first.ignored] == ["the store itself"]


def test_another_store_inside_the_tree_is_a_directory_like_others(source: Path, take: Take) -> None:
    castfs.open(source / "other", create=True)
    assert b"other/castfs.json" in take().manifest.tree.files


@pytest.mark.parametrize("below", ["", "blobs", "blobs/link", "file"])
def test_a_source_inside_the_store_is_refused(store: Store, tmp_path: Path, below: str) -> None:
    source = store.path / below
    if below == "blobs/link":
        source = tmp_path / "link"
        source.symlink_to(store.path / "blobs")
    elif below == "file":
        source = store.path / "castfs.json"
    assert "in the store" in refused(store, source)


def test_a_source_above_root_of_the_store_by_another_name(
    source: Path, store: Store, ingest: Ingest
) -> None:
    """A symlink to the store is a symlink."""
    (source / "link").symlink_to(store.path)
    (source / "file").write_bytes(b"x")
    result = ingest()
    assert (result.file_count, result.symlink_count, result.ignored) == (1, 1, ())
