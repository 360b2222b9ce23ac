"""What a store may meet besides snapshots: lost records, wrong clocks, names that are none of ours,
many of everything. A collector neither fails over it nor deletes what it should not."""

from __future__ import annotations

import os
import re
import shutil
from collections.abc import Callable
from pathlib import Path

import pytest

from castfs import syscalls
from castfs.errors import StoreError, UsageError
from castfs.gc import GcOptions
from castfs.gc.marks import Marks
from castfs.gc.sweep import Sweep
from castfs.gc.tracker import RootTracker
from castfs.repository import removing
from castfs.store import Depot, WriteSession, roots
from castfs.store.leases import HEARTBEAT_LIMIT_SECONDS, Lease
from castfs.store.records import new_record_id
from castfs.store.trash import TRASH_NAME, TrashName, list_trash, move_to_trash, take_back
from tests.gc.acting import (
    HOUR_NS,
    KEPT,
    LITTER,
    LOST,
    MORE,
    OLD_NS,
    SHARED,
    Scene,
    Step,
    blob_names,
    blob_path,
    digest_of,
    gc,
    has,
    listing,
    manifest_of,
    publish,
    rely_on,
)
from tests.store.checking import check_store

YEAR_NS = 365 * 24 * HOUR_NS


# Where nothing leads anywhere ----------------------------------------------------------------


@pytest.mark.parametrize("dry_run", [False, True])
def test_a_running_ingest_does_not_make_up_for_snapshots_that_are_gone(
    scene: Scene, dry_run: bool
) -> None:
    """A disk that was not mounted over snapshots/, and a timer that begins the next ingest."""
    store = scene.store
    for path in store.depot.snapshots_dir.iterdir():
        path.unlink()
    with WriteSession(store.depot, purpose="test") as session:
        rely_on(session, [KEPT])
        before = listing(store.path)
        with pytest.raises(StoreError, match="give --force"):
            store.plan_gc() if dry_run else gc(store)
        assert listing(store.path) == before
        # What it relies on stays even so.
        gc(store, force=True)
        assert blob_names(store.path) == {digest_of(KEPT)}


def test_a_reader_does(scene: Scene) -> None:
    """Somebody who reads knows of a snapshot: it has been removed, and not lost."""
    store = scene.store
    with store.resolve(scene.kept.id).pinned("test"):
        store.remove_for_good(scene.kept.id, scene.lost.id)
        gc(store)
        assert blob_names(store.path) == {digest_of(KEPT), digest_of(SHARED)}


# A writer whose clock is set back ------------------------------------------------------------


@pytest.mark.parametrize("there", [True, False], ids=["found", "written"])
def test_a_manifest_that_is_about_to_be_recorded_stays_whatever_its_time(
    garbage: Scene, at: Callable[..., Step], there: bool
) -> None:
    """It looks years old a moment after it was touched, and a collection runs before the record is
    there."""
    store = garbage.store
    manifest = manifest_of(store, garbage.lost.manifest_id)
    path = store.depot.manifest_path(manifest.id)
    if not there:
        path.unlink()

    def collect() -> None:
        os.utime(path, ns=(OLD_NS, OLD_NS))
        gc(store, grace_seconds=0)
        assert path.exists()

    at(WriteSession, "_publish_manifest", collect, late=True)
    with WriteSession(store.depot, purpose="test") as session:
        rely_on(session, [SHARED, LOST, MORE])
        session.commit_blobs()
        record = publish(session, manifest)
    assert store.depot.record_path(record.id).exists()
    check_store(store.path)
    assert not has(store, LITTER)


def test_a_manifest_that_is_found_after_the_plan_stays_whatever_its_time(
    garbage: Scene, at: Callable[..., Step]
) -> None:
    store = garbage.store
    manifest = manifest_of(store, garbage.lost.manifest_id)
    path = store.depot.manifest_path(manifest.id)
    with WriteSession(store.depot, purpose="test") as session:
        rely_on(session, [SHARED, LOST, MORE])
        session.commit_blobs()

        def find() -> None:
            assert session._rely_on(manifest.id)
            os.utime(path, ns=(OLD_NS, OLD_NS))

        at(Sweep, "_delete_manifests", find)
        gc(store, grace_seconds=0)
        assert path.exists()
        record = publish(session, manifest)
    assert store.depot.record_path(record.id).exists()
    check_store(store.path)


# Ages ----------------------------------------------------------------------------------------


@pytest.mark.parametrize("option", ["grace_seconds", "trash_age_seconds"])
@pytest.mark.parametrize("seconds", [-1, -0.001, float("nan"), float("inf"), float("-inf")])
def test_an_age_that_is_none(option: str, seconds: float) -> None:
    with pytest.raises(UsageError, match="no age") as caught:
        GcOptions(**{option: seconds})  # type: ignore[arg-type]
    assert caught.value.exit_code == 2
    GcOptions(**{option: 0})  # type: ignore[arg-type]


