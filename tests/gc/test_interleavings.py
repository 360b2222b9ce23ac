"""Whatever others do at whatever moment of a collection: nothing that is reachable is lost.

A collector lets go of the store between its holds and nowhere else, so "before its n-th hold" are
all the moments at which somebody can move a root or rely on a blob. Each actor below is let in at
each of them.
"""

from __future__ import annotations

import contextlib
import os
import shutil
import threading
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path

import pytest

import castfs
from castfs import syscalls
from castfs.errors import BusyError, DamageError, NotFoundError, StoreError
from castfs.gc.sweep import Sweep
from castfs.manifest import Manifest, encode_manifest
from castfs.repository import Store
from castfs.store import Depot, Record, WriteSession, pin_foreign, pin_manifest
from castfs.store.trash import iter_trash
from tests.gc.acting import (
    HOUR_NS,
    LITTER,
    LOST,
    MORE,
    SHARED,
    Scene,
    Step,
    age,
    at_hold,
    blob_names,
    gc,
    has,
    into_trash_long_ago,
    manifest_of,
    needed_blobs,
    publish,
    rely_on,
)
from tests.store.checking import assert_idle, check_store


@dataclass(frozen=True)
class Place:
    """A copy of a scene's store, in which one interleaving is tried."""

    store: Store
    scene: Scene
    #: Begun before the collection; its lease is known when the actor comes.
    session: WriteSession
    #: The tree that is lost unless somebody needs it.
    manifest: Manifest

    @property
    def path(self) -> Path:
        return self.store.path

    @property
    def depot(self) -> Depot:
        return self.store.depot

    @property
    def lost_id(self) -> str:
        return self.scene.lost.id


#: Begins at a moment of the collection, goes on after it.
Actor = Callable[[Place], Iterator[None]]


class Run:
    """The collection with `actor` at each moment, each in a copy of the scene."""

    def __init__(self, scene: Scene, tmp_path: Path, *, clock_ns: int = 0) -> None:
        self._scene = scene
        self._tmp_path = tmp_path
        self._manifest = manifest_of(scene.store, scene.lost.manifest_id)
        self._clock_ns = clock_ns

    def everywhere(self, actor: Actor) -> int:
        """How many moments there were."""
        number = 0
        while self._once(actor, number := number + 1):
            pass
        # Old trash, marking, what is unfinished, a manifest; to sweep the manifest, and a blob.
        assert number > 6
        return number - 1

    def _once(self, actor: Actor, number: int) -> bool:
        path = self._tmp_path / f"copy {number}"
        shutil.copytree(self._scene.store.path, path)
        store = castfs.open(path)
        with WriteSession(store.depot, purpose="begun before") as session:
            place = Place(store, self._scene, session, self._manifest)
            acting = actor(place)
            with at_hold(number, lambda: next(acting, None)) as step, self._clock():
                gc(store)
            assert not has(path, LITTER)
            if step.done:
                assert next(acting, "ended") == "ended"
                check_store(path)
        if step.done:
            # And nothing stays that nobody needs.
            age(path)
            gc(castfs.open(path))
            check_store(path)
            trash = {str(t.record.manifest) for t in iter_trash(place.depot)}
            if not trash:
                assert blob_names(path) == needed_blobs(path)
            assert_idle(path)
        shutil.rmtree(path)
        return step.done

    @contextlib.contextmanager
    def _clock(self) -> Iterator[None]:
        """The collector began when the store's clock was ahead by that much."""
        original = Depot.stamp_ns
        with pytest.MonkeyPatch.context() as patch:
            patch.setattr(Depot, "stamp_ns", lambda depot: original(depot) + self._clock_ns)
            yield


def has_record(place: Place, record_id: str) -> bool:
    return place.depot.record_path(record_id).exists()


# Writers -------------------------------------------------------------------------------------


def ingests(place: Place) -> Iterator[None]:
    result = place.store.ingest(place.scene.lost_source)
    yield
    assert has_record(place, result.id)


def ingests_long_ago(place: Place) -> Iterator[None]:
    """Only that the record is found protects what it leads to."""
    result = place.store.ingest(place.scene.lost_source)
    age(place.path)
    yield
    assert has_record(place, result.id)


