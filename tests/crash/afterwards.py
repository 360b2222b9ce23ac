"""What must be so after a crash, whatever was interrupted where."""

from __future__ import annotations

import itertools
import json
from pathlib import Path

import castfs
from castfs.gc import GcOptions
from castfs.store.trash import parse_trash_name
from castfs.verify import VerifyOptions
from tests.crash.scenarios import LIVE, TRASH, Places, Scenario
from tests.store.checking import assert_idle, check_store, read_records

EMPTY_ALL = GcOptions(grace_seconds=0, trash_age_seconds=0)


def check_afterwards(scenario: Scenario, path: Path, done: int, *, ended: bool) -> None:
    """The store at `path` is whole, `done` of the steps are done, the next (unless `ended`: they
    have said that they failed) is done or not; and all goes on."""
    check_state(scenario, path, done, ended=ended)
    check_store(path)
    check_verified(path)
    store = castfs.open(path)
    assert store.ingest(scenario.source).manifest_id == scenario.wanted
    assert scenario.wanted in check_store(path)
    check_numbers(store, scenario.source)
    store.gc(EMPTY_ALL)
    check_clean(path)
    check_verified(path)


def check_state(scenario: Scenario, path: Path, done: int, *, ended: bool) -> None:
    """Each record is in one place, that before the step or that after it."""
    found = find_places(path)
    states = scenario.places[done : done + 2]
    known = {record_id for places in scenario.places for record_id in places}
    for record_id in known:
        allowed = {places.get(record_id) for places in states}
        if done == 0:
            allowed |= {scenario.moved[record_id]} if record_id in scenario.moved else set()
        assert found.get(record_id) in allowed, f"{record_id}: not in {allowed}"
    added = [each["manifest"] for each in read_records(path) if each["id"] not in known]
    if scenario.new is None:
        assert added == []
    elif len(states) == 1:
        assert added == [scenario.new]
    else:
        assert added in ([[]] if ended else [[], [scenario.new]])


def check_numbers(store: castfs.Store, source: Path) -> None:
    """A version is there with its number or not at all, and the next one has a higher one."""
    numbers = [record.version for record in store.iter_snapshots(name="named")]
    assert None not in numbers
    taken = store.ingest(source, name="named")
    assert taken.version is not None
    assert taken.unchanged == bool(numbers)
    assert numbers in ([], [taken.version])


def find_places(path: Path) -> Places:
    found = {name.stem: LIVE for name in (path / "snapshots").iterdir()}
    for name in (path / "trash").iterdir():
        parsed = parse_trash_name(name.name)
        assert parsed is not None
        assert parsed.record_id not in found, f"{parsed.record_id} is in two places"
        found[parsed.record_id] = TRASH
    return found


def check_verified(path: Path) -> None:
    result = castfs.open(path).verify(options=VerifyOptions(data=True))
    assert result.status == "clean", (result.problems, result.bad_blobs)
    assert result.quarantine_count == 0


def check_clean(path: Path) -> None:
    """After a collection that keeps nothing for its age: what snapshots need, and nothing else."""
    assert_idle(path)
    assert list((path / "trash").iterdir()) == []
    assert list((path / "quarantine").iterdir()) == []
    ids = check_store(path)
    assert set(ids) == {record["manifest"] for record in read_records(path)}
    needed = itertools.chain.from_iterable(
        (file["sha256"] for file in json.loads(manifest.read_bytes())["files"].values())
        for manifest in (path / "manifests").glob("??/*.json")
    )
    assert set(needed) == {blob.name for blob in (path / "blobs").glob("??/*")}
