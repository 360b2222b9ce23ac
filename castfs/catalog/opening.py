"""Opening the database of a store, or one in memory where that cannot be used; and its lock."""

from __future__ import annotations

import contextlib
import fcntl
import os
import sqlite3
import time
from collections.abc import Callable, Iterator

from castfs.catalog.database import (
    BUSY_SECONDS,
    FILE_NAME,
    AnotherVersion,
    connect,
    connect_memory,
    connect_read_only,
    make_shared_file,
)
from castfs.errors import BusyError
from castfs.store import Depot
from castfs.store.locks import find_holders, try_flock
from castfs.syscalls import is_local, is_read_only_medium

LOCK = "catalog.lock"

_POLL_SECONDS = 0.002
#: What a database says that is not one, or is damaged: it is made anew.
_WORTHLESS = (sqlite3.SQLITE_CORRUPT, sqlite3.SQLITE_NOTADB, sqlite3.SQLITE_SCHEMA)


class InTheWayError(BusyError):
    """Of who only reads: nobody needs to hear of it."""


def open_database(
    depot: Depot, prepare: Callable[[sqlite3.Connection, Depot], None]
) -> sqlite3.Connection:
    """The store's database; one in memory if that cannot be used (the disk is full, perhaps)."""
    connection = connect_database(depot)
    try:
        try:
            prepare(connection, depot)
        except (sqlite3.Error, InTheWayError, OSError) as exc:
            connection.close()
            if is_worthless(exc):
                with contextlib.suppress(OSError):
                    delete_database(depot)  # the next one makes it anew
            connection = connect_memory(depot)
            prepare(connection, depot)
    except BaseException:
        connection.close()
        raise
    return connection


def connect_database(depot: Depot) -> sqlite3.Connection:
    with contextlib.suppress(OSError, sqlite3.Error):
        # SQLite's log of changes needs memory that all its users share.
        if os.access(depot.path, os.W_OK, effective_ids=True) and _is_local(depot):
            try:
                return connect(depot)
            except sqlite3.Error as exc:
                if not is_worthless(exc):
                    raise
            delete_database(depot)
            return connect(depot)
    with contextlib.suppress(OSError, sqlite3.Error):
        # Where others may write, pages that are half written could be read.
        if is_read_only_medium(depot.path):
            return connect_read_only(depot)
    return connect_memory(depot)


def is_worthless(exc: Exception) -> bool:
    code = getattr(exc, "sqlite_errorcode", 0) & 0xFF
    return isinstance(exc, AnotherVersion) or code in _WORTHLESS


def _is_local(depot: Depot) -> bool:
    fd = os.open(depot.path, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    try:
        return is_local(fd)
    finally:
        os.close(fd)


def delete_database(depot: Depot) -> None:
    for suffix in ("-wal", "-shm", ""):
        with contextlib.suppress(FileNotFoundError):
            os.unlink(depot.path / f"{FILE_NAME}{suffix}")


def is_in_memory(connection: sqlite3.Connection) -> bool:
    return not connection.execute("PRAGMA database_list").fetchone()[2]


@contextlib.contextmanager
def locked(depot: Depot, *, seconds: float | None = None) -> Iterator[None]:
    """BusyError; with `seconds`, after that time, one that `open_database` can do without."""
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
    flags = os.O_RDWR | os.O_CLOEXEC | os.O_NONBLOCK
    try:
        return os.open(path, flags)
    except FileNotFoundError:  # a store may have been made without
        make_shared_file(depot, LOCK)
        return os.open(path, flags)


def _wait(fd: int, depot: Depot, seconds: float | None) -> None:
    end = time.monotonic() + (BUSY_SECONDS if seconds is None else seconds)
    while not try_flock(fd, fcntl.LOCK_EX):
        if time.monotonic() > end:
            if seconds is not None:
                raise InTheWayError("somebody changes the catalog")
            holders = ", ".join(map(str, find_holders(depot.path / LOCK))) or "of another machine"
            raise BusyError(
                f"somebody changes the catalog of {depot.path} and does not go on",
                hint=f"is it stopped? (process {holders})",
            )
        time.sleep(_POLL_SECONDS)
