"""One call on the store fails, any one, while names, aliases and runs are changed.

As in test_points.py; SQL statements count as calls, too.
"""

from __future__ import annotations

import subprocess
from collections.abc import Callable
from pathlib import Path

import pytest

from tests.crash import named
from tests.crash.named import Base, Named, as_said, make_base
from tests.crash.running import iter_answers_of
from tests.crash.scenarios import open_new

Maker = Callable[[Base], Named]
VERBS = (
    named.move_alias,
    named.tag,
    named.ingest,
    named.import_bundle,
    named.import_archive,
    named.remove_for_good,
    named.undelete_all,
    named.run,
    named.remove_run,
)
#: Of the longer tier alone: much like one of the others.
MORE_VERBS = (
    named.remove_alias,
    named.untag,
    named.change_metadata,
    named.ingest_unchanged,
    named.refer,
    named.import_manifest,
    named.remove,
    named.undelete,
)
#: How, and at how many calls each verb fails so in the sample.
SAMPLES: dict[str, int | None] = {"kill": 3, "ENOSPC": 1, "EIO": 1}
#: The same in the longer tier: of each kind of call some that are broken, of the others all.
MANY = {"kill": None, "ENOSPC": None, "EIO": 120}
#: What may be said of a disk: the store refuses, or something in it cannot be read.
CODES = (1, 5)


@pytest.fixture
def base(tmp_path: Path, source: Path) -> Base:
    return make_base(open_new(tmp_path / "store"), source, tmp_path / "place")


def check_points(scenario: Named, samples: dict[str, int | None]) -> dict[str, int]:
    """How many calls failed, by how they did."""
    failed = dict.fromkeys(samples, 0)
    jobs: list[dict[str, object]] = [
        {
            "steps": scenario.steps, "store": str(scenario.store), "source": str(scenario.source),
            "failure": failure, "sample": sample, "each_state": True,
        }
        for failure, sample in samples.items()
    ]  # fmt: skip
    for answer in iter_answers_of(*jobs):
        path = Path(answer["store"])
        if answer["point"] == 0 and failed["kill" if "kill" in failed else answer["failure"]]:
            continue  # undisturbed, once more
        try:
            assert answer["outcome"] != "raised", answer["error"]
            if answer["outcome"] == "error":
                assert "\n" not in answer["error"]
                assert answer["code"] in CODES
            done = len(scenario.steps) if answer["outcome"] == "done" else 0
            scenario.check(
                path, done, failed=answer["outcome"] == "error",
                disk_failed=answer["failure"] != "kill",
            )  # fmt: skip
        except BaseException as exc:
            exc.add_note(as_said(answer))
            raise
        failed[answer["failure"]] += answer["reached"]
        subprocess.run(["rm", "-rf", path], check=True)
    return failed


@pytest.mark.parametrize("make", VERBS)
def test_at_some_points(base: Base, make: Maker) -> None:
    assert check_points(make(base), SAMPLES) == SAMPLES


@pytest.mark.slow
@pytest.mark.timeout(1800)
@pytest.mark.parametrize("make", [*VERBS, *MORE_VERBS])
@pytest.mark.parametrize("failure", MANY)
def test_at_many_points(base: Base, make: Maker, failure: str) -> None:
    assert check_points(make(base), {failure: MANY[failure]})[failure] >= 8
