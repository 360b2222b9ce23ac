"""The rows of one file: of a record, a name, a note, a run; and what could not be read."""

from __future__ import annotations

import contextlib
import re
import sqlite3
import unicodedata
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import Any

import msgspec

from castfs.catalog.files import note_path, read_name_file, read_note, read_run
from castfs.catalog.places import record_file, stamp_of
from castfs.errors import DamageError
from castfs.store import Depot
from castfs.store.records import Record
from castfs.store.trash import TrashName, parse_trash_name, read_trashed

_LINK = re.compile(r"([^:@]{1,255}):v([1-9][0-9]{0,14})")


def update_record(
    connection: sqlite3.Connection, depot: Depot, record_id: str, deleted_ns: int | None
) -> None:
    path = record_file(depot, record_id, deleted_ns)
    stamp = stamp_of(path)

    def read() -> Record:
        if deleted_ns is None:
            return depot.read_record(record_id)
        return read_trashed(depot, TrashName(record_id, deleted_ns))

    try:
        record = read()
    except (FileNotFoundError, DamageError) as exc:
        forget_record(connection, record_id)
        if isinstance(exc, DamageError):
            note_damage(connection, depot, path)
        return
    try:
        note = read_note(note_path(depot, record_id))
    except DamageError:
        note_damage(connection, depot, note_path(depot, record_id))
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


def forget_record(connection: sqlite3.Connection, record_id: str) -> None:
    connection.execute("DELETE FROM records WHERE id = ?", (record_id,))
    connection.execute("DELETE FROM tags WHERE id = ?", (record_id,))
    connection.execute("DELETE FROM links WHERE id = ?", (record_id,))


def update_note(connection: sqlite3.Connection, depot: Depot, record_id: str) -> None:
    path = note_path(depot, record_id)
    stamp = stamp_of(path)
    connection.execute("DELETE FROM notes WHERE id = ?", (record_id,))
    with contextlib.suppress(DamageError):  # one that cannot be read is looked at each time
        if read_note(path) is not None:
            connection.execute("INSERT INTO notes VALUES (?, ?)", (record_id, stamp))


def update_name(connection: sqlite3.Connection, path: Path) -> None:
    row = connection.execute("SELECT name FROM names WHERE file = ?", (path.name,)).fetchone()
    if row:
        connection.execute("DELETE FROM names WHERE name = ?", row)
        connection.execute("DELETE FROM aliases WHERE name = ?", row)
    stamp = stamp_of(path)
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


def update_run(connection: sqlite3.Connection, path: Path) -> None:
    run_id = path.name.removesuffix(".json")
    connection.execute("DELETE FROM runs WHERE id = ?", (run_id,))
    connection.execute("DELETE FROM uses WHERE run = ?", (run_id,))
    connection.execute("DELETE FROM made_again WHERE run = ?", (run_id,))
    stamp = stamp_of(path)
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


def note_damage(connection: sqlite3.Connection, depot: Depot, path: Path) -> None:
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
