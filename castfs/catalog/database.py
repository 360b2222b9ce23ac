"""The database `catalog.db`: a derived index over the files of a store. It may be deleted.

One connection for each question or change, by one thread at a time. Nothing stands in it that the
files do not say.
"""

from __future__ import annotations

import contextlib
import errno
import os
import secrets
import sqlite3
import urllib.parse

from castfs import atomic
from castfs.store import Depot

#: Counts changes of what is below; a database of another one is made anew.
SCHEMA_VERSION = 4
FILE_NAME = "catalog.db"
#: How long others may keep it; they need milliseconds.
BUSY_SECONDS = 30.0

_SCHEMA = """
CREATE TABLE state (key TEXT PRIMARY KEY, value) WITHOUT ROWID;
CREATE TABLE records (
    id TEXT PRIMARY KEY,
    deleted_ns INTEGER,
    manifest TEXT NOT NULL,
    name TEXT,
    version INTEGER,
    type TEXT,
    run TEXT,
    source TEXT NOT NULL,
    stamp BLOB NOT NULL,
    body BLOB NOT NULL
) WITHOUT ROWID;
CREATE INDEX record_names ON records (name, version, deleted_ns) WHERE name IS NOT NULL;
CREATE INDEX record_name_ids ON records (name, deleted_ns) WHERE name IS NOT NULL;
CREATE INDEX record_sources ON records (source, deleted_ns);
CREATE INDEX record_deletions ON records (deleted_ns) WHERE deleted_ns IS NOT NULL;
CREATE INDEX record_manifests ON records (manifest);
CREATE INDEX record_runs ON records (run) WHERE run IS NOT NULL;
CREATE TABLE damaged (file TEXT PRIMARY KEY) WITHOUT ROWID;
CREATE TABLE notes (id TEXT PRIMARY KEY, stamp BLOB NOT NULL) WITHOUT ROWID;
CREATE TABLE tags (tag TEXT, id TEXT, PRIMARY KEY (tag, id)) WITHOUT ROWID;
CREATE TABLE names (
    name TEXT PRIMARY KEY, file TEXT NOT NULL UNIQUE, stamp BLOB NOT NULL, body BLOB NOT NULL
) WITHOUT ROWID;
CREATE TABLE aliases (
    name TEXT, alias TEXT, version INTEGER, PRIMARY KEY (name, alias)
) WITHOUT ROWID;
CREATE INDEX alias_versions ON aliases (name, version);
CREATE TABLE runs (
    id TEXT PRIMARY KEY, created_at TEXT NOT NULL, stamp BLOB NOT NULL, body BLOB NOT NULL
) WITHOUT ROWID;
CREATE TABLE uses (run TEXT, id TEXT, PRIMARY KEY (run, id)) WITHOUT ROWID;
CREATE INDEX use_records ON uses (id);
CREATE TABLE made_again (run TEXT, id TEXT, PRIMARY KEY (run, id)) WITHOUT ROWID;
CREATE INDEX made_records ON made_again (id);
CREATE TABLE links (
    id TEXT, key TEXT, name TEXT, version INTEGER, PRIMARY KEY (id, key, name, version)
) WITHOUT ROWID;
CREATE INDEX link_targets ON links (name, version);
"""


class AnotherVersion(sqlite3.DatabaseError):
    """The database is of another schema, or of another store."""


def connect(depot: Depot) -> sqlite3.Connection:
    """The store's own database, made if there is none. sqlite3.Error, OSError."""
    path = depot.path / FILE_NAME
    if not path.exists():
        make_shared_file(depot, FILE_NAME)
    connection = sqlite3.connect(
        path, timeout=BUSY_SECONDS, isolation_level=None, check_same_thread=False
    )
    try:
        connection.execute("PRAGMA journal_mode=WAL")
        # What a power cut takes back, the next one who looks at the files finds.
        connection.execute("PRAGMA synchronous=NORMAL")
        _prepare(connection, depot)
    except BaseException:
        connection.close()
        raise
    return connection


def connect_read_only(depot: Depot) -> sqlite3.Connection:
    """That of a read-only medium, as it was left. sqlite3.Error, also if it was not left whole."""
    path = depot.path / FILE_NAME
    if path.with_name(f"{FILE_NAME}-wal").exists():
        raise sqlite3.OperationalError("changes stand beside it")
    # Nobody can change it, so nothing has to be locked.
    uri = f"file:{urllib.parse.quote(os.fsencode(path))}?mode=ro&immutable=1"
    connection = sqlite3.connect(uri, uri=True, isolation_level=None, check_same_thread=False)
    try:
        if connection.execute("PRAGMA user_version").fetchone()[0] != SCHEMA_VERSION:
            raise AnotherVersion("a database of another version")
        _prepare(connection, depot)
    except BaseException:
        connection.close()
        raise
    return connection


def connect_memory(depot: Depot) -> sqlite3.Connection:
    """An empty one for this process alone."""
    connection = sqlite3.connect(":memory:", isolation_level=None, check_same_thread=False)
    _prepare(connection, depot)
    return connection


def make_shared_file(depot: Depot, name: str) -> None:
    """An empty file with the mode and owner of the store's (SQLite gives those beside it the same),
    unless it is there. It appears with both: if its maker were killed between, nobody else of a
    group could mend it."""
    flags = os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC
    if not depot.marker.group and depot.path.stat().st_uid == os.geteuid():
        with contextlib.suppress(FileExistsError):
            os.close(os.open(depot.path / name, flags, 0o600))
        return
    temp = depot.staging_dir / f"tmp-{secrets.token_hex(8)}"
    fd = -1
    try:
        # No power cut can take anything from it.
        fd = os.open(temp, flags, 0o600)
        os.fchmod(fd, 0o660 if depot.marker.group else 0o600)
        atomic.give_to_owner_of(depot.path, fd)
        (depot.path / name).hardlink_to(temp)
    except FileExistsError:
        pass
    except OSError as exc:
        if exc.errno not in (errno.EPERM, errno.EOPNOTSUPP, errno.ENOSYS):
            raise
        # FAT and some network filesystems have no links.
        if not (depot.path / name).exists():
            temp.replace(depot.path / name)
    finally:
        temp.unlink(missing_ok=True)
        if fd >= 0:
            os.close(fd)


def _prepare(connection: sqlite3.Connection, depot: Depot) -> None:
    version = connection.execute("PRAGMA user_version").fetchone()[0]
    if version == 0:
        connection.execute("BEGIN IMMEDIATE")
        if connection.execute("PRAGMA user_version").fetchone()[0] == 0:
            for statement in _SCHEMA.split(";"):
                connection.execute(statement)
            set_state(connection, "store", depot.marker.id)
            connection.execute(f"PRAGMA user_version={SCHEMA_VERSION}")
        connection.execute("COMMIT")
    elif version != SCHEMA_VERSION or get_state(connection, "store") != depot.marker.id:
        raise AnotherVersion("a database of another version, or of another store")


def get_state(connection: sqlite3.Connection, key: str) -> object:
    row = connection.execute("SELECT value FROM state WHERE key = ?", (key,)).fetchone()
    return row[0] if row else None


def set_state(connection: sqlite3.Connection, key: str, value: object) -> None:
    connection.execute("INSERT OR REPLACE INTO state VALUES (?, ?)", (key, value))
