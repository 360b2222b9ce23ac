"""What the verbs of a store return: frozen, and printed as they are under `--json`."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

from castfs.errors import DamageError
from castfs.ingest.options import Ignored, SkippedEntry
from castfs.retention import Group
from castfs.store import Record
from castfs.store.records import Reference


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
class TypeStats:
    """What a store holds of one type; None are the snapshots that have none."""

    type: str | None
    name_count: int
    snapshot_count: int
    size_bytes: int


@dataclass(frozen=True, slots=True, kw_only=True)
class StoreStats:
    """What a store holds. `logical_bytes` is the sum over the snapshots that are not in the trash,
    each counted whole; `saved_bytes` is what deduplication and sharing keep off the disk, and
    `saved_ratio` its part of `logical_bytes` (0 to 1).

    What is only referred to is on nobody's disk here: it counts in `reference_count` and
    `reference_bytes` (where a size is recorded) and nowhere else.
    """

    store: Path
    name_count: int
    version_count: int
    snapshot_count: int
    trash_count: int
    manifest_count: int
    manifest_bytes: int
    blob_count: int
    blob_bytes: int
    logical_bytes: int
    saved_bytes: int
    saved_ratio: float
    reference_count: int
    reference_bytes: int
    types: tuple[TypeStats, ...]


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
class ReferenceResult:
    """A version that says where something is; `unchanged` as in IngestResult."""

    id: str
    name: str | None
    version: int | None
    unchanged: bool
    manifest_id: str
    references: tuple[Reference, ...]


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


@dataclass(frozen=True, slots=True, kw_only=True)
class ArtifactInfo:
    """A name that has snapshots in the store. Size and tags are those of the latest version (which
    is None if none of them has a number); `updated_at` is when that was made."""

    name: str
    type: str | None
    version_count: int
    latest: int | None
    size_bytes: int
    file_count: int
    updated_at: str
    tags: tuple[str, ...]
    aliases: Mapping[str, int]


@dataclass(frozen=True, slots=True, kw_only=True)
class VersionInfo:
    """A version of a name. A deleted one is still in the trash."""

    status: Literal["ready", "deleted"]
    deleted_at: str | None
    aliases: tuple[str, ...]
    record: Record

    @property
    def id(self) -> str:
        return self.record.id


@dataclass(frozen=True, slots=True, kw_only=True)
class Standing:
    """What else is known of a snapshot: which aliases mean it, and who uses it. `used_by` are ids
    of runs; `named_by` are words for the snapshots whose metadata name this version."""

    aliases: tuple[str, ...]
    used_by: tuple[str, ...]
    named_by: tuple[str, ...]
    #: What cannot be read, and may say something of it.
    damages: tuple[DamageError, ...] = ()


@dataclass(frozen=True, slots=True, kw_only=True)
class AliasMove:
    """An alias that means another version now; None where it meant, or means, none."""

    name: str
    alias: str
    before: int | None
    version: int | None


@dataclass(frozen=True, slots=True, kw_only=True)
class AliasEvent:
    """A move of an alias in the history of a name. `version` is None if it was removed."""

    at: str
    alias: str
    before: int | None
    version: int | None
    by: str


@dataclass(frozen=True, slots=True, kw_only=True)
class Aliases:
    """The aliases of a name, and what happened to them, newest first. `latest` is not one of them:
    it always is the highest version."""

    name: str
    latest: int | None
    aliases: Mapping[str, int]
    history: tuple[AliasEvent, ...]


@dataclass(frozen=True, slots=True, kw_only=True)
class LogEntry:
    """Something that happened in a store. "version" is a snapshot that got a number, "snapshot" one
    without; "delete" is for good. `by` is user and host, or the host alone."""

    at: str
    kind: Literal["version", "snapshot", "alias", "unalias", "remove", "undelete", "delete"]
    name: str | None
    version: int | None
    id: str | None
    alias: str | None
    before: int | None
    run: str | None
    message: str | None
    by: str
