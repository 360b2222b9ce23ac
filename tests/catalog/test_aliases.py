"""Aliases mean one version at any moment, and their names remember which."""

from __future__ import annotations

import threading

import pytest

import castfs
from castfs.catalog import RunFile, Use, changing
from castfs.catalog.files import write_run
from castfs.repository.artifacts import find_standing
from tests.catalog.conftest import Versions
from tests.catalog.test_versions import EMPTY_TRASH, forget_database


def meaning(store: castfs.Store, word: str) -> int | None:
    record = store.resolve(word).record
    assert record is not None
    return record.version


@pytest.mark.parametrize("database", ["kept", "deleted"])
def test_history(versions: Versions, database: str) -> None:
    store = versions.store
    versions.make(count=3)
    assert store.set_alias("m:v1", "best").before is None
    assert store.set_alias("m:v3", "best").before == 1
    assert store.set_alias("m:v3", "best").before == 3, "no move, no event"
    assert store.set_alias("m:latest", "newest").version == 3
    assert store.remove_alias("m", "best").before == 3
    if database == "deleted":
        forget_database(store)
    found = store.aliases("m")
    assert found.aliases == {"newest": 3}
    assert [(e.alias, e.before, e.version) for e in found.history] == [
        ("best", 3, None),
        ("newest", None, 3),
        ("best", 1, 3),
        ("best", None, 1),
    ]
    assert all("@" in event.by for event in found.history)
    with pytest.raises(castfs.NotFoundError, match="the aliases of m are: newest"):
        store.resolve("m:best")


def test_a_move_is_one_step(versions: Versions) -> None:
    """Whoever looks while it is moved sees the old version or the new one."""
    store = versions.store
    versions.make(count=2)
    store.set_alias("m:v1", "best")
    seen: set[int | None] = set()
    done = threading.Event()

    def look() -> None:
        while not done.is_set():
            seen.add(meaning(store, "m:best"))

    thread = threading.Thread(target=look)
    thread.start()
    try:
        for number in range(20):
            store.set_alias(f"m:v{number % 2 + 1}", "best")
    finally:
        done.set()
        thread.join(60)
    assert seen <= {1, 2}
    assert len(store.aliases("m").history) == 20


def test_what_an_alias_means_is_not_removed(versions: Versions) -> None:
    store = versions.store
    versions.make(count=2)
    store.set_alias("m:v1", "best")
    for remove in (store.remove, store.remove_for_good):
        with pytest.raises(castfs.BusyError, match="m:v1 is used by alias best"):
            remove("m:v2", "m:v1")
    assert meaning(store, "m") == 2, "all or none"
    store.remove("m:v1", force=True)
    store.undelete("m:v1")
    assert meaning(store, "m:best") == 1


def test_what_a_run_was_given_is_not_removed(versions: Versions) -> None:
    store = versions.store
    versions.make(count=2)
    record = store.resolve("m:v1").record
    assert record is not None
    run = RunFile(
        id="20260115_100000_abc123",
        created_at=record.created_at,
        uses=(Use(id=record.id, at=record.created_at, name="m", version=1),),
    )
    with changing(store.depot) as change:
        change.touch_run(run.id)
        write_run(store.depot, run)
    with pytest.raises(castfs.BusyError, match=f"m:v1 is used by run {run.id}"):
        store.remove("m:v1")
    store.forget(castfs.Policy(last=1))
    assert meaning(store, "m:v1") == 1
    assert find_standing(store.depot, record).used_by == (run.id,)
    store.remove("m:v1", force=True)


@pytest.mark.parametrize("way", ["permanent", "expired"])
def test_what_is_gone_for_good_has_no_alias(versions: Versions, way: str) -> None:
    store = versions.store
    versions.make(count=2)
    store.set_alias("m:v1", "best")
    store.set_alias("m:v2", "other")
    if way == "permanent":
        store.remove_for_good("m:v1", force=True)
    else:
        store.remove("m:v1", force=True)
        assert store.aliases("m").aliases == {"best": 1, "other": 2}
        store.gc(EMPTY_TRASH)
    assert store.aliases("m").aliases == {"other": 2}
    assert store.aliases("m").history[0].version is None


def test_forget_keeps_what_an_alias_means(versions: Versions) -> None:
    store = versions.store
    versions.make(count=3)
    store.set_alias("m:v1", "best")
    store.forget(castfs.Policy(last=1))
    assert [each.status for each in store.iter_versions("m")] == ["ready", "deleted", "ready"]


def test_only_versions_have_aliases(versions: Versions) -> None:
    unnamed = versions.store.ingest(versions.tree).id
    with pytest.raises(castfs.UsageError, match="is no version of a name"):
        versions.store.set_alias(unnamed, "best")
    with pytest.raises(castfs.NotFoundError, match="has no alias"):
        versions.store.remove_alias("m", "best")
