"""Deleting runs and sweeping blobs: what is shared stays, and doubt deletes nothing."""

from __future__ import annotations

import json
import os
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

import castfs
import castfs.compat.runicorn as rn
from castfs.compat.runicorn.assets import rundeletion
from tests.compat import older
from tests.compat.test_assets_file import make_run
from tests.compat.two_runs import (
    FIRST,
    ONE,
    SECOND,
    TWO,
    all_but_locks,
    contents,
    manifest_of,
    state,
)
from tests.interop.conftest import Runicorn

RESTORE = "runicorn.assets.restore.restore_from_manifest"


@pytest.mark.parametrize("dry_run", [True, False])
def test_counts(storage: Path, blobs: Path, runs: tuple[Path, Path], dry_run: bool) -> None:
    older.write_files(
        storage / "archive/outputs/rolling" / ONE, {"x_last.pth": b"12345", "d/.complete": b""}
    )
    before = state(storage)
    result = rn.delete_run_completely(ONE, storage, dry_run=dry_run)
    assets = {name: result.pop(name) for name in ("orphaned_assets", "kept_assets")}
    assert result == {
        "success": True,
        "run_id": ONE,
        "run_dir_deleted": not dry_run,
        "blobs_deleted": 2,
        "manifests_deleted": 1,
        "outputs_deleted": 2,
        "bytes_freed": len(b"zip one") + len(FIRST["first"]) + 5,
        "errors": [],
    }
    kinds = {name: [asset["asset_type"] for asset in found] for name, found in assets.items()}
    assert kinds == {
        "orphaned_assets": ["code_snapshot", "dataset"],
        "kept_assets": ["pretrained"],
    }
    if dry_run:
        assert state(storage) == before
        return
    assert contents(blobs) == {*SECOND.values(), b"zip two", b"the model of both"}
    assert not manifest_of(storage, FIRST).exists()
    assert manifest_of(storage, SECOND).exists()
    assert os.listdir(runs[0].parent) == [TWO]
    assert not (storage / "archive/outputs/rolling" / ONE).exists()


def test_rolling_outputs_of_a_run_with_a_similar_id_stay(storage: Path, blobs: Path) -> None:
    """Their directory's name is made of the id, and two ids can make the same."""
    for run_id in ("run 1", "run_1"):
        older.write_files(storage / "runs/x" / run_id, {"assets.json": b"{}", "meta.json": b"{}"})
    rolling = storage / "archive/outputs/rolling/run_1"
    older.write_files(rolling, {"x_last.pth": b"12345"})
    result = rn.delete_run_completely("run 1", storage)
    assert (result["success"], result["outputs_deleted"]) == (True, 0)
    assert os.listdir(rolling) == ["x_last.pth"]


def test_shared_blobs_are_restored_by_their_package(
    storage: Path,
    blobs: Path,
    runs: tuple[Path, Path],
    tmp_path: Path,
    runicorn: Runicorn,
) -> None:
    assert rn.delete_run_completely(ONE, storage)["success"] is True
    result = runicorn(RESTORE, manifest_of(storage, SECOND), blobs, tmp_path / "out")
    assert "missing_blobs" not in result
    assert older.read_files(tmp_path / "out") == SECOND


def test_last_run_takes_all(storage: Path, blobs: Path, runs: tuple[Path, Path]) -> None:
    for run_id in (ONE, TWO):
        assert rn.delete_run_completely(run_id, storage)["success"] is True
    assert contents(blobs) == set()
    assert not list((storage / "archive/manifests").rglob("*.json"))


def test_dataset_of_both(storage: Path, blobs: Path) -> None:
    for run_id in (ONE, TWO):
        older.write_run(storage, run_id, datasets={"d": FIRST})
    result = rn.delete_run_completely(ONE, storage)
    assert (result["blobs_deleted"], result["manifests_deleted"]) == (0, 0)
    assert [asset["name"] for asset in result["kept_assets"]] == ["d"]
    assert manifest_of(storage, FIRST).exists()
    result = rn.delete_run_completely(TWO, storage)
    assert (result["blobs_deleted"], result["manifests_deleted"]) == (2, 1)


@pytest.mark.parametrize("without", ["fingerprint", "archive_path"])
def test_named_in_one_way_alone(storage: Path, blobs: Path, without: str) -> None:
    """Another run has the manifest by its path or its fingerprint, and not the other."""
    for run_id in (ONE, TWO):
        run_dir = older.write_run(storage, run_id, datasets={"d": FIRST})
    document = json.loads((run_dir / "assets.json").read_text())
    entry = document["datasets"][0]
    del entry["manifest_path"]
    entry[without] = "/elsewhere.json" if without == "archive_path" else None
    (run_dir / "assets.json").write_text(json.dumps(document))
    result = rn.delete_run_completely(ONE, storage)
    assert (result["success"], result["manifests_deleted"]) == (True, 0)
    assert contents(blobs) == set(FIRST.values())


