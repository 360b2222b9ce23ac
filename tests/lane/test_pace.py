"""When the lane waits awake: in bursts, and never on a mount that is idle or seldom touched."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from castfs.lane import pace as pace_module
from castfs.lane.pace import AWAKE_NS, BURST, Pace, has_spare_cpu


class Clock:
    """It stands, unless it is told how much time passes."""

    def __init__(self) -> None:
        self.now = 10**15

    def __call__(self) -> int:
        return self.now


class Lane:
    """What the lane's thread does: it counts the nanoseconds that it would have waited awake."""

    def __init__(self, *, enabled: bool = True) -> None:
        self.clock = Clock()
        self.pace = Pace(self.clock, enabled=enabled)
        self.awake = 0

    def wait(self, nanoseconds: int) -> None:
        """Until the next request, asking again every microsecond while that is allowed."""
        end = self.clock.now + nanoseconds
        while self.clock.now < end and self.pace.may_wait_awake():
            self.clock.now += 1000
            self.awake += 1000
        self.clock.now = max(self.clock.now, end)

    def serve(self, count: int, interval: int) -> None:
        for _ in range(count):
            self.wait(interval)
            self.pace.came()


@pytest.fixture
def lane() -> Lane:
    return Lane()


def test_an_idle_lane_sleeps(lane: Lane) -> None:
    lane.wait(10**9)
    assert lane.awake == 0
    lane.pace.came()
    lane.wait(10**9)
    assert lane.awake == 0


@pytest.mark.parametrize("interval", [AWAKE_NS + 1, 10**6, 10**9])
def test_a_trickle_keeps_nobody_awake(lane: Lane, interval: int) -> None:
    lane.serve(2000, interval)
    assert lane.awake == 0


def test_what_one_command_asks_keeps_nobody_awake(lane: Lane) -> None:
    for _ in range(100):
        lane.serve(BURST, 20_000)
        lane.wait(10**7)
    assert lane.awake == 0


def test_a_burst_does_and_stops(lane: Lane) -> None:
    lane.serve(1000, 50_000)
    assert lane.awake > 900 * 50_000
    before = lane.awake
    lane.wait(10**9)
    assert AWAKE_NS <= lane.awake - before <= AWAKE_NS + 1000
    # The pace has to build up again.
    before = lane.awake
    lane.serve(BURST, 50_000)
    assert lane.awake == before


def test_a_pause_in_a_burst(lane: Lane) -> None:
    lane.serve(1000, 50_000)
    before = lane.awake
    for _ in range(50):  # each costs that much at most
        lane.serve(1, 10**6)
    assert lane.awake - before <= AWAKE_NS + 1000


def test_not_where_it_would_take_the_reader_s_time() -> None:
    lane = Lane(enabled=False)
    lane.serve(1000, 50_000)
    assert lane.awake == 0


@pytest.mark.parametrize(
    ("cpus", "quota", "spare"),
    [
        ({0}, "max 100000", False),
        ({0, 1}, "max 100000", True),
        ({3, 5}, "200000 100000", True),
        ({0, 1}, "199999 100000", False),
        ({0, 1}, "50000 100000", False),
        ({0, 1}, "nonsense", True),
        ({0, 1}, None, True),
    ],
)
def test_spare_cpus(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, cpus: set[int], quota: str | None, spare: bool
) -> None:
    monkeypatch.setattr(os, "sched_getaffinity", lambda pid: cpus)
    monkeypatch.setattr(pace_module, "_cgroup_dir", lambda: str(tmp_path))
    if quota is not None:
        (tmp_path / "cpu.max").write_text(quota + "\n")
    assert has_spare_cpu() == spare
