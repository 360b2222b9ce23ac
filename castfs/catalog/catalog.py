"""Questions to the catalog, and changes of what it says.

    with reading(depot) as catalog: ...       the database, brought up to the files if need be
    with changing(depot) as change: ...       the same, while nobody else changes anything

A change writes files first (whoever opened this says which); at the end the rows of those files are
read from them again. Where no database can be used (a read-only medium, another user's store, a
network filesystem) the answers come from the files, by way of a database in memory.
"""

from __future__ import annotations

import contextlib
import fcntl
import os
import sqlite3
import time
from collections.abc import Callable, Iterator, Sequence
from typing import Any, Literal

import msgspec

from castfs import atomic
from castfs.catalog import syncing
from castfs.catalog.database import (
    BUSY_SECONDS,
    FILE_NAME,
    AnotherVersion,
    connect,
    connect_memory,
    connect_read_only,
    set_state,
)
from castfs.catalog.files import (
    RUN_FILE,
    NameFile,
    RunFile,
    name_path,
    read_name_file,
    read_run,
    run_path,
)
from castfs.errors import BusyError, CastfsError, DamageError, StoreError
from castfs.paths import display
from castfs.store import Depot, Record
from castfs.store.failures import store_errors
from castfs.store.locks import find_holders, try_flock
from castfs.store.trash import list_trash
from castfs.syscalls import is_local, is_read_only_medium

LOCK = "catalog.lock"
#: Which records a question is about: those in the store, those in the trash.
Place = Literal["live", "trash", "all"]

_WHERE = {"live": "deleted_ns IS NULL", "trash": "deleted_ns IS NOT NULL", "all": "1"}
_POLL_SECONDS = 0.002
#: How often the files are read while others change them, by who may not make them wait.
_TRIES = 5
#: So long does who only reads wait for a change to be finished; then it looks at the files.
_PATIENCE_SECONDS = 2.0
#: What a database says that is not one, or is damaged: it is made anew.
_WORTHLESS = (sqlite3.SQLITE_CORRUPT, sqlite3.SQLITE_NOTADB, sqlite3.SQLITE_SCHEMA)

_decode_record = msgspec.json.Decoder(Record).decode
_decode_run = msgspec.json.Decoder(RunFile).decode
_decode_name = msgspec.json.Decoder(NameFile).decode


class _InTheWayError(BusyError):
    """Of who only reads: nobody needs to hear of it."""


