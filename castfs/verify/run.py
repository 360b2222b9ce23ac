"""One verification: structure, contents, quarantine, repair, report."""

from __future__ import annotations

import random
import time
from collections.abc import Container
from dataclasses import replace

from castfs.digest import Digest
from castfs.errors import DamageError, UsageError
from castfs.manifest import decode_stored
from castfs.progress import SILENT, Progress
from castfs.store import Depot
from castfs.verify.hashing import Answer, Suspect, hash_batch, hash_blobs
from castfs.verify.quarantine import count_quarantined, quarantine
from castfs.verify.repair import Source, repair_blobs, repair_manifests
from castfs.verify.report import BadBlob, Hurt, Problem, VerifyOptions, VerifyResult
from castfs.verify.structure import Structure, check_manifest, check_structure


def verify_store(
    depot: Depot,
    options: VerifyOptions | None = None,
    *,
    chosen: Container[str] | None = None,
    progress: Progress = SILENT,
) -> VerifyResult:
    """Check a store, or of it the snapshots with `chosen` ids. Damage is a result, not an error.

    Blobs that are found bad are quarantined where the store may be written. SourceError, UsageError
    for what cannot be repaired from; StoreError.
    """
    return _Verification(depot, options or VerifyOptions(), chosen, progress).run()


class _Verification:
    def __init__(
        self,
        depot: Depot,
        options: VerifyOptions,
        chosen: Container[str] | None,
        progress: Progress,
    ) -> None:
        self._depot = depot
        self._options = options
        self._chosen = chosen
        self._progress = progress
        self._source = Source(options.repair_from) if options.repair_from else None
        if self._source is not None and self._source.is_same(depot):
            raise UsageError(
                f"{depot.path} is the store itself", hint="repair it from another copy"
            )
        self._bad: dict[str, BadBlob] = {}
        self._suspects: list[Suspect] = []
        self._hashed_count = 0
        self._hashed_bytes = 0

    def run(self) -> VerifyResult:
        started = time.monotonic()
        everything = self._chosen is None
        found = check_structure(self._depot, self._chosen, self._progress)
        problems = [Problem(message=message) for message in found.messages]
        problems += self._mend_manifests(found)
        self._look_at_sizes(found)
        if self._options.data:
            self._look_at_contents(None if everything else found.wanted)
        self._quarantine()
        self._mend_blobs(found)
        return VerifyResult(
            store=self._depot.path,
            snapshot_count=sum(map(len, found.records.values())),
            manifest_count=len(found.records),
            blob_count=len(found.wanted),
            hashed_count=self._hashed_count,
            hashed_bytes=self._hashed_bytes,
            problems=tuple(problems),
            bad_blobs=tuple(self._bad.values()),
            hurt=tuple(self._find_hurt(found)) if self._bad else (),
            quarantine_count=count_quarantined(self._depot),
            seconds=time.monotonic() - started,
        )

    def _mend_manifests(self, found: Structure) -> list[Problem]:
        repaired: set[str] = set()
        messages = dict(found.bad_manifests)
        if self._source is not None and messages:
            repaired = repair_manifests(self._depot, self._source, messages)
            for manifest_id in repaired:
                del found.bad_manifests[manifest_id]
                check_manifest(self._depot, Digest(manifest_id), found)
        return [
            Problem(
                message=f"{message} (needed by {', '.join(found.records[manifest_id])})",
                repaired=manifest_id in repaired and manifest_id not in found.bad_manifests,
            )
            for manifest_id, message in messages.items()
        ]

    def _look_at_sizes(self, found: Structure) -> None:
        for digest, size in found.bad_sizes.items():
            # It is what was hashed that may be moved aside, so it is hashed.
            suspects = hash_batch(self._depot.blobs, [Digest(digest)]).suspects
            self._suspects += suspects
            if size is not None:
                detail = f"it has {size:,} bytes instead of {found.wanted[digest]:,}"
                self._bad[digest] = BadBlob(digest=digest, state="wrong size", detail=detail)
                continue
            detail = "what lies in its place is no file" if suspects else "it is not in the store"
            self._bad[digest] = BadBlob(digest=digest, state="missing", detail=detail)

    def _look_at_contents(self, only: dict[str, int] | None) -> None:
        since = None if self._options.since is None else self._options.since * 1e9
        blobs = [
            (digest, status.st_size)
            for digest, status in self._depot.blobs.iter_blobs()
            if (only is None or digest in only)
            and (since is None or status.st_mtime_ns >= since)
            and digest not in self._bad
        ]
        if self._options.sample < 1:
            chosen = min(len(blobs), max(1, round(len(blobs) * self._options.sample)))
            blobs = sorted(random.sample(blobs, chosen))
        total = sum(size for _, size in blobs)
        self._progress.phase("hashing contents", total=total, unit="bytes")
        hash_blobs(self._depot.blobs, blobs, self._take_answer)

    def _take_answer(self, answer: Answer) -> None:
        self._hashed_count += answer.count
        self._hashed_bytes += answer.bytes
        self._progress.advance(answer.count, answer.bytes)
        for suspect in answer.suspects:
            if suspect.detail is None:
                self._suspects.append(suspect)
                self._bad[suspect.digest] = BadBlob(
                    digest=suspect.digest,
                    state="damaged",
                    detail="its content is not what its name says",
                )
            else:
                # The disk's error is not the blob's: it stays, for it may be read another time.
                self._bad[suspect.digest] = BadBlob(
                    digest=suspect.digest, state="unreadable", detail=suspect.detail
                )

    def _quarantine(self) -> None:
        if not self._depot.writable:
            return
        suspects = [suspect for suspect in self._suspects if suspect.detail is None]
        for digest, place in quarantine(self._depot, suspects).items():
            self._bad[digest] = replace(self._bad[digest], quarantined=place)

    def _mend_blobs(self, found: Structure) -> None:
        repaired: set[str] = set()
        if self._source is not None:
            sizes = {digest: found.wanted[digest] for digest in self._bad if digest in found.wanted}
            if sizes:
                repaired = repair_blobs(self._depot, self._source, sizes, self._progress)
        for digest, bad in self._bad.items():
            # What nothing needs is as good as repaired once it cannot be taken for good any more.
            unneeded = self._chosen is None and digest not in found.wanted and bad.quarantined
            if digest in repaired or (unneeded and not found.bad_manifests):
                self._bad[digest] = replace(bad, repaired=True)

    def _find_hurt(self, found: Structure) -> list[Hurt]:
        hurt = []
        for manifest_id, record_ids in found.records.items():
            try:
                manifest = decode_stored(
                    self._depot.read_manifest(Digest(manifest_id)), Digest(manifest_id)
                )
            except DamageError:
                continue
            for path, file in manifest.tree.files.items():
                bad = self._bad.get(file.sha256)
                if bad is not None:
                    hurt += [
                        Hurt(
                            snapshot=record_id,
                            manifest_id=manifest_id,
                            path=path,
                            digest=file.sha256,
                            repaired=bad.repaired,
                        )
                        for record_id in record_ids
                    ]
        return hurt
