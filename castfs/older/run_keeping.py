"""A run's files in the directory of the run that it became.

They keep their names; metrics are there as `log.jsonl`, too. `.castfs-imported` says what came in,
so a later import knows what the older system has written since from what somebody changed here,
which stays.
"""

from __future__ import annotations

import contextlib
import hashlib
import os
from collections.abc import Iterable, Iterator
from pathlib import Path

import msgspec

from castfs import atomic
from castfs.digest import ReadError, digest_fd, iter_chunks
from castfs.older.events import read_points
from castfs.older.guarded import Refused
from castfs.older.run_files import EVENTS, RunFiles
from castfs.paths import escape
from castfs.regular import read_regular
from castfs.runs.lines import LOG
from castfs.store import Depot

IMPORTED_FILES = ".castfs-imported"


class Taken(msgspec.Struct, frozen=True):
    """A file as it came in. Size in bytes."""

    size: int
    sha256: str


class _Document(msgspec.Struct):
    files: dict[str, Taken]


def read_taken(place: Path) -> dict[str, Taken]:
    """Escaped path → what came in. Nothing where nobody says."""
    with contextlib.suppress(OSError, ValueError, RecursionError):
        raw = read_regular(place / IMPORTED_FILES)
        return msgspec.json.decode(raw or b"", type=_Document).files
    return {}


def keep_run_files(depot: Depot, place: Path, files: RunFiles) -> bool:
    """Bring `place` up to what the run has written. False if it was. OSError."""
    atomic.ensure_dir(place.parent, depot.dir_mode)
    atomic.ensure_dir(place, depot.dir_mode)
    return _Keeper(depot, place, files).run()


class _Keeper:
    def __init__(self, depot: Depot, place: Path, files: RunFiles) -> None:
        self._depot, self._place, self._files = depot, place, files
        self._before = read_taken(place)
        self._taken = dict(self._before)

    def run(self) -> bool:
        for path in self._files.iter_paths():
            if path == b"summary.json" and not self._files.is_object(path):
                continue  # it is castfs's, too, which would refuse it
            try:
                self._take(path)
            except (Refused, ReadError) as exc:
                reason = exc.reason if isinstance(exc, Refused) else exc.strerror or "unreadable"
                self._files.lose(path, reason)
        events, log = escape(EVENTS), escape(LOG.encode())
        if events in self._taken and (
            log not in self._taken or self._taken[events] != self._before.get(events)
        ):
            self._put(log, read_points(self._place / os.fsdecode(EVENTS)))
        if self._taken == self._before:
            return False
        document = msgspec.json.encode(_Document(self._taken))
        atomic.write_file(self._place / IMPORTED_FILES, [document, b"\n"])
        return True

    def _take(self, path: bytes) -> None:
        key = escape(path)
        fd = self._files.open(path)
        try:
            known = self._taken.get(key)
            if known is not None and os.fstat(fd).st_size == known.size:
                if digest_fd(fd) == known.sha256:
                    return
                os.lseek(fd, 0, os.SEEK_SET)
            self._put(key, iter_chunks(fd), os.fsdecode(path))
        finally:
            os.close(fd)

    def _put(self, key: str, chunks: Iterable[bytes | memoryview], path: str | None = None) -> None:
        """Write a file, unless somebody has changed the one that is there."""
        target = self._place / (path or key)
        for directory in reversed(target.relative_to(self._place).parents[:-1]):
            atomic.ensure_dir(self._place / directory, self._depot.dir_mode)
        state, size = hashlib.sha256(), 0

        def counted() -> Iterator[bytes]:
            nonlocal size
            for chunk in chunks:
                state.update(chunk)
                size += len(chunk)
                yield bytes(chunk)

        temp = atomic.write_temp(self._place, counted(), mode=self._depot.file_mode)
        try:
            new, known = Taken(size, state.hexdigest()), self._taken.get(key)
            if _digest_of(target) in (None, new.sha256, known.sha256 if known else None):
                temp.replace(target)
                atomic.fsync_dir(target.parent)
                self._taken[key] = new
        finally:
            temp.unlink(missing_ok=True)


def _digest_of(path: Path) -> str | None:
    try:
        fd = os.open(path, os.O_RDONLY | os.O_CLOEXEC | os.O_NONBLOCK)
    except FileNotFoundError:
        return None
    try:
        return digest_fd(fd)
    finally:
        os.close(fd)
