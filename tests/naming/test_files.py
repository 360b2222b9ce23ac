"""Words that are manifest files: whatever has a `/` or ends in .json, and nothing else."""

from __future__ import annotations

import hashlib
import os
from pathlib import Path

import pytest

import castfs
from castfs.errors import ManifestError, NoStoreError, NotFoundError, StoreError
from castfs.manifest import encode_manifest
from tests.naming.records import Shelf


@pytest.fixture
def shelf(tmp_path: Path) -> Shelf:
    return Shelf(tmp_path / "store")


@pytest.fixture
def outside(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """An own working directory, beside the store."""
    path = tmp_path / "outside"
    path.mkdir()
    monkeypatch.chdir(path)
    return path


def write(shelf: Shelf, number: int, path: Path) -> Path:
    path.write_bytes(b"".join(encode_manifest(shelf.manifest(number))))
    return path


def test_file_by_path(shelf: Shelf, outside: Path) -> None:
    write(shelf, 7, outside / "run.json")
    (outside / "sub").mkdir()
    for word in ("run.json", "./run.json", str(outside / "run.json"), "sub/../run.json"):
        snapshot = shelf.store.resolve(word)
        assert snapshot.manifest == shelf.manifest(7)
        assert snapshot.file == Path(word)
        assert snapshot.id == shelf.manifest(7).id


def test_a_slash_makes_it_a_file_whatever_its_name(shelf: Shelf, outside: Path) -> None:
    shelf.put(1, "abcdef01", name="run")
    write(shelf, 7, outside / "run")
    write(shelf, 8, outside / "abcdef01")
    assert shelf.meaning("run") == (1, "abcdef01")
    assert shelf.meaning("./run") == (7, None)
    assert shelf.meaning("abcdef01") == (1, "abcdef01")
    assert shelf.meaning("./abcdef01") == (8, None)


def test_a_file_is_not_looked_for_without_a_slash(shelf: Shelf, outside: Path) -> None:
    write(shelf, 7, outside / "manifest")
    with pytest.raises(NotFoundError):
        shelf.store.resolve("manifest")


def test_json_makes_it_a_file_whatever_the_names_are(shelf: Shelf, outside: Path) -> None:
    shelf.put(1, "abcdef01", name="run.json")
    with pytest.raises(NotFoundError) as caught:
        shelf.store.resolve("run.json")
    assert caught.value.exit_code == 4
    write(shelf, 7, outside / "run.json")
    assert shelf.meaning("run.json") == (7, None)


def test_no_fallback_from_a_file(shelf: Shelf, outside: Path) -> None:
    shelf.put(1, "abcdef01")
    for word in ("./abcdef01", "abcdef01/", "abcdef01.json"):
        with pytest.raises(NotFoundError):
            shelf.store.resolve(word)


@pytest.mark.parametrize(
    "content", [b"", b"{}", b"hello", b"\xff", b'{"format":"castfs-manifest"}']
)
def test_file_that_is_no_manifest(shelf: Shelf, outside: Path, content: bytes) -> None:
    (outside / "x.json").write_bytes(content)
    with pytest.raises(ManifestError, match=r"x\.json: ") as caught:
        shelf.store.resolve("./x.json")
    assert caught.value.exit_code == 5
    assert str(caught.value).isprintable()


def test_file_that_cannot_be_read(shelf: Shelf, outside: Path) -> None:
    (outside / "directory.json").mkdir()
    (outside / "loop.json").symlink_to("loop.json")
    (outside / "file").touch()
    for word in (
        "loop.json",
        "file/x",
        "new\nline.json",
        "n" * 300 + ".json",
    ):
        with pytest.raises(NotFoundError) as caught:
            shelf.store.resolve(word)
        assert str(caught.value).isprintable()


@pytest.mark.timeout(20)
def test_file_that_never_ends(shelf: Shelf, outside: Path) -> None:
    os.mkfifo(outside / "fifo.json")
    (outside / "zero.json").symlink_to("/dev/zero")
    (outside / "directory.json").mkdir()
    for word in ("fifo.json", "zero.json", "directory.json", "./"):
        with pytest.raises(ManifestError, match="is not a regular file") as caught:
            shelf.store.resolve(word)
        assert caught.value.exit_code == 5


def test_file_whose_snapshot_is_recorded(shelf: Shelf, outside: Path) -> None:
    shelf.put(7, "aaaaaaa1")
    shelf.put(7, "aaaaaaa2")
    write(shelf, 7, outside / "run.json")
    assert shelf.meaning("./run.json") == (7, "aaaaaaa2")


def test_file_whose_snapshot_is_not_recorded(shelf: Shelf, outside: Path) -> None:
    write(shelf, 7, outside / "run.json")
    assert shelf.meaning("./run.json") == (7, None)
    result = shelf.store.import_manifest(Path("run.json"))
    snapshot = shelf.store.resolve("./run.json")
    assert snapshot.record is not None
    assert snapshot.record.id == result.id
    assert shelf.store.resolve(result.id).manifest == shelf.manifest(7)


# Which store it belongs to ------------------------------------------------------------------


def test_given_store_comes_first(shelf: Shelf, tmp_path: Path) -> None:
    inner = Shelf(tmp_path / "inner")
    path = inner.store.depot.manifest_path(inner.put(7, "aaaaaaa1").id)
    found = castfs.find_snapshot(str(path), store=shelf.store.path)
    assert found.depot is not None
    assert found.depot.path == shelf.store.path
    assert found.record is None


def test_then_the_store_that_it_lies_in(shelf: Shelf) -> None:
    path = shelf.store.depot.manifest_path(shelf.put(7, "aaaaaaa1").id)
    found = castfs.find_snapshot(str(path))
    assert found.depot is not None
    assert found.depot.path == shelf.store.path
    assert found.id.startswith("aaaaaaa1")


def test_then_blobs_beside_it(shelf: Shelf, outside: Path) -> None:
    for place in ("a/manifests/run.json", "b/manifests/code/ab/run.json", "c/run.json"):
        (outside / place).parent.mkdir(parents=True)
        (outside / place[0] / "blobs").mkdir()
        write(shelf, 7, outside / place)
        found = castfs.find_snapshot(place)
        assert found.depot is None
        assert found.blobs.path == outside / place[0] / "blobs"


def test_blobs_of_something_else_are_passed_over(tmp_path: Path, outside: Path) -> None:
    """A directory of that name is nothing rare."""
    default = castfs.open(create=True)
    (outside / "source").mkdir()
    (outside / "source" / "file").write_bytes(b"content")
    digest = hashlib.sha256(b"content").hexdigest()
    (outside / "project" / "blobs").mkdir(parents=True)
    default.ingest(outside / "source", output=outside / "project" / "run.json")
    found = castfs.find_snapshot("project/run.json")
    assert found.depot is not None
    assert found.depot.path == default.path
    shard = tmp_path / "blobs" / digest[:2]
    shard.mkdir(parents=True)
    (shard / digest).write_bytes(b"content")
    found = castfs.find_snapshot("project/run.json")
    assert found.blobs.path == tmp_path / "blobs"


def test_then_the_default_store(
    outside: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    default = Shelf(Path(os.environ["CASTFS_STORE"]))
    default.put(7, "aaaaaaa1")
    write(default, 7, outside / "run.json")
    found = castfs.find_snapshot("run.json")
    assert found.depot is not None
    assert found.depot.path == default.store.path
    assert found.id.startswith("aaaaaaa1")


def test_then_there_is_none(shelf: Shelf, outside: Path) -> None:
    write(shelf, 7, outside / "run.json")
    with pytest.raises(StoreError, match="--store"):
        castfs.find_snapshot("run.json")
    with pytest.raises(NoStoreError):
        castfs.find_snapshot("aaaaaaa1")
