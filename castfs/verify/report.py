"""What is asked of a verification and what it found: data only."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Literal

State = Literal["missing", "wrong size", "damaged", "unreadable"]
Status = Literal["clean", "repaired", "damaged"]


@dataclass(frozen=True, slots=True, kw_only=True)
class VerifyOptions:
    """`data`: hash blobs, too; of them the part `sample` (0 to 1), chosen anew each time, and only
    those stored or relied on since `since` (seconds since the epoch). `repair_from` is a store, or
    a directory with good copies of the files."""

    data: bool = False
    sample: float = 1.0
    since: float | None = None
    repair_from: Path | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class BadBlob:
    """A blob that is not what its name says. `quarantined` is where it lies now."""

    digest: str
    state: State
    detail: str
    quarantined: Path | None = None
    repaired: bool = False


@dataclass(frozen=True, slots=True, kw_only=True)
class Hurt:
    """A file of a snapshot whose content is bad; `repaired` if it is good again."""

    snapshot: str
    manifest_id: str
    path: bytes
    digest: str
    repaired: bool


@dataclass(frozen=True, slots=True, kw_only=True)
class Problem:
    """Something else than a blob: a record, a manifest, a stray file."""

    message: str
    repaired: bool = False


@dataclass(frozen=True, slots=True, kw_only=True)
class VerifyResult:
    """A finished verification. `hashed_bytes` of `hashed_count` blobs were read. `reference_count`
    is what the snapshots refer to; of that, what is a file here was looked at."""

    store: Path
    snapshot_count: int
    manifest_count: int
    blob_count: int
    hashed_count: int
    hashed_bytes: int
    problems: tuple[Problem, ...]
    bad_blobs: tuple[BadBlob, ...]
    hurt: tuple[Hurt, ...]
    quarantine_count: int
    reference_count: int = 0
    seconds: float

    @property
    def status(self) -> Status:
        found = [problem.repaired for problem in self.problems]
        found += [blob.repaired for blob in self.bad_blobs]
        if not found:
            return "clean"
        return "repaired" if all(found) else "damaged"
