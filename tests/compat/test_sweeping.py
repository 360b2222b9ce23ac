"""Sweeping an archive: what anything names stays, and doubt deletes nothing."""

from __future__ import annotations

import os
import subprocess
import sys
import threading
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

import castfs
import castfs.compat.runicorn as rn
from castfs.compat.runicorn.assets.writing import BlobWriter
from castfs.store import locks
from tests.compat import older
from tests.compat.two_runs import (
    FIRST,
    ONE,
    SECOND,
    contents,
    manifest_of,
    state,
)
from tests.interop.conftest import Runicorn

RESTORE = "runicorn.assets.restore.restore_from_manifest"


def sweep(storage: Path, **words: Any) -> dict[str, Any]:
    """As if all that is there were old."""
    return rn.cleanup_orphaned_blobs(storage, grace_seconds=0, **words)


@pytest.mark.parametrize("dry_run", [True, False])
def test_counts(storage: Path, blobs: Path, runs: tuple[Path, Path], dry_run: bool) -> None:
    older.put_blob(blobs, b"orphan")
    older.put_blob(blobs, b"another orphan")
    before, needed = state(storage), contents(blobs) - {b"orphan", b"another orphan"}
    assert sweep(storage, dry_run=dry_run) == {
        "success": True,
        "blobs_scanned": 8,
        "orphaned_blobs": 2,
        "bytes_freed": len(b"orphan") + len(b"another orphan"),
        "errors": [],
    }
    if dry_run:
        assert state(storage) == before
    else:
        assert contents(blobs) == needed


def test_manifest_that_no_index_knows(storage: Path, blobs: Path, tmp_path: Path) -> None:
    source = older.write_files(tmp_path / "data", FIRST)
    rn.archive_dir(source, storage / "archive", category="datasets")
    older.write_manifest(storage / "archive/manifests/run_001.json", SECOND, blobs)
    assert sweep(storage)["orphaned_blobs"] == 0
    assert contents(blobs) == {*FIRST.values(), *SECOND.values()}


def test_young_blobs_stay(storage: Path, blobs: Path, tmp_path: Path) -> None:
    """However old their source: theirs have its mtime."""
    path = older.put_blob(blobs, b"orphan")
    os.utime(path, (1, 1))
    result = rn.cleanup_orphaned_blobs(storage)
    assert (result["orphaned_blobs"], result["recent_blobs"]) == (0, 1)
    assert contents(blobs) == {b"orphan"}


@pytest.mark.parametrize("spoil", [b"", b'{"files": {', b"[]", b'{"files": {"a": {}}}'])
def test_unreadable_manifest_stops_it(
    storage: Path, blobs: Path, runs: tuple[Path, Path], spoil: bytes
) -> None:
    older.put_blob(blobs, b"orphan")
    manifest_of(storage, SECOND).write_bytes(spoil)
    before = contents(blobs)
    result = sweep(storage)
    assert (result["success"], result["orphaned_blobs"]) == (False, 0)
    assert len(result["errors"]) == 1
    assert contents(blobs) == before


@pytest.mark.parametrize("spoil", ["assets", "stranger", "symlink", "unreadable"])
def test_doubt_stops_it(
    storage: Path, blobs: Path, runs: tuple[Path, Path], tmp_path: Path, spoil: str
) -> None:
    older.put_blob(blobs, b"orphan")
    manifests = storage / "archive" / "manifests"
    if spoil == "assets":
        (runs[0] / "assets.json").write_text('{"code": ')
    elif spoil == "stranger":
        (manifests / "manifest.json.gz").write_bytes(b"")
    elif spoil == "symlink":
        (manifests / "more").symlink_to(tmp_path)
    else:
        (runs[0] / "assets.json").unlink()
        (runs[0] / "assets.json").symlink_to("assets.json")
    result = sweep(storage)
    assert (result["success"], result["orphaned_blobs"]) == (False, 0)
    assert len(result["errors"]) == 1
    assert b"orphan" in contents(blobs)