# Clocks that were ahead ----------------------------------------------------------------------


def test_blobs_from_the_future_grow_old(garbage: Scene, monkeypatch: pytest.MonkeyPatch) -> None:
    """Else they would never go. One of today stays as it is: another machine's clock may be a bit
    ahead. So does what somebody needs."""
    store = garbage.store
    now = store.depot.stamp_ns()
    ahead, near, needed = (blob_path(store, data) for data in (LITTER, MORE, KEPT))
    for path, when in ((ahead, YEAR_NS), (near, 23 * HOUR_NS), (needed, YEAR_NS)):
        os.utime(path, ns=(now + when, now + when))
    store.plan_gc()
    assert ahead.stat().st_mtime_ns == now + YEAR_NS
    gc(store)
    assert now - HOUR_NS < ahead.stat().st_mtime_ns < now + HOUR_NS
    assert near.stat().st_mtime_ns == now + 23 * HOUR_NS
    assert needed.stat().st_mtime_ns == now + YEAR_NS
    original = Depot.stamp_ns
    monkeypatch.setattr(Depot, "stamp_ns", lambda depot: original(depot) + 2 * HOUR_NS)
    gc(store)
    assert not has(store, LITTER)
    assert has(store, MORE)


def test_what_was_deleted_in_the_future_goes_when_the_trash_is_emptied(scene: Scene) -> None:
    store = scene.store
    store.remove(scene.lost.id)
    [name] = list_trash(store.depot)
    later = TrashName(name.record_id, name.deleted_ns + YEAR_NS)
    (store.depot.trash_dir / str(name)).rename(store.depot.trash_dir / str(later))
    assert gc(store, trash_age_seconds=1).expired == ()
    assert gc(store, trash_age_seconds=0).expired == (scene.lost.id,)
    assert not has(store, LOST)


@pytest.mark.parametrize(("beyond_ns", "lives"), [(-HOUR_NS, True), (HOUR_NS, False)])
def test_a_heartbeat_far_ahead_is_none(
    garbage: Scene, monkeypatch: pytest.MonkeyPatch, beyond_ns: int, lives: bool
) -> None:
    """Another machine's lease, stamped while its clock was wrong, would protect for ever."""
    store = garbage.store
    monkeypatch.setattr(syscalls, "is_local", lambda fd: False)
    with monkeypatch.context() as patch:
        patch.setattr(syscalls, "boot_id", lambda: "another")
        lease = Lease(store.depot.leases_dir, kind="writer", purpose="test", mode=0o600)
        lease.acquire()
        log = lease.path.read_bytes() + bytes.fromhex(digest_of(LOST))
        lease.release()
    lease.path.write_bytes(log)
    beat = store.depot.stamp_ns() + HEARTBEAT_LIMIT_SECONDS * 10**9 + beyond_ns
    os.utime(lease.path, ns=(beat, beat))
    gc(store, network_store=True)
    assert lease.path.exists() is lives
    assert has(store, LOST) is lives
    assert not has(store, LITTER)


# Names that are none of ours -----------------------------------------------------------------


def put_odd_names(scene: Scene, outside: Path) -> list[Path]:
    """All of them old, and none of them a blob or manifest that castfs wrote."""
    blobs, manifests = scene.store.depot.blobs.path, scene.store.depot.manifests_dir
    digest = digest_of(b"odd")
    shard = digest[:2]
    assert re.search("[a-f]", digest)
    names: list[str | bytes] = [
        "é" * 64,
        shard + "é" * 62,
        shard + "٣" * 62,
        "٣" * 64,
        b"\xff" * 64,
        digest.upper(),
        shard + digest[2:].upper(),
        ("0" if shard[0] != "0" else "1") + digest[1:],
        digest[:-1],
        digest + "0",
        digest + "\n",
    ]
    odd: list[Path] = []
    for directory, suffix in ((blobs, b""), (manifests, b".json")):
        for place in (shard, shard.upper(), "é" * 2, "٣٣", "zz"):
            (directory / place).mkdir(exist_ok=True)
            odd += [directory / place / os.fsdecode(os.fsencode(name) + suffix) for name in names]
    for path in odd:
        path.write_bytes(b"odd")
    # A copy in the wrong place does not make two of what lies in the right one.
    lost = scene.store.depot.manifest_path(scene.lost.manifest_id)
    for path in (blob_path(scene.store, LITTER), lost):
        directory = path.parents[1] / ("00" if path.name[:2] != "00" else "01")
        directory.mkdir(exist_ok=True)
        odd.append(Path(shutil.copy(path, directory)))
    outside.mkdir()
    # Names of shards that happen not to be there: a manifest's id is another each time.
    taken = {path.name for directory in (blobs, manifests) for path in directory.iterdir()}
    free = sorted({f"{number:02x}" for number in range(256)} - taken)
    for directory, end in ((blobs, ""), (manifests, ".json")):
        # Whose names are right, and what they are is not.
        (directory / shard / f"{digest}{end}").mkdir()
        link = directory / shard / f"{digest_in(shard, directory)}{end}"
        (outside / f"file{end}").write_bytes(b"odd")
        link.symlink_to(outside / f"file{end}")
        away = outside / f"shard{end}"
        away.mkdir()
        foreign = away / f"{digest_in(free[0], directory)}{end}"
        foreign.write_bytes(b"odd")
        (directory / free[0]).symlink_to(away)
        (directory / free[1]).write_bytes(b"odd")
        odd += [directory / shard / f"{digest}{end}", link, outside / f"file{end}", foreign]
        odd += [directory / free[0], directory / free[1]]
    for path in odd:
        os.utime(path, ns=(OLD_NS, OLD_NS), follow_symlinks=False)
    return odd


