"""Bringing the database to what the files say: all of it, or what a change has touched.

Records never change, so their names tell which are new. Everybody who changes files says so in the
database, too (`changing`); what others did (a restored backup, an older castfs, a power cut) shows
in the directories' times.
"""

from __future__ import annotations

import contextlib
import os
import re
import sqlite3
import unicodedata
from collections.abc import Callable, Collection, Iterable, Iterator, Mapping
from pathlib import Path
from typing import Any, Literal, get_args

import msgspec

from castfs.catalog.database import get_state, set_state
from castfs.catalog.files import (
    NAME_FILE,
    NOTE_FILE,
    RUN_FILE,
    name_path,
    names_dir,
    note_path,
    read_name_file,
    read_note,
    read_run,
    run_path,
    runs_dir,
)
from castfs.errors import DamageError
from castfs.store import Depot
from castfs.store.records import Record
from castfs.store.trash import TrashName, list_trash, parse_trash_name, read_trashed
from castfs.syscalls import boot_id, is_read_only_medium

#: The directories of what the database knows, in a store.
Place = Literal["snapshots", "trash", "names", "notes", "runs"]
PLACES: tuple[Place, ...] = get_args(Place)
FilePlace = Literal["names", "notes", "runs"]
#: What is read from each of these is a table of the same name: its files, and how they are found.
_FILES: dict[FilePlace, tuple[re.Pattern[str], str]] = {
    "names": (NAME_FILE, "file"),
    "notes": (NOTE_FILE, "id || '.json'"),
    "runs": (RUN_FILE, "id || '.json'"),
}
#: So many records, and so many files of each kind, are looked at one by one each time (1 µs each):
#: of more, those that somebody has damaged or changed in place are found by `castfs verify` alone.
_LOOKED_AT = 1000
_LINK = re.compile(r"([^:@]{1,255}):v([1-9][0-9]{0,14})")
_RECORD = re.compile(r"([0-9a-f]{24})\.json")


def is_fresh(connection: sqlite3.Connection, depot: Depot) -> bool:
    """Does the database say what the files say?"""
    if get_state(connection, "dirty") or not _is_signature(get_state(connection, "seen"), depot):
        return False
    # A power cut may take back what the database says and leave a file that was renamed, without
    # its directory's new times (btrfs, where others sync meanwhile).
    if get_state(connection, "boot") != boot_id() and not is_read_only_medium(depot.path):
        return False
    listed = connection.execute("SELECT file FROM damaged LIMIT ?", (_LOOKED_AT,))
    damaged = {file for (file,) in listed}
    if not all(read_damaged(depot, file) for file in damaged):
        return False  # it was mended, or taken away
    for place in _FILES:
        if _has_few(connection, place):
            changed = {f"{place}/{file}" for file in _compare_files(connection, depot, place)}
            if changed - damaged:
                return False
    if not _has_few(connection, "records"):
        return True
    rows = connection.execute("SELECT id, deleted_ns, stamp FROM records").fetchall()
    files = (file for (file,) in connection.execute("SELECT file FROM damaged"))
    known = {str(_record_file(depot, *where)) for *where, _ in rows}
    known |= {str(depot.path / file) for file in files}
    return _list_records(depot) <= known and all(
        _stamp(_record_file(depot, *where)) == stamp for *where, stamp in rows
    )


def _has_few(connection: sqlite3.Connection, table: str) -> bool:
    """Counting them all would take longer than the question that is asked."""
    found = connection.execute(f"SELECT 1 FROM {table} LIMIT 1 OFFSET ?", (_LOOKED_AT,))
    return found.fetchone() is None


def _list_records(depot: Depot) -> set[str]:
    """Paths of all records, also of those in the trash that are in the store as well."""
    found = {
        depot.record_path(m[1]) for f in _listed(depot.snapshots_dir) if (m := _RECORD.fullmatch(f))
    }
    live = {path.stem for path in found}
    found |= {
        _record_file(depot, record_id, deleted_ns)
        for record_id, deleted_ns in _trashed(depot).items()
        if record_id not in live
    }
    return set(map(str, found))


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
    set_state(connection, "seen", " ".join(seen))
    set_state(connection, "dirty", 0)


def _is_trash_known(connection: sqlite3.Connection, depot: Depot) -> bool:
    there = _trashed(depot).keys()
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


