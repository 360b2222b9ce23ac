"""One scan after the other over the output directories of a run."""

from __future__ import annotations

import logging
import os
import threading
import time
from collections.abc import Callable, Iterable, Iterator
from pathlib import Path

from castfs.errors import CastfsError
from castfs.ingest.beneath import identity
from castfs.paths import display, unescape
from castfs.runs.outputs.finding import Found, KeptOut, find_outputs, stamp_of
from castfs.runs.outputs.patterns import DEFAULT_PATTERNS, Patterns
from castfs.runs.outputs.report import Failed, Output, Reason, ScanReport, Taken, Waiting
from castfs.runs.outputs.rules import Rules
from castfs.runs.outputs.state import Remembered, StateFile, TakenBefore

log = logging.getLogger("castfs.runs")

#: The state is written when so many bytes, or one in so many of the known outputs, were taken since
#: the last time. So a crash costs little, and 100,000 outputs do not write 100,000 large states:
#: what is taken once more is content that the store has already.
_SAVE_BYTES = 64 << 20
_SAVE_SHARE = 128

AnyPath = str | os.PathLike[str]


class OutputScanner:
    """Safe to use from several threads: one scan waits for the other. One scanner, and one process,
    per state file at a time."""

    def __init__(
        self,
        root: Path,
        output_dirs: AnyPath | Iterable[AnyPath],
        patterns: Iterable[str] | None = None,
        *,
        stable_required: int = 2,
        min_age_sec: float = 1.0,
        mode: str = "rolling",
        log_snapshot_interval_sec: float = 60,
        state_gc_after_sec: float = 7 * 24 * 3600,
        state_file: Path,
        take: Callable[[Output], str],
        keep_out: Iterable[Path] = (),
        clock: Callable[[], float] = time.time,
    ) -> None:
        """`output_dirs` are relative to `root`; `patterns` None or empty are DEFAULT_PATTERNS.

        `take` stores an output as a new version and returns its id; what it raises is reported.
        `state_file`: its directory exists. `keep_out`: directories that are left out wherever they
        turn up, such as the store. `clock`: seconds since the epoch, to be compared with mtimes.
        UsageError.
        """
        self.rules = Rules(
            stable_required=stable_required,
            min_age_sec=min_age_sec,
            log_snapshot_interval_sec=log_snapshot_interval_sec,
            state_gc_after_sec=state_gc_after_sec,
        )
        self.mode = mode
        self.take = take
        self.clock = clock
        self.patterns = Patterns(tuple(patterns or ()) or DEFAULT_PATTERNS)
        self._root = os.path.abspath(os.fsencode(root))
        if isinstance(output_dirs, (str, os.PathLike)):
            output_dirs = [output_dirs]
        self._dirs = [self._resolve(each) for each in output_dirs]
        self._keep_out = tuple(keep_out)
        self._state_path = Path(os.path.realpath(state_file))
        self._state = StateFile(self._state_path)
        self._guard = threading.Lock()
        self._pid = os.getpid()

    def scan_once(
        self, *, last: bool = False, should_stop: Callable[[], bool] = lambda: False
    ) -> ScanReport:
        """Look at every output and take those that are due.

        `last`: no scan follows, so a log that has changed is taken whatever the interval.
        `should_stop` is asked before each output; the rest is then left for another time.
        OSError or StoreError if the state cannot be read or written.
        """
        if os.getpid() != self._pid:  # forked, perhaps while a thread of the parent held it
            self._guard, self._pid = threading.Lock(), os.getpid()
        with self._guard:
            scan = _Scan(self, self._state, last=last)
            try:
                if scan.look_at_all(self._find(), should_stop):
                    scan.miss_what_is_gone(self.place_of)
            finally:
                scan.save()
            return scan.report()

    def place_of(self, key: str) -> bytes:
        return os.path.join(self._root, unescape(key))

    def _resolve(self, directory: AnyPath) -> tuple[bytes, bytes]:
        """Where it is, and what its key is: relative to the root if it is below that, also if one
        of the two was given through a symlink."""
        path = os.path.expanduser(os.fsencode(directory))
        path = os.path.normpath(os.path.join(self._root, path))
        for root, place in (
            (self._root, path),
            (os.path.realpath(self._root), os.path.realpath(path)),
        ):
            if place == root or place.startswith(root.rstrip(b"/") + b"/"):
                return path, place[len(root) :].lstrip(b"/")
        return path, path

    def _find(self) -> Iterator[Found | Failed]:
        """Each output once, also where output directories lie in one another."""
        kept_out = KeptOut(
            dirs={*filter(None, map(_identity, self._keep_out))},
            state_dir=_identity(self._state_path.parent),
            state_name=os.fsencode(self._state_path.name),
        )
        seen = set()
        for directory, key in self._dirs:
            for each in find_outputs(directory, key, self.patterns, kept_out):
                if each.key not in seen:
                    seen.add(each.key)
                    yield each


