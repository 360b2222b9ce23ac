"""Saying of a run what it was given, and what it made that others had made before it."""

from __future__ import annotations

import time
from collections.abc import Mapping
from typing import Any

import msgspec

from castfs.catalog import Change, MadeAgain, Use
from castfs.catalog.files import write_run
from castfs.repository.lineage import build_lineage, led_to
from castfs.store import Record
from castfs.store.records import format_time


def record_use(change: Change, run_id: str, record: Record, *, is_input: bool = False) -> bool:
    """That a run was given a snapshot. False if it had it already, or if it led to it itself:
    unless it `is_input`, which it took into the store only to keep it."""
    run = change.run(run_id)
    if run is None or any(use.id == record.id for use in run.uses):
        return False
    own = is_input and run_id in change.makers_of(record)
    if not own and led_to(change, run_id, record):
        return False
    use = Use(id=record.id, at=format_time(time.time()), name=record.name, version=record.version)
    change.touch_run(run_id)
    write_run(change.depot, msgspec.structs.replace(run, uses=(*run.uses, use)))
    change.update()
    return True


def record_made_again(
    change: Change, run_id: str, record: Record, *, metadata: Mapping[str, Any], message: str | None
) -> None:
    """That a run made what its name has had already; what it says of it is kept with the run. Not
    if it comes from that: it would be its own ancestor."""
    run = change.run(run_id)
    if run is None or record.run == run_id:
        return
    if run.uses and f"version:{record.id}" in build_lineage(change, run_id, "up").nodes:
        return
    again = MadeAgain(
        id=record.id,
        at=format_time(time.time()),
        name=record.name,
        version=record.version,
        metadata=metadata,
        message=message,
    )
    others = tuple(each for each in run.made_again if each.id != record.id)
    change.touch_run(run_id)
    write_run(change.depot, msgspec.structs.replace(run, made_again=(*others, again)))
    change.update()