class Catalog:
    """What the database says, at one moment. Belongs to one thread."""

    def __init__(self, depot: Depot, connection: sqlite3.Connection) -> None:
        self.depot = depot
        self._connection = connection

    # Records -----------------------------------------------------------------------------------

    def iter_records(
        self,
        place: Place = "live",
        *,
        name: str | None = None,
        type: str | None = None,
        run: str | None = None,
        sources: Sequence[str] = (),
        tags: Sequence[str] = (),
        since: str | None = None,
    ) -> Iterator[Record]:
        """Records, newest first (in the trash: the last deleted first), their tags and metadata as
        they are now. `since` is the beginning of an id."""
        where, values = [_WHERE[place]], list[Any]()
        for column, value in (("name", name), ("type", type), ("run", run)):
            if value is not None:
                where.append(f"{column} = ?")
                values.append(value)
        if sources:
            where.append(f"source IN ({', '.join('?' * len(sources))})")
            values += sources
        for tag in tags:
            where.append("id IN (SELECT id FROM tags WHERE tag = ?)")
            values.append(tag)
        if since is not None:
            where.append("id >= ?")
            values.append(since)
        order = "deleted_ns DESC, id DESC" if place == "trash" else "id DESC"
        yield from self._records(f"{' AND '.join(where)} ORDER BY {order}", *values)

    def find_prefix(self, prefix: str, place: Place = "live") -> list[Record]:
        """Records whose id, or whose manifest's, begins with `prefix` (hex digits)."""
        end = prefix + "g"
        return list(
            self._records(
                f"((id >= ? AND id < ?) OR (manifest >= ? AND manifest < ?)) AND {_WHERE[place]}"
                " ORDER BY id DESC",
                prefix, end, prefix, end,
            )
        )  # fmt: skip

    def find_version(self, name: str, version: int, place: Place = "live") -> list[Record]:
        return list(
            self._records(
                f"name = ? AND version = ? AND {_WHERE[place]} ORDER BY id DESC", name, version
            )
        )

    def latest(self, name: str, place: Place = "live") -> Record | None:
        """The highest version; of a name without versions, the newest snapshot."""
        found = self._records(
            f"name = ? AND {_WHERE[place]} ORDER BY version DESC NULLS LAST, id DESC LIMIT 1", name
        )
        return next(found, None)

    def get(self, record_id: str) -> Record | None:
        return next(self._records("id = ?", record_id), None)

    def deleted_ns(self, record_id: str) -> int | None:
        row = self._connection.execute(
            "SELECT deleted_ns FROM records WHERE id = ?", (record_id,)
        ).fetchone()
        return row[0] if row else None

    def iter_deleted(self) -> Iterator[tuple[int, Record]]:
        """(when, in ns; record) of what is in the trash, the last deleted first. A record may be
        there twice, and in the store, too: somebody has put a backup back."""
        for name in list_trash(self.depot):
            if record := self.get(name.record_id):
                yield name.deleted_ns, record

    def with_manifest(self, manifest_id: str) -> Record | None:
        """The newest record of a tree."""
        return next(
            self._records("manifest = ? AND deleted_ns IS NULL ORDER BY id DESC", manifest_id), None
        )

    def _records(self, where: str, *values: object) -> Iterator[Record]:
        rows = self._connection.execute(f"SELECT body FROM records WHERE {where}", values)
        for (body,) in rows:
            yield _decode_record(body)

    # Names -------------------------------------------------------------------------------------

    def name(self, name: str) -> NameFile | None:
        """DamageError if the name's file cannot be read."""
        row = self._connection.execute("SELECT body FROM names WHERE name = ?", (name,)).fetchone()
        if row is not None:
            return _decode_name(row[0])
        return read_name_file(name_path(self.depot, name))

    def iter_names(self) -> Iterator[NameFile]:
        """By name; also those without a version that is left."""
        for (body,) in self._connection.execute("SELECT body FROM names ORDER BY name"):
            yield _decode_name(body)

    def has_name(self, name: str, place: Place = "all") -> bool:
        where = f"SELECT 1 FROM records WHERE name = ? AND {_WHERE[place]} LIMIT 1"
        return self._connection.execute(where, (name,)).fetchone() is not None

    def count_by_name(self, place: Place = "live") -> list[tuple[str, int]]:
        """(name, how many snapshots it has), by name."""
        return self._connection.execute(
            "SELECT name, count(*) FROM records"
            f" WHERE name IS NOT NULL AND {_WHERE[place]} GROUP BY name ORDER BY name"
        ).fetchall()

    def find_name(self, name: str) -> NameFile | None:
        """`name`, where one that cannot be read is as good as none: it is among `damages`."""
        try:
            return self.name(name)
        except DamageError:
            return None

    def aliases_of(self, name: str, version: int) -> list[str]:
        rows = self._connection.execute(
            "SELECT alias FROM aliases WHERE name = ? AND version = ? ORDER BY alias",
            (name, version),
        )
        return [alias for (alias,) in rows]

    def last_version(self, name: str) -> int:
        """The highest number that any version had, as far as is known."""
        row = self._connection.execute(
            "SELECT max(version) FROM records WHERE name = ?", (name,)
        ).fetchone()
        known = self.name(name)
        return max(row[0] or 0, known.last_version if known else 0)

    def damages(self, place: Place = "all") -> list[DamageError]:
        """What cannot be read, the newest first: records, and all that is beside them."""
        return self.damaged_records(place) + self.damages_beside_records()

    def damaged_records(self, place: Place = "all") -> list[DamageError]:
        prefixes = {"live": ("snapshots/",), "trash": ("trash/",)}
        return self._damages(prefixes.get(place, ("snapshots/", "trash/")))

    def damages_beside_records(self) -> list[DamageError]:
        """Files of names, notes and runs. They hide no snapshot, but what is said of some."""
        return self._damages(("names/", "notes/", "runs/"))

    def _damages(self, prefixes: tuple[str, ...]) -> list[DamageError]:
        rows = self._connection.execute("SELECT file FROM damaged ORDER BY file DESC").fetchall()
        found = (
            syncing.read_damaged(self.depot, file) for (file,) in rows if file.startswith(prefixes)
        )
        return [each for each in found if each is not None]

    # Runs and lineage --------------------------------------------------------------------------

    def run(self, run_id: str) -> RunFile | None:
        """DamageError if its file cannot be read."""
        if not RUN_FILE.fullmatch(f"{run_id}.json"):
            return None
        row = self._connection.execute("SELECT body FROM runs WHERE id = ?", (run_id,)).fetchone()
        if row is not None:
            return _decode_run(row[0])
        return read_run(run_path(self.depot, run_id))

    def iter_runs(self) -> Iterator[RunFile]:
        """Newest first."""
        rows = self._connection.execute("SELECT body FROM runs ORDER BY created_at DESC, id DESC")
        for (body,) in rows:
            yield _decode_run(body)

    def users_of(self, record_id: str) -> list[str]:
        """Runs that were given a snapshot, the newest first."""
        rows = self._connection.execute(
            "SELECT run FROM uses WHERE id = ? ORDER BY run DESC", (record_id,)
        )
        return [run for (run,) in rows]

    def links_of(self, record_id: str) -> list[tuple[str, str, int]]:
        """(key, name, version) of its metadata that name a version."""
        return self._connection.execute(
            "SELECT key, name, version FROM links WHERE id = ? ORDER BY key", (record_id,)
        ).fetchall()

    def links_to(self, name: str, version: int) -> list[tuple[str, str]]:
        """(id, key) of the snapshots whose metadata name a version."""
        return self._connection.execute(
            "SELECT id, key FROM links WHERE name = ? AND version = ? ORDER BY id", (name, version)
        ).fetchall()


