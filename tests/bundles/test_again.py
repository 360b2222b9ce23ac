"""A newer bundle into a store that had an older one: what is here stays, what it lacks comes."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest

import castfs
from castfs import Store
from castfs.bundles.exporting import export_bundle
from castfs.bundles.importing import UnbundleResult, import_bundle
from castfs.bundles.merging import Merged
from castfs.catalog import NameFile, reading
from castfs.gc import GcOptions
from castfs.retention import Policy
from tests.bundles.making import change, members_of, write_members

Carry = Callable[[], UnbundleResult]


@pytest.fixture
def source(tmp_path: Path) -> Store:
    """Three versions of one name."""
    store = castfs.open(tmp_path / "source", create=True)
    for number in (1, 2, 3):
        add(store, tmp_path, f"v{number}")
    return store


def add(store: Store, tmp_path: Path, text: str) -> None:
    (tmp_path / "tree").mkdir(exist_ok=True)
    (tmp_path / "tree" / "file").write_text(text)
    store.ingest(tmp_path / "tree", name="ds", type="dataset")


@pytest.fixture
def carry(source: Store, here: Store, tmp_path: Path) -> Carry:
    def carry() -> UnbundleResult:
        export_bundle(source.depot, ["ds"], tmp_path / "x.castfs", replace=True)
        return import_bundle(here.depot, tmp_path / "x.castfs")

    return carry


def known(store: Store) -> NameFile:
    with reading(store.depot) as catalog:
        found = catalog.name("ds")
    assert found is not None
    return found


def versions(store: Store) -> list[int]:
    return sorted(record.version or 0 for record in store.iter_snapshots())


def events(store: Store) -> list[tuple[str, int, bool]]:
    """(kind, version, did it happen here?), oldest first."""
    return [(each.kind, each.version, each.store is None) for each in known(store).history]


def collect(store: Store) -> None:
    store.gc(GcOptions(grace_seconds=0, trash_age_seconds=0))


def test_taken_out_of_the_trash_there(source: Store, here: Store, carry: Carry) -> None:
    source.remove("ds:v1")
    assert carry().added_versions == ("ds:v2", "ds:v3")
    assert events(here) == [("remove", 1, False)]
    source.undelete("ds:v1")
    done = carry()
    assert (done.added_versions, done.deleted_versions) == (("ds:v1",), ())
    # Here it was never away.
    assert events(here) == []


def test_deleted_for_good_elsewhere(
    source: Store, here: Store, carry: Carry, tmp_path: Path
) -> None:
    """What a third store did with its copy is no reason."""
    third = castfs.open(tmp_path / "third", create=True)
    export_bundle(source.depot, ["ds"], tmp_path / "x.castfs")
    import_bundle(third.depot, tmp_path / "x.castfs")
    third.remove("ds:v1")
    collect(third)
    assert events(third)[-1] == ("delete", 1, True)
    export_bundle(third.depot, ["ds"], tmp_path / "third.castfs")
    import_bundle(here.depot, tmp_path / "third.castfs")
    assert ("delete", 1, False) in events(here)
    assert known(here).last_version == 3
    assert carry().added_versions == ("ds:v1",)
    assert events(here) == []


def test_pruned_here(source: Store, here: Store, carry: Carry, tmp_path: Path) -> None:
    carry()
    here.forget(Policy(last=1), name="ds")
    collect(here)
    blobs = len(list((here.path / "blobs").glob("*/*")))
    add(source, tmp_path, "v4")
    done = carry()
    assert (done.added_versions, done.deleted_versions) == (("ds:v4",), ("ds:v1", "ds:v2"))
    assert versions(here) == [3, 4]
    # Nor do the contents of what stays out come in.
    assert (done.added_count, len(list((here.path / "blobs").glob("*/*")))) == (1, blobs + 1)
    assert here.verify().problems == ()


def test_nothing_but_what_was_deleted_here(here: Store, carry: Carry) -> None:
    carry()
    here.remove("ds", all_versions=True)
    collect(here)
    done = carry()
    assert done.deleted_versions == ("ds:v1", "ds:v2", "ds:v3")
    assert (done.added_versions, versions(here)) == ((), [])


def test_in_the_trash_here(here: Store, carry: Carry) -> None:
    carry()
    here.remove("ds:v2")
    done = carry()
    assert (done.added_versions, done.trashed_versions) == ((), ("ds:v2",))
    assert versions(here) == [1, 3]


def test_tags_and_values(source: Store, here: Store, carry: Carry) -> None:
    source.tag("ds:v1", "raw")
    source.set_metadata("ds:v1", {"acc": 1, "site": "a"})
    carry()
    here.tag("ds:v1", "mine")
    here.set_metadata("ds:v1", {"acc": 2})
    source.tag("ds:v1", "approved")
    source.set_metadata("ds:v1", {"acc": 3, "lr": 0.1})
    done = carry()
    assert done.merged == (
        Merged(version="ds:v1", tags=("approved",), metadata=("lr",), kept=("acc",)),
    )
    record = here.resolve("ds:v1").record
    assert record is not None
    assert record.tags == ("raw", "mine", "approved")
    assert record.metadata == {"acc": 2, "site": "a", "lr": 0.1}
    again = carry()
    assert again.merged == (Merged(version="ds:v1", tags=(), metadata=(), kept=("acc",)),)
    assert here.resolve("ds:v1").record == record


def test_nothing_new(source: Store, here: Store, carry: Carry) -> None:
    source.tag("ds:v1", "raw")
    source.set_alias("ds:v2", "best")
    carry()
    before = sorted((p.name, p.read_bytes()) for p in here.path.glob("*/*.json"))
    done = carry()
    assert (done.merged, done.set_aliases, done.kept_aliases) == ((), (), ())
    assert sorted((p.name, p.read_bytes()) for p in here.path.glob("*/*.json")) == before


def test_aliases(source: Store, here: Store, carry: Carry) -> None:
    source.set_alias("ds:v2", "best")
    assert carry().set_aliases == ("ds:best",)
    assert events(here) == [("alias", 2, False)]
    source.set_alias("ds:v3", "best")
    source.set_alias("ds:v1", "first")
    done = carry()
    assert (done.set_aliases, done.kept_aliases) == (("ds:first",), ("ds:best",))
    assert known(here).aliases == {"best": 2, "first": 1}
    # Nobody here ever moved it to v3.
    assert events(here) == [("alias", 2, False), ("alias", 1, False)]


def test_an_alias_that_was_taken_away_here(source: Store, here: Store, carry: Carry) -> None:
    source.set_alias("ds:v2", "best")
    carry()
    here.remove_alias("ds", "best")
    assert carry().set_aliases == ("ds:best",)
    assert events(here) == [("alias", 2, False), ("unalias", 2, True), ("alias", 2, True)]


def test_an_alias_of_what_does_not_come(source: Store, here: Store, carry: Carry) -> None:
    source.set_alias("ds:v1", "old")
    source.remove("ds:v1", force=True)
    carry()
    assert (known(here).aliases, events(here)) == ({}, [("remove", 1, False)])


def test_home_again(source: Store, here: Store, carry: Carry, tmp_path: Path) -> None:
    """What happened in a store is its own, also if it comes back in a bundle."""
    source.set_alias("ds:v2", "best")
    source.set_alias("ds:v3", "best")
    source.remove("ds:v1")
    before = known(source)
    carry()
    export_bundle(here.depot, ["ds"], tmp_path / "back.castfs")
    done = import_bundle(source.depot, tmp_path / "back.castfs")
    assert (done.added_versions, done.kept_aliases, known(source)) == ((), (), before)


def test_numbers_are_believed_as_far_as_something_had_them(
    source: Store, here: Store, tmp_path: Path
) -> None:
    export_bundle(source.depot, ["ds"], tmp_path / "x.castfs")
    act = change("names", last_version=10**15 - 1)
    write_members(tmp_path / "x.castfs", act(members_of(tmp_path / "x.castfs")))
    import_bundle(here.depot, tmp_path / "x.castfs")
    add(here, tmp_path, "another")
    assert versions(here) == [1, 2, 3, 4]


def test_numbers_of_what_was_deleted_are_not_given_again(
    source: Store, here: Store, carry: Carry, tmp_path: Path
) -> None:
    source.remove("ds:v3")
    collect(source)
    carry()
    add(here, tmp_path, "another")
    assert versions(here) == [1, 2, 4]
