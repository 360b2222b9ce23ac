"""Ingests, collectors, removals, mounts and restores at once, any of them killed: see stress.py."""

from __future__ import annotations

import json
import subprocess
import sys
from collections import Counter
from pathlib import Path

import pytest

from castfs.mount.mountinfo import read_mounts
from tests.gc import stress_children
from tests.store.processes import ROOT, python_environment

pytestmark = pytest.mark.mounted

STRESS = ROOT / "tests" / "gc" / "stress.py"


def run_stress(place: Path, *options: object, seconds: float) -> Counter[str]:
    """How often each decision ended how. What is left of a failed run names its seed."""
    command = [sys.executable, "-P", STRESS, place, "--seconds", seconds, *options]
    try:
        done = subprocess.run(
            [str(word) for word in command],
            env=python_environment(),
            capture_output=True,
            text=True,
            timeout=seconds + 100,
        )
    finally:
        stress_children.detach_all(place)
    assert done.returncode == 0, done.stderr
    assert done.stderr == ""
    assert [each for each in read_mounts() if each.mountpoint.is_relative_to(place)] == []
    return Counter(json.loads(done.stdout))


def assert_everything_happened(counts: Counter[str], *, at_least: int) -> None:
    """Else a run would say nothing, however it ended."""
    for what in ("ingest", "gc", "read", "rm", "permanent", "purge", "undelete"):
        assert counts[f"{what} 0"] >= at_least, counts
    assert counts["mount 0"] >= 1, counts
    assert counts["restore 0"] + counts["export 0"] >= 1, counts
    assert counts["ingest killed"] + counts["gc killed"] >= at_least, counts


def test_a_short_run(tmp_path: Path) -> None:
    counts = run_stress(tmp_path / "run", "--seed", 1, seconds=18)
    assert_everything_happened(counts, at_least=2)


def test_a_log_can_be_replayed(tmp_path: Path) -> None:
    run_stress(tmp_path / "first", "--seed", 2, "--steps", 40, seconds=8)
    log = tmp_path / "first" / "log.jsonl"
    counts = run_stress(tmp_path / "again", "--seed", 2, "--replay", log, seconds=8)
    # A process may be slower this time than what is to happen to its snapshot.
    assert counts["steps"] >= 25


@pytest.mark.slow
@pytest.mark.timeout(300)
@pytest.mark.parametrize(
    "options",
    [
        ("--seed", 11),
        ("--seed", 12, "--kill", 0.4, "--pause", 0.001),
        ("--seed", 13, "--kill", 0.05, "--pause", 0.02),
        ("--seed", 14, "--pool", 80, "--files", 20, "--sources", 3, "--live", 6),
        ("--seed", 15, "--pool", 5000, "--files", 400, "--live", 5, "--mounts", 2),
    ],
    ids=["usual", "many are killed", "slow processes", "few contents", "large trees"],
)
def test_a_long_run(tmp_path: Path, options: tuple[object, ...]) -> None:
    counts = run_stress(tmp_path / "run", *options, seconds=75)
    assert_everything_happened(counts, at_least=10)
