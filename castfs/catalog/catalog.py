"""Questions to the catalog, and changes of what it says.

    with reading(depot) as catalog: ...       the database, brought up to the files if need be
    with changing(depot) as change: ...       the same, while nobody else changes anything

A change writes files first (whoever opened this says which); at the end the rows of those files are
read from them again. Where no database can be used (a read-only medium, another user's store, a
network filesystem) the answers come from the files, by way of a database in memory.
"""

from __future__ import annotations

import contextlib
import os
import sqlite3
from collections.abc import Callable, Collection, Iterator

from castfs.catalog import freshness, syncing
from castfs.catalog.database import set_state
from castfs.catalog.files import NameFile, name_path, read_name_file
from castfs.catalog.opening import (
    connect_database,
    delete_database,
    is_in_memory,
    is_worthless,
    locked,
    open_database,
)
from castfs.catalog.places import Place
from castfs.catalog.questions import Catalog
from castfs.errors import CastfsError, DamageError, StoreError
from castfs.paths import display
from castfs.store import Depot
from castfs.store.failures import store_errors
from castfs.syscalls import is_read_only_medium

#: How often the files are read while others change them, by who may not make them wait.
_TRIES = 5
#: So long does who only reads wait for a change to be finished; then it looks at the files.
_PATIENCE_SECONDS = 2.0


class Change(Catalog):
    """A catalog that nobody else changes meanwhile. Say what you touch before you write it."""

    def __init__(self, depot: Depot, connection: sqlite3.Connection) -> None:
        super().__init__(depot, connection)
        self._record_ids: set[str] = set()
        self._places: set[Place] = set()
        self._names: set[str] = set()
        self._run_ids: set[str] = set()
        self._is_trusted = True

    def name(self, name: str) -> NameFile | None:
        """From its file: what is written next is made from it."""
        return read_name_file(name_path(self.depot, name))

    def touch(self, *record_ids: str) -> None:
        """Records that come."""
        self._record_ids.update(record_ids)
        self._places.add("snapshots")

    def touch_moved(self, *record_ids: str) -> None:
        """Records that go, or move to the trash or back."""
        self._record_ids.update(record_ids)
        self._places.update(("snapshots", "trash", "notes"))

    def touch_note(self, record_id: str) -> None:
        self._record_ids.add(record_id)
        self._places.add("notes")

    def touch_name(self, name: str) -> None:
        self._names.add(name)
        self._places.add("names")

    def touch_run(self, run_id: str) -> None:
        self._run_ids.add(run_id)
        self._places.add("runs")

    def distrust(self) -> None:
        """Whoever comes next compares all of it with the files."""
        self._is_trusted = False

    def update(self) -> None:
        """Read again what was touched, so that the next question knows it."""
        self._update(self._record_ids, self._names, self._run_ids)

    def update_name(self, name: str) -> None:
        """Of what was touched only this: all of it may be long."""
        self._update(names=[name])

    def _update(
        self,
        record_ids: Collection[str] = (),
        names: Collection[str] = (),
        run_ids: Collection[str] = (),
    ) -> None:
        def read_again() -> None:
            syncing.update(
                self._connection, self.depot, record_ids=record_ids, names=names, run_ids=run_ids
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
        if self._is_trusted:
            freshness.mark_fresh(self._connection, self.depot, self._places)


@contextlib.contextmanager
def reading(depot: Depot) -> Iterator[Catalog]:
    """What the store holds, now. DamageError where a directory cannot be read; StoreError."""
    with (
        contextlib.closing(open_database(depot, _begin_reading)) as connection,
        _damage_named(depot),
    ):
        yield Catalog(depot, connection)


@contextlib.contextmanager
def changing(depot: Depot) -> Iterator[Change]:
    """Alone, for the moments that it takes to write a few files. BusyError, StoreError."""
    with (
        store_errors(depot.path),
        locked(depot),
        contextlib.closing(open_database(depot, _begin_changing)) as connection,
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
        if is_worthless(exc):
            with contextlib.suppress(OSError):
                delete_database(depot)
        raise DamageError(
            f"the catalog's database of {display(os.fsencode(depot.path))} cannot be read: {exc}",
            hint="run the command again: it is made anew from the files",
        ) from exc


def _begin_reading(connection: sqlite3.Connection, depot: Depot) -> None:
    connection.execute("BEGIN")
    if freshness.is_fresh(connection, depot):
        return
    connection.execute("ROLLBACK")
    if is_in_memory(connection):
        for _ in range(_TRIES):
            _refresh(connection, depot)
            # What changed meanwhile may not fit together.
            if freshness.is_fresh(connection, depot):
                break
    elif is_read_only_medium(depot.path):
        raise sqlite3.OperationalError("what it says is out of date")
    else:
        # Whoever has said that it changes something is waited for.
        with locked(depot, seconds=_PATIENCE_SECONDS):
            if not freshness.is_fresh(connection, depot):
                _refresh(connection, depot)
    connection.execute("BEGIN")


def _begin_changing(connection: sqlite3.Connection, depot: Depot) -> None:
    if not freshness.is_fresh(connection, depot):
        _refresh(connection, depot)
    set_state(connection, "dirty", 1)


def rebuild(depot: Depot) -> int:
    """Make the database anew from the files. Returns how many snapshots it knows."""
    with store_errors(depot.path), locked(depot):
        delete_database(depot)
        with contextlib.closing(connect_database(depot)) as connection:
            _refresh(connection, depot)
            count: int = connection.execute("SELECT count(*) FROM records").fetchone()[0]
            return count


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