def _identity(directory: Path) -> tuple[int, int] | None:
    try:
        return identity(directory.stat())
    except OSError:
        return None


class _Scan:
    """What one scan has seen and done so far."""

    def __init__(self, scanner: OutputScanner, state: StateFile, *, last: bool) -> None:
        self._scanner = scanner
        self._state = state
        self._outputs = state.load()
        self._last = last
        self._seen: set[str] = set()
        self._taken: list[Taken] = []
        self._waiting: list[Waiting] = []
        self._failed: list[Failed] = []
        self._unchanged = 0
        self._changed = False
        self._unsaved_count = self._unsaved_bytes = 0

    def look_at_all(self, found: Iterator[Found | Failed], should_stop: Callable[[], bool]) -> bool:
        """False if it was told to stop before it came to the end."""
        for each in found:
            if should_stop():
                return False
            self._seen.add(each.key)
            if isinstance(each, Failed):
                self._failed.append(each)
            else:
                self._look_at(each)
        return True

    def _look_at(self, found: Found) -> None:
        rules, now = self._scanner.rules, self._scanner.clock()
        self._changed |= rules.note(found, self._outputs, now)
        known = self._outputs[found.key]
        if known.taken is not None and known.taken.stamp == found.stamp:
            self._unchanged += 1
        elif reason := rules.judge(found, known, now, last=self._last):
            self._waiting.append(Waiting(key=found.key, reason=reason))
        else:
            self._try_to_take(found, known)

    def _try_to_take(self, found: Found, known: Remembered) -> None:
        output = Output(
            key=found.key,
            path=Path(os.fsdecode(found.path)),
            kind=found.kind,
            size_bytes=found.size_bytes,
            is_log=found.is_log,
            mode="rolling" if found.is_log else self._scanner.mode,
        )
        try:
            # Others in its directory may have been taken since it was listed, for minutes.
            stamp = stamp_of(found.path) if found.kind == "file" else found.stamp
            if stamp != found.stamp and not (found.is_log and stamp):
                self._waiting.append(Waiting(key=found.key, reason=Reason.UNSTABLE))
                return
            id_ = self._scanner.take(output)
        except OSError as exc:
            self._fail(found.key, exc.strerror or str(exc))
        except CastfsError as exc:
            self._fail(found.key, str(exc))
        except Exception as exc:  # the others must not be lost because of this one
            log.exception("cannot take %s", display(unescape(found.key)))
            self._fail(found.key, f"{type(exc).__name__}: {exc}")
        else:
            self._note_taken(found, known, id_)

    def _fail(self, key: str, reason: str) -> None:
        self._failed.append(Failed(key=key, reason=reason))

    def _note_taken(self, found: Found, known: Remembered, id_: str) -> None:
        """With the stamp from before: what has changed since is taken by the next scan."""
        known.taken = TakenBefore(stamp=found.stamp, id=id_, at=self._scanner.clock())
        self._taken.append(
            Taken(
                key=found.key,
                kind=found.kind,
                size_bytes=found.size_bytes,
                is_log=found.is_log,
                id=id_,
            )
        )
        self._changed = True
        self._unsaved_count += 1
        self._unsaved_bytes += found.size_bytes
        if self._unsaved_bytes >= _SAVE_BYTES or self._unsaved_count * _SAVE_SHARE >= len(
            self._outputs
        ):
            self.save()

    def miss_what_is_gone(self, place_of: Callable[[str], bytes]) -> None:
        """Only what is known not to be there: not what could not be looked at, or is in a directory
        that only another scanner looks at."""
        now = self._scanner.clock()
        for key in self._outputs.keys() - self._seen:
            try:
                os.lstat(place_of(key))
            except (FileNotFoundError, NotADirectoryError):
                self._changed |= self._scanner.rules.miss(key, self._outputs, now)
            except OSError:
                continue

    def save(self) -> None:
        if self._changed:
            self._state.save()
            self._changed = False
            self._unsaved_count = self._unsaved_bytes = 0

    def report(self) -> ScanReport:
        return ScanReport(
            taken=tuple(self._taken),
            waiting=tuple(self._waiting),
            failed=tuple(self._failed),
            unchanged=self._unchanged,
        )
