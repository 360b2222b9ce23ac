"""`import` of what a stranger wrote: everything or nothing, and the blame where it belongs."""

from __future__ import annotations

import hashlib
import json
import os
from collections.abc import Callable
from pathlib import Path

import pytest

import castfs
from castfs.errors import BlobError, CastfsError, ManifestError
from castfs.progress import Progress
from tests.naming.records import Shelf

CONTENT = b"content"
DIGEST = hashlib.sha256(CONTENT).hexdigest()


@pytest.fixture
def store(tmp_path: Path) -> castfs.Store:
    return castfs.open(tmp_path / "store", create=True)


@pytest.fixture
def blob(tmp_path: Path) -> Path:
    """The one blob of an archive that is sound until a test has been there."""
    path = tmp_path / "archive/blobs" / DIGEST[:2] / DIGEST
    path.parent.mkdir(parents=True)
    path.write_bytes(CONTENT)
    return path


@pytest.fixture
def manifest(tmp_path: Path, blob: Path) -> Path:
    path = tmp_path / "archive/manifests/run_001.json"
    path.parent.mkdir()
    write(path, {"f": {"sha256": DIGEST, "size_bytes": len(CONTENT)}})
    return path


def write(path: Path, files: object, **fields: object) -> None:
    path.write_text(json.dumps({"created_at": 1.0, "files": files, **fields}))


def assert_untouched(store: castfs.Store) -> None:
    assert list(store.iter_snapshots()) == []
    for directory in ("blobs", "manifests", "snapshots", "staging", "leases"):
        found = [path for path in (store.path / directory).rglob("*") if not path.is_dir()]
        assert found == []


def refuse(store: castfs.Store, manifest: Path) -> CastfsError:
    with pytest.raises(CastfsError) as caught:
        store.import_manifest(manifest)
    assert str(caught.value).isprintable()
    assert_untouched(store)
    return caught.value


def test_imported(store: castfs.Store, manifest: Path, blob: Path) -> None:
    result = store.import_manifest(manifest)
    assert (result.added_count, result.added_bytes, result.new_manifest) == (1, len(CONTENT), True)
    blob.unlink()
    with store.resolve(result.id).open("f") as file:
        assert file.read() == CONTENT
    again = store.import_manifest(manifest)
    assert (again.added_count, again.new_manifest) == (0, False)
    assert again.id != result.id
    assert again.manifest_id == result.manifest_id


def break_content(blob: Path) -> None:
    blob.write_bytes(CONTENT[::-1])


def break_size(blob: Path) -> None:
    blob.write_bytes(CONTENT + b"!")


def make_symlink(blob: Path) -> None:
    blob.rename(blob.with_name("elsewhere"))
    blob.symlink_to("elsewhere")


def make_directory(blob: Path) -> None:
    blob.unlink()
    blob.mkdir()


def make_fifo(blob: Path) -> None:
    blob.unlink()
    os.mkfifo(blob)


def make_loop(blob: Path) -> None:
    blob.unlink()
    blob.symlink_to(blob.name)


@pytest.mark.parametrize(
    "spoil",
    [break_content, break_size, Path.unlink, make_symlink, make_directory, make_fifo, make_loop],
)
def test_bad_blob(
    store: castfs.Store, manifest: Path, blob: Path, spoil: Callable[[Path], None]
) -> None:
    spoil(blob)
    error = refuse(store, manifest)
    assert isinstance(error, BlobError)
    assert error.digest == DIGEST
    assert str(store.path) not in str(error)


@pytest.mark.parametrize("make", [make_directory, make_fifo])
def test_not_a_file_though_of_the_right_size(
    store: castfs.Store, manifest: Path, blob: Path, make: Callable[[Path], None]
) -> None:
    make(blob)
    write(manifest, {"f": {"sha256": DIGEST, "size_bytes": blob.stat().st_size}})
    assert isinstance(refuse(store, manifest), BlobError)


def test_second_of_two_blobs_is_bad(store: castfs.Store, manifest: Path, blob: Path) -> None:
    other = hashlib.sha256(b"other").hexdigest()
    entries = {
        "f": {"sha256": DIGEST, "size_bytes": len(CONTENT)},
        "g": {"sha256": other, "size_bytes": 5},
    }
    write(manifest, entries)
    assert isinstance(refuse(store, manifest), BlobError)


@pytest.mark.parametrize("name", ["../evil", "/evil", "a/../../evil"])
def test_hostile_manifest(store: castfs.Store, manifest: Path, name: str) -> None:
    write(manifest, {name: {"sha256": DIGEST, "size_bytes": len(CONTENT)}})
    assert isinstance(refuse(store, manifest), ManifestError)


def test_without_blobs_beside_it(store: castfs.Store, manifest: Path, tmp_path: Path) -> None:
    alone = tmp_path / "alone.json"
    manifest.rename(alone)
    error = refuse(store, alone)
    assert isinstance(error, BlobError)
    assert DIGEST in str(error)


def test_without_blobs_beside_it_but_in_the_store(
    store: castfs.Store, manifest: Path, tmp_path: Path
) -> None:
    first = store.import_manifest(manifest)
    alone = tmp_path / "alone.json"
    manifest.rename(alone)
    assert store.import_manifest(alone).manifest_id == first.manifest_id


def test_from_another_store(store: castfs.Store, tmp_path: Path) -> None:
    (tmp_path / "source").mkdir()
    (tmp_path / "source" / "f").write_bytes(CONTENT)
    other = castfs.open(tmp_path / "other", create=True)
    manifest_id = other.ingest(tmp_path / "source").manifest_id
    path = other.depot.manifest_path(other.resolve(manifest_id).manifest_id)
    result = store.import_manifest(path)
    assert (result.manifest_id, result.added_count) == (manifest_id, 1)
    assert list((other.path / "leases").iterdir()) == []
    # The manifest is the same to the byte, and so is what it names.
    assert store.depot.manifest_path(path.stem).read_bytes() == path.read_bytes()


class Watcher(Progress):
    """Looks at a directory whenever something has been done."""

    def __init__(self, directory: Path) -> None:
        self.directory = directory
        self.seen: list[int] = []

    def advance(self, count: int, size: int = 0) -> None:
        self.seen.append(len(list(self.directory.iterdir())))


def test_other_store_is_pinned_meanwhile(store: castfs.Store, tmp_path: Path) -> None:
    (tmp_path / "source").mkdir()
    (tmp_path / "source" / "f").write_bytes(CONTENT)
    other = castfs.open(tmp_path / "other", create=True)
    result = other.ingest(tmp_path / "source")
    watcher = Watcher(other.path / "leases")
    store.import_manifest(other.depot.manifest_path(result.manifest_id), progress=watcher)
    assert watcher.seen
    assert all(watcher.seen)


def test_hostile_source_path(store: castfs.Store, manifest: Path) -> None:
    """It becomes the record's, so it must not break the lines that show records."""
    write(manifest, {}, source_path="/a\nb\x1b[31m")
    result = store.import_manifest(manifest)
    Shelf(store.path).put(1, result.id[:12])
    with pytest.raises(CastfsError) as caught:
        store.resolve(result.id[:8])
    assert str(caught.value).isprintable()
