"""One call on the store fails, any one: the process is killed, the disk is full or broken.

SIGKILL keeps the page cache, so it does not show what has to be synced when: test_power_cut.py.
"""

from __future__ import annotations

import subprocess
from collections.abc import Callable
from pathlib import Path

import pytest

from tests.crash import scenarios
from tests.crash.afterwards import check_afterwards
from tests.crash.running import iter_answers
from tests.crash.scenarios import Base, Scenario, make_base, open_new

#: How, and at how many calls each verb can fail so. Removing for good takes next to no space: two
#: directories are synced.
AT_LEAST = {"kill": 10, "ENOSPC": 2, "EIO": 10}
VERBS = (
    scenarios.ingest,
    scenarios.ingest_named,
    scenarios.remove,
    scenarios.remove_for_good,
    scenarios.undelete,
    scenarios.collect,
)
Maker = Callable[[Base], Scenario]


@pytest.fixture
def base(tmp_path: Path, source: Path) -> Base:
    return make_base(open_new(tmp_path / "store"), source, open_new(tmp_path / "other"))


def check_points(
    scenario: Scenario, failure: str, sample: int | None, *, with_readers: bool = False
) -> int:
    """How many calls failed."""
    failed = 0
    for answer in iter_answers(
        steps=scenario.steps, store=str(scenario.store), source=str(scenario.source),
        failure=failure, sample=sample, with_readers=with_readers,
    ):  # fmt: skip
        path = Path(answer["store"])
        outcome = answer["outcome"]
        try:
            assert outcome != "raised", answer["error"]
            if outcome == "error":
                assert "\n" not in answer["error"]
            check_afterwards(
                scenario, path, len(scenario.steps) if outcome == "done" else 0,
                ended=outcome == "error",
            )  # fmt: skip
        except BaseException as exc:
            exc.add_note(f"{failure} at point {answer['point']}: {answer['call']}: {answer}")
            raise
        failed += answer["reached"]
        subprocess.run(["rm", "-rf", path], check=True)
    return failed


@pytest.mark.parametrize("make", VERBS)
@pytest.mark.parametrize("failure", AT_LEAST)
def test_at_some_points(base: Base, make: Maker, failure: str) -> None:
    assert check_points(make(base), failure, 10) >= AT_LEAST[failure]


def test_an_ingest_with_readers(base: Base) -> None:
    """They end too, and what they staged is nowhere."""
    assert check_points(scenarios.ingest(base), "kill", 6, with_readers=True) >= 4


@pytest.mark.slow
@pytest.mark.timeout(1800)
def test_an_ingest_with_readers_at_many_points(base: Base) -> None:
    assert check_points(scenarios.ingest(base), "kill", 100, with_readers=True) >= 50


@pytest.mark.slow
@pytest.mark.timeout(1800)
@pytest.mark.parametrize("make", VERBS)
@pytest.mark.parametrize("failure", AT_LEAST)
def test_at_every_point(base: Base, make: Maker, failure: str) -> None:
    assert check_points(make(base), failure, None) >= AT_LEAST[failure]
