"""What is left of versions that nobody can bring back."""

from __future__ import annotations

import fcntl
import os
import shutil
import unicodedata
from pathlib import Path

import pytest

import castfs
from castfs.catalog import changing, opening
from castfs.catalog.files import note_path
from castfs.errors import BusyError
from castfs.gc import GcOptions
from tests.catalog.conftest import Versions, numbers

COLLECT_ALL = GcOptions(grace_seconds=0, trash_age_seconds=0, force=True)


def kinds(store: castfs.Store, name: str | None = None) -> list[tuple[str, int | None]]:
    return [(entry.kind, entry.version) for entry in store.log(name)]


def test_the_log_remembers_that_it_was_made(store: castfs.Store, versions: Versions) -> None:
    versions.make(count=2)
    [made] = [each for each in store.log("m") if each.version == 1]
    store.remove_for_good("m:v1")
    store.remove("m:v2")
    store.gc(COLLECT_ALL)
    assert sorted(kinds(store)) == [
        ("delete", 1), ("delete", 2), ("remove", 2), ("version", 1), ("version", 2),
    ]  # fmt: skip
    [again] = [each for each in store.log("m") if (each.kind, each.version) == ("version", 1)]
    assert (again.at, again.by) == (made.at, made.by)


def test_what_came_back_was_made_once(
    store: castfs.Store, versions: Versions, tmp_path: Path
) -> None:
    versions.make()
    record = store.depot.record_path(store.resolve("m:v1").id)
    shutil.copy2(record, tmp_path)
    store.remove_for_good("m:v1")
    shutil.copy2(tmp_path / record.name, record)
    assert kinds(store, "m").count(("version", 1)) == 1


def test_one_that_a_reader_holds_keeps_its_aliases(store: castfs.Store, versions: Versions) -> None:
    versions.make(count=2)
    store.set_alias("m:v1", "prod")
    store.set_alias("m:v2", "next")
    fd = os.open(store.depot.record_path(store.resolve("m:v1").id), os.O_RDONLY)
    try:
        fcntl.flock(fd, fcntl.LOCK_SH)
        with pytest.raises(BusyError, match="in use"):
            store.remove_for_good("m:v1", "m:v2", force=True)
    finally:
        os.close(fd)
    assert store.aliases("m").aliases == {"prod": 1}
    assert numbers(store) == [1]
    assert ("unalias", 1) not in kinds(store, "m")


def test_a_record_that_is_in_the_trash_twice(store: castfs.Store, versions: Versions) -> None:
    versions.make()
    record_id = store.resolve("m:v1").id
    for _ in range(2):
        store.remove("m:v1")
        [path] = store.depot.trash_dir.iterdir()
        shutil.copy2(path, store.path / "copy")
        store.undelete("m:v1")
    store.remove("m:v1")
    (store.path / "copy").rename(store.depot.trash_dir / f"000000000001-{record_id}.json")
    assert len(list(store.depot.trash_dir.iterdir())) == 2
    store.remove_for_good("m:v1")
    assert list(store.depot.trash_dir.iterdir()) == []


def test_a_collector_that_could_not_say_so(
    store: castfs.Store, versions: Versions, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Somebody held the catalog. What it collected is told; the next one takes the names away."""
    versions.make(count=2)
    store.set_alias("m:v1", "prod")
    store.tag("m:v1", "good")
    note = note_path(store.depot, store.resolve("m:v1").id)
    store.remove("m:v1", force=True)
    monkeypatch.setattr(opening, "BUSY_SECONDS", 0.05)
    with changing(store.depot):
        assert len(store.gc(COLLECT_ALL).expired) == 1
    assert note.exists()
    store.gc(COLLECT_ALL)
    assert not note.exists()
    assert store.aliases("m").aliases == {}


def test_a_time_that_cannot_be(store: castfs.Store, versions: Versions) -> None:
    """A file in the trash of a time after any that can be told: the collector names it."""
    versions.make()
    record = store.depot.record_path(store.resolve("m:v1").id)
    odd = store.depot.trash_dir / f"ffffffffffff-{record.stem}.json"
    shutil.copy2(record, odd)
    assert numbers(store) == [1]
    with pytest.raises(castfs.DamageError, match=odd.name):
        store.gc(COLLECT_ALL)


def test_a_type_that_is_said_later_is_listed(store: castfs.Store, versions: Versions) -> None:
    versions.make()
    assert store.ingest(versions.tree, name="m", type="dataset").unchanged
    store.tag("m:v1", "good")
    assert [each.type for each in store.iter_snapshots(type="dataset")] == ["dataset"]
    assert [each.name for each in store.iter_artifacts(type="Dataset")] == ["m"]


def test_capitals_of_types_and_composed_letters(store: castfs.Store, tree: Path) -> None:
    composed, apart = (unicodedata.normalize(form, "café") for form in ("NFC", "NFD"))
    store.ingest(tree, name="m", type="Model", tags=[apart], metadata={apart: 1})
    store.tag("m:v1", composed)
    store.set_metadata("m:v1", {composed: 2})
    [record] = store.iter_snapshots(type="MODEL", tags=[apart], metadata={apart: 2})
    assert (record.type, record.tags, record.metadata) == ("model", (composed,), {composed: 2})
    assert store.untag("m:v1", apart).tags == ()
