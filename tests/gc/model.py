"""What a store must hold, and what may happen to it, without asking castfs."""

from __future__ import annotations

import itertools
import json
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from tests.gc.operations import Operation
from tests.gc.watching import SECOND, Disk, digest_of, files_of, read_disk

#: Times in the trash are exact to that.
_MILLISECOND = SECOND // 1000


@dataclass(frozen=True)
class Snapshot:
    """A record, what it says, and a copy of its manifest outside the store."""

    id: str
    number: int
    source: str
    created_at: str
    tree: dict[str, bytes]
    manifest: str
    file: Path


@dataclass
class Model:
    store: Path
    #: For the copies of manifests.
    place: Path
    disk: Disk
    #: All that ever were, in the order in which they were seen.
    snapshots: dict[str, Snapshot] = field(default_factory=dict)
    operations: list[Operation] = field(default_factory=list)
    #: Manifests that are mounted.
    mounted: list[str] = field(default_factory=list)
    #: When somebody last relied on a blob or wrote a manifest, or shortly before.
    fresh_ns: dict[str, int] = field(default_factory=dict)
    trashed_ns: dict[str, int] = field(default_factory=dict)
    #: Times of contents are older than they should be.
    was_clock_wrong: bool = False

    @property
    def live(self) -> list[Snapshot]:
        return [each for each in self.snapshots.values() if each.id in self.disk.live]

    @property
    def trashed(self) -> list[Snapshot]:
        return [each for each in self.snapshots.values() if each.id in self.disk.trash]

    def digests(self, manifest_id: str) -> set[str]:
        """What a manifest needs, whether the store still has it or not."""
        tree = next(each.tree for each in self.snapshots.values() if each.manifest == manifest_id)
        return set(map(digest_of, tree.values()))

    # What happened ----------------------------------------------------------------------------

    def observe(self, operation: Operation | None, before_ns: int) -> None:
        """Look at the store after steps of `operation` alone since `before_ns`."""
        before, self.disk = self.disk, read_disk(self.store)
        self._see_records(operation, before, self.disk)
        self._see_contents(operation, before, self.disk, before_ns)
        if not (self.disk.live or self.disk.trash):
            for each in self.operations:
                each.saw_no_roots = True
        self.check()

    def _see_records(self, by: Operation | None, before: Disk, after: Disk) -> None:
        kind, ids = (by.kind, by.ids) if by else ("", [])
        for record_id in after.live.keys() - before.live.keys() - before.trash.keys():
            assert by is not None
            assert (kind, ids) == ("ingest", []), f"{by} made record {record_id}"
            self._add(record_id, by)
        for record_id in before.live.keys() - after.live.keys():
            assert kind in ("remove", "forget", "purge"), f"{by} removed {record_id}"
            assert record_id in ids
            assert (record_id in after.trash) == (kind != "purge")
            self._move(record_id, by)
        for record_id in after.trash.keys() - before.trash.keys():
            assert record_id in before.live
        for record_id in before.trash.keys() - after.trash.keys():
            self._move(record_id, by)
            if by is not None and by.deletes:
                trash_age_ns = by.arguments["trash_age_seconds"] * SECOND
                age_ns = by.latest_ns - self.trashed_ns[record_id] + _MILLISECOND
                # At an age of 0 everything goes, also what came after it had read the clock.
                assert age_ns > trash_age_ns or not trash_age_ns, "it had not expired"
                by.expired.add(record_id)
                continue
            assert record_id in ids
            assert (record_id in after.live, kind) in ((True, "undelete"), (False, "purge"))

    def _add(self, record_id: str, by: Operation) -> None:
        record = json.loads((self.store / "snapshots" / f"{record_id}.json").read_bytes())
        assert record["source"] == by.arguments["source"]
        by.ids, by.manifest = [record_id], record["manifest"]
        stored = self.disk.manifests[by.manifest]
        wanted = {path: digest_of(content) for path, content in by.tree.items()}
        assert files_of(stored) == wanted
        file = self.place / f"{len(self.snapshots)}.json"
        file.write_bytes(stored)
        self.snapshots[record_id] = Snapshot(
            record_id, len(self.snapshots), record["source"], record["created_at"],
            by.tree, by.manifest, file,
        )  # fmt: skip
        self.fresh_ns[by.manifest] = by.began_ns

    def _move(self, record_id: str, by: Operation | None) -> None:
        if by is not None and record_id in self.disk.trash:
            self.trashed_ns[record_id] = by.began_ns
        for each in self.operations:
            each.is_overtaken |= each is not by and record_id in each.ids

    def _see_contents(
        self, by: Operation | None, before: Disk, after: Disk, before_ns: int
    ) -> None:
        was, now = before.blobs.keys(), after.blobs.keys()
        listed, lists = before.manifests.keys(), after.manifests.keys()
        if by is not None and by.kind == "ingest":
            self.fresh_ns |= dict.fromkeys(by.relied - by.seen, before_ns)
            self.fresh_ns |= dict.fromkeys(now - was, before_ns)
            self.fresh_ns |= dict.fromkeys(lists - listed, by.began_ns)
            by.seen |= by.relied
        else:
            assert now <= was, f"{by} made blobs"
            assert lists <= listed, f"{by} made manifests"
        gone = (was - now) | (listed - lists)
        if not gone:
            return
        assert by is not None
        assert by.deletes, f"{by} deleted {gone}"
        by.gone |= gone
        for name in gone:
            young = self.fresh_ns[name] >= by.latest_ns - by.arguments["grace_seconds"] * SECOND
            # Written while a clock was wrong, what a record leads to may look older than it is.
            assert not young or self.was_clock_wrong, (
                f"{by} deleted {name} although it was too young"
            )

    # What must be -----------------------------------------------------------------------------

    def check(self) -> None:
        """All that somebody may want to read is there, with the right bytes."""
        disk = self.disk
        for digest, content in disk.blobs.items():
            assert digest_of(content) == digest
        roots = {*disk.live.values(), *disk.trash.values()}
        for manifest_id, stored in disk.manifests.items():
            missing = set(files_of(stored).values()) - disk.blobs.keys()
            # Where clocks step this is true only of those that a record leads to.
            is_needed = manifest_id in roots or not self.was_clock_wrong
            assert not (missing and is_needed), f"manifest {manifest_id} lacks {missing}"
        for record_id, manifest_id in itertools.chain(disk.live.items(), disk.trash.items()):
            assert manifest_id == self.snapshots[record_id].manifest
            assert manifest_id in disk.manifests, f"record {record_id} has no manifest"
        for who, digests in self.iter_held():
            missing = digests - disk.blobs.keys()
            assert not missing, f"{who} lacks {missing}"

    def iter_held(self) -> Iterator[tuple[object, set[str]]]:
        """What must be there although perhaps no record says so."""
        for manifest_id in self.mounted:
            yield "a mount", self.digests(manifest_id)
        for each in self.operations:
            if each.is_ending:
                continue
            if each.is_pinned:
                yield each, self.digests(each.manifest)
            if each.kind == "ingest" and not each.ids:
                yield each, each.relied
                if each.parent is not None:
                    yield each, self.digests(each.parent)

    def check_end(self, of: Operation, before: Disk) -> None:
        """Does it say what came of it? `before`: what there was before its last steps."""
        error = of.message.get("error")
        result: Any = of.message.get("result")
        if of.is_ending and error is not None:
            assert error == "KeyboardInterrupt"
        elif of.kind == "gc":
            self._check_collection(of, error, result)
        elif of.kind == "read":
            self._check_reader(of, error, result, before)
        elif error is not None:
            # A new manifest is protected by its time alone.
            expected = "StoreError" if of.kind == "ingest" else "NotFoundError"
            assert (error, of.is_overtaken) == (expected, True), of.message["message"]
        elif of.kind == "ingest":
            assert (result["id"], result["manifest"]) == (of.ids[0], of.manifest)
        else:
            assert sorted(result["ids"]) == sorted(of.ids)
            places = {"undelete": self.disk.live, "purge": {}}
            place = places.get(of.kind, self.disk.trash)
            there = {**self.disk.live, **self.disk.trash}
            moved = of.is_overtaken or all((each in there) == (each in place) for each in of.ids)
            assert moved

    def _check_collection(self, of: Operation, error: str | None, result: Any) -> None:
        if of.is_hindered:
            assert error == "BusyError"
        elif error is not None:
            assert (error, of.saw_no_roots, of.arguments["force"]) == ("StoreError", True, False)
            assert of.gone | of.expired == set()
        elif of.deletes:
            assert result["deleted"]["count"] + result["deleted_manifests"] == len(of.gone)
            assert (set(result["expired"]), result["held"]) == (of.expired, [])

    def _check_reader(self, of: Operation, error: str | None, result: Any, before: Disk) -> None:
        """It may come too late, and then says so."""
        manifest_id = of.manifest
        if error in ("NotFoundError", "DamageError"):
            known = [each for each in self.snapshots.values() if each.manifest == manifest_id]
            assert any(each.id not in before.live for each in known)
        else:
            assert error is None
            if result.get("missing"):  # when it looked: they may be back by now
                known = [each for each in self.snapshots.values() if each.manifest == manifest_id]
                assert any(each.id not in before.live for each in known)

    def check_collected(self, by: Operation) -> None:
        """Nothing is left that `by`, which nobody disturbed, should have deleted."""
        disk = self.disk
        limit = by.began_ns - by.arguments["trash_age_seconds"] * SECOND
        assert not [each for each in disk.trash if self.trashed_ns[each] < limit]
        limit = by.began_ns - by.arguments["grace_seconds"] * SECOND
        pinned = {each.manifest for each in self.operations if each.is_pinned}
        roots = {*disk.live.values(), *disk.trash.values(), *self.mounted, *pinned}
        for manifest_id in disk.manifests.keys() - roots:
            assert self.fresh_ns[manifest_id] >= limit, f"manifest {manifest_id} is left"
        needed = {d for stored in disk.manifests.values() for d in files_of(stored).values()}
        for _, digests in self.iter_held():
            needed |= digests
        for digest in disk.blobs.keys() - needed:
            assert self.fresh_ns[digest] >= limit, f"blob {digest} is left"

    def is_quiet(self) -> bool:
        """Nobody is at work whose intentions cannot be seen from outside."""
        return all(
            each.kind not in ("ingest", "gc") and (each.kind != "read" or each.is_pinned)
            for each in self.operations
        )

    def is_needless(self) -> bool:
        """There are blobs, and no snapshot that could need any."""
        return bool(self.disk.blobs) and not (self.disk.live or self.disk.trash)

    def find_unkept(self, last: int) -> list[str]:
        """All but the last of each source."""
        unkept = []
        for source in {each.source for each in self.live}:
            group = [each for each in self.live if each.source == source]
            group.sort(key=lambda each: (each.created_at, each.id), reverse=True)
            unkept += [each.id for each in group[last:]]
        return unkept

    def shift(self, seconds: float, *, only_contents: bool = False) -> None:
        """As `watching.age`."""
        shift = round(seconds * SECOND)
        for name in self.fresh_ns:
            self.fresh_ns[name] -= shift
        if only_contents:
            self.was_clock_wrong = True
            for each in self.operations:
                each.is_overtaken = True
            return
        self.trashed_ns = {name: at - shift for name, at in self.trashed_ns.items()}
        for each in self.operations:
            each.began_ns -= shift
            each.latest_ns -= shift
