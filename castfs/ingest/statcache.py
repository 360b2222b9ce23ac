"""What this user's files hashed to, so that an unchanged tree costs a walk and no reading.

One SQLite row for each directory, with 64 bytes for each file in it: inode, size, mtime, ctime and
digest. All four must be the same for a hit. A file is remembered only if both its times lie at
least two seconds before the moment of recording: within the clock's granularity it could change
again without a trace. Nothing is remembered of filesystems that make up inode numbers or ctimes,
such as a mounted snapshot: another one in the same place can look the same and hold other bytes.
Each row begins with a checksum of itself and its key, because the database
is not synced: what a power cut leaves of it may be anything.
"""

from __future__ import annotations

import contextlib
import os
import sqlite3
import struct
import time
from collections.abc import Mapping
from pathlib import Path

import xxhash

from castfs import syscalls
from castfs.ingest.reading import Status

#: inode, size, mtime_ns, ctime_ns, digest.
RECORD = struct.Struct("<Qqqq32s")

#: What one inode was: (size, mtime_ns, ctime_ns, raw digest).
Remembered = tuple[int, int, int, bytes]
#: (device, with the boot where it means nothing after one; inode of the directory)
DirKey = tuple[str, int]

#: No row: the device's inodes and ctimes tell nothing.
NO_ROW: DirKey = ("", 0)

#: statfs f_type of filesystems that keep inode numbers and set each ctime by a clock
#: (linux/magic.h, and the headers of zfs, lustre, gpfs and beegfs).
_TRUE_CTIMES = {
    *syscalls.SYNCFS_MAGIC, 0xCA451A4E, 0x2FC12FC1, 0x6969, 0x00C36400, 0x0BD00BD0, 0x47504653,
    0x19830326, 0x858458F6, 0x3153464A, 0x52654973,
}  # fmt: skip
#: An overlay shows the inodes of its layers. Where a layer is an image that has no ctimes, they are
#: made equal to the mtimes, so files whose times differ can be believed.
_OVERLAY_MAGIC = 0x794C7630
_OVERLAY_PREFIX = "overlay:"

#: xxh3_64, big-endian.
_CHECKSUM_SIZE = 8
_RACY_NS = 2_000_000_000
#: Rows that nobody has used for so long are dropped; the day of use is written once a month.
_UNUSED_DAYS = 180
_RENEWED_DAYS = 30
_SCHEMA_VERSION = 3
#: What goes by: another ingest has it, it cannot be written, the disk is full.
_NOT_NOW = {
    sqlite3.SQLITE_BUSY, sqlite3.SQLITE_LOCKED, sqlite3.SQLITE_READONLY, sqlite3.SQLITE_CANTOPEN,
    sqlite3.SQLITE_FULL, sqlite3.SQLITE_PERM, sqlite3.SQLITE_NOMEM, sqlite3.SQLITE_IOERR,
}  # fmt: skip
_SCHEMA = """
CREATE TABLE IF NOT EXISTS directory (
    key_hash INTEGER PRIMARY KEY, day INTEGER NOT NULL, files BLOB NOT NULL
)
"""


def pack(status: Status, digest: str) -> bytes:
    return RECORD.pack(
        status.st_ino,
        status.st_size,
        status.st_mtime_ns,
        status.st_ctime_ns,
        bytes.fromhex(digest),
    )


class _AnotherVersion(sqlite3.DatabaseError):
    sqlite_errorcode = sqlite3.SQLITE_SCHEMA