def refresh(connection: sqlite3.Connection, depot: Depot) -> None:
    """Compare all of it. Inside a transaction. OSError, DamageError where a directory cannot be
    read; files that cannot are listed in `damaged`."""
    # Before anything is read: what comes meanwhile makes it stale again.
    seen = signature(depot)
    connection.execute("DELETE FROM damaged")
    changed = _compare_files(connection, depot, "notes")
    for file in changed:
        _update_note(connection, depot, file.removesuffix(".json"))
    again = {file.removesuffix(".json") for file in changed}
    # In this order: what is removed meanwhile is in one of the two.
    listed = _listed(depot.snapshots_dir)
    places: dict[str, int | None] = dict(_trashed(depot))
    for file in listed:
        if match := _RECORD.fullmatch(file):
            places[match[1]] = None
        elif file.endswith(".json"):
            _note_damage(connection, depot, depot.snapshots_dir / file)
    known = {
        record_id: (deleted_ns, stamp)
        for record_id, deleted_ns, stamp in connection.execute(
            "SELECT id, deleted_ns, stamp FROM records"
        )
    }
    look = len(places) <= _LOOKED_AT
    for record_id in known.keys() - places.keys():
        _forget_record(connection, record_id)
    for record_id, deleted_ns in places.items():
        if record_id in known and record_id not in again:
            was_deleted_ns, stamp = known[record_id]
            if not look or stamp == _stamp(_record_file(depot, record_id, deleted_ns)):
                if was_deleted_ns != deleted_ns:
                    connection.execute(
                        "UPDATE records SET deleted_ns = ? WHERE id = ?", (deleted_ns, record_id)
                    )
                continue
        _update_record(connection, depot, record_id, deleted_ns)
    for file in _compare_files(connection, depot, "names"):
        _update_name(connection, names_dir(depot) / file)
    for file in _compare_files(connection, depot, "runs"):
        _update_run(connection, runs_dir(depot) / file)
    set_state(connection, "seen", seen)
    set_state(connection, "boot", boot_id())
    set_state(connection, "dirty", 0)


def _compare_files(connection: sqlite3.Connection, depot: Depot, place: FilePlace) -> list[str]:
    """Names of the files that are new, changed or gone."""
    pattern, key = _FILES[place]
    directory = depot.path / place
    known = dict(connection.execute(f"SELECT {key}, stamp FROM {place}"))
    there = {
        file: _stamp(directory / file) for file in _listed(directory) if pattern.fullmatch(file)
    }
    return [file for file in known.keys() | there.keys() if known.get(file) != there.get(file)]


def _listed(directory: Path) -> list[str]:
    try:
        return os.listdir(directory)
    except FileNotFoundError:
        return []


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
        _update_note(connection, depot, record_id)
        if depot.record_path(record_id).exists():
            _update_record(connection, depot, record_id, None)
            continue
        if trashed is None:
            trashed = _trashed(depot)
        if record_id in trashed:
            _update_record(connection, depot, record_id, trashed[record_id])
        else:
            _forget_record(connection, record_id)
    for name in names:
        _update_name(connection, name_path(depot, name))
    for run_id in run_ids:
        _update_run(connection, run_path(depot, run_id))


def _trashed(depot: Depot) -> dict[str, int]:
    """Ids of records, and when they were deleted last."""
    return {name.record_id: name.deleted_ns for name in reversed(list_trash(depot))}


def _record_file(depot: Depot, record_id: str, deleted_ns: int | None) -> Path:
    if deleted_ns is None:
        return depot.record_path(record_id)
    return depot.trash_dir / str(TrashName(record_id, deleted_ns))


def _stamp(path: Path) -> bytes:
    """What tells whether a file is still the one that was read; empty if there is none."""
    try:
        status = path.lstat()
    except OSError:
        return b""
    return b"%d %d %d" % (status.st_mtime_ns, status.st_ino, status.st_size)


def _update_record(
    connection: sqlite3.Connection, depot: Depot, record_id: str, deleted_ns: int | None
) -> None:
    path = _record_file(depot, record_id, deleted_ns)
    stamp = _stamp(path)

    def read() -> Record:
        if deleted_ns is None:
            return depot.read_record(record_id)
        return read_trashed(depot, TrashName(record_id, deleted_ns))

    try:
        record = read()
    except (FileNotFoundError, DamageError) as exc:
        _forget_record(connection, record_id)
        if isinstance(exc, DamageError):
            _note_damage(connection, depot, path)
        return
    try:
        note = read_note(note_path(depot, record_id))
    except DamageError:
        _note_damage(connection, depot, note_path(depot, record_id))
        # It may have been readable a moment ago: then it would count as known.
        connection.execute("DELETE FROM notes WHERE id = ?", (record_id,))
        note = None
    if note is not None:
        record = msgspec.structs.replace(
            record, type=record.type or note.type, tags=note.tags, metadata=note.metadata
        )
    connection.execute("DELETE FROM tags WHERE id = ?", (record_id,))
    connection.executemany(
        "INSERT OR IGNORE INTO tags VALUES (?, ?)", [(tag, record_id) for tag in record.tags]
    )
    connection.execute("DELETE FROM links WHERE id = ?", (record_id,))
    connection.executemany(
        "INSERT OR IGNORE INTO links VALUES (?, ?, ?, ?)",
        [(record_id, *link) for link in iter_links(record.metadata)],
    )
    connection.execute(
        "INSERT OR REPLACE INTO records VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?, ?)",
        (
            record_id, deleted_ns, record.manifest, record.name, record.version, record.type,
            record.run, record.source, stamp, msgspec.json.encode(record),
        ),
    )  # fmt: skip