def test_manifest_that_no_run_names(storage: Path, blobs: Path) -> None:
    older.write_run(storage, ONE, datasets={"d": FIRST})
    older.write_manifest(storage / "archive/manifests/run_001.json", SECOND, blobs)
    assert rn.delete_run_completely(ONE, storage)["blobs_deleted"] == 1
    assert contents(blobs) == set(SECOND.values())


def test_blob_that_another_run_notes(storage: Path, blobs: Path, runs: tuple[Path, Path]) -> None:
    noted = {"model_blob_id": older.sha256(FIRST["first"])}
    (runs[1] / "summary.json").write_text(json.dumps(noted))
    rn.delete_run_completely(ONE, storage)
    assert FIRST["first"] in contents(blobs)


@pytest.mark.parametrize("place", ["runs/.recycle", "project/name/runs"])
def test_runs_in_other_places_count(
    storage: Path, blobs: Path, runs: tuple[Path, Path], place: str
) -> None:
    (storage / place).mkdir(parents=True)
    runs[1].rename(storage / place / TWO)
    rn.delete_run_completely(ONE, storage)
    assert contents(blobs) == {*SECOND.values(), b"zip two", b"the model of both"}
    assert rn.delete_run_completely(TWO, storage)["success"] is True
    assert contents(blobs) == set()
    assert os.listdir(storage / place) == []


def test_moved_storage_root(
    storage: Path, blobs: Path, runs: tuple[Path, Path], tmp_path: Path
) -> None:
    """Its absolute paths lead to another archive, which is not touched."""
    shutil.copytree(storage, tmp_path / "copy")
    before = state(storage)
    result = rn.delete_run_completely(ONE, tmp_path / "copy")
    assert (result["success"], result["manifests_deleted"]) == (True, 1)
    assert result["blobs_deleted"] == 2
    assert state(storage) == before


@pytest.mark.parametrize("spoil", [b"", b'{"files": {', b"[]", b'{"files": {"a": {}}}'])
@pytest.mark.parametrize("what", ["manifest", "assets"])
def test_unreadable_root_stops_it(
    storage: Path, runs: tuple[Path, Path], what: str, spoil: bytes
) -> None:
    path = runs[1] / "assets.json" if what == "assets" else manifest_of(storage, SECOND)
    if what == "assets" and spoil.startswith(b'{"files": {"a"'):
        spoil = b'"text"'
    path.write_bytes(spoil)
    before = all_but_locks(storage)
    for dry_run in (True, False):
        result = rn.delete_run_completely(ONE, storage, dry_run=dry_run)
        assert result["success"] is False
        assert result["run_dir_deleted"] is False
        assert len(result["errors"]) == 1
        assert all_but_locks(storage) == before


@pytest.mark.parametrize("run_id", ["../../x", "", "/", "missing", "..", "demo/x"])
def test_no_run(storage: Path, runs: tuple[Path, Path], run_id: str) -> None:
    (storage.parent / "x").mkdir()
    result = rn.delete_run_completely(run_id, storage)
    assert result["success"] is False
    assert len(result["errors"]) == 1
    assert (storage.parent / "x").exists()
    assert rn.delete_run_completely(ONE, storage)["blobs_deleted"] == 2


def test_stored_again_meanwhile(
    storage: Path, blobs: Path, runs: tuple[Path, Path], tmp_path: Path
) -> None:
    """Somebody has the same content, and its manifest is still to come."""
    (tmp_path / "same").write_bytes(FIRST["first"])
    older.wait_for_later(storage)
    digest = rn.store_blob(tmp_path / "same", blobs)
    result = rn.delete_run_completely(ONE, storage)
    assert (result["success"], result["blobs_deleted"]) == (True, 1)
    assert rn.blob_exists(digest, blobs)


def test_archived_twice(storage: Path, blobs: Path, tmp_path: Path) -> None:
    """By the same run: its own second time is nobody else's first."""
    source = older.write_files(tmp_path / "data", FIRST)
    run_dir = older.write_run(storage, ONE)
    found = rn.archive_dir(source, storage / "archive", category="datasets")
    (run_dir / "assets.json").write_text(json.dumps({"datasets": [{"name": "d", **found}]}))
    assert rn.archive_dir(source, storage / "archive", category="datasets") == found
    result = rn.delete_run_completely(ONE, storage)
    assert (result["blobs_deleted"], result["manifests_deleted"]) == (2, 1)


