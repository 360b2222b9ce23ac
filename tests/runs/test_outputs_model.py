"""The scanner against a model that knows nothing but the history of what each scan could see."""

from __future__ import annotations

import os
import shutil
import tempfile
from itertools import pairwise
from pathlib import Path

from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, precondition, rule

from tests.runs.rolling import START, Workspace, taken

FILES = [f"out/{name}" for name in ("a.pt", "b.pt", "deep/c.pt", "d.log", "deep/e.csv")]
MIN_AGE = 5.0
INTERVAL = 60.0
GONE_AFTER = 1000.0

#: (size, mtime in nanoseconds)
Stamp = tuple[int, int]


class Scans(RuleBasedStateMachine):
    """`history` holds the time and the stamps of each scan; `takes` the number of its scan, time,
    stamp and content of each take."""

    @initialize(stable_required=st.integers(1, 3))
    def begin(self, stable_required: int) -> None:
        self.directory = Path(tempfile.mkdtemp())
        self.required = stable_required
        self.workspace = Workspace(
            self.directory,
            stable_required=stable_required,
            min_age_sec=MIN_AGE,
            log_snapshot_interval_sec=INTERVAL,
            state_gc_after_sec=GONE_AFTER,
        )
        self.files: dict[str, tuple[Stamp, bytes]] = {}
        self.history: list[tuple[float, dict[str, Stamp]]] = []
        self.takes: dict[str, list[tuple[int, float, Stamp, bytes]]] = {name: [] for name in FILES}
        self.broken: set[str] = set()
        self.writes = 0

    def teardown(self) -> None:
        if hasattr(self, "directory"):
            shutil.rmtree(self.directory)

    @rule(name=st.sampled_from(FILES), size=st.integers(0, 3), age=st.sampled_from([0, 4, 9, -50]))
    def write(self, name: str, size: int, age: float) -> None:
        self.writes += 1
        data = bytes([self.writes % 256]) * size
        path = self.workspace.write(name, data)
        # No two writes have the same mtime; a float of seconds would round that away.
        mtime_ns = int((self.workspace.now - age) * 10**9) + self.writes
        os.utime(path, ns=(mtime_ns, mtime_ns))
        self.files[name] = ((size, mtime_ns), data)

    @rule(name=st.sampled_from(FILES))
    def remove(self, name: str) -> None:
        if self.files.pop(name, None):
            (self.directory / name).unlink()

    @rule(source=st.sampled_from(FILES), to=st.sampled_from(FILES))
    def rename(self, source: str, to: str) -> None:
        """It keeps its mtime, as a file that is written beside and moved over does."""
        if source in self.files and source != to:
            (self.directory / to).parent.mkdir(exist_ok=True)
            (self.directory / source).rename(self.directory / to)
            self.files[to] = self.files.pop(source)

    @rule(seconds=st.sampled_from([1.0, 4.0, 5.0, 30.0, 60.0, 999.0, 1000.0]))
    def wait(self, seconds: float) -> None:
        self.workspace.now += seconds

    @rule()
    def crash(self) -> None:
        self.workspace.restart()

    @rule(name=st.sampled_from(FILES))
    def make_or_mend_a_fault(self, name: str) -> None:
        self.broken ^= {name}
        self.workspace.errors = {each: OSError(5, "Input/output error") for each in self.broken}

    @rule(last=st.booleans())
    def scan(self, last: bool) -> None:
        now = self.workspace.now
        self.history.append((now, {name: stamp for name, (stamp, _) in self.files.items()}))
        due = sorted(name for name in self.files if self.is_due(name, last))
        already = len(self.workspace.taken)
        report = self.workspace.scan(last=last)
        assert sorted(taken(report)) == sorted(set(due) - self.broken)
        assert sorted(each.key for each in report.failed) == sorted(set(due) & self.broken)
        for name, data in self.workspace.taken[already:]:
            stamp, content = self.files[name]
            assert data == content
            self.takes[name].append((len(self.history) - 1, now, stamp, content))
        rest = len(self.files) - len(report.taken) - len(report.failed)
        assert len(report.waiting) + report.unchanged == rest

    def is_due(self, name: str, last: bool) -> bool:
        """By the rules, from the history alone. The last entry is the scan that is about to be."""
        now = self.workspace.now
        stamp = self.files[name][0]
        earlier = self.remembered_takes(name)
        if earlier and earlier[-1][1] == stamp:
            return False
        if name.endswith((".log", ".csv")):
            return last or not earlier or now - earlier[-1][0] >= INTERVAL
        unchanged_since = []
        for when, stamps in reversed(self.history):
            if stamps.get(name) != stamp:
                break
            unchanged_since.append(when)
        age = max(now - stamp[1] / 1e9, now - unchanged_since[-1])
        return len(unchanged_since) >= self.required and age >= MIN_AGE

    def remembered_takes(self, name: str) -> list[tuple[float, Stamp, bytes]]:
        """Those since it was last gone for so long that its state was dropped."""
        forgotten_at = -1
        gone_since = None
        for number, (when, stamps) in enumerate(self.history):
            if name in stamps:
                gone_since = None
            else:
                gone_since = when if gone_since is None else gone_since
                if when - gone_since >= GONE_AFTER:
                    forgotten_at = number
        return [take[1:] for take in self.takes[name] if take[0] > forgotten_at]

    @precondition(lambda self: hasattr(self, "directory"))
    @invariant()
    def nothing_is_taken_twice_in_a_row(self) -> None:
        for name in FILES:
            stamps = [stamp for _, stamp, _ in self.remembered_takes(name)]
            assert all(one != other for one, other in pairwise(stamps))

    @rule()
    def come_to_rest(self) -> None:
        """When nobody writes any more everything is taken as it is, and nothing more."""
        self.broken.clear()
        self.workspace.errors = {}
        for _ in range(self.required):
            self.workspace.now += INTERVAL
            self.scan(last=False)
        for name, (_, content) in self.files.items():
            assert self.remembered_takes(name)[-1][2] == content
        count = len(self.workspace.taken)
        self.crash()
        self.scan(last=True)
        assert len(self.workspace.taken) == count
        assert self.workspace.now >= START


TestScans = Scans.TestCase
