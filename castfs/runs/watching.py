"""Outputs of a directory, kept without a run of Python's: what `castfs watch` does."""

from __future__ import annotations

import hashlib
import os
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

from castfs import atomic
from castfs.catalog.words import check_name
from castfs.repository.naming import version_word
from castfs.repository.store import Store
from castfs.repository.taking import keep_out
from castfs.runs.keeping import as_name, take_output
from castfs.runs.opening import find_run
from castfs.runs.outputs import Failed, Kind, Output, OutputScanner, ScanReport, Waiting

#: Added to the pause for the minimum age, so that mtimes of a coarse clock are old enough after it.
_TICK_SECONDS = 0.02


@dataclass(frozen=True, slots=True, kw_only=True)
class TakenVersion:
    """`word` is `NAME:v3`, `id` that version's; the rest as of `Taken`. Size in bytes."""

    key: str
    kind: Kind
    size_bytes: int
    is_log: bool
    id: str
    word: str


@dataclass(frozen=True, slots=True, kw_only=True)
class WatchReport:
    """As `ScanReport`."""

    taken: tuple[TakenVersion, ...]
    waiting: tuple[Waiting, ...]
    failed: tuple[Failed, ...]
    unchanged: int


class DirectoryWatch:
    """Each file (or directory, see `castfs.runs.outputs`) is kept as versions of
    `<namespace>/<its path>`."""

    def __init__(
        self,
        store: Store,
        directory: Path,
        *,
        name: str | None = None,
        run_id: str | None = None,
        patterns: Sequence[str] = (),
        min_age_sec: float = 1.0,
    ) -> None:
        """The namespace is `name`, that of the run, or the directory's own name. NotFoundError for
        a run that there is not; SourceError for a directory in the store; UsageError."""
        self._store = store
        self._run_id = run_id
        place = Path(os.path.realpath(directory))
        keep_out(store.depot, place)
        if run_id is not None:
            run = find_run(run_id, store=store)
            self._namespace = f"{as_name(run.path)}/outputs"
            state_file = run.run_dir / "watch-state.json"
        else:
            self._namespace = check_name(name) if name is not None else as_name(place.name)
            state_file = self._state_file(place)
        self._min_age = min_age_sec
        #: Of what the scan that runs has taken, by id.
        self._words: dict[str, str] = {}
        self._scanner = OutputScanner(
            place,
            [place],
            patterns,
            min_age_sec=min_age_sec,
            state_file=state_file,
            take=self._take,
            keep_out=[store.path],
        )

    def _state_file(self, place: Path) -> Path:
        """In the cache: without it everything is looked at again, and is in the store already."""
        depot = self._store.depot
        directory = depot.path / "cache" / "watches"
        atomic.ensure_dir(directory, depot.dir_mode)
        key = hashlib.sha256(os.fsencode(place) + b"\0" + self._namespace.encode())
        return directory / f"{key.hexdigest()[:32]}.json"

    def _take(self, output: Output) -> str:
        self._check_run()
        published = take_output(self._store.depot, self._namespace, output, run_id=self._run_id)
        self._words[published.record.id] = version_word(published.record)
        return published.record.id

    def _check_run(self) -> None:
        if self._run_id is not None:
            find_run(self._run_id, store=self._store)

    def scan_once(
        self, *, last: bool = False, should_stop: Callable[[], bool] = lambda: False
    ) -> WatchReport:
        """NotFoundError if the run was removed; OSError and StoreError as of
        `OutputScanner.scan_once`."""
        self._check_run()
        self._words.clear()
        try:
            report = self._scanner.scan_once(last=last, should_stop=should_stop)
        except OSError:
            self._check_run()  # with the run went the directory of the scanner's state
            raise
        if report.failed:
            self._check_run()
        return self._report(report)

    def _report(self, report: ScanReport) -> WatchReport:
        taken = [
            TakenVersion(
                key=each.key,
                kind=each.kind,
                size_bytes=each.size_bytes,
                is_log=each.is_log,
                id=each.id,
                word=self._words[each.id],
            )
            for each in report.taken
        ]
        return WatchReport(
            taken=tuple(taken),
            waiting=report.waiting,
            failed=report.failed,
            unchanged=report.unchanged,
        )

    def finish(self) -> WatchReport:
        """A last look, and as many more as the rules ask for of what was just written."""
        taken: list[TakenVersion] = []
        for number in range(self._scanner.rules.stable_required + 1):
            if number:
                time.sleep(self._min_age + _TICK_SECONDS)
            report = self.scan_once(last=True)
            taken += report.taken
            if not report.waiting:
                break
        return WatchReport(
            taken=tuple(taken),
            waiting=report.waiting,
            failed=report.failed,
            unchanged=report.unchanged,
        )