class StatCache:
    """The cache in `path`. Belongs to one thread. A cache that cannot be used is an empty one."""

    def __init__(self, path: Path) -> None:
        self._path = path
        self._day = int(time.time() // 86400)
        self._connection: sqlite3.Connection | None = None
        #: (day, key_hash) of rows that were used again after long.
        self._renewed: list[tuple[int, int]] = []
        #: st_dev → its part of a key, "" without rows.
        self._devices: dict[int, str] = {}
        with contextlib.suppress(OSError, sqlite3.Error):
            path.parent.mkdir(parents=True, exist_ok=True, mode=0o700)
            try:
                self._connection = self._open(path)
            except sqlite3.Error as exc:
                if self._give_up(exc):
                    self._connection = self._open(path)

    @staticmethod
    def _open(path: Path) -> sqlite3.Connection:
        with contextlib.ExitStack() as stack:
            connection = sqlite3.connect(path, timeout=5, isolation_level=None)
            stack.callback(connection.close)
            connection.execute("PRAGMA journal_mode=WAL")
            # Losing the last rows in a power cut costs a second reading, nothing else.
            connection.execute("PRAGMA synchronous=OFF")
            version = connection.execute("PRAGMA user_version").fetchone()[0]
            if version not in (0, _SCHEMA_VERSION):
                raise _AnotherVersion
            connection.execute(_SCHEMA)
            connection.execute(f"PRAGMA user_version={_SCHEMA_VERSION}")
            os.chmod(path, 0o600)
            stack.pop_all()
        return connection

    def _give_up(self, exc: sqlite3.Error) -> bool:
        """Use it no more; and if it is damaged, or of a later version, delete it (True)."""
        self.close()
        # What Python's module itself finds wrong (a column that is not UTF-8) has no code.
        if getattr(exc, "sqlite_errorcode", sqlite3.SQLITE_CORRUPT) & 0xFF in _NOT_NOW:
            return False
        for suffix in ("", "-wal", "-shm"):
            with contextlib.suppress(OSError):
                self._path.with_name(self._path.name + suffix).unlink()
        return True

    def close(self) -> None:
        if self._connection is not None:
            self._connection.close()
            self._connection = None

    def key(self, fd: int, status: os.stat_result) -> DirKey:
        """The row of the directory `fd`; NO_ROW on a filesystem that is not to be believed."""
        device = self._devices.get(status.st_dev)
        if device is None:
            device = self._devices[status.st_dev] = _name_device(fd, status.st_dev)
        if not device:
            return NO_ROW
        return device, status.st_ino

    def lookup(self, key: DirKey) -> dict[int, Remembered]:
        """inode → what it was, for the files of one directory."""
        if self._connection is None or key == NO_ROW:
            return {}
        try:
            if not self._connection.in_transaction:
                # One for all: taking SQLite's locks for each takes longer than looking.
                self._connection.execute("BEGIN")
            row = self._connection.execute(
                "SELECT files, day FROM directory WHERE key_hash = ?", (_hash(key),)
            ).fetchone()
        except sqlite3.Error as exc:
            self._give_up(exc)
            return {}
        if row is None or not isinstance(row[0], bytes):
            return {}
        files = row[0][_CHECKSUM_SIZE:]
        if len(files) % RECORD.size or row[0][:_CHECKSUM_SIZE] != _checksum(key, files):
            return {}
        if isinstance(row[1], int) and row[1] < self._day - _RENEWED_DAYS:
            self._renewed.append((self._day, _hash(key)))
        return {ino: (size, m, c, raw) for ino, size, m, c, raw in RECORD.iter_unpack(files)}

    def store(self, rows: Mapping[DirKey, bytes | bytearray], recorded_ns: int) -> None:
        """Replace the rows of these directories, leaving out what is too young to be trusted."""
        if self._connection is None:
            return
        limit = recorded_ns - _RACY_NS
        values = (
            (_hash(key), self._day, _checksum(key, settled) + settled)
            for key, settled in ((key, _settled(key, files, limit)) for key, files in rows.items())
        )
        try:
            self._connection.rollback()
            with self._connection:
                self._connection.execute("BEGIN IMMEDIATE")
                self._connection.executemany(
                    "INSERT OR REPLACE INTO directory VALUES (?, ?, ?)", values
                )
                self._connection.executemany(
                    "UPDATE directory SET day = ? WHERE key_hash = ?", self._renewed
                )
                self._renewed.clear()
                self._connection.execute(
                    "DELETE FROM directory WHERE day < ?", (self._day - _UNUSED_DAYS,)
                )
        except sqlite3.Error as exc:
            # Busy for five seconds, or the disk is full: the next ingest reads these files again.
            self._give_up(exc)


def _hash(key: DirKey) -> int:
    """A signed integer, which SQLite finds fastest. Where two keys meet the checksum tells."""
    return xxhash.xxh3_64_intdigest(repr(key).encode()) - (1 << 63)


def _checksum(key: DirKey, files: bytes) -> bytes:
    return xxhash.xxh3_64_digest(repr(key).encode() + files)


def _name_device(fd: int, device: int) -> str:
    try:
        magic = syscalls.filesystem_magic(fd)
    except OSError:
        return ""
    # Devices without a major number (btrfs, overlay, tmpfs, NFS) get a new number each boot.
    name = f"{device}@{syscalls.boot_id()}" if os.major(device) == 0 else str(device)
    if magic == _OVERLAY_MAGIC:
        return _OVERLAY_PREFIX + name
    return name if magic in _TRUE_CTIMES else ""


def _settled(key: DirKey, files: bytes | bytearray, limit: int) -> bytes:
    overlay = key[0].startswith(_OVERLAY_PREFIX)
    records = [
        files[offset : offset + RECORD.size]
        for offset, (_, _, mtime, ctime, _) in zip(
            range(0, len(files), RECORD.size), RECORD.iter_unpack(files), strict=True
        )
        if mtime <= limit and ctime <= limit and not (overlay and mtime == ctime)
    ]
    return b"".join(records)
