"""Removing records: into the trash, back from it, for good.

A trashed record is `trash/<12 hex of the time in ms>-<record id>.json`, moved there by one rename,
so it is in one of the two places at any moment. It stays a root until it expires. Every move is
made under the shared lock; what is deleted for good is held exclusively first, without waiting,
because a reader that may not write the store holds a shared flock on it.
"""

from __future__ import annotations

import contextlib
import fcntl
import os
import re
import time
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

from castfs import atomic
from castfs.errors import CastfsError, DamageError, NotFoundError
from castfs.paths import display
from castfs.regular import read_regular
from castfs.store.depot import Depot
from castfs.store.failures import store_errors
from castfs.store.locks import open_lock, try_flock
from castfs.store.records import Record, decode_record
from castfs.store.staging import LOCK_BATCH

#: The name of a file in the trash; none is of a time after 2248, which no 63 bits of ns can hold.
TRASH_NAME = re.compile(r"(0[0-7][0-9a-f]{10})-([0-9a-f]{24})\.json")


@dataclass(frozen=True, slots=True)
class TrashName:
    """The name of a file in the trash. `deleted_ns` is exact to the millisecond."""

    record_id: str
    deleted_ns: int

    def __str__(self) -> str:
        return f"{self.deleted_ns // 1_000_000:012x}-{self.record_id}.json"


@dataclass(frozen=True, slots=True)
class TrashedRecord:
    """A record in the trash."""

    record: Record
    name: TrashName


def parse_trash_name(name: str) -> TrashName | None:
    match = TRASH_NAME.fullmatch(name)
    return TrashName(match[2], int(match[1], 16) * 1_000_000) if match else None


def list_trash(depot: Depot) -> list[TrashName]:
    """The names in the trash, the last deleted first. DamageError if it cannot be read."""
    try:
        texts = sorted(os.listdir(depot.trash_dir), reverse=True)
    except FileNotFoundError:
        return []
    except OSError as exc:
        where = display(os.fsencode(depot.trash_dir))
        raise DamageError(f"the trash {where} cannot be read: {exc.strerror}") from exc
    return [name for name in map(parse_trash_name, texts) if name is not None]


def iter_trash(depot: Depot, damaged: list[DamageError] | None = None) -> Iterator[TrashedRecord]:
    """What is in the trash, the last deleted first. One that leaves it meanwhile is passed over.

    DamageError at the first that cannot be read; with a list, it goes there instead.
    """
    for name in list_trash(depot):
        try:
            yield TrashedRecord(read_trashed(depot, name), name)
        except FileNotFoundError:
            continue
        except DamageError as exc:
            if damaged is None:
                raise
            damaged.append(exc)


def read_trashed(depot: Depot, name: TrashName) -> Record:
    """FileNotFoundError if it is gone; DamageError if it cannot be read."""
    path = depot.trash_dir / str(name)
    where = display(os.fsencode(path))
    try:
        raw = read_regular(path)
    except FileNotFoundError:
        raise
    except OSError as exc:
        raise DamageError(f"deleted snapshot {where} cannot be read: {exc.strerror}") from exc
    if raw is None:
        raise DamageError(f"deleted snapshot {where} is no file")
    return decode_record(raw, record_id=name.record_id, where=where)


def move_to_trash(depot: Depot, record_ids: Sequence[str]) -> None:
    """Durably. NotFoundError for one that somebody else removed meanwhile; StoreError."""
    with store_errors(depot.path):
        try:
            now = depot.stamp_ns()
        except OSError:
            # A full disk, which removing is there to help with, may refuse even that.
            now = time.time_ns()
        _rename(
            depot, [(f"{each}.json", str(TrashName(each, now))) for each in record_ids], away=True
        )


def take_back(depot: Depot, names: Sequence[TrashName]) -> None:
    """Out of the trash, durably. NotFoundError for one that has expired meanwhile; StoreError."""
    with store_errors(depot.path):
        _rename(depot, [(str(name), f"{name.record_id}.json") for name in names], away=False)


def _rename(depot: Depot, moves: Sequence[tuple[str, str]], *, away: bool) -> None:
    """All of them, or none: if one cannot be moved, those before it go back."""
    places = (depot.snapshots_dir, depot.trash_dir)
    source_dir, target_dir = places if away else reversed(places)
    done: list[tuple[str, str]] = []
    try:
        for start in range(0, len(moves), LOCK_BATCH):
            with depot.locks.shared():
                for source, target in moves[start : start + LOCK_BATCH]:
                    (source_dir / source).rename(target_dir / target)
                    done.append((source, target))
    except BaseException as exc:
        with contextlib.suppress(CastfsError), depot.locks.shared():
            for source, target in reversed(done):
                with contextlib.suppress(OSError):
                    (target_dir / target).rename(source_dir / source)
        if isinstance(exc, FileNotFoundError):
            raise NotFoundError(
                f"snapshot {Path(source).stem.rpartition('-')[2]} was removed meanwhile",
                hint="see `castfs list` and `castfs list --deleted`",
            ) from exc
        raise
    finally:
        # Where it was first: btrfs commits the whole rename then. The other way round a power cut
        # between the two leaves it in both places.
        atomic.fsync_dir(source_dir)
        atomic.fsync_dir(target_dir)


def unlink_unheld(path: Path) -> bool:
    """Delete a record or manifest for good, unless a reader holds it. FileNotFoundError.

    Call it while the store is held exclusively: a reader that takes its flock at that moment would
    be told that it cannot have it.
    """
    fd = open_lock(path)
    try:
        if not try_flock(fd, fcntl.LOCK_EX):
            return False
        path.unlink()
    finally:
        os.close(fd)
    return True


def is_held(path: Path) -> bool:
    """Does a reader hold that record or manifest? FileNotFoundError. Call it as `unlink_unheld`."""
    fd = open_lock(path)
    try:
        return not try_flock(fd, fcntl.LOCK_EX)
    finally:
        os.close(fd)


def delete_records(depot: Depot, record_ids: Sequence[str]) -> list[str]:
    """Delete records for good, durably, wherever they are. Returns the ids of those that are held
    by readers and stay. One that is gone already is passed over. DamageError, StoreError."""
    held = []
    with store_errors(depot.path):
        for start in range(0, len(record_ids), LOCK_BATCH):
            with depot.locks.exclusive():
                # Looked for in the same hold: somebody may move it.
                batch = record_ids[start : start + LOCK_BATCH]
                paths = [(record_id, depot.record_path(record_id)) for record_id in batch]
                # Twice, perhaps: somebody has put a backup back.
                paths += [
                    (name.record_id, depot.trash_dir / str(name))
                    for name in list_trash(depot)
                    if name.record_id in batch
                ]
                held += [record_id for record_id, path in paths if not _delete(path)]
        for directory in (depot.snapshots_dir, depot.trash_dir):
            atomic.fsync_dir(directory)
    return held


def _delete(path: Path) -> bool:
    try:
        return unlink_unheld(path)
    except FileNotFoundError:
        return True
