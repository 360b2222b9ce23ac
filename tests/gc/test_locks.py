"""Who waits for whom: one collector, short holds, and nothing slow while others wait."""

from __future__ import annotations

import fcntl
import os
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from castfs import syscalls
from castfs.errors import BusyError
from castfs.gc import GcOptions, collect, holds, tracker
from castfs.gc.holds import BATCH_SECONDS, PAUSE_SECONDS, Holds
from castfs.gc.sweep import Sweep
from castfs.gc.tracker import RootTracker
from castfs.repository import Store
from castfs.store import Depot, locks
from castfs.store.locks import try_flock
from tests.gc.acting import (
    LITTER,
    LOST,
    Scene,
    Step,
    gc,
    has,
    into_trash_long_ago,
    is_free,
    listing,
    locks_are_free,
)
from tests.store.processes import lock_holder


@pytest.mark.parametrize("dry_run", [False, True])
def test_the_second_collector_says_so_and_does_nothing(garbage: Scene, dry_run: bool) -> None:
    store = garbage.store
    with (store.path / "gc.lock").open("rb") as other:
        assert try_flock(other.fileno(), fcntl.LOCK_EX)
        before = listing(store.path)
        with pytest.raises(BusyError, match="another collector"):
            store.plan_gc() if dry_run else gc(store)
        assert listing(store.path) == before
    assert gc(store).deleted.count == 3


@pytest.mark.parametrize(
    ("owner", "name"),
    [(RootTracker, "find_trash"), (Sweep, "run"), (Sweep, "_delete_blobs"), (time, "sleep")],
)
def test_it_is_alone_from_begin_to_end(
    garbage: Scene, at: Callable[..., Step], owner: Any, name: str
) -> None:
    """Also while it lets others have the store."""

    def second() -> None:
        with pytest.raises(BusyError):
            gc(garbage.store)

    at(owner, name, second)
    assert gc(garbage.store).deleted.count == 3


def test_everything_is_deleted_while_nobody_else_holds_the_store(
    scene: Scene, monkeypatch: pytest.MonkeyPatch
) -> None:
    store = scene.store
    into_trash_long_ago(store, scene.lost.id)
    seen: list[str] = []
    original = os.unlink

    def unlink(path: Any, *args: Any, **kwargs: Any) -> None:
        if not str(path).startswith(str(store.path / "staging")):
            seen.append(str(path))
            assert not is_free(store.path / "gate")
            assert not is_free(store.path / "store")
        original(path, *args, **kwargs)

    monkeypatch.setattr(os, "unlink", unlink)
    gc(store)
    # A record, two manifests, three blobs.
    assert len(seen) == 6


def test_a_writer_that_holds_the_store_is_waited_for(garbage: Scene) -> None:
    """Another process; it is let go at the moment at which the collector would have to wait."""
    store = garbage.store
    with lock_holder(store.path) as writer, pytest.MonkeyPatch.context() as patch:
        writer.hold("shared")
        original = locks.try_flock
        waited = []

        def try_flock(fd: int, operation: int) -> bool:
            got = original(fd, operation)
            if os.readlink(f"/proc/self/fd/{fd}").endswith("/store"):
                waited.append(got)
                if len(waited) == 1:
                    assert has(store, LITTER)
                    writer.let_go()
            return got

        patch.setattr(locks, "try_flock", try_flock)
        gc(store)
    assert waited[:2] == [False, True]
    assert not has(store, LITTER)


# Batches -------------------------------------------------------------------------------------


class Clock:
    """Each look at it takes a millisecond. Sleeping is noted."""

    def __init__(self) -> None:
        self.now = 1000.0
        self.slept: list[float] = []
        self.asleep: Callable[[], object] = lambda: None

    def monotonic(self) -> float:
        self.now += 0.001
        return self.now

    def sleep(self, seconds: float) -> None:
        self.slept.append(seconds)
        self.asleep()


@pytest.fixture
def clock(monkeypatch: pytest.MonkeyPatch) -> Clock:
    clock = Clock()
    monkeypatch.setattr(holds, "time", clock)
    return clock