def test_what_the_killed_left(storage: Path, blobs: Path) -> None:
    older.write_manifest(storage / "archive/manifests/datasets/aa/m.json", FIRST, blobs)
    ours = blobs / f"tmp-{'a' * 16}"
    ours.write_bytes(b"x")
    for name in (".aabbccdd_x.json.tmp", f"tmp-{'0' * 16}"):
        (storage / "archive/manifests/datasets/aa" / name).write_bytes(b"{")
    assert sweep(storage)["success"] is True
    assert not ours.exists()
    assert contents(blobs) == set(FIRST.values())


def test_nothing_there(storage: Path) -> None:
    assert rn.cleanup_orphaned_blobs(storage) == {
        "success": True,
        "blobs_scanned": 0,
        "orphaned_blobs": 0,
        "bytes_freed": 0,
        "errors": [],
    }
    assert not storage.exists()


def test_archive_is_theirs_afterwards(
    storage: Path, blobs: Path, tmp_path: Path, runicorn: Runicorn
) -> None:
    source = older.write_files(tmp_path / "data", FIRST)
    manifest = runicorn.archive_dir(source, storage / "archive")
    older.put_blob(blobs, b"orphan")
    assert sweep(storage)["orphaned_blobs"] == 1
    stats = runicorn("runicorn.assets.blob_store.get_blob_stats", blobs)
    assert stats == {"blob_count": 2, "total_size_bytes": sum(map(len, FIRST.values()))}
    runicorn(RESTORE, manifest, blobs, tmp_path / "out")
    assert older.read_files(tmp_path / "out") == FIRST


def test_castfs_store(tmp_path: Path) -> None:
    store = castfs.open(tmp_path / "store", create=True)
    assert "castfs store" in sweep(store.path)["errors"][0]


@pytest.mark.parametrize(
    "delete", [sweep, lambda storage: rn.delete_run_completely(ONE, storage)], ids=["sweep", "run"]
)
def test_writer_that_does_not_end(
    storage: Path,
    blobs: Path,
    runs: tuple[Path, Path],
    delete: Callable[[Path], dict[str, Any]],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(locks, "_TRY_SECONDS", 0.01)
    monkeypatch.setattr(locks, "_TRIES", 2)
    older.put_blob(blobs, b"orphan")
    before = contents(blobs)
    with BlobWriter(blobs):
        result = delete(storage)
    assert result["success"] is False
    assert "somebody holds" in result["errors"][0]
    assert contents(blobs) == before
    assert runs[0].exists()
    assert delete(storage)["success"] is True


STORE_AND_NAME = """
import sys
from pathlib import Path
import castfs.compat.runicorn as rn
source, storage = map(Path, sys.argv[1:])
for number in range(15):
    (source / "f").write_bytes(b"%d" % (number % 3))
    rn.archive_dir(source, storage / "archive", category="datasets")
    for manifest in (storage / "archive/manifests").rglob("*.json"):
        rn.load_manifest(manifest)
"""


def test_sweeping_while_others_archive(storage: Path, blobs: Path, tmp_path: Path) -> None:
    """Without any grace: what a manifest names is there, whenever it is swept."""
    processes = []
    for number in range(2):
        source = older.write_files(tmp_path / f"data{number}", FIRST)
        command: list[str | Path] = [sys.executable, "-c", STORE_AND_NAME, source, storage]
        processes.append(subprocess.Popen(command, stderr=subprocess.PIPE))
    ended = threading.Event()
    results: list[dict[str, Any]] = []

    def sweep_on() -> None:
        number = 0
        while not ended.wait(0.001):
            older.put_blob(blobs, b"orphan %d" % number)
            results.append(sweep(storage))
            number += 1

    sweeper = threading.Thread(target=sweep_on)
    sweeper.start()
    try:
        for process in processes:
            _, said = process.communicate(timeout=90)
            assert process.returncode == 0, said
    finally:
        ended.set()
        sweeper.join()
    assert {tuple(result["errors"]) for result in results} == {()}
    assert any(result["orphaned_blobs"] for result in results)
    manifests = list((storage / "archive/manifests").rglob("*.json"))
    assert len(manifests) == 3
    for number, manifest in enumerate(manifests):
        rn.restore_from_manifest(str(manifest), str(tmp_path / f"out{number}"))
