"""What a scanner remembers from one scan to the next, and after a crash: one small JSON file.

{"format": "castfs-outputs", "format_version": 1, "outputs": {key: {
    "stamp": "file <size> <mtime_ns>" or "dir <files> <size> <sha256>",
    "stable": scans in a row that have seen it, no more than are required,
    "since": when the first of them was, in seconds since the epoch,
    "taken": null or {"stamp", "id", "at"},
    "gone_at": null or when it was first missed}}}
"""

from __future__ import annotations

import logging
from pathlib import Path
from typing import Literal

import msgspec

from castfs import atomic
from castfs.errors import StoreError
from castfs.paths import display, unescape
from castfs.regular import read_regular

log = logging.getLogger("castfs.runs")


class TakenBefore(msgspec.Struct, frozen=True):
    stamp: str
    id: str
    at: float


class Remembered(msgspec.Struct):
    stamp: str
    stable: int
    since: float
    taken: TakenBefore | None = None
    gone_at: float | None = None


class _Document(msgspec.Struct):
    format: Literal["castfs-outputs"]
    format_version: Literal[1]
    outputs: dict[str, Remembered]


_decoder = msgspec.json.Decoder(_Document)


class StateFile:
    """Read when it is not what was last written here, so that a later scanner's word counts."""

    def __init__(self, path: Path) -> None:
        self._path = path
        self._version: tuple[int, int, int] | None = None
        self._outputs: dict[str, Remembered] = {}

    def load(self) -> dict[str, Remembered]:
        """The caller's own, to change. OSError if it cannot be read; StoreError if it is no file.

        A damaged one is as none, with a warning: everything is taken once more.
        """
        version = self._look()
        if version != self._version:
            self._outputs = {} if version is None else self._read()
            self._version = version
        return self._outputs

    def save(self) -> None:
        """Whole or not at all. OSError."""
        document = _Document("castfs-outputs", 1, self._outputs)
        atomic.write_file(self._path, [msgspec.json.encode(document)])
        self._version = self._look()

    def _look(self) -> tuple[int, int, int] | None:
        try:
            status = self._path.stat()
        except FileNotFoundError:
            return None
        return status.st_ino, status.st_size, status.st_mtime_ns

    def _read(self) -> dict[str, Remembered]:
        raw = read_regular(self._path)
        if raw is None:
            raise StoreError(f"{display(bytes(self._path))} is not a file", hint="name another")
        try:
            outputs = _decoder.decode(raw).outputs
            for key in outputs:
                if b"\0" in unescape(key):
                    raise ValueError("a NUL in a path")
        except (ValueError, RecursionError) as exc:  # msgspec's errors are ValueErrors
            log.warning(
                "%s is damaged (%s); every output is taken anew", display(bytes(self._path)), exc
            )
            return {}
        return outputs
