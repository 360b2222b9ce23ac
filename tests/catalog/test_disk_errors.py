"""A file of the store that cannot be read, a disk that is full: nobody is told half of it."""

from __future__ import annotations

import errno
import os
from collections.abc import Callable
from pathlib import Path
from typing import Any, NoReturn

import pytest

import castfs
from castfs import atomic
from castfs.bundles.exporting import export_bundle
from castfs.bundles.importing import import_bundle
from castfs.catalog import files, freshness
from castfs.cli import main
from castfs.errors import DamageError, StoreError
from castfs.older import import_archive
from castfs.regular import read_regular
from castfs.runs.removing import remove_run
from castfs.store import Staging
from tests.catalog.conftest import Versions, numbers
from tests.catalog.test_versions import forget_database

Breaker = Callable[[str], None]


@pytest.fixture
def unreadable(monkeypatch: pytest.MonkeyPatch) -> Breaker:
    """`unreadable(room, after=1)`: what lies there can be read once more, and then not."""
    original = read_regular

    def start(room: str, after: int = 0) -> None:
        count = 0

        def read(path: Path) -> bytes | None:
            nonlocal count
            if path.parent.name == room:
                count += 1
                if count > after:
                    raise OSError(errno.EIO, os.strerror(errno.EIO), path)
            return original(path)

        monkeypatch.setattr("castfs.catalog.files.read_regular", read)

    return start


@pytest.mark.parametrize("after", range(4))
def test_a_note_that_can_be_read_again(
    versions: Versions, unreadable: Any, monkeypatch: pytest.MonkeyPatch, after: int
) -> None:
    """Whenever it could not be, what it says is known afterwards."""
    store = versions.store
    versions.make()
    store.tag("m:v1", "good")
    forget_database(store)
    with monkeypatch.context():
        unreadable("notes", after)
        store.set_alias("m:v1", "best")
    monkeypatch.undo()
    assert [record.tags for record in store.iter_snapshots()] == [("good",)]


def test_what_is_not_known_is_not_missing(versions: Versions, unreadable: Any) -> None:
    store = versions.store
    versions.make()
    store.tag("m:v1", "good")
    store.set_metadata("m:v1", {"acc": 1})
    forget_database(store)
    unreadable("notes")
    with pytest.raises(DamageError):
        store.untag("m:v1", "good")
    with pytest.raises(DamageError):
        store.set_metadata("m:v1", {}, unset=["acc"])


def damage(path: Path) -> None:
    path.chmod(0o644)
    path.write_text("{")


def test_all_versions_are_all(versions: Versions) -> None:
    """One that cannot be read may be of the name, too."""
    store = versions.store
    versions.make(count=3)
    store.remove("m:v1", "m:v2")
    damage(next((store.path / "trash").iterdir()))
    with pytest.raises(DamageError):
        store.undelete("m", all_versions=True)
    assert len(os.listdir(store.path / "trash")) == 2
    damage(store.depot.record_path(store.resolve("m:v3").id))
    versions.make()
    with pytest.raises(DamageError):
        store.remove("m", all_versions=True)
    assert len(os.listdir(store.path / "snapshots")) == 2


def test_a_run_is_removed_with_all_that_it_made(store: castfs.Store, tree: Path) -> None:
    with castfs.init("p", "n", store=store) as run:
        for number in range(2):
            (tree / "model.bin").write_text(str(number))
            run.log_artifact(castfs.Artifact("m").add_dir(tree))
    damage(store.depot.record_path(store.resolve("m:v1").id))
    with pytest.raises(DamageError):
        remove_run(store.depot, run.id)
    assert castfs.find_run(run.id, store=store).status == "finished"
    assert len(os.listdir(store.path / "snapshots")) == 2


# A full disk -------------------------------------------------------------------------------------


def refuse(*args: object, **kwargs: object) -> NoReturn:
    raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))


def test_all_of_a_bundle_or_nothing(
    versions: Versions, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Its versions appear by a rename each."""
    versions.make(count=3)
    bundle = tmp_path / "m.castfs"
    export_bundle(versions.store.depot, ["m"], bundle)
    here = castfs.open(tmp_path / "here", create=True)
    original, count = Path.replace, 0

    def replace(path: Path, target: Path) -> Path:
        nonlocal count
        count += target.parent.name == "snapshots"
        if count == 2:
            count += 1
            refuse()
        return original(path, target)

    monkeypatch.setattr(Path, "replace", replace)
    with pytest.raises(StoreError, match="free some space"):
        import_bundle(here.depot, bundle)
    assert list(here.iter_snapshots()) == []
    assert len(import_bundle(here.depot, bundle).added_versions) == 3
    assert numbers(here) == [1, 2, 3]


def test_a_full_disk_damages_no_archive(
    versions: Versions, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A file that could not be written is none that could not be read: no version without it."""
    versions.make()
    archive = tmp_path / "archive"
    there = os.fspath(versions.store.path)
    assert main(["export", "--store", there, "--format", "runicorn", "m", str(archive)]) == 0
    here = castfs.open(tmp_path / "here", create=True)
    with monkeypatch.context() as patch:
        patch.setattr(Staging, "stage_bytes", refuse)
        with pytest.raises(StoreError, match="free some space"):
            import_archive(here.depot, archive)
    assert list(here.iter_snapshots()) == []
    [made] = import_archive(here.depot, archive).versions
    assert (made.version, made.lacks) == (1, 0)


# A power cut -------------------------------------------------------------------------------------


def test_another_boot(versions: Versions, monkeypatch: pytest.MonkeyPatch) -> None:
    """Whatever the directories' times say, the database is compared with the files then, also in a
    store of so many that they are not looked at one by one."""
    monkeypatch.setattr(freshness, "LOOKED_AT", 0)
    store = versions.store
    versions.make(count=2)
    store.set_alias("m:v1", "best")
    database = (store.path / "catalog.db").read_bytes()
    names = store.path / "names"
    before = names.stat()
    text = files.name_path(store.depot, "m").read_text().replace('"best": 1', '"best": 2')
    files.name_path(store.depot, "m").chmod(0o644)
    files.name_path(store.depot, "m").write_text(text)
    assert (store.path / "catalog.db").read_bytes() == database
    assert names.stat() == before
    assert store.aliases("m").aliases == {"best": 1}, "nobody changes a file in place"
    monkeypatch.setattr(freshness, "boot_id", lambda: "another")
    assert store.aliases("m").aliases == {"best": 2}


def test_a_removed_run_stays_so(
    store: castfs.Store, tree: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Its directory is synced once its file is gone."""
    with castfs.init("p", "n", store=store) as run:
        pass
    synced: list[tuple[Path, bool]] = []
    original = atomic.fsync_dir

    def fsync_dir(path: Path) -> None:
        synced.append((path, (store.path / "runs" / f"{run.id}.json").exists()))
        original(path)

    monkeypatch.setattr(atomic, "fsync_dir", fsync_dir)
    remove_run(store.depot, run.id)
    assert (store.path / "runs", False) in synced
