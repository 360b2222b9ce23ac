"""Where bad blobs go: out of the way, but kept, for they may be the only copy of something."""

from __future__ import annotations

import os
import time
from collections.abc import Sequence
from pathlib import Path

from castfs import atomic
from castfs.store import Depot
from castfs.store.failures import store_errors
from castfs.store.leases import is_relied_on
from castfs.verify.hashing import Suspect


def quarantine(depot: Depot, suspects: Sequence[Suspect]) -> dict[str, Path]:
    """Move those aside that are still the files that were hashed. Returns digest → new place.

    Afterwards a reader gets an error instead of wrong bytes, and the next ingest of the good file
    stores it again. StoreError.
    """
    moved = {}
    with store_errors(depot.path):
        if suspects:
            # Tools that copy a store may leave out a directory that is empty.
            atomic.ensure_dir(depot.quarantine_dir, depot.dir_mode)
        for suspect in suspects:
            source = depot.blobs.path / depot.blobs.name(suspect.digest)
            target = depot.quarantine_dir / f"{suspect.digest}-{time.time_ns() // 1_000_000:012x}"
            with depot.locks.exclusive():
                # What an ingest counts on stays until it has ended: its snapshot would lack it.
                if _is_still(source, suspect) and not is_relied_on(
                    depot.leases_dir, suspect.digest
                ):
                    source.rename(target)
                    moved[suspect.digest] = target
        for shard in {digest[:2] for digest in moved}:
            atomic.fsync_dir(depot.blobs.path / shard)
        if moved:
            atomic.fsync_dir(depot.quarantine_dir)
    return moved


def count_quarantined(depot: Depot) -> int:
    try:
        return len(os.listdir(depot.quarantine_dir))
    except FileNotFoundError:
        return 0


def _is_still(path: Path, suspect: Suspect) -> bool:
    """A writer may have put a good blob in its place meanwhile."""
    try:
        status = os.lstat(path)
    except FileNotFoundError:
        return False
    return (status.st_dev, status.st_ino, status.st_mtime_ns) == (
        suspect.device,
        suspect.inode,
        suspect.mtime_ns,
    )
