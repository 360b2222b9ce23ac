"""Stores with something to do, and what may be found after it was done by half."""

from __future__ import annotations

import os
import subprocess
import sys
import time
from dataclasses import dataclass, field, replace
from pathlib import Path

import castfs
from castfs.repository import Store
from castfs.store.trash import TrashName, parse_trash_name
from tests.store.processes import ROOT, python_environment

LIVE, TRASH = "snapshots", "trash"
_DAY = 86400
#: For how long a scenario's collector leaves records in the trash, in seconds.
TRASH_AGE = str(30 * _DAY)

#: A writer and a reader die in the middle of their work.
_DIE = """
import os, signal, sys
from pathlib import Path
from castfs.store import WriteSession, open_depot, pin_manifest
depot = open_depot(Path(sys.argv[1]))
manifest = next(depot.iter_manifest_ids())
with WriteSession(depot, purpose="test") as session, pin_manifest(depot, manifest, purpose="test"):
    session.stage_bytes(b"staged by the dead")
    (session.staging.path / "part-1-0").write_bytes(b"half a file")
    (depot.blobs.path / f"probe-{session.params.lease}").write_bytes(b"")
    os.kill(os.getpid(), signal.SIGKILL)
"""

Places = dict[str, str]


@dataclass(frozen=True)
class Scenario:
    """`places` has where each record is before the steps, after the first, and so on, by its id.

    `new` is the manifest of the record that the steps add; `wanted` that of the source.
    """

    store: Path
    source: Path
    steps: list[list[str]]
    places: list[Places]
    wanted: str
    new: str | None = None
    #: What others have done a moment before, without a sync: a rename, or (to "") a removal.
    unsynced: list[tuple[str, str]] = field(default_factory=list)
    #: Where such a rename has put a record, until the step is done.
    moved: Places = field(default_factory=dict)


@dataclass(frozen=True)
class Base:
    """A store with snapshots: one that stays, three that may go, two in the trash."""

    store: Store
    source: Path
    stays: str
    live: list[str]
    trashed: list[str]
    #: The manifest that the next ingest of the source will make.
    wanted: str

    @property
    def places(self) -> Places:
        live = dict.fromkeys((self.stays, *self.live), LIVE)
        return live | dict.fromkeys(self.trashed, TRASH)

    def find_trashed(self, record_id: str) -> TrashName:
        names = map(parse_trash_name, os.listdir(self.store.depot.trash_dir))
        return next(name for name in names if name and name.record_id == record_id)

    def scenario(
        self, steps: list[list[str]], *changes: Places, new: str | None = None
    ) -> Scenario:
        """`changes` has what each step does to the places; "" for gone."""
        places = [self.places]
        for change in changes:
            moved = {**places[-1], **change}
            places.append({key: place for key, place in moved.items() if place})
        return Scenario(self.store.path, self.source, steps, places, self.wanted, new)


def make_base(store: Store, source: Path, other: Store) -> Base:
    """`other` is a store of no other use: the source is ingested there to know what comes of it."""
    ids = []
    for number in range(6):
        (source / "a").write_bytes(b"changed %d" % number)
        (source / f"of {number}").write_bytes(b"%d alone has this" % number)
        ids.append(store.ingest(source).id)
        (source / f"of {number}").unlink()
    store.remove(*ids[4:])
    (source / "a").write_bytes(b"last changed")
    (source / "new").mkdir()
    for number in range(4):
        (source / "new" / f"{number}").write_bytes(b"new %d" % (number // 2))
    (source / "new" / "large").write_bytes(b"N" * 1_200_000)
    wanted = other.ingest(source).manifest_id
    make_old(store.path)
    return Base(store, source, ids[0], ids[1:4], ids[4:], wanted)


def make_old(store: Path) -> None:
    """Nothing is kept because it is young."""
    then = time.time() - 2 * _DAY
    for room in ("blobs", "manifests", "staging", "leases"):
        for path in (store / room).rglob("*"):
            os.utime(path, (then, then))


def ingest(base: Base) -> Scenario:
    return base.scenario([["ingest"]], {}, new=base.wanted)


def ingest_named(base: Base) -> Scenario:
    """The first version of a name."""
    return base.scenario([["ingest", "named"]], {}, new=base.wanted)


def remove(base: Base) -> Scenario:
    return base.scenario([["remove", *base.live[:2]]], dict.fromkeys(base.live[:2], TRASH))


def remove_for_good(base: Base) -> Scenario:
    """One that is in the trash, too."""
    gone = [*base.live[:2], base.trashed[0]]
    return base.scenario([["remove_for_good", *gone]], dict.fromkeys(gone, ""))


def undelete(base: Base) -> Scenario:
    return base.scenario([["undelete", *base.trashed]], dict.fromkeys(base.trashed, LIVE))


def collect(base: Base) -> Scenario:
    """There is something of everything to delete."""
    expired = expire(base, base.trashed[0])
    base.store.remove_for_good(base.live[0])
    die_at_work(base.store.path)
    scenario = base.scenario([["gc", TRASH_AGE]], {expired: ""})
    for places in scenario.places:
        del places[base.live[0]]
    return scenario


def purge(base: Base) -> Scenario:
    """Removed for good and collected, by one who waits for each."""
    gone = [*base.live[:2], base.trashed[0]]
    return base.scenario(
        [["remove_for_good", *gone], ["gc", TRASH_AGE]], dict.fromkeys(gone, ""), {}
    )


def collect_beside(base: Base) -> Scenario:
    """Others have moved and removed records a moment ago, and have not synced yet: one into the
    trash, which has expired for the collector; one from each place for good."""
    first, second, _ = base.live
    gone = base.trashed[0]
    expired = TrashName(first, time.time_ns() - 40 * _DAY * 10**9)
    moves = [
        (f"snapshots/{first}.json", f"trash/{expired}"),
        (f"snapshots/{second}.json", ""),
        (f"trash/{base.find_trashed(gone)}", ""),
    ]
    scenario = base.scenario([["gc", TRASH_AGE]], dict.fromkeys((first, second, gone), ""))
    return replace(scenario, unsynced=moves, moved={first: TRASH})


def collect_removed_beside(base: Base) -> Scenario:
    """The same where nothing has expired, so that the collector itself empties no trash."""
    first = base.live[0]
    gone = base.trashed[0]
    moves = [(f"snapshots/{first}.json", ""), (f"trash/{base.find_trashed(gone)}", "")]
    scenario = base.scenario([["gc", TRASH_AGE]], dict.fromkeys((first, gone), ""))
    return replace(scenario, unsynced=moves)


def expire(base: Base, record_id: str) -> str:
    """As if it had been deleted 40 days ago."""
    name = base.find_trashed(record_id)
    old = TrashName(record_id, time.time_ns() - 40 * _DAY * 10**9)
    trash = base.store.depot.trash_dir
    (trash / str(name)).rename(trash / str(old))
    return record_id


def die_at_work(store: Path) -> None:
    done = subprocess.run(
        [sys.executable, "-P", "-c", _DIE, store], env=python_environment(), cwd=ROOT, timeout=60
    )
    assert done.returncode == -9
    # Of an older collector, and of somebody who was about to write a manifest.
    (store / "staging" / f"dead-w-{1:016x}").mkdir()
    (store / "staging" / f"dead-w-{1:016x}" / "ab").write_bytes(b"left")
    (store / "staging" / f"tmp-{1:016x}").write_bytes(b"left")
    make_old(store)


def open_new(path: Path) -> Store:
    return castfs.open(path, create=True)
