"""Bringing the database to what the files say: all of it, or what a change has touched.

Records never change, so their names tell which are new.
"""

from __future__ import annotations

import sqlite3
from collections.abc import Iterable

from castfs.catalog import freshness
from castfs.catalog.files import name_path, names_dir, run_path, runs_dir
from castfs.catalog.places import (
    RECORD,
    compare_files,
    list_dir,
    list_trashed,
    record_file,
    stamp_of,
)
from castfs.catalog.rows import (
    forget_record,
    note_damage,
    update_name,
    update_note,
    update_record,
    update_run,
)
from castfs.store import Depot


def refresh(connection: sqlite3.Connection, depot: Depot) -> None:
    """Compare all of it. Inside a transaction. OSError, DamageError where a directory cannot be
    read; files that cannot are listed in `damaged`."""
    # Before anything is read: what comes meanwhile makes it stale again.
    seen = freshness.signature(depot)
    connection.execute("DELETE FROM damaged")
    changed = compare_files(connection, depot, "notes")
    for file in changed:
        update_note(connection, depot, file.removesuffix(".json"))
    again = {file.removesuffix(".json") for file in changed}
    # In this order: what is removed meanwhile is in one of the two.
    listed = list_dir(depot.snapshots_dir)
    places: dict[str, int | None] = dict(list_trashed(depot))
    for file in listed:
        if match := RECORD.fullmatch(file):
            places[match[1]] = None
        elif file.endswith(".json"):
            note_damage(connection, depot, depot.snapshots_dir / file)
    known = {
        record_id: (deleted_ns, stamp)
        for record_id, deleted_ns, stamp in connection.execute(
            "SELECT id, deleted_ns, stamp FROM records"
        )
    }
    look = len(places) <= freshness.LOOKED_AT
    for record_id in known.keys() - places.keys():
        forget_record(connection, record_id)
    for record_id, deleted_ns in places.items():
        if record_id in known and record_id not in again:
            was_deleted_ns, stamp = known[record_id]
            if not look or stamp == stamp_of(record_file(depot, record_id, deleted_ns)):
                if was_deleted_ns != deleted_ns:
                    connection.execute(
                        "UPDATE records SET deleted_ns = ? WHERE id = ?", (deleted_ns, record_id)
                    )
                continue
        update_record(connection, depot, record_id, deleted_ns)
    for file in compare_files(connection, depot, "names"):
        update_name(connection, names_dir(depot) / file)
    for file in compare_files(connection, depot, "runs"):
        update_run(connection, runs_dir(depot) / file)
    freshness.note_seen(connection, seen)


def update(
    connection: sqlite3.Connection,
    depot: Depot,
    *,
    record_ids: Iterable[str],
    names: Iterable[str],
    run_ids: Iterable[str],
) -> None:
    """What was touched, and nothing else. Inside a transaction."""
    trashed: dict[str, int] | None = None
    for record_id in record_ids:
        update_note(connection, depot, record_id)
        if depot.record_path(record_id).exists():
            update_record(connection, depot, record_id, None)
            continue
        if trashed is None:
            trashed = list_trashed(depot)
        if record_id in trashed:
            update_record(connection, depot, record_id, trashed[record_id])
        else:
            forget_record(connection, record_id)
    for name in names:
        update_name(connection, name_path(depot, name))
    for run_id in run_ids:
        update_run(connection, run_path(depot, run_id))
