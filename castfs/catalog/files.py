"""What must survive the loss of the database and stands in no record: small files, written first.

`names/<key>.json` is one name: its type, the highest version number that it ever had, its aliases,
and what happened to them. `notes/<record id>.json` is what was said of a snapshot after it had been
taken. `runs/<run id>.json` is a run and what it used. docs/FORMAT.md owns all three.
"""

from __future__ import annotations

import hashlib
import os
import re
import socket
import time
from collections.abc import Mapping
from pathlib import Path
from typing import Annotated, Any, Literal, TypeVar

import msgspec

from castfs import atomic
from castfs.errors import DamageError, UsageError
from castfs.paths import display
from castfs.regular import read_regular
from castfs.store import Depot
from castfs.store.records import VERSION_MAX, VersionNumber, format_time, user_name

#: What can happen to a name.
EventKind = Literal["version", "alias", "unalias", "remove", "undelete", "delete"]
RunStatus = Literal["running", "finished", "failed"]
NAME_FILE = re.compile(r"[0-9a-f]{32}\.json")
NOTE_FILE = re.compile(r"[0-9a-f]{24}\.json")
RUN_FILE = re.compile(r"[0-9A-Za-z][0-9A-Za-z_.-]{0,199}\.json")

FILE_MODE = 0o444
#: Always the same: whoever holds the catalog is alone.
_TEMP_NAME = f"tmp-{b'catalog'.hex():0<16.16}"


class Event(msgspec.Struct, frozen=True, kw_only=True, omit_defaults=True):
    """Something that happened to a name. `at` is RFC 3339 in UTC; `before` is the version that an
    alias meant until then. That a version was made its record says, as long as there is one; then
    there is an event of that kind, with its run and message. `store` is the id of the store where
    it happened, if that is another one: a bundle brought it."""

    at: str
    kind: EventKind
    version: int
    alias: str | None = None
    before: int | None = None
    by: str = ""
    run: str | None = None
    message: str | None = None
    store: str | None = None


class NameFile(msgspec.Struct, frozen=True, kw_only=True):
    """All that is known of a name besides its versions."""

    format: Literal["castfs-name"] = "castfs-name"
    file_version: Literal[1] = 1
    name: str
    type: str | None = None
    #: The highest version number that was ever given: numbers only grow.
    last_version: Annotated[int, msgspec.Meta(ge=0, le=VERSION_MAX)] = 0
    aliases: Mapping[str, VersionNumber] = msgspec.field(default_factory=dict)
    history: tuple[Event, ...] = ()

    def deleted_versions(self) -> frozenset[int]:
        """Those that were deleted for good in this store: nothing gets their numbers again. What
        others did with theirs does not count."""
        return frozenset(
            event.version
            for event in self.history
            if event.kind == "delete" and event.store is None
        )


class Note(msgspec.Struct, frozen=True, kw_only=True):
    """The tags and metadata of a snapshot since they were changed; they replace the record's. The
    type is that of one whose record has none."""

    format: Literal["castfs-note"] = "castfs-note"
    file_version: Literal[1] = 1
    id: str
    type: str | None = None
    tags: tuple[str, ...] = ()
    metadata: Mapping[str, Any] = msgspec.field(default_factory=dict)


class Use(msgspec.Struct, frozen=True, kw_only=True, omit_defaults=True):
    """A snapshot that a run was given. `name` and `version` are as it was asked for."""

    id: str
    at: str
    name: str | None = None
    version: int | None = None


class MadeAgain(msgspec.Struct, frozen=True, kw_only=True, omit_defaults=True):
    """A version that a run made, and that its name had already; and what the run said of it."""

    id: str
    at: str
    name: str | None = None
    version: int | None = None
    metadata: Mapping[str, Any] = msgspec.field(default_factory=dict)
    message: str | None = None


class RunFile(msgspec.Struct, frozen=True, kw_only=True):
    """A run. What it made says so itself: its records have the run's id; but for what was there
    already."""

    format: Literal["castfs-run"] = "castfs-run"
    file_version: Literal[1] = 1
    id: str
    project: str | None = None
    name: str | None = None
    created_at: str
    finished_at: str | None = None
    status: RunStatus = "running"
    host: str = ""
    directory: str = ""
    metadata: Mapping[str, Any] = msgspec.field(default_factory=dict)
    uses: tuple[Use, ...] = ()
    made_again: tuple[MadeAgain, ...] = ()


T = TypeVar("T", NameFile, Note, RunFile)

