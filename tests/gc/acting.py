"""Other actors, let in at a chosen step of a collection, and what the store holds before and after.

A step is a call of some function of the collector. What happens there happens in this process, at
that very moment, so every interleaving is forced and none is waited for.
"""

from __future__ import annotations

import fcntl
import hashlib
import os
import stat
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

import pytest

import castfs
from castfs.digest import Digest
from castfs.gc import GcOptions, GcResult, collect
from castfs.gc.holds import Holds
from castfs.manifest import Manifest, decode_manifest, encode_manifest, is_stored_whole
from castfs.repository import Store
from castfs.repository.results import IngestResult
from castfs.store import Depot, Record, WriteSession
from castfs.store.locks import try_flock
from castfs.store.records import format_time, new_record_id
from tests.store.checking import read_records

HOUR_NS = 3600 * 10**9
#: 2001: older than any grace period.
OLD_NS = 10**18
#: Contents of the scene's two trees: one that both have, and each its own; and what is garbage.
SHARED, KEPT, LOST, MORE = b"shared" * 50, b"kept" * 70, b"lost" * 90, b"more" * 200
LITTER = b"litter" * 40


@dataclass(frozen=True)
class Scene:
    """A store with two snapshots, and LITTER, which nobody needs. Everything in it is old."""

    store: Store
    kept: IngestResult
    lost: IngestResult
    kept_source: Path
    lost_source: Path


class Step:
    """Does `act` once, just before (or after) the call number `number` of `owner.name`."""

    def __init__(
        self,
        patch: pytest.MonkeyPatch,
        owner: Any,
        name: str,
        act: Callable[[], object],
        *,
        number: int = 1,
        late: bool = False,
    ) -> None:
        self.count = 0
        self.done = False
        original = getattr(owner, name)

        def call(*args: Any, **kwargs: Any) -> Any:
            self.count += 1
            if is_now := self.count == number:
                self.done = True
            if is_now and not late:
                act()
            result = original(*args, **kwargs)
            if is_now and late:
                act()
            return result

        patch.setattr(owner, name, call)


@contextmanager
def at_hold(number: int, act: Callable[[], object]) -> Iterator[Step]:
    """`act` just before the collector takes the store's lock for the `number`th time. Every batch
    is one blob, so these are all the moments at which others can move a root."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("castfs.gc.holds.BATCH_SECONDS", 0)
        patch.setattr("castfs.gc.holds.PAUSE_SECONDS", 0)
        yield Step(patch, Holds, "exclusive", act, number=number)


def put(store: Store, place: Path, **contents: bytes) -> IngestResult:
    """Make a directory with these files, and take it in."""
    place.mkdir()
    for name, data in contents.items():
        (place / name).write_bytes(data)
    return store.ingest(place)


def age(store: Path) -> None:
    """All blobs and manifests are old: their time protects none of them."""
    for path in [*(store / "blobs").glob("??/*"), *(store / "manifests").glob("??/*")]:
        os.utime(path, ns=(OLD_NS, OLD_NS))


def gc(store: Store, **options: Any) -> GcResult:
    return collect(store.depot, GcOptions(**options))


def digest_of(data: bytes) -> Digest:
    return Digest(hashlib.sha256(data).hexdigest())


def has(store: Store | Path, data: bytes) -> bool:
    path = store if isinstance(store, Path) else store.path
    digest = digest_of(data)
    return (path / "blobs" / digest[:2] / digest).exists()


def blob_path(store: Store, data: bytes) -> Path:
    digest = digest_of(data)
    return store.path / "blobs" / digest[:2] / digest


def blob_names(store: Path) -> set[str]:
    return {path.name for path in (store / "blobs").glob("??/*")}


def manifest_of(store: Store, manifest_id: str) -> Manifest:
    return decode_manifest(store.depot.manifest_path(manifest_id).read_bytes())


def needed_blobs(store: Path) -> set[str]:
    """What the records lead to."""
    depot = castfs.open(store).depot
    return {
        str(file.sha256)
        for record in read_records(store)
        for file in decode_manifest(
            depot.manifest_path(record["manifest"]).read_bytes()
        ).tree.files.values()
    }


def listing(store: Path) -> dict[str, tuple[object, ...]]:
    """Every name with inode, mode, links, size, mtime and the hash of its bytes. Only the stamp,
    which is the mtime of the collector's lock, is left out."""
    found: dict[str, tuple[object, ...]] = {}
    for path in [store, *store.rglob("*")]:
        status = path.lstat()
        content = ""
        if stat.S_ISREG(status.st_mode):
            content = hashlib.sha256(path.read_bytes()).hexdigest()
        elif path.is_symlink():
            content = os.readlink(path)
        mtime = 0 if path.name == "gc.lock" else status.st_mtime_ns
        found[str(path.relative_to(store))] = (
            status.st_ino, status.st_mode, status.st_nlink, status.st_size, mtime, content
        )  # fmt: skip
    return found


def into_trash_long_ago(store: Store, record_id: str) -> Path:
    """Remove a snapshot, and let its time in the trash be over."""
    store.remove(record_id)
    [path] = store.depot.trash_dir.glob(f"*-{record_id}.json")
    return path.rename(path.with_name(f"{1:012x}-{record_id}.json"))


def record_for(manifest: Manifest) -> Record:
    return Record(
        id=new_record_id(),
        manifest=manifest.id,
        created_at=format_time(0),
        host="test",
        source="/test",
        file_count=len(manifest.tree.files),
        total_size_bytes=manifest.tree.total_size_bytes,
    )


def publish(session: WriteSession, manifest: Manifest) -> Record:
    record = record_for(manifest)
    is_sound = partial(is_stored_whole, manifest)
    session.publish(manifest.id, encode_manifest(manifest), record, is_sound=is_sound)
    return record


def rely_on(session: WriteSession, contents: list[bytes]) -> None:
    """As an ingest does: what is there is claimed, what is not is staged."""
    claims = session.claim([(digest_of(data), len(data)) for data in contents])
    for data, there in zip(contents, claims, strict=True):
        if not there:
            session.stage_bytes(data)


def locks_are_free(depot: Depot) -> bool:
    return is_free(depot.path / "gate") and is_free(depot.path / "store")


def is_free(path: Path) -> bool:
    """Would an exclusive flock be had at once?"""
    with path.open("rb") as file:
        return try_flock(file.fileno(), fcntl.LOCK_EX)
