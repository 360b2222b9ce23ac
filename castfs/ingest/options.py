"""What an ingest can be told, and what it tells afterwards."""

from __future__ import annotations

from dataclasses import dataclass, field

from castfs.ignore import IgnoreOptions, Rule
from castfs.manifest import Manifest

#: The mtime of everything under `--reproducible`: 1980-01-01 00:00 UTC, the earliest that a zip
#: archive can hold, so that every export shows it unchanged.
REPRODUCIBLE_MTIME_NS = 315_532_800_000_000_000


@dataclass(frozen=True, slots=True, kw_only=True)
class ScanOptions:
    """How a directory becomes a tree."""

    ignore: IgnoreOptions = field(default_factory=IgnoreOptions)
    xattrs: bool = False
    owner: bool = False
    reproducible: bool = False
    skip_unreadable: bool = False
    rehash: bool = False
    check_existing: bool = False
    max_bytes: int | None = None
    max_files: int | None = None

    @property
    def has_limits(self) -> bool:
        return self.max_bytes is not None or self.max_files is not None


@dataclass(frozen=True, slots=True)
class Ignored:
    """What one rule dropped. A dropped directory counts with all that is below it."""

    rule: Rule
    entries: int
    size_bytes: int


@dataclass(frozen=True, slots=True)
class SkippedEntry:
    """An entry that was not taken although no rule says so: path below the root, and why."""

    path: bytes
    reason: str


@dataclass(frozen=True, slots=True, kw_only=True)
class ScanResult:
    """A scanned tree and what happened on the way. Sizes are in bytes.

    `added` counts blobs that the store did not have; `deduplicated` files whose content it had,
    or had from another file of the same ingest; `unchanged` (part of `deduplicated`) those that
    the stat cache knew and nobody read.
    """

    manifest: Manifest
    added_count: int
    added_bytes: int
    deduplicated_count: int
    deduplicated_bytes: int
    unchanged_count: int
    ignored: tuple[Ignored, ...]
    skipped: tuple[SkippedEntry, ...]
