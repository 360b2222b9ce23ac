"""Archives that Runicorn made: listed, read, restored, imported and mounted unchanged."""

from __future__ import annotations

import json
import os
import shutil
import stat
import subprocess
import sys
from pathlib import Path

import pytest

import castfs
from castfs.errors import BlobError
from castfs.manifest import File
from tests.interop.conftest import Runicorn
from tests.interop.trees import CONTENTS, read_tree, write_tree


@pytest.fixture
def archive(tmp_path: Path, runicorn: Runicorn) -> Path:
    """The manifest of CONTENTS in an archive of theirs."""
    return runicorn.archive_dir(write_tree(tmp_path / "source"), tmp_path / "archive")


@pytest.fixture
def flat(archive: Path) -> Path:
    """The same as the asset guide draws it: manifests/run_001.json beside blobs."""
    root = archive.parents[3]
    assert (root / "blobs").is_dir()
    path = root.with_name("flat") / "manifests" / "run_001.json"
    path.parent.mkdir(parents=True)
    (root / "blobs").rename(root.with_name("flat") / "blobs")
    archive.rename(path)
    return path


def listing(manifest: Path) -> dict[str, bytes]:
    """What castfs finds in it. No store is named or made."""
    snapshot = castfs.find_snapshot(str(manifest))
    assert snapshot.depot is None
    found = {}
    for path, entry in snapshot.iter_entries():
        if isinstance(entry, File):
            with snapshot.open(path) as file:
                found[os.fsdecode(path)] = file.read()
    return found


def test_layout_is_as_documented(archive: Path, tmp_path: Path) -> None:
    fingerprint = archive.stem
    expected = tmp_path / "archive/manifests/datasets" / fingerprint[:2] / f"{fingerprint}.json"
    assert archive == expected
    assert json.loads(archive.read_bytes())["fingerprint"] == fingerprint


def test_read(archive: Path) -> None:
    assert listing(archive) == CONTENTS


def test_read_from_the_flat_layout(flat: Path) -> None:
    assert listing(flat) == CONTENTS


def test_what_it_does_not_know_is_made_up(archive: Path) -> None:
    manifest = castfs.find_snapshot(str(archive)).manifest
    document = json.loads(archive.read_bytes())
    assert manifest.fingerprint == document["fingerprint"]
    assert manifest.source_path == document["source_path"]
    assert manifest.tree.total_size_bytes == document["total_size_bytes"]
    parents = {os.fsencode(parent) for name in CONTENTS for parent in Path(name).parents}
    assert set(manifest.tree.dirs) == parents - {b"."}
    assert {file.mode for file in manifest.tree.files.values()} == {0o644}
    assert manifest.tree.root.mtime_ns == int(document["created_at"] * 1e9)


def test_restored(archive: Path, tmp_path: Path) -> None:
    castfs.find_snapshot(str(archive)).restore(tmp_path / "out")
    assert read_tree(tmp_path / "out") == CONTENTS
    created_at = json.loads(archive.read_bytes())["created_at"]
    for path in (tmp_path / "out" / "sub", tmp_path / "out" / "train.py"):
        assert path.stat().st_mtime == pytest.approx(created_at)
        mode = 0o755 if path.is_dir() else 0o644
        assert stat.S_IMODE(path.stat().st_mode) == mode


def test_restored_as_they_restore_it(archive: Path, tmp_path: Path, runicorn: Runicorn) -> None:
    castfs.find_snapshot(str(archive)).restore(tmp_path / "ours")
    runicorn(
        "runicorn.assets.restore.restore_from_manifest",
        archive,
        tmp_path / "archive/blobs",
        tmp_path / "theirs",
    )
    result = subprocess.run(
        ["diff", "-r", tmp_path / "ours", tmp_path / "theirs"],
        capture_output=True,
        timeout=60,
        check=False,
    )
    assert (result.returncode, result.stdout) == (0, b"")


def test_nothing_is_written_beside_it(archive: Path, tmp_path: Path) -> None:
    def state() -> list[tuple[str, int, int]]:
        paths = sorted((tmp_path / "archive").rglob("*"))
        return [(str(p), p.stat().st_mtime_ns, p.stat().st_mode) for p in paths]

    before = state()
    listing(archive)
    castfs.find_snapshot(str(archive)).restore(tmp_path / "out")
    assert state() == before


def test_archived_file_is_a_blob(tmp_path: Path, runicorn: Runicorn) -> None:
    """`archive_file` makes a blob and no manifest; one that names it is a one-entry snapshot."""
    (tmp_path / "model.pth").write_bytes(b"weights")
    result = runicorn(
        "runicorn.assets.archive.archive_file",
        tmp_path / "model.pth",
        tmp_path / "archive",
        category="code",
    )
    manifest = tmp_path / "archive" / "manifests" / "run_001.json"
    manifest.parent.mkdir()
    entry = {"sha256": result["fingerprint"], "size_bytes": 7}
    manifest.write_text(json.dumps({"files": {"model.pth": entry}}))
    assert listing(manifest) == {"model.pth": b"weights"}


def test_imported(archive: Path, tmp_path: Path) -> None:
    store = castfs.open(tmp_path / "store", create=True)
    result = store.import_manifest(archive)
    assert result.added_count == len(set(CONTENTS.values()))
    shutil.rmtree(tmp_path / "archive")
    snapshot = store.resolve(result.id)
    snapshot.restore(tmp_path / "out")
    assert read_tree(tmp_path / "out") == CONTENTS
    assert snapshot.record is not None
    assert snapshot.record.source == str(tmp_path / "source")


def test_imported_into_a_store_that_has_it(archive: Path, tmp_path: Path) -> None:
    store = castfs.open(tmp_path / "store", create=True)
    store.ingest(tmp_path / "source")
    result = store.import_manifest(archive)
    assert (result.added_count, result.added_bytes) == (0, 0)
    assert result.new_manifest


def test_their_missing_blob_is_named(archive: Path, tmp_path: Path) -> None:
    digest = json.loads(archive.read_bytes())["files"]["sub/deeper/and/deeper/f"]["sha256"]
    (tmp_path / "archive/blobs" / digest[:2] / digest).unlink()
    with pytest.raises(BlobError, match="deeper/and/deeper/f"):
        castfs.find_snapshot(str(archive)).restore(tmp_path / "out")
    store = castfs.open(tmp_path / "store", create=True)
    with pytest.raises(BlobError, match=digest):
        store.import_manifest(archive)
    assert list(store.iter_snapshots()) == []


@pytest.mark.mounted
@pytest.mark.parametrize("layout", ["archive", "flat"])
def test_mounted(layout: str, tmp_path: Path, request: pytest.FixtureRequest) -> None:
    manifest: Path = request.getfixturevalue(layout)
    mountpoint = tmp_path / "mnt"
    mountpoint.mkdir()
    command: list[str | Path] = [sys.executable, "-m", "castfs", "mount", manifest, mountpoint]
    result = subprocess.run(
        [*command, "--", "cp", "-a", mountpoint, tmp_path / "out"],
        capture_output=True,
        timeout=60,
        check=False,
    )
    assert result.returncode == 0, result.stderr
    assert b"castfs import" in result.stderr
    assert read_tree(tmp_path / "out") == CONTENTS
    assert not os.path.ismount(mountpoint)