class Change(Catalog):
    """A catalog that nobody else changes meanwhile. Say what you touch before you write it."""

    def __init__(self, depot: Depot, connection: sqlite3.Connection) -> None:
        super().__init__(depot, connection)
        self._record_ids: set[str] = set()
        self._names: set[str] = set()
        self._run_ids: set[str] = set()

    def name(self, name: str) -> NameFile | None:
        """From its file: what is written next is made from it."""
        return read_name_file(name_path(self.depot, name))

    def touch(self, *record_ids: str) -> None:
        self._record_ids.update(record_ids)

    def touch_name(self, name: str) -> None:
        self._names.add(name)

    def touch_run(self, run_id: str) -> None:
        self._run_ids.add(run_id)

    def update(self) -> None:
        """Read again what was touched, so that the next question knows it."""

        def read_again() -> None:
            syncing.update(
                self._connection,
                self.depot,
                record_ids=self._record_ids,
                names=self._names,
                run_ids=self._run_ids,
            )

        try:
            _in_transaction(self._connection, read_again)
        except sqlite3.Error as exc:
            raise StoreError(
                f"cannot write the catalog of {self.depot.path}: {exc}",
                hint="free some space (perhaps with `castfs gc`) and run the command again",
            ) from exc

    def end(self) -> None:
        self.update()
        syncing.mark_fresh(self._connection, self.depot)


@contextlib.contextmanager
def reading(depot: Depot) -> Iterator[Catalog]:
    """What the store holds, now. DamageError where a directory cannot be read; StoreError."""
    with contextlib.closing(_open(depot, _begin_reading)) as connection, _damage_named(depot):
        yield Catalog(depot, connection)


@contextlib.contextmanager
def changing(depot: Depot) -> Iterator[Change]:
    """Alone, for the moments that it takes to write a few files. BusyError, StoreError."""
    with (
        store_errors(depot.path),
        _locked(depot),
        contextlib.closing(_open(depot, _begin_changing)) as connection,
        _damage_named(depot),
    ):
        change = Change(depot, connection)
        try:
            yield change
        finally:
            # After an error, too: most come before anything was written. If we end before this,
            # whoever comes next looks at the files.
            with contextlib.suppress(sqlite3.Error, CastfsError, OSError):
                change.end()


@contextlib.contextmanager
def _damage_named(depot: Depot) -> Iterator[None]:
    """A part of the database that only the question has met."""
    try:
        yield
    except sqlite3.DatabaseError as exc:
        if _is_worthless(exc):
            with contextlib.suppress(OSError):
                _delete(depot)
        raise DamageError(
            f"the catalog's database of {display(os.fsencode(depot.path))} cannot be read: {exc}",
            hint="run the command again: it is made anew from the files",
        ) from exc


def _open(depot: Depot, prepare: Callable[[sqlite3.Connection, Depot], None]) -> sqlite3.Connection:
    """The store's database; one in memory if that cannot be used (the disk is full, perhaps)."""
    connection = _connect(depot)
    try:
        try:
            prepare(connection, depot)
        except (sqlite3.Error, _InTheWayError, OSError) as exc:
            connection.close()
            if _is_worthless(exc):
                with contextlib.suppress(OSError):
                    _delete(depot)  # the next one makes it anew
            connection = connect_memory(depot)
            prepare(connection, depot)
    except BaseException:
        connection.close()
        raise
    return connection


