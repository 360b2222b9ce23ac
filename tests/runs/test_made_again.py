"""Runs that make what was made before: each of them made it, and the last one takes it away."""

from __future__ import annotations

import logging
from collections.abc import Callable
from pathlib import Path

import pytest

import castfs
from castfs import Artifact, Run, Store
from castfs.catalog import RunFile, reading, rebuild
from castfs.repository.lineage import build_lineage
from castfs.runs.removing import remove_run
from castfs.runs.showing import describe_run


@pytest.fixture
def store(tmp_path: Path) -> Store:
    return castfs.open(tmp_path / "store", create=True)


@pytest.fixture
def make(tmp_path: Path) -> Callable[..., int]:
    def make(run: Run, content: str = "same", name: str = "mod", **metadata: object) -> int:
        (tmp_path / "file").write_text(content)
        artifact = Artifact(name, description=f"by {run.name}", metadata=metadata)
        return run.log_artifact(artifact.add_file(tmp_path / "file"))

    return make


Make = Callable[..., int]


def made_by(store: Store, run: Run) -> list[str]:
    return [each.word for each in describe_run(store.depot, run.id).made]


def run_file(store: Store, run: Run) -> RunFile:
    with reading(store.depot) as catalog:
        found = catalog.run(run.id)
    assert found is not None
    return found


def test_both_have_made_it(store: Store, make: Make, caplog: pytest.LogCaptureFixture) -> None:
    with castfs.init("p", "first", store=store) as first:
        assert make(first, acc=0.95) == 1
    with caplog.at_level(logging.WARNING), castfs.init("p", "second", store=store) as second:
        assert make(second, acc=0.1, extra=1) == 1
    rebuild(store.depot)
    assert made_by(store, first) == made_by(store, second) == ["mod:v1"]
    record = store.resolve("mod:v1").record
    assert record is not None
    assert record.metadata == {"acc": 0.95, "extra": 1}
    [again] = run_file(store, second).made_again
    assert (again.metadata, again.message) == ({"acc": 0.1, "extra": 1}, "by second")
    assert "acc" in caplog.text
    with reading(store.depot) as catalog:
        graph = build_lineage(catalog, "mod:v1", "up")
    assert {edge.source for edge in graph.edges} == {f"run:{first.id}", f"run:{second.id}"}


@pytest.mark.parametrize("order", [(0, 1), (1, 0)])
def test_it_goes_with_the_last_of_them(store: Store, make: Make, order: tuple[int, int]) -> None:
    runs = []
    for name in ("first", "second"):
        with castfs.init("p", name, store=store) as run:
            make(run)
        runs.append(run)
    one, other = (runs[number] for number in order)
    planned = remove_run(store.depot, one.id, dry_run=True)
    removal = remove_run(store.depot, one.id)
    assert removal.removed == planned.removed == ()
    [kept] = removal.kept
    assert kept.reasons == (f"run {other.id}, which made it, too",)
    [record] = remove_run(store.depot, other.id).removed
    assert record.name == "mod"
    assert list(store.iter_snapshots()) == []


def test_the_last_user_takes_away_what_a_removed_run_left(store: Store, make: Make) -> None:
    """In whatever order the two are removed, the same is left: what somebody ingested."""
    with castfs.init("p", "maker", store=store) as maker:
        make(maker, name="data")
    (store.path.parent / "own").mkdir()
    (store.path.parent / "own" / "file").write_text("mine")
    store.ingest(store.path.parent / "own", name="own")
    with castfs.init("p", "user", store=store) as user:
        user.use_artifact("data:v1")
        user.use_artifact("own:v1")
    assert [each.record.name for each in remove_run(store.depot, maker.id).kept] == ["data"]
    assert [record.name for record in remove_run(store.depot, user.id).removed] == ["data"]
    assert [record.name for record in store.iter_snapshots()] == ["own"]


def test_nothing_is_its_own_ancestor(store: Store, make: Make) -> None:
    """A run makes again what it came from."""
    with castfs.init("p", "first", store=store) as first:
        make(first, name="base")
    with castfs.init("p", "middle", store=store) as middle:
        middle.use_artifact("base:v1")
        make(middle, "other", name="next")
    with castfs.init("p", "last", store=store) as last:
        last.use_artifact("next:v1")
        assert make(last, name="base") == 1
    assert run_file(store, last).made_again == ()


def test_the_same_run_says_more_of_it(store: Store, make: Make) -> None:
    with castfs.init("p", "only", store=store) as run:
        make(run, acc=0.5)
        make(run, acc=0.6)
    record = store.resolve("mod:v1").record
    assert record is not None
    assert record.metadata == {"acc": 0.6}
    assert run_file(store, run).made_again == ()


def test_it_is_said_that_it_was_there(store: Store, make: Make) -> None:
    with castfs.init("p", "first", store=store) as first:
        make(first, acc=0.95)
    with castfs.init("p", "second", store=store) as second:
        make(second, acc=0.1)
        make(second, "more", "own")
    shown = {each.word: each for each in describe_run(store.depot, second.id).made}
    again, own = shown["mod:v1"], shown["own:v1"]
    assert (again.was_there, again.metadata, again.message) == (True, {"acc": 0.1}, "by second")
    assert (own.was_there, own.metadata, own.message) == (False, None, None)
    [made] = describe_run(store.depot, first.id).made
    assert not made.was_there