def test_batches_end_by_time_and_others_have_a_pause(depot: Depot, clock: Clock) -> None:
    free: list[bool] = []
    clock.asleep = lambda: free.append(locks_are_free(depot))
    held: list[bool] = []
    done: list[int] = []

    def do(item: int) -> None:
        done.append(item)
        held.append(locks_are_free(depot))

    batches = list(Holds(depot).in_batches(range(100), do))
    assert done == list(range(100))
    assert not any(held)
    # 20 ms, a millisecond for each, and rounding.
    assert BATCH_SECONDS == 0.020
    assert max(batches) <= 21
    assert min(batches[:-1]) >= 18
    assert sum(batches) == 100
    assert len(clock.slept) == len(batches)
    assert min(clock.slept) >= PAUSE_SECONDS == 0.005
    assert all(free)


def test_one_slow_item_is_a_batch(depot: Depot, clock: Clock) -> None:
    def do(item: int) -> None:
        clock.now += 1

    assert list(Holds(depot).in_batches(range(3), do)) == [1, 1, 1]


def test_the_longest_hold_is_told(depot: Depot, clock: Clock) -> None:
    holding = Holds(depot)
    for seconds in (0.1, 0.4, 0.2):
        with holding.exclusive():
            clock.now += seconds
    assert 0.4 <= holding.longest_seconds < 0.41


def test_before_each_batch_the_follower_has_seen_what_is_new(depot: Depot, clock: Clock) -> None:
    calls: list[str] = []

    class Follower:
        tries = 0

        def keep_up(self, *, whatever: bool = False) -> bool:
            assert not locks_are_free(depot)
            self.tries += 1
            calls.append("whatever" if whatever else "keep up")
            return self.tries % 3 == 0

        def catch_up(self) -> None:
            assert locks_are_free(depot)
            calls.append("catch up")

    def do(item: int) -> None:
        calls.append("do")
        clock.now += 1

    list(Holds(depot).in_batches(range(2), do, Follower()))
    assert calls == ["keep up", "catch up", "keep up", "catch up", "keep up", "do"] * 2


# Nothing slow --------------------------------------------------------------------------------


def test_no_lock_is_held_while_disks_work_or_large_manifests_are_read(
    scene: Scene, at: Callable[..., Step], monkeypatch: pytest.MonkeyPatch
) -> None:
    """All manifests count as large here: those of records, the trash, pins, and one that is young
    and unreferenced. The collector reads no blob at all."""
    store = scene.store
    monkeypatch.setattr(tracker, "_INLINE_BYTES", 0)
    seen: list[tuple[str, bool]] = []

    def watch(module: Any, name: str) -> None:
        original = getattr(module, name)

        def call(*args: Any, **kwargs: Any) -> Any:
            seen.append((name, locks_are_free(store.depot)))
            return original(*args, **kwargs)

        monkeypatch.setattr(module, name, call)

    with store.resolve(scene.kept.id).pinned("test"):
        store.remove_for_good(scene.kept.id)
        store.remove(scene.lost.id)
        [young] = (p for p in store.depot.manifests_dir.glob("??/*") if is_litter(p))
        os.utime(young)
        watch(syscalls, "syncfs")
        watch(os, "fsync")
        watch(os, "readv")
        # As a trashed record that expires makes it fsync, too.
        other = into_trash_long_ago(store, store.ingest(scene.lost_source).id)
        seen.clear()
        result = gc(store)
        assert not other.exists()
    assert result.kept["readers"].count == 1
    assert result.kept["grace"].count == 1
    names = [name for name, _ in seen]
    assert (names.count("syncfs"), names.count("fsync"), names.count("readv") >= 3) == (1, 1, True)
    assert [name for name, free in seen if not free] == []


def is_litter(path: Path) -> bool:
    return b'"litter"' in path.read_bytes()


def test_what_dead_processes_left_is_deleted_while_others_go_on(
    scene: Scene, monkeypatch: pytest.MonkeyPatch
) -> None:
    store = scene.store
    staging = store.path / "staging" / "w-0123456789abcdef" / "ab"
    staging.mkdir(parents=True)
    (staging / ("ab" * 32)).write_bytes(b"staged")
    free: list[bool] = []
    original = os.unlink

    def unlink(path: Any, *args: Any, **kwargs: Any) -> None:
        if path == "ab" * 32:
            free.append(locks_are_free(store.depot))
        original(path, *args, **kwargs)

    monkeypatch.setattr(os, "unlink", unlink)
    gc(store)
    assert free == [True]
    assert list((store.path / "staging").iterdir()) == []