def digest_in(shard: str, seed: Path) -> str:
    return shard + digest_of(os.fsencode(seed))[2:]


def test_what_has_an_odd_name_is_left_alone(garbage: Scene, tmp_path: Path) -> None:
    """It does not count, is not announced, not deleted, and disturbs nobody."""
    store = garbage.store
    plain = store.plan_gc()
    odd = put_odd_names(garbage, tmp_path / "outside")
    before = {path: path.lstat().st_ino for path in odd}
    planned = store.plan_gc()
    assert planned.scanned == plain.scanned
    done = gc(store)
    for result in (planned, done):
        assert result.deleted == plain.deleted
        assert result.deleted_manifests == plain.deleted_manifests == 2
        assert result.kept == plain.kept
    assert {path: path.lstat().st_ino for path in odd if os.path.lexists(path)} == before
    assert not has(store, LITTER)
    assert has(store, KEPT)


# Many of them --------------------------------------------------------------------------------


class Counting:
    """A pattern that counts how often it is asked."""

    def __init__(self, pattern: re.Pattern[str]) -> None:
        self.pattern = pattern
        self.count = 0

    def fullmatch(self, text: str) -> re.Match[str] | None:
        self.count += 1
        return self.pattern.fullmatch(text)


COUNT = 20_000


@pytest.fixture
def many(depot: Depot) -> Depot:
    """Records and deleted records, all links of two empty files."""
    for directory, prefix in ((depot.snapshots_dir, ""), (depot.trash_dir, f"{1:012x}-")):
        names = [f"{prefix}{new_record_id()}.json" for _ in range(COUNT)]
        (directory / names[0]).touch()
        for name in names[1:]:
            os.link(directory / names[0], directory / name)
    return depot


def test_names_that_are_known_are_not_parsed_again(
    many: Depot, monkeypatch: pytest.MonkeyPatch
) -> None:
    """They are listed fifty times a second, while everybody waits."""
    counters = [Counting(roots._RECORD), Counting(TRASH_NAME)]
    monkeypatch.setattr(roots, "_RECORD", counters[0])
    monkeypatch.setattr(roots, "TRASH_NAME", counters[1])
    known = roots.list_roots(many)
    assert [counter.count for counter in counters] == [COUNT, COUNT]
    (many.snapshots_dir / f"{new_record_id()}.json").touch()
    found = roots.list_roots(many, known)
    assert [counter.count for counter in counters] == [COUNT + 1, COUNT]
    assert len(found.records - known.records) == 1
    assert found.trash == known.trash


def test_the_collector_remembers_names(many: Depot, monkeypatch: pytest.MonkeyPatch) -> None:
    counter = Counting(TRASH_NAME)
    monkeypatch.setattr(roots, "TRASH_NAME", counter)
    tracker = RootTracker(many, Marks(), now_ns=many.stamp_ns())
    for _ in range(3):
        with many.locks.exclusive():
            assert len(tracker.survey().trash) == COUNT
    assert counter.count == COUNT


# Removing for good what moves ----------------------------------------------------------------


@pytest.mark.parametrize("was", ["live", "deleted"])
def test_removing_for_good_finds_what_somebody_else_moves(
    scene: Scene, at: Callable[..., Step], was: str
) -> None:
    """Into the trash, or out of it, after it was looked for. It must not come back from there."""
    store = scene.store
    if was == "deleted":
        store.remove(scene.lost.id)

    def move() -> None:
        if was == "live":
            move_to_trash(store.depot, [scene.lost.id])
        else:
            take_back(store.depot, list_trash(store.depot))

    at(removing, "delete_records", move)
    store.remove_for_good(scene.lost.id)
    assert not store.depot.record_path(scene.lost.id).exists()
    assert list_trash(store.depot) == []
    assert store.depot.record_path(scene.kept.id).exists()
