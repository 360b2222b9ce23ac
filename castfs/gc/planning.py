"""From roots to a plan: what would be deleted, and for whom everything else is kept."""

from __future__ import annotations

import os
import stat
import sys
from binascii import unhexlify

from castfs.digest import Digest
from castfs.errors import StoreError
from castfs.gc.marks import Marks
from castfs.gc.plan import Amount, GcOptions, Keeper, Plan
from castfs.gc.tracker import RootTracker
from castfs.gc.unfinished import find_unfinished, measure
from castfs.progress import Progress
from castfs.store import Depot
from castfs.store.trash import TrashName, is_held

#: What is stamped so far ahead was stamped by a wrong clock, and not during this run.
_AHEAD_NS = 24 * 3600 * 1_000_000_000
#: Blobs after which the bar moves.
_STEP = 2048


class Planner:
    def __init__(
        self,
        depot: Depot,
        options: GcOptions,
        marks: Marks,
        tracker: RootTracker,
        *,
        now_ns: int,
        progress: Progress,
    ) -> None:
        self._depot = depot
        self._options = options
        self._marks = marks
        self._tracker = tracker
        self._now_ns = now_ns
        self._progress = progress

    def make(self) -> Plan:
        """Deletes nothing. DamageError, StoreError."""
        self._progress.phase("reading snapshots")
        held = self._expire()
        self._tracker.settle()
        plan = Plan(cutoff_ns=self._cutoff(), expired=list(self._tracker.expired.values()))
        plan.held = held
        with self._tracker.holds.exclusive():
            self._tracker.survey()  # an ingest that has begun by now is not unfinished
            live = set(self._tracker.leases)
            plan.unfinished = find_unfinished(self._depot, live, now_ns=self._now_ns)
        plan.unfinished_amount = measure(plan.unfinished)
        self._find_manifests(plan)
        self._find_blobs(plan)
        if plan.scanned.count and not (self._tracker.has_roots or self._options.force):
            raise StoreError(
                f"no snapshot in {self._depot.path} refers to any of its {plan.scanned.count:,} "
                "blobs; all that nobody is using would be deleted",
                hint="give --force if that is what you want",
            )
        return plan

    def _expire(self) -> list[str]:
        """Tell the tracker what is no root any more. Returns the ids of those that should be none,
        but are being read."""
        limit = self._now_ns - self._options.trash_age_ns
        if not self._options.trash_age_ns:
            limit = sys.maxsize  # also what was deleted by a clock that was ahead
        old = self._tracker.find_trash(deleted_before=limit)
        held = []

        def look(name: TrashName) -> None:
            try:
                if is_held(self._depot.trash_dir / str(name)):
                    held.append(name.record_id)
                else:
                    self._tracker.expired[str(name)] = name
            except FileNotFoundError:
                return  # undeleted meanwhile: a root again

        for _ in self._tracker.holds.in_batches(old, look):
            pass
        return held

    def _cutoff(self) -> int:
        """A writer may rely on what it touched since it began, like a manifest that it found in
        place. Readers' leases name all that they need: a mount of months must not stop us."""
        starts = [
            lease.stamp_ns for lease in self._tracker.leases.values() if lease.kind == "writer"
        ]
        return min([self._now_ns, *starts]) - self._options.grace_ns

    def _find_manifests(self, plan: Plan) -> None:
        """Those that no root leads to. A young one keeps what it names, for somebody who cannot
        write the store may open it at any time; so does one that is being read."""

        def look(manifest_id: Digest) -> None:
            path = self._depot.manifest_path(manifest_id)
            try:
                status = path.lstat()
                if not stat.S_ISREG(status.st_mode):
                    return
                if status.st_mtime_ns >= plan.cutoff_ns:
                    young.append(manifest_id)
                elif path.parent.is_symlink():
                    return  # what lies elsewhere may be somebody else's
                elif is_held(path):
                    read.append(manifest_id)
                else:
                    plan.manifests.append(manifest_id)
            except FileNotFoundError:
                return

        young: list[Digest] = []
        read: list[Digest] = []
        unmarked = [m for m in self._depot.iter_manifest_ids() if not self._marks.keeps_manifest(m)]
        for _ in self._tracker.holds.in_batches(unmarked, look):
            pass
        for found, keeper in ((read, Keeper.READERS), (young, Keeper.GRACE)):
            for manifest_id in found:
                self._tracker.mark_unreferenced(manifest_id, keeper)

    def _find_blobs(self, plan: Plan) -> None:
        self._progress.phase("looking at blobs")
        counts = dict.fromkeys(Keeper, 0)
        sizes = dict.fromkeys(Keeper, 0)
        free_count = free_size = seen = 0
        grace_from = self._now_ns - self._options.grace_ns
        keeper_of = self._marks.keeper
        for name, status in self._depot.blobs.iter_blobs():
            digest = unhexlify(name)
            seen += 1
            if not seen % _STEP:
                self._progress.advance(_STEP)
            keeper = keeper_of(digest)
            if keeper is None:
                if not stat.S_ISREG(status.st_mode):
                    continue
                if status.st_mtime_ns < plan.cutoff_ns:
                    plan.blobs.append(digest)
                    free_count += 1
                    free_size += freed_bytes(status)
                    continue
                keeper = Keeper.GRACE if status.st_mtime_ns >= grace_from else Keeper.INGESTS
                if status.st_mtime_ns > self._now_ns + _AHEAD_NS:
                    plan.ahead.append(digest)
            counts[keeper] += 1
            sizes[keeper] += status.st_size
        plan.kept = {keeper: Amount(counts[keeper], sizes[keeper]) for keeper in Keeper}
        plan.garbage = Amount(free_count, free_size)
        kept = sum(sizes.values())
        plan.scanned = Amount(sum(counts.values()) + free_count, kept + free_size)


def freed_bytes(status: os.stat_result) -> int:
    """What deleting a file gives back: nothing if it has another name."""
    return status.st_size if status.st_nlink == 1 else 0