_name_decoder = msgspec.json.Decoder(NameFile)
_note_decoder = msgspec.json.Decoder(Note)
_run_decoder = msgspec.json.Decoder(RunFile)


def names_dir(depot: Depot) -> Path:
    return depot.path / "names"


def notes_dir(depot: Depot) -> Path:
    return depot.path / "notes"


def runs_dir(depot: Depot) -> Path:
    return depot.path / "runs"


def run_path(depot: Depot, run_id: str) -> Path:
    return runs_dir(depot) / f"{run_id}.json"


def name_path(depot: Depot, name: str) -> Path:
    """Names have slashes, and no filesystem's idea of letters is the same as another's."""
    return _path_of(names_dir(depot), name)


def _path_of(directory: Path, name: str) -> Path:
    return directory / f"{hashlib.sha256(name.encode()).hexdigest()[:32]}.json"


def note_path(depot: Depot, record_id: str) -> Path:
    return notes_dir(depot) / f"{record_id}.json"


def read_name(depot: Depot, name: str) -> NameFile:
    """An empty one for a name that there is not. DamageError."""
    found = read_name_file(name_path(depot, name))
    return found if found is not None else NameFile(name=name)


def read_name_file(path: Path) -> NameFile | None:
    """None if there is none. DamageError."""
    found = _read(path, _name_decoder)
    if found is not None and _path_of(path.parent, found.name) != path:
        raise _damage(path, f"it is of the name {display(found.name.encode())}")
    return found


def read_note(path: Path) -> Note | None:
    """None if there is none. DamageError."""
    found = _read(path, _note_decoder)
    if found is not None and f"{found.id}.json" != path.name:
        raise _damage(path, f"it is of snapshot {display(found.id.encode())}")
    return found


def read_run(path: Path) -> RunFile | None:
    """None if there is none. DamageError."""
    found = _read(path, _run_decoder)
    if found is not None and f"{found.id}.json" != path.name:
        raise _damage(path, f"it is of run {display(found.id.encode())}")
    return found


def _read(path: Path, decoder: msgspec.json.Decoder[T]) -> T | None:
    try:
        raw = read_regular(path)
        if raw is None:
            raise _damage(path, "it is no file")
        return decoder.decode(raw)
    except (FileNotFoundError, NotADirectoryError):
        return None
    except OSError as exc:
        raise _damage(path, exc.strerror or "") from exc
    except (msgspec.DecodeError, RecursionError, UnicodeDecodeError) as exc:
        raise _damage(path, str(exc)) from exc


def _damage(path: Path, reason: str) -> DamageError:
    return DamageError(
        f"{display(os.fsencode(path))} cannot be read: {reason}",
        hint="restore the file from a backup, or move it away to give up what it says",
    )


def write_name(depot: Depot, name: NameFile) -> None:
    _write(depot, names_dir(depot), name_path(depot, name.name), name)


def write_note(depot: Depot, note: Note) -> None:
    _write(depot, notes_dir(depot), note_path(depot, note.id), note)


def write_run(depot: Depot, run: RunFile) -> None:
    _write(depot, runs_dir(depot), run_path(depot, run.id), run)


def remove_note(depot: Depot, record_id: str) -> None:
    note_path(depot, record_id).unlink(missing_ok=True)


def encode_file(value: NameFile | Note | RunFile) -> bytes:
    """UsageError for what could not be read again."""
    try:
        text = msgspec.json.format(msgspec.json.encode(value), indent=1) + b"\n"
        msgspec.json.decode(text, type=type(value))
    except (msgspec.MsgspecError, UnicodeEncodeError, TypeError) as exc:
        raise UsageError(f"this cannot be recorded: {exc}", hint="give what JSON can hold") from exc
    return text


def _write(depot: Depot, directory: Path, path: Path, value: NameFile | Note | RunFile) -> None:
    text = encode_file(value)
    atomic.ensure_dir(directory, depot.dir_mode)
    temp = atomic.write_temp(depot.staging_dir, [text], mode=FILE_MODE, name=_TEMP_NAME)
    try:
        temp.replace(path)
    except BaseException:
        temp.unlink(missing_ok=True)
        raise
    atomic.fsync_dir(directory)


def new_event(kind: EventKind, version: int, **more: Any) -> Event:
    return Event(at=format_time(time.time()), kind=kind, version=version, by=_who(), **more)


def _who() -> str:
    return f"{user_name()}@{socket.gethostname()}"