def writes(place: Place, *, aged: bool) -> Iterator[None]:
    with WriteSession(place.depot, purpose="test") as session:
        rely_on(session, [SHARED, LOST, MORE])
        there = blob_names(place.path)
        if aged:
            age(place.path)
        yield
        # What was promised is there; it could have been relied on without another look.
        assert there & {f.sha256 for f in place.manifest.tree.files.values()} <= blob_names(
            place.path
        )
        session.commit_blobs()
        record = publish(session, place.manifest)
    assert has_record(place, record.id)


def claims(place: Place) -> Iterator[None]:
    yield from writes(place, aged=False)


def claims_only_in_its_lease(place: Place) -> Iterator[None]:
    """The blobs look old all the same: the protection of a running ingest uses no clock."""
    yield from writes(place, aged=True)


def claims_in_a_lease_that_is_known(place: Place) -> Iterator[None]:
    rely_on(place.session, [SHARED, LOST, MORE])
    there = blob_names(place.path)
    age(place.path)
    yield
    assert there & {f.sha256 for f in place.manifest.tree.files.values()} <= blob_names(place.path)
    place.session.commit_blobs()
    publish(place.session, place.manifest)


def stages_and_commits_only_in_its_lease(place: Place) -> Iterator[None]:
    with WriteSession(place.depot, purpose="test") as session:
        for data in (SHARED, LOST, MORE):
            session.stage_bytes(data)
        session.commit_blobs()
        age(place.path)
        yield
        record = publish(session, place.manifest)
    assert has_record(place, record.id)


def publishes(place: Place, *, aged: bool = False) -> Iterator[None]:
    """The writer is between its manifest and its record while the rest of the collection runs."""
    written, go_on = threading.Event(), threading.Event()

    class Halting(WriteSession):
        def _publish_manifest(self, *args: object) -> bool:
            result: bool = super()._publish_manifest(*args)  # type: ignore[arg-type]
            if aged:
                age(place.path)
            written.set()
            assert go_on.wait(60)
            return result

    done: list[Record | BaseException] = []

    def write() -> None:
        try:
            with Halting(place.depot, purpose="test") as session:
                rely_on(session, [SHARED, LOST, MORE])
                session.commit_blobs()
                done.append(publish(session, place.manifest))
        except BaseException as exc:
            done.append(exc)
            written.set()

    thread = threading.Thread(target=write)
    thread.start()
    assert written.wait(60)
    yield
    go_on.set()
    thread.join()
    [end] = done
    if isinstance(end, BaseException):
        raise end
    assert has_record(place, end.id)


def holds_its_parent(place: Place) -> Iterator[None]:
    """No log, no touch: the manifest beside the lease, whose record goes at once."""
    with WriteSession(place.depot, purpose="test") as session:
        pinned = session.pin_parent(place.lost_id, place.manifest.id)
        if pinned is None:
            return
        place.store.remove_for_good(place.lost_id)
        age(place.path)
        yield
        assert {f.sha256 for f in place.manifest.tree.files.values()} <= blob_names(place.path)
        session.commit_blobs()
        record = publish(session, place.manifest)
    assert has_record(place, record.id)


WRITERS = [
    ingests, ingests_long_ago, claims, claims_only_in_its_lease, claims_in_a_lease_that_is_known,
    stages_and_commits_only_in_its_lease, publishes,
]  # fmt: skip


@pytest.mark.parametrize("actor", WRITERS)
def test_a_writer_of_what_is_being_deleted(garbage: Scene, tmp_path: Path, actor: Actor) -> None:
    Run(garbage, tmp_path).everywhere(actor)


def test_an_ingest_whose_parent_is_removed(scene: Scene, tmp_path: Path) -> None:
    Run(scene, tmp_path).everywhere(holds_its_parent)


@pytest.mark.parametrize("actor", [ingests, claims_only_in_its_lease])
def test_a_clock_that_was_ahead(garbage: Scene, tmp_path: Path, actor: Actor) -> None:
    """The store's clock steps back while the collector is at work: all that is new looks old."""
    Run(garbage, tmp_path, clock_ns=2 * HOUR_NS).everywhere(actor)


def publishes_or_fails(place: Place) -> Iterator[None]:
    with contextlib.suppress(StoreError):
        yield from publishes(place, aged=True)
    # Either way what is recorded is whole, which is looked at after this.


def test_a_manifest_that_is_gone_before_its_record_is_there(garbage: Scene, tmp_path: Path) -> None:
    """Nothing but its time protects it in between; where that fails the ingest fails, too."""
    Run(garbage, tmp_path).everywhere(publishes_or_fails)


