"""Restore and its kin from manifests of Runicorn's, whole or spoiled."""

from __future__ import annotations

import json
import os
import subprocess
import zipfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

import castfs
import castfs.compat.runicorn as rn
from castfs.errors import BlobError, CastfsError, TargetError
from tests.compat import older
from tests.interop.conftest import Runicorn
from tests.interop.trees import CONTENTS, read_tree, write_tree

THEIRS = "runicorn.assets.restore"


@pytest.fixture
def blobs(tmp_path: Path) -> Path:
    return tmp_path / "archive" / "blobs"


@pytest.fixture
def manifest(tmp_path: Path, blobs: Path) -> Path:
    """`FILES`, one more with the content of one of them, and a large one."""
    files = {**older.FILES, "copy.py": older.FILES["train.py"], "large": b"x" * 2_000_000}
    return older.write_manifest(tmp_path / "archive/manifests/run_001.json", files, blobs)


@pytest.fixture
def out(tmp_path: Path) -> Path:
    return tmp_path / "out"


def files_of(manifest: Path, blobs: Path) -> dict[str, bytes]:
    entries = json.loads(manifest.read_text())["files"]
    return {name: older.blob_path(blobs, e["sha256"]).read_bytes() for name, e in entries.items()}


def blob_of(manifest: Path, blobs: Path, name: str) -> Path:
    return older.blob_path(blobs, json.loads(manifest.read_text())["files"][name]["sha256"])


def change(manifest: Path, **fields: Any) -> None:
    document = json.loads(manifest.read_text())
    manifest.write_text(json.dumps({**document, **fields}))


def test_as_their_package_does(tmp_path: Path, runicorn: Runicorn) -> None:
    manifest = runicorn.archive_dir(write_tree(tmp_path / "data"), tmp_path / "archive")
    words = (manifest, tmp_path / "archive/blobs")
    ours = rn.restore_from_manifest(*words, tmp_path / "ours")
    theirs = runicorn(f"{THEIRS}.restore_from_manifest", *words, tmp_path / "theirs")
    assert ours == {**theirs, "target_dir": str(tmp_path / "ours")}
    assert read_tree(tmp_path / "ours") == read_tree(tmp_path / "theirs") == CONTENTS
    assert rn.load_manifest(manifest) == runicorn(f"{THEIRS}.load_manifest", manifest)
    ours = rn.export_manifest_to_zip(*words, tmp_path / "ours.zip")
    theirs = runicorn(f"{THEIRS}.export_manifest_to_zip", *words, tmp_path / "theirs.zip")
    assert ours == {**theirs, "zip_path": str(tmp_path / "ours.zip")}
    found = rn.get_file_from_manifest(*words, "sub/.hidden")
    assert str(found) == runicorn(f"{THEIRS}.get_file_from_manifest", *words, "sub/.hidden")


def test_restored(manifest: Path, blobs: Path, tmp_path: Path) -> None:
    target = tmp_path / "new" / "deeper"
    result = rn.restore_from_manifest(
        manifest_path=manifest, blob_root=blobs, target_dir=target, overwrite=False
    )
    expected = files_of(manifest, blobs)
    assert result == {
        "restored_count": 4,
        "total_bytes": sum(map(len, expected.values())),
        "target_dir": str(target),
    }
    assert older.read_files(target) == expected
    (target / "train.py").write_bytes(b"it is mine")


def test_target_must_not_exist(manifest: Path, blobs: Path, out: Path, runicorn: Runicorn) -> None:
    out.mkdir()
    with pytest.raises(FileExistsError, match="Target directory already exists") as caught:
        rn.restore_from_manifest(manifest, blobs, out)
    assert isinstance(caught.value, TargetError)
    assert os.listdir(out) == []
    with pytest.raises(AssertionError, match="FileExistsError"):
        runicorn(f"{THEIRS}.restore_from_manifest", manifest, blobs, out)


def test_overwrite(manifest: Path, blobs: Path, out: Path) -> None:
    older.write_files(out, {"train.py": b"older", "mine": b"mine"})
    rn.restore_from_manifest(manifest, blobs, out, overwrite=True)
    assert older.read_files(out) == {**files_of(manifest, blobs), "mine": b"mine"}


def test_missing_blobs(manifest: Path, blobs: Path, out: Path, runicorn: Runicorn) -> None:
    expected = files_of(manifest, blobs)
    gone = blob_of(manifest, blobs, "train.py")
    gone.unlink()
    ours = rn.restore_from_manifest(manifest, blobs, out)
    theirs = runicorn(f"{THEIRS}.restore_from_manifest", manifest, blobs, out.with_name("theirs"))
    assert ours == {**theirs, "target_dir": str(out)}
    assert ours["missing_blobs"] == [gone.name, gone.name]
    assert ours["error"] == "Missing 2 blob(s)"
    left = {name: c for name, c in expected.items() if name not in ("train.py", "copy.py")}
    assert older.read_files(out) == left
    target = out.with_suffix(".zip")
    ours = rn.export_manifest_to_zip(manifest, blobs, target)
    assert (ours["exported_count"], ours["missing_blobs"]) == (2, [gone.name, gone.name])
    with zipfile.ZipFile(target) as archive:
        assert {name for name in archive.namelist() if name[-1] != "/"} == left.keys()


