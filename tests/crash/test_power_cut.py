"""A power cut at any point of a verb: what is on the medium then is the old state or the new.

The store lies on an image. Before each call that changes something the image's file is copied as it
is, without what the kernel still holds back; the copies are mounted afterwards, which replays their
journals, and looked at. Copies that are the same are looked at once: little reaches the medium
between two syncs.
"""

from __future__ import annotations

import random
from collections.abc import Callable
from pathlib import Path
from typing import Any, TypeVar
from unittest.mock import patch

import pytest

from castfs.repository import Store
from tests.crash import named, scenarios
from tests.crash.afterwards import check_afterwards
from tests.crash.images import FILESYSTEMS, make_image, mounted
from tests.crash.named import Named
from tests.crash.running import iter_answers
from tests.crash.scenarios import Base, Scenario, make_base, open_new

Maker = Callable[[Base], Scenario]
NamedMaker = Callable[[named.Base], Named]
VERBS = (
    scenarios.ingest,
    scenarios.remove,
    scenarios.remove_for_good,
    scenarios.undelete,
    scenarios.purge,
    scenarios.collect,
    scenarios.collect_beside,
    scenarios.collect_removed_beside,
)
#: Of names, and of runs.
NAMED_VERBS = (
    named.ingest_and_move_alias,
    named.tag_and_change_metadata,
    named.import_bundle,
    named.remove_for_good,
    named.undelete_all,
    named.run,
    named.remove_run,
)


def check_cuts(tmp_path: Path, source: Path, make: Maker, filesystem: str, **options: Any) -> int:
    """See `cut_at_points`."""
    return cut_at_points(
        tmp_path,
        lambda store: make(make_base(store, source, open_new(tmp_path / "other"))),
        lambda scenario, done: check_afterwards(scenario, scenario.store, done, ended=False),
        filesystem,
        **options,
    )


def check_named_cuts(
    tmp_path: Path, source: Path, make: NamedMaker, filesystem: str, **options: Any
) -> int:
    return cut_at_points(
        tmp_path,
        lambda store: make(named.make_base(store, source, tmp_path / "place")),
        lambda scenario, done: scenario.check(scenario.store, done),
        filesystem,
        **options,
    )


S = TypeVar("S", bound=Scenario | Named)


def cut_at_points(
    tmp_path: Path,
    prepare: Callable[[Store], S],
    check: Callable[[S, int], None],
    filesystem: str,
    *,
    beside: bool = False,
    each_alone: bool = False,
    sample: int | None = None,
) -> int:
    """How many different states of the medium there were; `check` gets how many steps were done.
    `beside`: somebody else syncs what is his before each cut; `each_alone`: the store's syncfs is
    not relied on."""
    image = tmp_path / "image"
    make_image(image, filesystem)
    disk = tmp_path / "disk"
    with mounted(image, disk, filesystem):
        scenario = prepare(open_new(disk / "store"))
    # Mounted again, so that all of it is on the medium.
    with mounted(image, disk, filesystem):
        answers = list(
            iter_answers(
                steps=scenario.steps, store=str(scenario.store), source=str(scenario.source),
                failure="cut", unsynced=scenario.unsynced, image=str(image), beside=beside,
                each_alone=each_alone,
            )
        )  # fmt: skip
    assert answers[-1]["done"] == len(scenario.steps)
    image.unlink()
    found: list[dict[str, Any]] = []
    for answer in answers:
        if answer["image"] is not None:
            found.append(answer)
        else:  # the same as the last, but more was said to be done
            found[-1] = {**found[-1], "done": answer["done"], "call": answer["call"]}
    chosen = found
    if sample is not None and len(found) > sample:
        chosen = [*random.Random(sample).sample(found[:-1], sample - 1), found[-1]]
    for answer in chosen:
        try:
            with (
                mounted(Path(answer["image"]), disk, filesystem),
                patch("castfs.catalog.freshness.boot_id", lambda: "the next"),
            ):
                check(scenario, answer["done"])
        except BaseException as exc:
            exc.add_note(f"the power was cut before {answer['call']}")
            raise
    return len(found)


@pytest.mark.needs_root
@pytest.mark.parametrize("make", VERBS)
def test_power_cut(tmp_path: Path, source: Path, make: Maker) -> None:
    assert check_cuts(tmp_path, source, make, "ext4", sample=4) > 1


@pytest.mark.needs_root
def test_power_cut_of_names(tmp_path: Path, source: Path) -> None:
    make = named.ingest_and_move_alias
    assert check_named_cuts(tmp_path, source, make, "ext4", sample=4) > 1


#: All verbs, and again those that sync by other means where syncfs cannot be relied on.
WAYS = [
    *((make, False) for make in VERBS),
    (scenarios.ingest, True),
    (scenarios.collect_beside, True),
    (scenarios.collect_removed_beside, True),
]


@pytest.mark.needs_root
@pytest.mark.slow
@pytest.mark.timeout(600)
@pytest.mark.parametrize("beside", [False, True], ids=["alone", "beside others"])
@pytest.mark.parametrize(("make", "each_alone"), WAYS)
@pytest.mark.parametrize("filesystem", FILESYSTEMS)
def test_power_cut_at_every_point(
    tmp_path: Path, source: Path, filesystem: str, make: Maker, *, beside: bool, each_alone: bool
) -> None:
    check_cuts(tmp_path, source, make, filesystem, beside=beside, each_alone=each_alone)


@pytest.mark.needs_root
@pytest.mark.slow
@pytest.mark.timeout(600)
@pytest.mark.parametrize("beside", [False, True], ids=["alone", "beside others"])
@pytest.mark.parametrize("make", NAMED_VERBS)
@pytest.mark.parametrize("filesystem", FILESYSTEMS)
def test_power_cut_of_names_at_every_point(
    tmp_path: Path, source: Path, filesystem: str, make: NamedMaker, *, beside: bool
) -> None:
    check_named_cuts(tmp_path, source, make, filesystem, beside=beside)