# Readers -------------------------------------------------------------------------------------


def reads(place: Place, *, record: bool = True) -> Iterator[None]:
    """What is pinned stays to the end, whatever happens to the record and to all times."""
    record_id = place.lost_id if record else None
    try:
        with pin_manifest(
            place.depot, place.manifest.id, purpose="test", record_id=record_id
        ) as pin:
            assert pin.protected
            with contextlib.suppress(NotFoundError, BusyError):
                place.store.remove_for_good(place.lost_id)
            age(place.path)
            yield
            assert {f.sha256 for f in place.manifest.tree.files.values()} <= blob_names(place.path)
    except (NotFoundError, DamageError):
        # The reader was told at once, before it relied on anything.
        assert not has_record(place, place.lost_id)


def reads_without_writing(place: Place) -> Iterator[None]:
    place.depot.__dict__["writable"] = False
    yield from reads(place)


def opens_the_manifest(place: Place) -> Iterator[None]:
    """As for a manifest file of the store that is named: no record is known. One that the store
    shows may lack blobs already, so who opens it looks for all of them first."""
    blobs = {f.sha256 for f in place.manifest.tree.files.values()}
    try:
        with pin_manifest(place.depot, place.manifest.id, purpose="test") as pin:
            assert pin.protected
            assert blobs <= blob_names(place.path)
            yield
            assert blobs <= blob_names(place.path)
    except DamageError:
        assert not place.depot.manifest_path(place.manifest.id).exists()


def opens_the_manifest_without_writing(place: Place) -> Iterator[None]:
    place.depot.__dict__["writable"] = False
    yield from opens_the_manifest(place)


def brings_a_manifest(place: Place) -> Iterator[None]:
    chunks = list(encode_manifest(place.manifest))
    with pin_foreign(place.depot, chunks, purpose="test") as pin:
        assert pin.protected
        blobs = {str(f.sha256) for f in place.manifest.tree.files.values()}
        there = blobs & blob_names(place.path)
        yield
        assert there <= blob_names(place.path)


@pytest.mark.parametrize("actor", [reads, reads_without_writing])
def test_a_reader_of_what_is_removed(scene: Scene, tmp_path: Path, actor: Actor) -> None:
    Run(scene, tmp_path).everywhere(actor)


@pytest.mark.parametrize(
    "actor", [opens_the_manifest, opens_the_manifest_without_writing, brings_a_manifest]
)
def test_a_reader_of_what_no_record_leads_to(garbage: Scene, tmp_path: Path, actor: Actor) -> None:
    Run(garbage, tmp_path).everywhere(actor)


# The trash -----------------------------------------------------------------------------------


@pytest.fixture
def expiring(scene: Scene) -> Scene:
    """The second snapshot has been in the trash for long enough."""
    into_trash_long_ago(scene.store, scene.lost.id)
    return scene


def undeletes(place: Place) -> Iterator[None]:
    try:
        place.store.undelete(place.lost_id)
    except NotFoundError:
        return
    yield
    assert has_record(place, place.lost_id)


def undeletes_and_removes(place: Place) -> Iterator[None]:
    """It begins its time in the trash anew."""
    try:
        place.store.undelete(place.lost_id)
    except NotFoundError:
        return
    place.store.remove(place.lost_id)
    yield
    assert [t.record.id for t in iter_trash(place.depot)] == [place.lost_id]
    place.store.undelete(place.lost_id)


def removes(place: Place) -> Iterator[None]:
    place.store.remove(place.lost_id)
    yield
    place.store.undelete(place.lost_id)


def removes_for_good(place: Place) -> Iterator[None]:
    place.store.remove_for_good(place.lost_id)
    yield
    assert not has_record(place, place.lost_id)


def undeletes_reads_and_removes(place: Place) -> Iterator[None]:
    """The reader's own manifest is all that leads there."""
    try:
        place.store.undelete(place.lost_id)
    except NotFoundError:
        return
    yield from reads(place)


def undeletes_takes_as_parent_and_removes(place: Place) -> Iterator[None]:
    """So is that of a writer, whose lease was seen before it had one."""
    try:
        place.store.undelete(place.lost_id)
    except NotFoundError:
        return
    assert place.session.pin_parent(place.lost_id, place.manifest.id) is not None
    place.store.remove_for_good(place.lost_id)
    age(place.path)
    yield
    publish(place.session, place.manifest)