@pytest.mark.parametrize("name", ["train.py", "large"])
@pytest.mark.parametrize("overwrite", [False, True])
def test_damaged_blobs(manifest: Path, blobs: Path, out: Path, name: str, overwrite: bool) -> None:
    """Of the right size: only hashing tells. They count as missing, and the rest is restored."""
    expected = files_of(manifest, blobs)
    bad = blob_of(manifest, blobs, name)
    bad.write_bytes(b"y" * len(expected[name]))
    result = rn.restore_from_manifest(manifest, blobs, out, overwrite=overwrite)
    assert set(result["missing_blobs"]) == {bad.name}
    left = {n: c for n, c in expected.items() if older.sha256(c) != bad.name}
    assert older.read_files(out) == left
    assert result["restored_count"] == len(left)
    result = rn.export_manifest_to_zip(manifest, blobs, out.with_suffix(".zip"))
    assert set(result["missing_blobs"]) == {bad.name}
    assert result["exported_count"] == len(left)
    with pytest.raises(BlobError):
        rn.get_file_from_manifest(manifest, blobs, name)


EVIL = ["../evil", "/tmp/evil", "a/../../evil", "a/./b", "", "a//b", "x\0y"]


@pytest.mark.parametrize("name", EVIL)
def test_names_that_lead_out(manifest: Path, blobs: Path, out: Path, name: str) -> None:
    entry = {"sha256": older.sha256(older.FILES["train.py"]), "size_bytes": 15}
    manifest.write_text(json.dumps({"files": {name: entry}}))
    before = sorted(out.parent.rglob("*"))
    calls: list[Callable[[], object]] = [
        lambda: rn.restore_from_manifest(manifest, blobs, out),
        lambda: rn.restore_from_manifest(str(manifest), str(out)),
        lambda: rn.export_manifest_to_zip(manifest, blobs, out.with_suffix(".zip")),
        lambda: rn.get_file_from_manifest(manifest, blobs, name),
        lambda: rn.load_manifest(manifest),
    ]
    for act in calls:
        with pytest.raises(ValueError, match=str(manifest)):
            act()
    assert sorted(out.parent.rglob("*")) == before


@pytest.mark.parametrize("digest", ["/etc/hostname", "../../secret", "A" * 64, None, 5])
def test_digests_that_lead_out(manifest: Path, blobs: Path, out: Path, digest: object) -> None:
    (blobs.parent.parent / "secret").write_bytes(b"secret")
    manifest.write_text(json.dumps({"files": {"f": {"sha256": digest, "size_bytes": 6}}}))
    with pytest.raises(ValueError, match="not a SHA-256 digest"):
        rn.restore_from_manifest(manifest, blobs, out)
    with pytest.raises(ValueError, match="not a SHA-256 digest"):
        rn.get_file_from_manifest(manifest, blobs, "f")
    assert not out.exists()


def test_symlinks_in_the_target_are_not_followed(
    manifest: Path, blobs: Path, out: Path, tmp_path: Path
) -> None:
    outside = older.write_files(tmp_path / "outside", {"train.py": b"not to be touched"})
    out.mkdir()
    (out / "train.py").symlink_to(outside / "train.py")
    (out / "configs").symlink_to(outside)
    rn.restore_from_manifest(manifest, blobs, out, overwrite=True)
    assert older.read_files(outside) == {"train.py": b"not to be touched"}
    assert older.read_files(out) == files_of(manifest, blobs)


@pytest.mark.parametrize(
    ("field", "value"),
    [
        ("fingerprint", "0" * 64),
        ("file_count", 5),
        ("total_size_bytes", 1),
        ("files", []),
        ("created_at", "x"),
    ],
)
def test_damaged_manifest(
    manifest: Path, blobs: Path, out: Path, field: str, value: object
) -> None:
    change(manifest, **{field: value})
    calls: list[Callable[[], object]] = [
        lambda: rn.load_manifest(manifest),
        lambda: rn.restore_from_manifest(manifest, blobs, out),
    ]
    for act in calls:
        with pytest.raises(ValueError, match=str(manifest)) as caught:
            act()
        assert isinstance(caught.value, CastfsError)
    assert not out.exists()