# The stamp -----------------------------------------------------------------------------------


@pytest.mark.parametrize("offset", [-1e9, 1e9])
def test_the_programs_clock_does_not_matter(
    scene: Scene, monkeypatch: pytest.MonkeyPatch, offset: float
) -> None:
    """Neither to what is young nor to what has been in the trash for long enough."""
    store = scene.store
    now, now_ns = time.time, time.time_ns
    monkeypatch.setattr(time, "time", lambda: now() + offset)
    monkeypatch.setattr(time, "time_ns", lambda: now_ns() + round(offset * 1e9))
    store.remove(scene.lost.id)
    [trashed] = store.depot.trash_dir.iterdir()
    for path in store.path.glob("blobs/??/*"):
        if path.read_bytes() == LITTER:
            os.utime(path, ns=(now_ns() - 3500 * 10**9,) * 2)
    result = gc(store, trash_age_seconds=10)
    assert result.deleted.count == 0
    assert result.expired == ()
    assert trashed.exists()
    for path in store.path.glob("blobs/??/*"):
        if path.read_bytes() == LITTER:
            os.utime(path, ns=(now_ns() - 3700 * 10**9,) * 2)
    assert gc(store, trash_age_seconds=10).deleted.count == 1


def wait_for_the_next_tick(store: Store, path: Path) -> None:
    """File times lag by a tick of the kernel's clock."""
    probe = store.path / "quarantine" / "probe"
    deadline = time.monotonic() + 10
    while True:
        probe.touch()
        if probe.stat().st_mtime_ns > path.stat().st_mtime_ns:
            break
        assert time.monotonic() < deadline
    probe.unlink()


@pytest.mark.parametrize(
    ("owner", "name"), [(RootTracker, "settle"), (RootTracker, "find_trash"), (Sweep, "run")]
)
def test_what_is_younger_than_the_listing_stays_even_without_grace(
    garbage: Scene, at: Callable[..., Step], owner: Any, name: str
) -> None:
    """The stamp is older than the list of roots: whoever came after that is not known."""
    store = garbage.store
    [path] = (p for p in store.path.glob("blobs/??/*") if p.read_bytes() == LOST)

    def touch() -> None:
        os.utime(path)
        wait_for_the_next_tick(store, path)

    at(owner, name, touch, late=owner is not Sweep)
    gc(store, grace_seconds=0)
    assert has(store, LOST)
    assert not has(store, LITTER)


@pytest.mark.parametrize(("age", "stays"), [(0, True), (1, False)])
def test_only_what_is_strictly_older_goes(
    garbage: Scene, monkeypatch: pytest.MonkeyPatch, age: int, stays: bool
) -> None:
    """Than the stamp minus the grace period, to the nanosecond."""
    store, stamp = garbage.store, 1_700_000_000 * 10**9
    monkeypatch.setattr(Depot, "stamp_ns", lambda depot: stamp)
    set_times(store, stamp - 60 * 10**9 - age)
    planned = collect(store.depot, GcOptions(grace_seconds=60), dry_run=True)
    result = gc(store, grace_seconds=60)
    assert has(store, LITTER) is stays
    assert result.deleted.count == planned.deleted.count == (0 if stays else 3)


@pytest.mark.parametrize(("age", "stays"), [(0, True), (1, False)])
def test_so_it_is_for_what_was_touched_after_the_plan(
    garbage: Scene, monkeypatch: pytest.MonkeyPatch, at: Callable[..., Step], age: int, stays: bool
) -> None:
    store, stamp = garbage.store, 1_700_000_000 * 10**9
    monkeypatch.setattr(Depot, "stamp_ns", lambda depot: stamp)
    at(Sweep, "_delete_blobs", lambda: set_times(store, stamp - 60 * 10**9 - age))
    assert gc(store, grace_seconds=60).deleted.count == (0 if stays else 3)


def set_times(store: Store, mtime_ns: int) -> None:
    for path in store.path.glob("blobs/??/*"):
        os.utime(path, ns=(0, mtime_ns))
