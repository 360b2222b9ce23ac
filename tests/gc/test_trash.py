"""Removing: into the trash by one rename, back, for good; and what is being read stays."""

from __future__ import annotations

import fcntl
import os
import subprocess
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

import castfs
from castfs.errors import BusyError, DamageError, NotFoundError
from castfs.gc import planning
from castfs.gc.sweep import Sweep
from castfs.gc.tracker import RootTracker
from castfs.repository import Store
from castfs.repository.removing import remove_for_good
from castfs.store import Depot, pin_manifest
from castfs.store.locks import try_flock
from castfs.store.trash import iter_trash, move_to_trash, take_back
from tests.gc.acting import (
    LITTER,
    LOST,
    Scene,
    Step,
    age,
    gc,
    has,
    into_trash_long_ago,
    is_free,
)
from tests.store.checking import check_store


class Trace:
    """Renames, unlinks and fsyncs of the store, with whether the store was held."""

    def __init__(self, store: Path, patch: pytest.MonkeyPatch) -> None:
        self.calls: list[tuple[str, str, str]] = []
        for name in ("rename", "unlink", "fsync"):
            self._wrap(store, patch, name)

    def _wrap(self, store: Path, patch: pytest.MonkeyPatch, name: str) -> None:
        original = getattr(os, name)

        def call(path: Any, *args: Any, **kwargs: Any) -> Any:
            where = os.readlink(f"/proc/self/fd/{path}") if isinstance(path, int) else str(path)
            self.calls.append((name, str(Path(where).relative_to(store)), held(store)))
            return original(path, *args, **kwargs)

        patch.setattr(os, name, call)


def held(store: Path) -> str:
    if is_free(store / "store"):
        return "free"
    return "shared" if is_free(store / "gate") else "exclusive"


def test_removing_is_one_rename_under_the_shared_lock_and_durable(
    scene: Scene, monkeypatch: pytest.MonkeyPatch
) -> None:
    trace = Trace(scene.store.path, monkeypatch)
    scene.store.remove(scene.lost.id)
    record = f"snapshots/{scene.lost.id}.json"
    [name] = (f"trash/{path.name}" for path in scene.store.depot.trash_dir.iterdir())
    synced = [("fsync", "snapshots", "free"), ("fsync", "trash", "free")]
    assert trace.calls == [("rename", record, "shared"), *synced]
    trace.calls.clear()
    scene.store.undelete(scene.lost.id)
    assert trace.calls == [("rename", name, "shared"), *reversed(synced)]  # where it was first
    trace.calls.clear()
    scene.store.remove_for_good(scene.lost.id)
    assert trace.calls[0] == ("unlink", record, "exclusive")
    assert ("fsync", "snapshots", "free") in trace.calls[1:]


def test_the_time_is_in_the_name_by_the_stores_clock(
    scene: Scene, monkeypatch: pytest.MonkeyPatch
) -> None:
    stamp = 1_700_000_000_123 * 10**6
    monkeypatch.setattr(Depot, "stamp_ns", lambda depot: stamp + 999_999)
    scene.store.remove(scene.lost.id)
    [path] = scene.store.depot.trash_dir.iterdir()
    assert path.name == f"{1_700_000_000_123:012x}-{scene.lost.id}.json"
    [trashed] = iter_trash(scene.store.depot)
    assert trashed.name.deleted_ns == stamp


@pytest.mark.parametrize(("older_ms", "goes"), [(0, False), (1, True)])
def test_it_goes_once_it_has_been_there_for_long_enough(
    scene: Scene, monkeypatch: pytest.MonkeyPatch, older_ms: int, goes: bool
) -> None:
    start_ms = 1_700_000_000_000
    monkeypatch.setattr(Depot, "stamp_ns", lambda depot: start_ms * 10**6)
    scene.store.remove(scene.lost.id)
    later = (start_ms + 30 * 86400 * 1000 + older_ms) * 10**6
    monkeypatch.setattr(Depot, "stamp_ns", lambda depot: later)
    result = gc(scene.store)
    assert result.expired == ((scene.lost.id,) if goes else ())
    assert result.trash_count == 1
    assert has(scene.store, LOST) is not goes


def test_removing_what_somebody_else_removed(scene: Scene) -> None:
    depot = scene.store.depot
    move_to_trash(depot, [scene.lost.id])
    with pytest.raises(NotFoundError, match=scene.lost.id):
        move_to_trash(depot, [scene.lost.id])
    [trashed] = iter_trash(depot)
    take_back(depot, [trashed.name])
    with pytest.raises(NotFoundError, match=scene.lost.id):
        take_back(depot, [trashed.name])
    record = depot.read_record(scene.lost.id)
    scene.store.remove_for_good(scene.lost.id)
    remove_for_good(depot, [record])  # gone already: as it should be


def test_what_is_undeleted_while_a_plan_is_made_is_not_said_to_expire(
    scene: Scene, at: Callable[..., Step]
) -> None:
    into_trash_long_ago(scene.store, scene.lost.id)
    assert scene.store.plan_gc().expired == (scene.lost.id,)
    at(RootTracker, "settle", lambda: scene.store.undelete(scene.lost.id))
    result = scene.store.plan_gc()
    assert (result.expired, result.snapshot_count, result.trash_count) == ((), 2, 0)


# Held ----------------------------------------------------------------------------------------


@pytest.fixture
def trashed(scene: Scene) -> Path:
    """The record's file; its time in the trash is over."""
    return into_trash_long_ago(scene.store, scene.lost.id)


