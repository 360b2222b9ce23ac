"""Answers that are read slowly, or not to their end, while others write."""

from __future__ import annotations

import itertools
import sqlite3
from collections.abc import Callable, Iterator

import pytest

import castfs
from castfs.catalog import questions
from castfs.catalog.database import FILE_NAME
from tests.catalog.conftest import Versions

ITERATORS: dict[str, Callable[[castfs.Store], Iterator[object]]] = {
    "snapshots": lambda store: store.iter_snapshots(),
    "of a name": lambda store: store.iter_snapshots(name="m"),
    "versions": lambda store: store.iter_versions("m"),
    "artifacts": lambda store: store.iter_artifacts(),
    "deleted": lambda store: store.iter_deleted(),
    "log": lambda store: store.log(),
    "search": lambda store: store.search("m"),
}


@pytest.mark.parametrize("what", ITERATORS)
def test_one_that_is_half_read_holds_nothing(
    store: castfs.Store, versions: Versions, what: str
) -> None:
    """Of SQLite's log nothing can be taken into the database that somebody may yet ask for."""
    versions.make(count=4)
    versions.make("other")
    store.remove("m:v1", "m:v2")
    half_read = ITERATORS[what](store)
    next(half_read)
    versions.make()
    connection = sqlite3.connect(store.path / FILE_NAME, timeout=1, isolation_level=None)
    try:
        busy, *_ = connection.execute("PRAGMA wal_checkpoint(TRUNCATE)").fetchone()
    finally:
        connection.close()
    assert busy == 0
    assert list(half_read) is not None


@pytest.mark.parametrize("filters", [{}, {"name": "m"}, {"tags": ["odd"]}])
def test_pages(
    store: castfs.Store,
    versions: Versions,
    monkeypatch: pytest.MonkeyPatch,
    filters: dict[str, object],
) -> None:
    """Each record once, in order, whatever lies where a page ends."""
    monkeypatch.setattr(questions, "_FIRST_PAGE", 2)
    monkeypatch.setattr(questions, "_LAST_PAGE", 3)
    versions.make(count=9)
    for number in (1, 3, 5, 7, 9):
        store.tag(f"m:v{number}", "odd")
    found = [record.version for record in store.iter_snapshots(**filters)]  # type: ignore[arg-type]
    assert found == ([9, 7, 5, 3, 1] if "tags" in filters else [9, 8, 7, 6, 5, 4, 3, 2, 1])
    for number in (2, 1, 4, 3, 6):
        store.remove(f"m:v{number}")
    assert [each.record.version for each in store.iter_deleted()] == [6, 3, 4, 1, 2]
    assert [each.record.version for each in store.iter_versions("m")] == list(range(1, 10))


def test_what_is_removed_while_it_is_listed(
    store: castfs.Store, versions: Versions, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(questions, "_FIRST_PAGE", 2)
    monkeypatch.setattr(questions, "_LAST_PAGE", 2)
    versions.make(count=6)
    listing = store.iter_snapshots()
    seen = [record.version for record in itertools.islice(listing, 2)]
    store.remove("m:v5", "m:v4", "m:v2")
    versions.make()
    assert seen + [record.version for record in listing] == [6, 5, 3, 1]