def test_no_manifest(manifest: Path, blobs: Path, out: Path) -> None:
    missing = manifest.with_name("missing.json")
    calls: list[Callable[[], object]] = [
        lambda: rn.load_manifest(missing),
        lambda: rn.restore_from_manifest(missing, blobs, out),
        lambda: rn.restore_from_manifest(str(missing), str(out)),
        lambda: rn.export_manifest_to_zip(missing, blobs, out),
        lambda: rn.get_file_from_manifest(missing, blobs, "train.py"),
    ]
    for call in calls:
        with pytest.raises(FileNotFoundError, match=r"missing\.json"):
            call()
    manifest.write_bytes(b"\xff not JSON")
    with pytest.raises(ValueError, match=str(manifest)):
        rn.load_manifest(manifest)
    os.mkfifo(missing)
    with pytest.raises(ValueError, match="not a regular file"):
        rn.load_manifest(missing)


def test_manifest_is_read_again_when_it_changes(manifest: Path, blobs: Path) -> None:
    rn.get_file_from_manifest(manifest, blobs, "train.py")
    older.write_manifest(manifest, {"other": b"other"}, blobs)
    with pytest.raises(KeyError):
        rn.get_file_from_manifest(manifest, blobs, "train.py")
    assert rn.get_file_from_manifest(manifest, blobs, "other").read_bytes() == b"other"
    assert list(rn.load_manifest(manifest)["files"]) == ["other"]


def test_zip(manifest: Path, blobs: Path, tmp_path: Path) -> None:
    target = tmp_path / "new" / "export.zip"
    expected = files_of(manifest, blobs)
    for _ in range(2):  # over the first
        result = rn.export_manifest_to_zip(manifest_path=manifest, blob_root=blobs, zip_path=target)
        assert result == {
            "exported_count": 4,
            "total_bytes": sum(map(len, expected.values())),
            "zip_path": str(target),
        }
    subprocess.run(["unzip", "-q", target, "-d", tmp_path / "out"], check=True, timeout=60)
    assert older.read_files(tmp_path / "out") == expected
    assert os.listdir(target.parent) == ["export.zip"]


def test_single_file(manifest: Path, blobs: Path) -> None:
    path = rn.get_file_from_manifest(
        manifest_path=manifest, blob_root=blobs, rel_path="configs/base.yaml"
    )
    assert path == blob_of(manifest, blobs, "configs/base.yaml")
    for name in ("missing", "configs", "", "../train.py"):
        with pytest.raises(KeyError):
            rn.get_file_from_manifest(manifest, blobs, name)
    path.unlink()
    with pytest.raises(FileNotFoundError, match=path.name):
        rn.get_file_from_manifest(manifest, blobs, "configs/base.yaml")


class TestWithoutBlobRoot:
    """`restore_from_manifest(manifest_path, target_dir)`: the blobs are where the file lies."""

    def test_restored(self, manifest: Path, blobs: Path, out: Path) -> None:
        assert rn.restore_from_manifest(str(manifest), str(out)) is None
        assert older.read_files(out) == files_of(manifest, blobs)

    def test_by_keywords(self, manifest: Path, blobs: Path, tmp_path: Path) -> None:
        target = tmp_path / "new" / "deeper"
        rn.restore_from_manifest(manifest_path=str(manifest), target_dir=str(target))
        assert older.read_files(target) == files_of(manifest, blobs)

    def test_here(
        self, manifest: Path, blobs: Path, out: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        older.write_files(out, {"mine": b"mine"})
        monkeypatch.chdir(out)
        rn.restore_from_manifest(str(manifest))
        assert older.read_files(out) == {**files_of(manifest, blobs), "mine": b"mine"}

    def test_what_is_there_stays(self, manifest: Path, blobs: Path, out: Path) -> None:
        older.write_files(out, {"train.py": b"mine"})
        with pytest.raises(TargetError, match=r"train\.py exists"):
            rn.restore_from_manifest(str(manifest), str(out))
        assert older.read_files(out) == {"train.py": b"mine"}
        rn.restore_from_manifest(str(manifest), str(out), overwrite=True)
        assert older.read_files(out) == files_of(manifest, blobs)

    def test_missing_blob(self, manifest: Path, blobs: Path, out: Path) -> None:
        """Nothing is returned that could say so."""
        blob_of(manifest, blobs, "train.py").unlink()
        with pytest.raises(BlobError, match=r"train\.py|copy\.py"):
            rn.restore_from_manifest(str(manifest), str(out))
        assert not out.exists()

    def test_of_a_castfs_store(self, tmp_path: Path, out: Path) -> None:
        store = castfs.open(tmp_path / "store", create=True)
        result = store.ingest(older.write_files(tmp_path / "data", older.FILES))
        path = store.depot.manifest_path(result.manifest_id)
        rn.restore_from_manifest(str(path), str(out))
        assert older.read_files(out) == older.FILES


def test_two_places_and_a_target_by_name(manifest: Path, blobs: Path, out: Path) -> None:
    result = rn.restore_from_manifest(manifest, blobs, target_dir=out)
    assert result["restored_count"] == 4