def hold(path: Path, stack: list[Any]) -> None:
    """As a reader does that may not write the store: a shared flock, opened read-only."""
    file = path.open("rb")
    assert try_flock(file.fileno(), fcntl.LOCK_SH)
    stack.append(file)


@pytest.fixture
def holding() -> Iterator[list[Any]]:
    files: list[Any] = []
    yield files
    for file in files:
        file.close()


STEPS = [None, (planning.Planner, "_find_manifests"), (Sweep, "run"), (Sweep, "_empty_trash")]


@pytest.mark.parametrize("step", STEPS)
def test_a_trashed_snapshot_that_is_read_stays_with_its_contents(
    scene: Scene, trashed: Path, holding: list[Any], at: Callable[..., Step], step: Any
) -> None:
    if step is None:
        hold(trashed, holding)
    else:
        at(*step, lambda: hold(trashed, holding))
    result = gc(scene.store)
    assert (result.held, result.expired) == ((scene.lost.id,), ())
    assert trashed.exists()
    assert has(scene.store, LOST)
    assert not has(scene.store, LITTER)
    check_store(scene.store.path)
    holding.pop().close()
    result = gc(scene.store)
    assert (result.held, result.expired) == ((), (scene.lost.id,))
    assert not has(scene.store, LOST)


STEPS = [None, (planning.Planner, "_find_blobs"), (Sweep, "run"), (Sweep, "_delete_manifests")]


@pytest.mark.parametrize("step", STEPS)
def test_a_manifest_that_nothing_leads_to_and_that_is_read_stays_with_its_contents(
    garbage: Scene, holding: list[Any], at: Callable[..., Step], step: Any
) -> None:
    path = garbage.store.depot.manifest_path(garbage.lost.manifest_id)
    if step is None:
        hold(path, holding)
    else:
        at(*step, lambda: hold(path, holding))
    result = gc(garbage.store)
    assert path.exists()
    assert has(garbage.store, LOST)
    assert not has(garbage.store, LITTER)
    assert result.kept["readers"].count == 2
    assert result.deleted_manifests == 1
    check_store(garbage.store.path)
    holding.pop().close()
    assert gc(garbage.store).deleted.count == 2


def test_removal_for_good_needs_the_readers_lock_and_does_the_others(
    scene: Scene, holding: list[Any]
) -> None:
    """Without waiting."""
    store = scene.store
    record = store.depot.record_path(scene.lost.id)
    hold(record, holding)
    with pytest.raises(BusyError, match=scene.lost.id):
        store.remove_for_good(scene.lost.id, scene.kept.id)
    assert record.exists()
    assert not store.depot.record_path(scene.kept.id).exists()
    # Into the trash it may go: it stays a root there.
    store.remove(scene.lost.id)
    [trashed] = store.depot.trash_dir.iterdir()
    with pytest.raises(BusyError, match=scene.lost.id):
        store.remove_for_good(scene.lost.id)
    assert trashed.exists()
    holding.pop().close()
    store.remove_for_good(scene.lost.id)
    assert not trashed.exists()


def test_a_reader_that_comes_at_the_moment_of_deletion_is_told(
    scene: Scene, trashed: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The collector tests and deletes while it holds the store, so a reader's flock that is
    refused is never a test that was about to end."""
    seen: list[str] = []
    original = fcntl.flock

    def flock(fd: int, operation: int) -> None:
        path = os.readlink(f"/proc/self/fd/{fd}")
        if path.endswith(".json"):
            seen.append(held(scene.store.path))
        original(fd, operation)

    monkeypatch.setattr(fcntl, "flock", flock)
    gc(scene.store)
    # The record twice, two manifests twice.
    assert seen == ["exclusive"] * 6


@pytest.mark.needs_root
def test_a_reader_on_a_read_only_mount(scene: Scene, tmp_path: Path) -> None:
    """A real one: the same files through a read-only bind mount."""
    path = tmp_path / "read-only"
    path.mkdir()
    subprocess.run(["mount", "--bind", scene.store.path, path], check=True)
    try:
        subprocess.run(["mount", "-o", "remount,bind,ro", path], check=True)
        reader: Store = castfs.open(path)
        snapshot = reader.resolve(scene.lost.id)
        with snapshot.pinned("test") as protected:
            assert protected
            with pytest.raises(BusyError):
                scene.store.remove_for_good(scene.lost.id)
            into_trash_long_ago(scene.store, scene.lost.id)
            assert gc(scene.store).held == (scene.lost.id,)
            with snapshot.open("lost") as file:
                assert file.read() == LOST
        assert gc(scene.store).expired == (scene.lost.id,)
        with (
            pytest.raises(DamageError),
            pin_manifest(reader.depot, snapshot.manifest_id, purpose="test"),
        ):
            pass
        del snapshot, reader
    finally:
        subprocess.run(["umount", "-l", path], check=True, timeout=10)


def test_a_mounted_snapshot_whose_record_was_removed_before_the_listing(scene: Scene) -> None:
    """The pin's own manifest leads there, long after the store's is old and named by nobody."""
    store = scene.store
    snapshot = store.resolve(scene.lost.id)
    with snapshot.pinned("mount"):
        store.remove_for_good(scene.lost.id)
        age(store.path)
        result = gc(store)
        assert result.kept["readers"].count == 2
        with snapshot.open("lost") as file:
            assert file.read() == LOST
        assert not has(store, LITTER)
    assert gc(store).deleted.count == 2
