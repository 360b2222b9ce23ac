"""What a scan finds, and what it says of that."""

from __future__ import annotations

from dataclasses import dataclass
from enum import StrEnum
from pathlib import Path
from typing import Literal

Kind = Literal["file", "dir"]


class Reason(StrEnum):
    """Why something that has changed is not taken yet."""

    UNSTABLE = "not seen unchanged often enough"
    YOUNG = "changed too recently"
    INTERVAL = "a log that was taken a short while ago"
    EMPTY = "a directory without a file"


@dataclass(frozen=True, slots=True, kw_only=True)
class Output:
    """What `take` is given.

    `key` is the path relative to the scanner's root, or the absolute one if it is not below it,
    escaped as by `castfs.paths.escape`. `mode` is the scanner's, and "rolling" for every log.
    `path` was a regular file or a directory, and no symlink, when it was looked at.
    """

    key: str
    path: Path
    kind: Kind
    size_bytes: int
    is_log: bool
    mode: str


@dataclass(frozen=True, slots=True, kw_only=True)
class Taken:
    """`id` is what `take` returned."""

    key: str
    kind: Kind
    size_bytes: int
    is_log: bool
    id: str


@dataclass(frozen=True, slots=True, kw_only=True)
class Waiting:
    key: str
    reason: Reason


@dataclass(frozen=True, slots=True, kw_only=True)
class Failed:
    """An output, or a directory on the way to some, that is tried again by the next scan."""

    key: str
    reason: str


@dataclass(frozen=True, slots=True, kw_only=True)
class ScanReport:
    """`unchanged` counts the outputs that are as they were when they were taken."""

    taken: tuple[Taken, ...]
    waiting: tuple[Waiting, ...]
    failed: tuple[Failed, ...]
    unchanged: int
