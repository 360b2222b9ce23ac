"""What a restore can be told about existing files, and what it tells afterwards."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Literal

#: What happens to files that are in the way. Directories never are, and extra files always stay.
IfExists = Literal["fail", "skip", "replace"]


@dataclass(frozen=True, slots=True, kw_only=True)
class NotSet:
    """Metadata that the system refused, once for each kind: `path` is the first of `count`."""

    path: bytes
    what: str
    reason: str
    count: int


@dataclass(frozen=True, slots=True, kw_only=True)
class RestoreResult:
    """A finished restore. `file_count` and `symlink_count` are what was written (a hard link counts
    each time), `dir_count` the directories that are there for it below the target,
    `total_size_bytes` the sizes of the files that were written. `skipped_existing` are the paths
    that were left alone under `if_exists="skip"`."""

    target: Path
    file_count: int
    dir_count: int
    symlink_count: int
    total_size_bytes: int
    skipped_existing: tuple[bytes, ...]
    not_set: tuple[NotSet, ...]