def _begin_reading(connection: sqlite3.Connection, depot: Depot) -> None:
    connection.execute("BEGIN")
    if syncing.is_fresh(connection, depot):
        return
    connection.execute("ROLLBACK")
    if _is_in_memory(connection):
        for _ in range(_TRIES):
            _refresh(connection, depot)
            # What changed meanwhile may not fit together.
            if syncing.is_fresh(connection, depot):
                break
    elif is_read_only_medium(depot.path):
        raise sqlite3.OperationalError("what it says is out of date")
    else:
        # Whoever has said that it changes something is waited for.
        with _locked(depot, seconds=_PATIENCE_SECONDS):
            if not syncing.is_fresh(connection, depot):
                _refresh(connection, depot)
    connection.execute("BEGIN")


def _begin_changing(connection: sqlite3.Connection, depot: Depot) -> None:
    if not syncing.is_fresh(connection, depot):
        _refresh(connection, depot)
    set_state(connection, "dirty", 1)


def rebuild(depot: Depot) -> int:
    """Make the database anew from the files. Returns how many snapshots it knows."""
    with store_errors(depot.path), _locked(depot):
        _delete(depot)
        with contextlib.closing(_connect(depot)) as connection:
            _refresh(connection, depot)
            count: int = connection.execute("SELECT count(*) FROM records").fetchone()[0]
            return count


def _connect(depot: Depot) -> sqlite3.Connection:
    with contextlib.suppress(OSError, sqlite3.Error):
        # SQLite's log of changes needs memory that all its users share.
        if os.access(depot.path, os.W_OK, effective_ids=True) and _is_local(depot):
            try:
                return connect(depot)
            except sqlite3.Error as exc:
                if not _is_worthless(exc):
                    raise
            _delete(depot)
            return connect(depot)
    with contextlib.suppress(OSError, sqlite3.Error):
        # Where others may write, pages that are half written could be read.
        if is_read_only_medium(depot.path):
            return connect_read_only(depot)
    return connect_memory(depot)


def _is_worthless(exc: Exception) -> bool:
    code = getattr(exc, "sqlite_errorcode", 0) & 0xFF
    return isinstance(exc, AnotherVersion) or code in _WORTHLESS


def _is_local(depot: Depot) -> bool:
    fd = os.open(depot.path, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    try:
        return is_local(fd)
    finally:
        os.close(fd)


def _delete(depot: Depot) -> None:
    for suffix in ("-wal", "-shm", ""):
        with contextlib.suppress(FileNotFoundError):
            os.unlink(depot.path / f"{FILE_NAME}{suffix}")


def _is_in_memory(connection: sqlite3.Connection) -> bool:
    return not connection.execute("PRAGMA database_list").fetchone()[2]


def _refresh(connection: sqlite3.Connection, depot: Depot) -> None:
    try:
        _in_transaction(connection, lambda: syncing.refresh(connection, depot))
    except OSError as exc:
        raise DamageError(
            f"the store at {display(os.fsencode(depot.path))} cannot be read: {exc.strerror}"
        ) from exc


def _in_transaction(connection: sqlite3.Connection, work: Callable[[], None]) -> None:
    connection.execute("BEGIN IMMEDIATE")
    try:
        work()
        connection.execute("COMMIT")
    except BaseException:
        if connection.in_transaction:
            connection.execute("ROLLBACK")
        raise


@contextlib.contextmanager
def _locked(depot: Depot, *, seconds: float | None = None) -> Iterator[None]:
    """BusyError; with `seconds`, after that time, one that `_open` knows what to do about."""
    fd = _open_lock(depot)
    try:
        _wait(fd, depot, seconds)
        try:
            yield
        finally:
            # Said, and not left to the close: a child that was forked meanwhile has it open, too.
            fcntl.flock(fd, fcntl.LOCK_UN)
    finally:
        os.close(fd)


def _open_lock(depot: Depot) -> int:
    path = depot.path / LOCK
    with contextlib.suppress(FileExistsError):  # a store may have been made without
        fd = os.open(path, os.O_CREAT | os.O_EXCL | os.O_RDWR | os.O_CLOEXEC, 0o600)
        os.fchmod(fd, 0o660 if depot.marker.group else 0o600)
        atomic.give_to_owner_of(depot.path, path)
        return fd
    return os.open(path, os.O_RDWR | os.O_CLOEXEC | os.O_NONBLOCK)


def _wait(fd: int, depot: Depot, seconds: float | None) -> None:
    end = time.monotonic() + (BUSY_SECONDS if seconds is None else seconds)
    while not try_flock(fd, fcntl.LOCK_EX):
        if time.monotonic() > end:
            if seconds is not None:
                raise _InTheWayError("somebody changes the catalog")
            holders = ", ".join(map(str, find_holders(depot.path / LOCK))) or "of another machine"
            raise BusyError(
                f"somebody changes the catalog of {depot.path} and does not go on",
                hint=f"is it stopped? (process {holders})",
            )
        time.sleep(_POLL_SECONDS)
