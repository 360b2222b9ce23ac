"""Which run a word means, all runs of a store, and taking several away at once."""

from __future__ import annotations

import os
from collections.abc import Callable
from pathlib import Path

import pytest

import castfs
from castfs import AmbiguousError, Artifact, BusyError, DamageError, NotFoundError, Run, Store
from castfs.catalog import RunFile, changing, reading
from castfs.catalog.files import write_run
from castfs.runs.finding import match_run
from castfs.runs.removing import remove_runs

IDS = {
    "20260101_100000_aaaaaa": ("vision", "resnet"),
    "20260101_100000_aaaaab": ("vision", "vit"),
    "20260202_100000_bbbbbb": ("vision", "vit"),
    "20260303_100000_cccccc": ("alone", None),
    "imported-run": (None, None),
}


@pytest.fixture
def recorded(store: Store) -> Store:
    with changing(store.depot) as change:
        for number, (run_id, (project, name)) in enumerate(IDS.items()):
            change.touch_run(run_id)
            at = f"2026-0{number + 1}-01T00:00:00.000000+00:00"
            run = RunFile(
                id=run_id, project=project, name=name, created_at=at, finished_at=at,
                status="finished",
            )  # fmt: skip
            write_run(store.depot, run)
    return store


def find(store: Store, word: str) -> str:
    with reading(store.depot) as catalog:
        return match_run(catalog, word).id


def damage(store: Store, run_id: str) -> None:
    file = store.path / "runs" / f"{run_id}.json"
    file.chmod(0o644)
    file.write_text("{")
    os.utime(file.parent)


@pytest.mark.parametrize(
    ("word", "expected"),
    [
        ("20260101_100000_aaaaaa", "20260101_100000_aaaaaa"),
        ("20260202", "20260202_100000_bbbbbb"),
        ("2026020", "20260202_100000_bbbbbb"),
        ("vision/resnet", "20260101_100000_aaaaaa"),
        ("alone", "20260303_100000_cccccc"),
        ("importe", "imported-run"),
    ],
)
def test_what_means_one(recorded: Store, word: str, expected: str) -> None:
    assert find(recorded, word) == expected


@pytest.mark.parametrize(
    "word", ["202602", "", "nothing-like-it", "vision", "vision/", "../x", "a\nb"]
)
def test_what_means_none(recorded: Store, word: str) -> None:
    with pytest.raises(NotFoundError, match="castfs runs"):
        find(recorded, word)


@pytest.mark.parametrize(
    ("word", "ids"),
    [
        ("20260101_100000_aaaaa", ["20260101_100000_aaaaaa", "20260101_100000_aaaaab"]),
        ("vision/vit", ["20260101_100000_aaaaab", "20260202_100000_bbbbbb"]),
    ],
)
def test_what_means_several(recorded: Store, word: str, ids: list[str]) -> None:
    with pytest.raises(AmbiguousError) as caught:
        find(recorded, word)
    assert sorted(line.split()[0] for line in caught.value.candidates) == ids
    assert all(run_id in str(caught.value) for run_id in ids)


def test_one_that_cannot_be_read(recorded: Store) -> None:
    damage(recorded, "20260101_100000_aaaaaa")
    assert find(recorded, "2026020") == "20260202_100000_bbbbbb"
    for word in ("20260101_100000_aaaaaa", "vision/vit", "alone", "nothing"):
        with pytest.raises(DamageError):
            find(recorded, word)


def test_all_of_them(recorded: Store) -> None:
    assert [run.id for run in castfs.iter_runs(store=recorded)] == [*reversed(IDS)]
    of_project = castfs.iter_runs(store=recorded.path, project="vision")
    assert [(run.id, run.name) for run in of_project] == [
        (run_id, name) for run_id, (project, name) in reversed(IDS.items()) if project == "vision"
    ]
    with pytest.raises(castfs.NoStoreError):
        castfs.iter_runs(store=recorded.path / "nothing")


# Several at once --------------------------------------------------------------------------------

Make = Callable[..., int]


@pytest.fixture
def make(tmp_path: Path) -> Make:
    def make(run: Run, name: str, **metadata: object) -> int:
        (tmp_path / "file").write_text(name)
        return run.log_artifact(Artifact(name, metadata=metadata).add_file(tmp_path / "file"))

    return make


def live(store: Store) -> set[str]:
    return {f"{record.name}:v{record.version}" for record in store.iter_snapshots()}


def test_what_they_share_goes_with_them(store: Store, make: Make) -> None:
    with castfs.init("p", "prep", store=store) as prep:
        make(prep, "data")
        make(prep, "named")
        make(prep, "both")
    with castfs.init("p", "train", store=store) as train:
        train.use_artifact("data:v1")
        make(train, "model", base="named:v1")
        make(train, "both")
    kept = {each.record.name for each in remove_runs(store.depot, [prep.id], dry_run=True).kept}
    assert kept == {"data", "named", "both"}
    before = live(store)
    planned = remove_runs(store.depot, [prep.id, "p/train", prep.id], dry_run=True)
    assert live(store) == before
    done = remove_runs(store.depot, [prep.id, "p/train", prep.id])
    assert [record.id for record in done.removed] == [record.id for record in planned.removed]
    assert ([run.id for run in done.runs], done.kept) == ([prep.id, train.id], ())
    assert live(store) == set()
    assert list(castfs.iter_runs(store=store)) == []


def test_all_or_none(store: Store, make: Make) -> None:
    with castfs.init("p", "over", store=store) as over:
        make(over, "data")
    running = castfs.init("p", "running", store=store)
    for words, error in (
        ([over.id, running.id], BusyError),
        ([over.id, "nothing"], NotFoundError),
        ([over.id, "2"], NotFoundError),
    ):
        with pytest.raises(error):
            remove_runs(store.depot, words)
        assert live(store) == {"data:v1"}
        assert over.run_dir.is_dir()
    remove_runs(store.depot, [over.id, running.id], force=True)
    assert list(castfs.iter_runs(store=store)) == []


def test_what_stays_keeps_what_it_names(store: Store, make: Make) -> None:
    """Of one run: an alias keeps the model, whose metadata name the data, which name the raw."""
    with castfs.init("p", "all", store=store) as run:
        make(run, "raw")
        make(run, "data", source="raw:v1")
        make(run, "model", dataset="data:v1")
        make(run, "alone", dataset="data:v1")
    store.set_alias("model:v1", "production")
    done = castfs.remove_run(run.id, store=store)
    assert {each.record.name: each.reasons for each in done.kept} == {
        "model": ("alias production",), "data": ("model:v1",), "raw": ("data:v1",),
    }  # fmt: skip
    assert live(store) == {"raw:v1", "data:v1", "model:v1"}


def test_what_is_in_the_trash_keeps_nothing(store: Store, make: Make) -> None:
    with castfs.init("p", "prep", store=store) as prep:
        make(prep, "data")
    with castfs.init("p", "train", store=store) as train:
        make(train, "model", dataset="data:v1")
    castfs.remove_run(train.id, store=store)
    assert castfs.remove_run("p/prep", store=store).kept == ()
    assert live(store) == set()


def test_an_api_that_says_what_is_wrong(store: Store) -> None:
    for odd in (5, None, "\udcff", b"x"):
        with pytest.raises(castfs.CastfsError):
            castfs.remove_run(odd, store=store)  # type: ignore[arg-type]
        with pytest.raises(castfs.CastfsError):
            castfs.iter_runs(store=odd if odd is not None else "", project=odd)  # type: ignore[arg-type]
