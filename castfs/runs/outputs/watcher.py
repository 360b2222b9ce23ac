"""A thread that scans every so often, until it is stopped."""

from __future__ import annotations

import logging
import os
import threading

from castfs.errors import CastfsError, UsageError
from castfs.paths import display
from castfs.runs.outputs.report import Reason, ScanReport
from castfs.runs.outputs.scanner import OutputScanner

log = logging.getLogger("castfs.runs")

#: What another scan may take that this one could not.
_PASSING = (Reason.UNSTABLE, Reason.YOUNG)
#: Added to the pause for the minimum age, so that mtimes of a coarse clock are old enough after it.
_TICK_SECONDS = 0.02


class OutputWatcher:
    """`start` and `stop` may be called in any order, by one thread at a time.

    What fails is logged once, and the next scan comes all the same. The thread does not keep the
    program from ending. In a child after a fork it does not run, whatever it did in the parent.
    """

    def __init__(self, scanner: OutputScanner, interval_sec: float = 10) -> None:
        given: object = interval_sec
        if not isinstance(given, (int, float)) or not given > 0:
            raise UsageError(f"interval_sec must be more than 0, not {given!r}")
        self._scanner = scanner
        self._interval = min(interval_sec, threading.TIMEOUT_MAX)
        self._worker: _Worker | None = None

    @property
    def is_running(self) -> bool:
        return self._worker is not None and self._worker.is_here and self._worker.is_alive()

    def start(self) -> None:
        """A scan at once, then one every `interval_sec`. Nothing if it runs already."""
        if not self.is_running:
            self._worker = _Worker(self._scanner, self._interval)
            self._worker.start()

    def stop(self, timeout_sec: float = 30.0) -> bool:
        """End it with a last scan, and wait for that, but no longer than `timeout_sec`.

        The last scan is repeated, as often as the rules ask for, while it finds files that were
        just written, and takes logs whatever the interval: nobody looks at them again.
        False if it had to be given up; the thread then ends after the output that it is taking,
        and a later scan goes on from there. True at once if nothing runs.
        """
        worker, self._worker = self._worker, None
        if worker is None or not worker.is_here or not worker.is_alive():
            return True
        return worker.finish(timeout_sec)


class _Worker(threading.Thread):
    def __init__(self, scanner: OutputScanner, interval: float) -> None:
        super().__init__(name="castfs-outputs", daemon=True)
        self._scanner = scanner
        self._interval = interval
        self._ending = threading.Event()
        self._given_up = threading.Event()
        self._pid = os.getpid()
        self._said: dict[str, str] = {}

    @property
    def is_here(self) -> bool:
        """Is this the process that started it?"""
        return self._pid == os.getpid()

    def finish(self, timeout_sec: float) -> bool:
        self._ending.set()
        self.join(timeout_sec)
        if not self.is_alive():
            return True
        self._given_up.set()
        log.warning("the last scan of the outputs takes more than %g s; not waiting", timeout_sec)
        return False

    def run(self) -> None:
        while not self._ending.is_set():
            self._scan(last=False)
            self._ending.wait(self._interval)
        self._scan_to_the_end()

    def _scan_to_the_end(self) -> None:
        """One scan, and more while something waits for no more than them."""
        for number in range(self._scanner.rules.stable_required + 1):
            if number:
                self._given_up.wait(self._scanner.rules.min_age_sec + _TICK_SECONDS)
            report = self._scan(last=True)
            if report is None or not any(each.reason in _PASSING for each in report.waiting):
                return

    def _scan(self, *, last: bool) -> ScanReport | None:
        try:
            report = self._scanner.scan_once(last=last, should_stop=self._given_up.is_set)
        except (CastfsError, OSError) as exc:
            self._say({"": f"cannot scan the outputs: {exc}"})
        except Exception:  # the next scan may go well, and nobody else would hear of this one
            log.exception("cannot scan the outputs")
        else:
            self._say(
                {each.key: f"cannot take {each.key}: {each.reason}" for each in report.failed}
            )
            return report
        return None

    def _say(self, lines: dict[str, str]) -> None:
        """What the scan before has said already is not repeated: it may be a file in thousands."""
        for key, line in lines.items():
            if self._said.get(key) != line:
                log.warning("%s", display(line.encode(errors="backslashreplace")))
        self._said = lines
