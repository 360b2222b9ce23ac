"""Executing a plan, while others go on writing and reading."""

from __future__ import annotations

import contextlib
import os
from binascii import hexlify
from pathlib import Path

from castfs import atomic, syscalls
from castfs.digest import Digest
from castfs.gc import unfinished
from castfs.gc.marks import Marks
from castfs.gc.plan import Amount, Keeper, Plan
from castfs.gc.planning import freed_bytes
from castfs.gc.tracker import RootTracker
from castfs.progress import Progress
from castfs.store import Depot
from castfs.store.trash import TrashName, unlink_unheld


class Sweep:
    """The order is: trash, what dead processes left, sync, manifests, blobs. So whatever dies when,
    nothing leads to what is not there."""

    def __init__(
        self,
        depot: Depot,
        plan: Plan,
        marks: Marks,
        tracker: RootTracker,
        *,
        now_ns: int,
        progress: Progress,
    ) -> None:
        self._depot = depot
        self._plan = plan
        self._marks = marks
        self._tracker = tracker
        self._now_ns = now_ns
        self._progress = progress
        self.expired: list[TrashName] = []
        self.deleted = Amount()
        self.deleted_manifests = 0
        #: What dead processes left and this one could not remove.
        self.left: list[Path] = []
        self._held_manifests: list[Digest] = []

    def run(self) -> None:
        """DamageError if a root that came meanwhile cannot be read: then the rest stays."""
        self._empty_trash()
        self._clear_unfinished()
        sync_roots(self._depot)
        self._delete_manifests()
        self._delete_blobs()

    def _empty_trash(self) -> None:
        if not self._plan.expired:
            return
        for _ in self._tracker.holds.in_batches(self._plan.expired, self._delete_expired):
            pass
        atomic.fsync_dir(self._depot.trash_dir)

    def _delete_expired(self, name: TrashName) -> None:
        try:
            if unlink_unheld(self._depot.trash_dir / str(name)):
                self.expired.append(name)
                return
        except FileNotFoundError:
            return  # undeleted meanwhile: a root again, which the tracker sees
        self._plan.held.append(name.record_id)
        self._tracker.expired.pop(str(name), None)

    def _clear_unfinished(self) -> None:
        """Whatever cannot be cleared (another user's, say) stays: contents are what counts."""
        taken: list[Path] = []

        def take(path: Path) -> None:
            try:
                away = unfinished.take_away(
                    self._depot, path, now_ns=self._now_ns, local=self._tracker.is_local
                )
            except OSError:
                self.left.append(path)
            else:
                taken.extend([] if away is None else [away])

        for _ in self._tracker.holds.in_batches(self._plan.unfinished, take):
            pass
        self.left += unfinished.delete(taken)

    def _delete_manifests(self) -> None:
        follow = self._tracker
        for _ in follow.holds.in_batches(self._plan.manifests, self._delete_manifest, follow):
            pass
        for manifest_id in self._held_manifests:
            follow.mark_unreferenced(manifest_id, Keeper.READERS)

    def _delete_manifest(self, manifest_id: Digest) -> None:
        if self._marks.keeps_manifest(manifest_id):
            return
        path = self._depot.manifest_path(manifest_id)
        with contextlib.suppress(FileNotFoundError):
            if path.stat().st_mtime_ns >= self._plan.cutoff_ns or not unlink_unheld(path):
                self._held_manifests.append(manifest_id)
            else:
                self.deleted_manifests += 1

    def _delete_blobs(self) -> None:
        blobs = self._plan.blobs
        self._progress.phase("deleting", total=len(blobs))
        for count in self._tracker.holds.in_batches(blobs, self._delete_blob, self._tracker):
            self._progress.advance(count)
        for _ in self._tracker.holds.in_batches(self._plan.ahead, self._make_young):
            pass

    def _make_young(self, digest: bytes) -> None:
        """Of now instead of the future, so that it grows old."""
        blobs = self._depot.blobs
        with contextlib.suppress(OSError):
            os.utime(blobs.name(hexlify(digest).decode()), dir_fd=blobs.dir_fd)

    def _delete_blob(self, digest: bytes) -> None:
        blobs = self._depot.blobs
        name = blobs.name(hexlify(digest).decode())
        try:
            status = os.stat(name, dir_fd=blobs.dir_fd, follow_symlinks=False)
            keeper = self._marks.keeper(digest)
            if keeper is None and status.st_mtime_ns >= self._plan.cutoff_ns:
                keeper = Keeper.GRACE
            if keeper is None:
                os.unlink(name, dir_fd=blobs.dir_fd)
        except FileNotFoundError:
            return
        if keeper is None:
            self.deleted = self.deleted.plus(freed_bytes(status))
        else:
            self._plan.kept[keeper] = self._plan.kept[keeper].plus(status.st_size)


def sync_roots(depot: Depot) -> None:
    """What was removed before roots were listed is removed for good: else a power cut could bring
    a record back whose blobs are gone."""
    fd = os.open(depot.path, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    try:
        if syscalls.has_reliable_syncfs(fd):
            syscalls.syncfs(fd)
            return
    finally:
        os.close(fd)
    for directory in (depot.snapshots_dir, depot.trash_dir):
        atomic.fsync_dir(directory)
