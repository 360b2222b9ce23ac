"""What the verbs of a store return: frozen, and printed as they are under `--json`."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from castfs.ingest.options import Ignored, SkippedEntry
from castfs.retention import Group
from castfs.store import Record


@dataclass(frozen=True, slots=True, kw_only=True)
class IngestResult:
    """A finished ingest. Sizes in bytes; see `castfs.ingest.options.ScanResult` for the counts.

    `unchanged`: the name's latest version holds the same, and is what `id` and `version` say.
    """

    id: str
    name: str | None
    version: int | None
    unchanged: bool
    manifest_id: str
    fingerprint: str
    store: Path
    source: str
    file_count: int
    dir_count: int
    symlink_count: int
    total_size_bytes: int
    new_manifest: bool
    added_count: int
    added_bytes: int
    deduplicated_count: int
    deduplicated_bytes: int
    unchanged_count: int
    ignored: tuple[Ignored, ...]
    skipped: tuple[SkippedEntry, ...]
    seconds: float


@dataclass(frozen=True, slots=True, kw_only=True)
class StoreStats:
    """What a store holds. `logical_bytes` is the sum over the snapshots that are not in the trash,
    each counted whole; `saved_bytes` is what deduplication and sharing keep off the disk."""

    store: Path
    snapshot_count: int
    trash_count: int
    manifest_count: int
    manifest_bytes: int
    blob_count: int
    blob_bytes: int
    logical_bytes: int
    saved_bytes: int


@dataclass(frozen=True, slots=True, kw_only=True)
class Found:
    """A place where a path or content was found."""

    snapshot: str
    manifest_id: str
    path: bytes
    size_bytes: int
    sha256: str | None


@dataclass(frozen=True, slots=True, kw_only=True)
class ImportResult:
    """A recorded manifest file."""

    id: str
    manifest_id: str
    new_manifest: bool
    added_count: int
    added_bytes: int


@dataclass(frozen=True, slots=True, kw_only=True)
class DeletedSnapshot:
    """A snapshot in the trash. `deleted_at` is RFC 3339 in UTC."""

    deleted_at: str
    record: Record

    @property
    def id(self) -> str:
        return self.record.id


@dataclass(frozen=True, slots=True, kw_only=True)
class ForgetResult:
    """What a policy keeps and removes; with `dry_run` nothing was moved to the trash."""

    dry_run: bool
    groups: tuple[Group, ...]
