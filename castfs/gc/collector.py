"""One collection, from roots to result."""

from __future__ import annotations

import contextlib
import fcntl
import os
import time
from collections.abc import Iterator
from pathlib import Path

from castfs.errors import BusyError, StoreError
from castfs.gc.marks import Marks
from castfs.gc.plan import GcOptions, GcResult
from castfs.gc.planning import Planner
from castfs.gc.sweep import Sweep
from castfs.gc.tracker import RootTracker
from castfs.progress import SILENT, Progress
from castfs.store import Depot
from castfs.store.failures import store_errors
from castfs.store.locks import open_lock, try_flock
from castfs.tree import remove_orphans


def collect(
    depot: Depot,
    options: GcOptions | None = None,
    *,
    dry_run: bool = False,
    progress: Progress = SILENT,
) -> GcResult:
    """Delete what nobody needs; with `dry_run`, only find it.

    BusyError while another collector is at work; DamageError, naming it, if any root cannot be
    read: then nothing is deleted. StoreError where nothing refers to any blob and `force` is not
    given, and on a filesystem that other machines may share without `network_store`.
    """
    with store_errors(depot.path), _alone(depot):
        return _collect(depot, options or GcOptions(), dry_run, progress)


@contextlib.contextmanager
def _alone(depot: Depot) -> Iterator[None]:
    fd = open_lock(depot.collector_lock)
    try:
        if not try_flock(fd, fcntl.LOCK_EX):
            raise BusyError(
                f"another collector is at work in {depot.path}",
                hint="let it end; one at a time is enough",
            )
        yield
    finally:
        os.close(fd)


def _collect(depot: Depot, options: GcOptions, dry_run: bool, progress: Progress) -> GcResult:
    started = time.monotonic()
    # Before roots are listed, by the clock that stamps blobs: whatever is younger is not ours.
    now_ns = depot.stamp_ns()
    marks = Marks()
    tracker = RootTracker(depot, marks, now_ns=now_ns)
    if not (tracker.is_local or options.network_store):
        raise StoreError(
            f"{depot.path} is not known to be on a filesystem of this machine alone; processes of "
            "other machines cannot be seen from here",
            hint="give --network-store if file locks work across all machines that use it",
        )
    plan = Planner(depot, options, marks, tracker, now_ns=now_ns, progress=progress).make()
    snapshots, trashed = tracker.record_count, tracker.trash_count
    if dry_run:
        deleted, manifests, expired = plan.garbage, len(plan.manifests), plan.expired
        left: list[Path] = []
    else:
        sweep = Sweep(depot, plan, marks, tracker, now_ns=now_ns, progress=progress)
        sweep.run()
        deleted, manifests, expired = sweep.deleted, sweep.deleted_manifests, sweep.expired
        left = sweep.left
        if depot.path.stat().st_uid == os.geteuid():
            remove_orphans(depot.index_dir, lambda digest: depot.manifest_path(digest).exists())
    return GcResult(
        store=depot.path,
        dry_run=dry_run,
        snapshot_count=snapshots,
        trash_count=trashed,
        scanned=plan.scanned,
        deleted=deleted,
        deleted_manifests=manifests,
        expired=tuple(name.record_id for name in expired),
        held=tuple(sorted(plan.held)),
        unfinished=plan.unfinished_amount,
        left=tuple(left),
        kept={keeper.name.lower(): amount for keeper, amount in plan.kept.items()},
        seconds=time.monotonic() - started,
        longest_hold_seconds=tracker.holds.longest_seconds,
    )