@pytest.mark.parametrize("place", ["archive/../precious.json", "archive/manifests/link.json"])
def test_names_that_lead_out(storage: Path, tmp_path: Path, place: str) -> None:
    """An `assets.json` of a stranger deletes nothing but its own."""
    precious = older.write_manifest(storage / "precious.json", FIRST, tmp_path / "elsewhere")
    run_dir = older.write_run(storage, ONE, code=b"zip")
    (storage / "archive" / "manifests").mkdir()
    (storage / "archive" / "manifests" / "link.json").symlink_to(precious)
    entry = {"name": "d", "archive_path": str(storage / place), "fingerprint": "0" * 64}
    (run_dir / "assets.json").write_text(json.dumps({"datasets": [entry]}))
    result = rn.delete_run_completely(ONE, storage)
    assert (result["success"], result["manifests_deleted"]) == (True, 0)
    assert precious.exists()


@pytest.mark.parametrize("stop_at", range(4))
def test_interrupted_and_called_again(
    storage: Path,
    blobs: Path,
    runs: tuple[Path, Path],
    monkeypatch: pytest.MonkeyPatch,
    stop_at: int,
) -> None:
    """Two blobs and a manifest go, and then the rest."""
    left = iter(range(stop_at))

    def stop(function: Callable[..., bool]) -> Callable[..., bool]:
        def counted(*args: Any, **words: Any) -> bool:
            if next(left, None) is None:
                raise KeyboardInterrupt
            return function(*args, **words)

        return counted

    with monkeypatch.context() as patch:
        for name in ("remove", "_remove_tree"):
            patch.setattr(rundeletion, name, stop(getattr(rundeletion, name)))
        with pytest.raises(KeyboardInterrupt):
            rn.delete_run_completely(ONE, storage)
    assert sorted(os.listdir(runs[0].parent)) == [f".{ONE}.deleting", TWO]
    assert contents(blobs) >= {*SECOND.values(), b"zip two", b"the model of both"}
    result = rn.delete_run_completely(ONE, storage)
    assert result["success"] is True
    assert result["blobs_deleted"] == max(2 - stop_at, 0)
    assert os.listdir(runs[0].parent) == [TWO]
    assert contents(blobs) == {*SECOND.values(), b"zip two", b"the model of both"}
    assert not manifest_of(storage, FIRST).exists()


@pytest.mark.parametrize("what", ["blob", "manifest"])
def test_what_cannot_be_deleted_is_said(
    storage: Path,
    blobs: Path,
    runs: tuple[Path, Path],
    monkeypatch: pytest.MonkeyPatch,
    what: str,
) -> None:
    blob = older.blob_path(blobs, older.sha256(FIRST["first"]))
    unlink, held = Path.unlink, blob if what == "blob" else manifest_of(storage, FIRST)

    def refuse(path: Path, missing_ok: bool = False) -> None:
        if path == held:
            raise PermissionError(1, "Operation not permitted", str(path))
        unlink(path, missing_ok=missing_ok)

    with monkeypatch.context() as patch:
        patch.setattr(Path, "unlink", refuse)
        result = rn.delete_run_completely(ONE, storage)
    assert (result["success"], result["run_dir_deleted"]) == (False, False)
    assert held.name in result["errors"][0]
    assert result["blobs_deleted"] == (1 if what == "blob" else 2)
    result = rn.delete_run_completely(ONE, storage)
    assert (result["success"], result["run_dir_deleted"]) == (True, True)
    assert not held.exists()
    assert not blob.exists()


def test_hard_linked_blob_frees_nothing(
    storage: Path, blobs: Path, runs: tuple[Path, Path], tmp_path: Path
) -> None:
    os.link(older.blob_path(blobs, older.sha256(b"zip one")), tmp_path / "linked")
    older.settle(storage)
    result = rn.delete_run_completely(ONE, storage, dry_run=True)
    assert (result["blobs_deleted"], result["bytes_freed"]) == (2, len(FIRST["first"]))


def test_equal_files_count_once(storage: Path) -> None:
    older.write_run(storage, ONE, datasets={"d": {"a": b"same", "b": b"same", "c": b"same"}})
    for dry_run in (True, False):
        result = rn.delete_run_completely(ONE, storage, dry_run=dry_run)
        assert (result["blobs_deleted"], result["bytes_freed"]) == (1, 4)


def test_run_of_theirs(storage: Path, blobs: Path, tmp_path: Path, runicorn: Runicorn) -> None:
    """Whose assets are as the real package records them."""
    workspaces = [
        older.write_files(tmp_path / name, files)
        for name, files in (("one", FIRST), ("two", SECOND))
    ]
    found = [make_run(runicorn, storage, workspace) for workspace in workspaces]
    assert len(contents(blobs)) == 5
    result = rn.delete_run_completely(found[0].name, storage)
    assert (result["success"], result["blobs_deleted"]) == (True, 2)
    assert not found[0].exists()
    out = tmp_path / "out"
    runicorn(RESTORE, manifest_of(storage, SECOND), blobs, out)
    assert older.read_files(out) == SECOND


def test_castfs_store(tmp_path: Path) -> None:
    store = castfs.open(tmp_path / "store", create=True)
    result = rn.delete_run_completely(ONE, store.path)
    assert "castfs store" in result["errors"][0]
