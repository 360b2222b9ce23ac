"""What a collection is told, what it intends, and what came of it: data only."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass, field
from enum import IntEnum
from pathlib import Path

from castfs.digest import Digest
from castfs.errors import UsageError
from castfs.store.trash import TrashName

_SECOND = 1_000_000_000


class Keeper(IntEnum):
    """Who keeps a blob. Where several do, the first of them counts."""

    SNAPSHOTS = 0
    TRASH = 1
    READERS = 2
    INGESTS = 3
    GRACE = 4


@dataclass(frozen=True, slots=True, kw_only=True)
class GcOptions:
    """Only what is older than `grace_seconds` is deleted; snapshots leave the trash once they have
    been there for `trash_age_seconds`. `force` collects although nothing at all is referred to;
    `network_store` where locks may be another machine's."""

    grace_seconds: float = 3600
    trash_age_seconds: float = 30 * 86400
    force: bool = False
    network_store: bool = False

    def __post_init__(self) -> None:
        for seconds in (self.grace_seconds, self.trash_age_seconds):
            if not 0 <= seconds < math.inf:
                raise UsageError(f"{seconds} is no age in seconds", hint="0 or more")

    @property
    def grace_ns(self) -> int:
        return round(self.grace_seconds * _SECOND)

    @property
    def trash_age_ns(self) -> int:
        return round(self.trash_age_seconds * _SECOND)


@dataclass(frozen=True, slots=True)
class Amount:
    """So many files with so many bytes."""

    count: int = 0
    bytes: int = 0

    def plus(self, size: int) -> Amount:
        return Amount(self.count + 1, self.bytes + size)


@dataclass(kw_only=True)
class Plan:
    """What a collection would do. Blobs as 32 raw bytes: there may be millions."""

    cutoff_ns: int
    expired: list[TrashName] = field(default_factory=list)
    manifests: list[Digest] = field(default_factory=list)
    blobs: list[bytes] = field(default_factory=list)
    garbage: Amount = Amount()
    scanned: Amount = Amount()
    kept: dict[Keeper, Amount] = field(default_factory=lambda: dict.fromkeys(Keeper, Amount()))
    held: list[str] = field(default_factory=list)
    unfinished: list[Path] = field(default_factory=list)
    unfinished_amount: Amount = Amount()
    #: Stamped by a clock that was far ahead: they would never be old.
    ahead: list[bytes] = field(default_factory=list)


@dataclass(frozen=True, slots=True, kw_only=True)
class GcResult:
    """A finished collection; with `dry_run` what one would do.

    `deleted.bytes` are those that were freed: a blob with another link frees none. `kept` has an
    Amount of blobs for `snapshots`, `trash`, `readers`, `ingests` and `grace`. `expired` are the
    ids of snapshots that left the trash for good, `held` of those that would have but are being
    read. `unfinished` is what dead writers had staged, `left` of it what cannot be removed (another
    user's). `longest_hold_seconds`: for so long at most
    others had to wait for the store at a time.
    """

    store: Path
    dry_run: bool
    snapshot_count: int
    trash_count: int
    scanned: Amount
    deleted: Amount
    deleted_manifests: int
    expired: tuple[str, ...]
    held: tuple[str, ...]
    unfinished: Amount
    left: tuple[Path, ...]
    kept: Mapping[str, Amount]
    seconds: float
    longest_hold_seconds: float