def reads_what_is_in_the_trash(place: Place) -> Iterator[None]:
    """Its reader began before it was removed, and cannot write the store."""
    place.depot.__dict__["writable"] = False
    try:
        place.store.undelete(place.lost_id)
    except NotFoundError:
        return
    with pin_manifest(
        place.depot, place.manifest.id, purpose="test", record_id=place.lost_id
    ) as pin:
        assert pin.protected
        into_trash_long_ago(place.store, place.lost_id)
        yield
        assert {f.sha256 for f in place.manifest.tree.files.values()} <= blob_names(place.path)
        place.store.undelete(place.lost_id)


EXPIRING = [
    undeletes, undeletes_and_removes, undeletes_reads_and_removes,
    undeletes_takes_as_parent_and_removes, reads_what_is_in_the_trash, ingests_long_ago,
]  # fmt: skip


@pytest.mark.parametrize("actor", EXPIRING)
def test_what_happens_to_a_snapshot_that_expires(
    expiring: Scene, tmp_path: Path, actor: Actor
) -> None:
    Run(expiring, tmp_path).everywhere(actor)


@pytest.mark.parametrize("actor", [removes, removes_for_good])
def test_what_happens_to_a_snapshot(scene: Scene, tmp_path: Path, actor: Actor) -> None:
    Run(scene, tmp_path).everywhere(actor)


@pytest.fixture(autouse=True)
def no_power_cuts(monkeypatch: pytest.MonkeyPatch) -> None:
    """Nothing here needs what is on the medium, and all these commits would wait for it."""
    monkeypatch.setattr(os, "fsync", lambda fd: None)
    monkeypatch.setattr(syscalls, "syncfs", lambda fd: None)


def test_all_moments_are_met_and_the_garbage_goes(garbage: Scene, tmp_path: Path) -> None:
    """The ground of the tests above: without an actor everything is deleted that they rely on."""

    def nobody(place: Place) -> Iterator[None]:
        yield
        assert not has(place.path, LOST)
        assert not has(place.path, MORE)
        assert not place.depot.manifest_path(place.manifest.id).exists()

    # Old trash, marking, unfinished, two manifests; to sweep two manifests and three blobs.
    assert Run(garbage, tmp_path).everywhere(nobody) >= 10


# Single protections --------------------------------------------------------------------------


def touch(*paths: Path) -> None:
    for path in paths:
        os.utime(path)


def test_a_blob_that_was_touched_after_the_plan_stays(
    garbage: Scene, at: Callable[..., Step]
) -> None:
    """Before it is deleted its time is looked at again."""
    blobs = garbage.store.path / "blobs"
    at(Sweep, "_delete_blobs", lambda: touch(*blobs.glob("??/*")))
    result = gc(garbage.store)
    assert has(garbage.store, LOST)
    assert has(garbage.store, MORE)
    assert result.deleted.count == 0
    assert result.kept["grace"].count == 3


def test_a_manifest_that_was_touched_after_the_plan_stays_with_what_it_names(
    garbage: Scene, at: Callable[..., Step]
) -> None:
    path = garbage.store.depot.manifest_path(garbage.lost.manifest_id)
    at(Sweep, "run", lambda: os.utime(path))
    result = gc(garbage.store)
    assert path.exists()
    assert has(garbage.store, LOST)
    assert (result.deleted_manifests, result.deleted.count) == (1, 1)


def test_a_young_manifest_that_nothing_leads_to_keeps_what_it_names(garbage: Scene) -> None:
    """Somebody who cannot write the store may open it at any time."""
    path = garbage.store.depot.manifest_path(garbage.lost.manifest_id)
    os.utime(path)
    result = gc(garbage.store)
    assert path.exists()
    assert has(garbage.store, LOST)
    assert has(garbage.store, MORE)
    assert result.kept["grace"].count == 2
    os.utime(path, ns=(0, 0))
    assert gc(garbage.store).deleted.count == 2
    assert not path.exists()


def test_a_damaged_manifest_that_nothing_leads_to_stops_nobody(garbage: Scene) -> None:
    path = garbage.store.depot.manifest_path(garbage.lost.manifest_id)
    path.unlink()
    path.write_bytes(b"damaged")
    assert gc(garbage.store).deleted.count == 3
    assert garbage.store.depot.manifest_path(garbage.kept.manifest_id).exists()
