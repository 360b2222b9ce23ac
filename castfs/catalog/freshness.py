"""Does the database say what the files say?

Everybody who changes files says so in the database, too (`changing`); what others did (a restored
backup, an older castfs, a power cut) shows in the directories' times.
"""

from __future__ import annotations

import re
import sqlite3
from collections.abc import Collection

from castfs.catalog.database import get_state, set_state
from castfs.catalog.places import (
    FILES,
    PLACES,
    Place,
    compare_files,
    list_record_files,
    list_trashed,
    record_file,
    stamp_of,
)
from castfs.catalog.rows import read_damaged
from castfs.store import Depot
from castfs.syscalls import boot_id, is_read_only_medium

#: So many records, and so many files of each kind, are looked at one by one each time (1 µs each):
#: of more, those that somebody has damaged or changed in place are found by `castfs verify` alone.
LOOKED_AT = 1000


def is_fresh(connection: sqlite3.Connection, depot: Depot) -> bool:
    """Does the database say what the files say?"""
    if get_state(connection, "dirty") or not _is_signature(get_state(connection, "seen"), depot):
        return False
    # A power cut may take back what the database says and leave a file that was renamed, without
    # its directory's new times (btrfs, where others sync meanwhile).
    if get_state(connection, "boot") != boot_id() and not is_read_only_medium(depot.path):
        return False
    listed = connection.execute("SELECT file FROM damaged LIMIT ?", (LOOKED_AT,))
    damaged = {file for (file,) in listed}
    if not all(read_damaged(depot, file) for file in damaged):
        return False  # it was mended, or taken away
    for place in FILES:
        if _has_few(connection, place):
            changed = {f"{place}/{file}" for file in compare_files(connection, depot, place)}
            if changed - damaged:
                return False
    if not _has_few(connection, "records"):
        return True
    rows = connection.execute("SELECT id, deleted_ns, stamp FROM records").fetchall()
    files = (file for (file,) in connection.execute("SELECT file FROM damaged"))
    known = {str(record_file(depot, *where)) for *where, _ in rows}
    known |= {str(depot.path / file) for file in files}
    return list_record_files(depot) <= known and all(
        stamp_of(record_file(depot, *where)) == stamp for *where, stamp in rows
    )


def _has_few(connection: sqlite3.Connection, table: str) -> bool:
    """Counting them all would take longer than the question that is asked."""
    found = connection.execute(f"SELECT 1 FROM {table} LIMIT 1 OFFSET ?", (LOOKED_AT,))
    return found.fetchone() is None


def mark_fresh(
    connection: sqlite3.Connection, depot: Depot, changed: Collection[Place] = PLACES
) -> None:
    """It says what the files say, after a change in these directories. What others changed in the
    rest meanwhile is left for whoever looks next."""
    before = str(get_state(connection, "seen")).split(" ")
    now = signature(depot).split(" ")
    seen = [
        new if place in changed else old
        for place, old, new in zip(PLACES, before, now, strict=True)
    ]
    # The collector takes away what has expired, and asks nobody.
    if "trash" in changed and not _is_trash_known(connection, depot):
        return
    note_seen(connection, " ".join(seen))


def note_seen(connection: sqlite3.Connection, seen: str) -> None:
    """It says what the files said when their directories had this `signature`."""
    set_state(connection, "seen", seen)
    set_state(connection, "boot", boot_id())
    set_state(connection, "dirty", 0)


def _is_trash_known(connection: sqlite3.Connection, depot: Depot) -> bool:
    there = list_trashed(depot).keys()
    rows = connection.execute("SELECT id FROM records WHERE deleted_ns IS NOT NULL")
    return all(record_id in there for (record_id,) in rows)


def signature(depot: Depot) -> str:
    """Each file appears, goes and changes by a rename, which changes its directory's times: mtime,
    and ctime, which a backup that is put back cannot have."""
    parts = []
    for place in PLACES:
        try:
            status = (depot.path / place).stat()
        except OSError:
            parts.append("-")
        else:
            parts.append(f"{status.st_mtime_ns}/{status.st_ctime_ns}")
    return " ".join(parts)


def _is_signature(seen: object, depot: Depot) -> bool:
    now = signature(depot)
    if seen == now:
        return True
    # A copy on a read-only medium has other ctimes, and nobody can have put a backup back.
    return (
        isinstance(seen, str)
        and is_read_only_medium(depot.path)
        and re.sub("/[0-9]+", "", seen) == re.sub("/[0-9]+", "", now)
    )
