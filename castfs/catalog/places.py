"""What lies in the directories of a store that the database knows: names of files, and what tells
whether one is still the same."""

from __future__ import annotations

import os
import re
import sqlite3
from pathlib import Path
from typing import Literal, get_args

from castfs.catalog.files import NAME_FILE, NOTE_FILE, RUN_FILE
from castfs.store import Depot
from castfs.store.trash import TrashName, list_trash

#: The directories, in a store.
Place = Literal["snapshots", "trash", "names", "notes", "runs"]
PLACES: tuple[Place, ...] = get_args(Place)
FilePlace = Literal["names", "notes", "runs"]
#: What is read from each of these is a table of the same name: its files, and how they are found.
FILES: dict[FilePlace, tuple[re.Pattern[str], str]] = {
    "names": (NAME_FILE, "file"),
    "notes": (NOTE_FILE, "id || '.json'"),
    "runs": (RUN_FILE, "id || '.json'"),
}
RECORD = re.compile(r"([0-9a-f]{24})\.json")


def list_dir(directory: Path) -> list[str]:
    try:
        return os.listdir(directory)
    except FileNotFoundError:
        return []


def list_trashed(depot: Depot) -> dict[str, int]:
    """Ids of records, and when they were deleted last."""
    return {name.record_id: name.deleted_ns for name in reversed(list_trash(depot))}


def record_file(depot: Depot, record_id: str, deleted_ns: int | None) -> Path:
    if deleted_ns is None:
        return depot.record_path(record_id)
    return depot.trash_dir / str(TrashName(record_id, deleted_ns))


def list_record_files(depot: Depot) -> set[str]:
    """Paths of all records, also of those in the trash that are in the store as well."""
    found = {
        depot.record_path(m[1]) for f in list_dir(depot.snapshots_dir) if (m := RECORD.fullmatch(f))
    }
    live = {path.stem for path in found}
    found |= {
        record_file(depot, record_id, deleted_ns)
        for record_id, deleted_ns in list_trashed(depot).items()
        if record_id not in live
    }
    return set(map(str, found))


def stamp_of(path: Path) -> bytes:
    """What tells whether a file is still the one that was read; empty if there is none."""
    try:
        status = path.lstat()
    except OSError:
        return b""
    return b"%d %d %d" % (status.st_mtime_ns, status.st_ino, status.st_size)


def compare_files(connection: sqlite3.Connection, depot: Depot, place: FilePlace) -> list[str]:
    """Names of the files that are new, changed or gone."""
    pattern, key = FILES[place]
    directory = depot.path / place
    known = dict(connection.execute(f"SELECT {key}, stamp FROM {place}"))
    there = {
        file: stamp_of(directory / file) for file in list_dir(directory) if pattern.fullmatch(file)
    }
    return [file for file in known.keys() | there.keys() if known.get(file) != there.get(file)]