def _forget_record(connection: sqlite3.Connection, record_id: str) -> None:
    connection.execute("DELETE FROM records WHERE id = ?", (record_id,))
    connection.execute("DELETE FROM tags WHERE id = ?", (record_id,))
    connection.execute("DELETE FROM links WHERE id = ?", (record_id,))


def _update_note(connection: sqlite3.Connection, depot: Depot, record_id: str) -> None:
    path = note_path(depot, record_id)
    stamp = _stamp(path)
    connection.execute("DELETE FROM notes WHERE id = ?", (record_id,))
    with contextlib.suppress(DamageError):  # one that cannot be read is looked at each time
        if read_note(path) is not None:
            connection.execute("INSERT INTO notes VALUES (?, ?)", (record_id, stamp))


def _update_name(connection: sqlite3.Connection, path: Path) -> None:
    row = connection.execute("SELECT name FROM names WHERE file = ?", (path.name,)).fetchone()
    if row:
        connection.execute("DELETE FROM names WHERE name = ?", row)
        connection.execute("DELETE FROM aliases WHERE name = ?", row)
    stamp = _stamp(path)
    try:
        found = read_name_file(path)
    except DamageError:
        connection.execute("INSERT OR IGNORE INTO damaged VALUES (?)", (f"names/{path.name}",))
        return
    if found is None:
        return
    connection.execute(
        "INSERT OR REPLACE INTO names VALUES (?, ?, ?, ?)",
        (found.name, path.name, stamp, msgspec.json.encode(found)),
    )
    connection.executemany(
        "INSERT OR REPLACE INTO aliases VALUES (?, ?, ?)",
        [(found.name, alias, version) for alias, version in found.aliases.items()],
    )


def _update_run(connection: sqlite3.Connection, path: Path) -> None:
    run_id = path.name.removesuffix(".json")
    connection.execute("DELETE FROM runs WHERE id = ?", (run_id,))
    connection.execute("DELETE FROM uses WHERE run = ?", (run_id,))
    connection.execute("DELETE FROM made_again WHERE run = ?", (run_id,))
    stamp = _stamp(path)
    try:
        found = read_run(path)
    except DamageError:
        connection.execute("INSERT OR IGNORE INTO damaged VALUES (?)", (f"runs/{path.name}",))
        return
    if found is None:
        return
    connection.execute(
        "INSERT INTO runs VALUES (?, ?, ?, ?)",
        (run_id, found.created_at, stamp, msgspec.json.encode(found)),
    )
    connection.executemany(
        "INSERT OR IGNORE INTO uses VALUES (?, ?)", [(run_id, use.id) for use in found.uses]
    )
    connection.executemany(
        "INSERT OR IGNORE INTO made_again VALUES (?, ?)",
        [(run_id, again.id) for again in found.made_again],
    )


def iter_links(metadata: Mapping[str, Any]) -> Iterator[tuple[str, str, int]]:
    """(key, name, version) of each value that names a version: `"dataset": "name:v2"`. Of one in a
    list or an object the key is a path: `datasets.0`."""
    left: list[tuple[str, Any]] = list(metadata.items())[::-1]
    while left:
        key, value = left.pop()
        match value:
            case str():
                if match := _LINK.fullmatch(value):
                    yield key, unicodedata.normalize("NFC", match[1]), int(match[2])
            case Mapping():
                left += [(f"{key}.{each}", item) for each, item in list(value.items())[::-1]]
            case list() | tuple():
                left += [(f"{key}.{at}", item) for at, item in list(enumerate(value))[::-1]]


def _note_damage(connection: sqlite3.Connection, depot: Depot, path: Path) -> None:
    file = path.relative_to(depot.path)
    connection.execute("INSERT OR IGNORE INTO damaged VALUES (?)", (str(file),))


def read_damaged(depot: Depot, file: str) -> DamageError | None:
    """Why a file of the list `damaged` cannot be read; None if it can by now."""
    directory, _, name = file.partition("/")
    path = depot.path / file
    readers: dict[str, Callable[[], object]] = {
        "snapshots": lambda: depot.read_record(name.removesuffix(".json")),
        "trash": lambda: _read_trashed(depot, name),
        "names": lambda: read_name_file(path),
        "runs": lambda: read_run(path),
        "notes": lambda: read_note(path),
    }
    try:
        readers[directory]()
    except FileNotFoundError:
        return None
    except DamageError as exc:
        return exc
    return None


def _read_trashed(depot: Depot, name: str) -> None:
    if parsed := parse_trash_name(name):
        read_trashed(depot, parsed)
