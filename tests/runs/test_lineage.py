"""What came of what, in both directions; and what goes with a run that is taken away."""

from __future__ import annotations

import itertools
from collections.abc import Callable
from pathlib import Path

import pytest

import castfs
from castfs import Artifact, Run, Store
from castfs.catalog import RunFile, reading
from castfs.errors import BusyError, NotFoundError
from castfs.repository.graph import Graph
from castfs.repository.lineage import Direction, build_lineage
from castfs.runs.removing import remove_run

Make = Callable[..., int]


@pytest.fixture
def store(tmp_path: Path) -> Store:
    return castfs.open(tmp_path / "store", create=True)


@pytest.fixture
def make(tmp_path: Path) -> Make:
    """A new version of a name by a run."""
    numbers = itertools.count()

    def make(run: Run, name: str, **metadata: object) -> int:
        file = tmp_path / "file"
        file.write_text(str(next(numbers)))
        return run.log_artifact(Artifact(name, metadata=metadata).add_file(file))

    return make


def lineage(
    store: Store, word: str, direction: Direction = "both", depth: int | None = None
) -> Graph:
    with reading(store.depot) as catalog:
        return build_lineage(catalog, word, direction, depth=depth)


def words(graph: Graph) -> set[str]:
    """Versions and runs (by their names), and the edges between them."""
    named = {node.id: node.label.partition(" (")[0] for node in graph.nodes.values()}
    edges = {f"{named[e.source]} {e.kind} {named[e.target]}" for e in graph.edges}
    return {*named.values(), *edges}


@pytest.fixture
def pipeline(store: Store, make: Make) -> Store:
    """The example of Runicorn's guide: data → train → model → eval."""
    with castfs.init("ml", "prep", store=store) as run:
        make(run, "data")
    with castfs.init("ml", "train", store=store) as run:
        run.use_artifact("data:v1")
        make(run, "model", trained_with="data:v1")
    with castfs.init("ml", "eval", store=store) as run:
        run.use_artifact("model:latest")
    return store


def test_both_directions(pipeline: Store) -> None:
    up = {"model:v1", "ml/train", "data:v1", "ml/prep"}
    up |= {"ml/train produced model:v1", "data:v1 used ml/train", "ml/prep produced data:v1"}
    up |= {"data:v1 refers model:v1"}
    down = {"model:v1", "ml/eval", "model:v1 used ml/eval"}
    assert words(lineage(pipeline, "model:v1", "up")) == up
    assert words(lineage(pipeline, "model", "down")) == down
    assert words(lineage(pipeline, "model:latest")) == up | down
    assert words(lineage(pipeline, "data:v1", "down")) == (up | down) - {
        "ml/prep", "ml/prep produced data:v1",
    }  # fmt: skip


def test_depth(pipeline: Store) -> None:
    assert words(lineage(pipeline, "data:v1", "down", 0)) == {"data:v1"}
    assert words(lineage(pipeline, "data:v1", "down", 1)) == {
        "data:v1", "ml/train", "model:v1", "data:v1 used ml/train", "data:v1 refers model:v1",
    }  # fmt: skip


def test_of_a_run(pipeline: Store) -> None:
    [_, train, _] = [run.id for run in runs_of(pipeline)]
    assert words(lineage(pipeline, train, "down")) == {
        "ml/train", "model:v1", "ml/eval", "ml/train produced model:v1", "model:v1 used ml/eval",
    }  # fmt: skip
    with pytest.raises(NotFoundError):
        lineage(pipeline, "nothing:v1")


def runs_of(store: Store) -> list[RunFile]:
    with reading(store.depot) as catalog:
        return list(catalog.iter_runs())


def test_a_long_chain(store: Store, make: Make) -> None:
    for number in range(60):
        with castfs.init("p", str(number), store=store) as run:
            if number:
                run.use_artifact(f"a{number - 1}:v1")
            make(run, f"a{number}")
    assert len(lineage(store, "a59:v1", "up").nodes) == 120
    assert len(lineage(store, "a0:v1", "down").nodes) == 119


def test_a_run_does_not_use_what_it_led_to(store: Store, make: Make) -> None:
    first, second = castfs.init("p", "1", store=store), castfs.init("p", "2", store=store)
    make(first, "a")
    first.use_artifact("a:v1")
    second.use_artifact("a:v1")
    make(second, "b")
    first.use_artifact("b:v1")
    graph = lineage(store, "a:v1")
    assert words(graph) == {
        "a:v1", "b:v1", "p/1", "p/2", "p/1 produced a:v1", "a:v1 used p/2", "p/2 produced b:v1",
    }  # fmt: skip
    first.finish()
    second.finish()


def test_metadata_lead_to_what_is_older(store: Store, make: Make) -> None:
    with castfs.init(store=store) as run:
        make(run, "a", next="b:v1", self="a:v1", text="see a:v1", plain="a", number="a:v0")
        make(run, "b", previous="a:v1", other="nothing:v1")
    edges = {edge.kind for edge in lineage(store, "a:v1").edges}
    assert edges == {"produced", "refers"}
    assert "a:v1 refers b:v1" in words(lineage(store, "b:v1", "up"))
    assert "b:v1 refers a:v1" not in words(lineage(store, "a:v1", "up"))


def test_what_was_removed_is_shown_as_such(pipeline: Store) -> None:
    pipeline.remove("data:v1", force=True)
    graph = lineage(pipeline, "model:v1", "up")
    [node] = [node for node in graph.nodes.values() if node.label == "data:v1"]
    assert node.detail["status"] == "deleted"
    pipeline.remove_for_good("data:v1", force=True)
    graph = lineage(pipeline, "model:v1", "up")
    [node] = [node for node in graph.nodes.values() if node.label == "data:v1"]
    assert node.kind == "missing"


def test_inputs_come_before_the_run(store: Store, tmp_path: Path) -> None:
    (tmp_path / "data").mkdir()
    (tmp_path / "data" / "a").write_text("x")
    with castfs.init("p", "train", store=store) as run:
        run.log_dataset("digits", tmp_path / "data", save=True)
    assert words(lineage(store, "digits:v1")) == {"digits:v1", "p/train", "digits:v1 used p/train"}


# Taking runs away -------------------------------------------------------------------------------


def live(store: Store) -> set[str]:
    return {f"{record.name}:v{record.version}" for record in store.iter_snapshots() if record.name}


def test_what_a_run_alone_needed_goes_with_it(store: Store, make: Make, tmp_path: Path) -> None:
    (tmp_path / "tree").mkdir()
    (tmp_path / "tree" / "a").write_text("x")
    store.ingest(tmp_path / "tree", name="theirs")
    with castfs.init("p", "gone", store=store) as gone:
        gone.use_artifact("theirs:v1")
        make(gone, "alone")
        make(gone, "used")
        make(gone, "aliased")
        make(gone, "named")
        workspace = gone.snapshot_workspace(tmp_path / "tree")
        blob = gone.store_blob(tmp_path / "tree" / "a")
    with castfs.init("p", "stays", store=store) as stays:
        stays.use_artifact("used:v1")
        make(stays, "result", base="named:v1")
        make(stays, "aliased")
        stays.log_artifact(
            Artifact("aliased").add_file(tmp_path / "tree" / "a"), aliases=["production"]
        )
    before = live(store)
    planned = remove_run(store.depot, gone.id, dry_run=True)
    assert live(store) == before
    assert gone.run_dir.is_dir()
    done = remove_run(store.depot, gone.id)
    assert [r.id for r in done.removed] == [r.id for r in planned.removed]
    assert {r.name for r in done.removed} == {"alone", "aliased", None}
    assert workspace["id"] in {r.id for r in done.removed}
    assert {k.record.name: k.reasons for k in done.kept} == {
        "used": (f"run {stays.id}",), "named": ("result:v1",),
    }  # fmt: skip
    assert before - live(store) == {"alone:v1", "aliased:v1"}
    assert not gone.run_dir.exists()
    with pytest.raises(NotFoundError):
        castfs.find_run(gone.id, store=store)
    with pytest.raises(NotFoundError):
        remove_run(store.depot, gone.id)
    store.gc(castfs.GcOptions(grace_seconds=0, trash_age_seconds=0))
    assert store.verify().problems == ()
    # What the tree of somebody else has, too, is kept.
    assert stays.get_blob_path(blob).read_text() == "x"


def test_a_directory_of_the_users_own_stays(store: Store, tmp_path: Path) -> None:
    with castfs.init(store=store, run_dir=tmp_path / "mine") as run:
        run.summary({"a": 1})
    remove_run(store.depot, run.id)
    assert (tmp_path / "mine" / "summary.json").exists()


def test_what_a_run_uses_is_not_removed_by_accident(pipeline: Store) -> None:
    with pytest.raises(BusyError, match=r"data:v1 is used by run"):
        pipeline.remove("data:v1")
    with pytest.raises(BusyError):
        pipeline.remove_for_good("data:v1")
    assert "data:v1" in live(pipeline)
    pipeline.remove("data:v1", force=True)
    assert "data:v1" not in live(pipeline)
    pipeline.undelete("data:v1")
    assert "data:v1" in live(pipeline)


def test_metadata_that_name_what_is_newer(store: Store, tmp_path: Path) -> None:
    """As `castfs meta model:v1 dataset=data:v1` says it, when somebody remembers."""
    (tmp_path / "tree").mkdir()
    for name in ("model", "data"):
        (tmp_path / "tree" / "file").write_text(name)
        store.ingest(tmp_path / "tree", name=name)
    store.set_metadata("model:v1", {"dataset": "data:v1"})
    assert "data:v1 refers model:v1" in words(lineage(store, "model:v1", "up"))
    assert "data:v1 refers model:v1" in words(lineage(store, "data:v1", "down"))


def test_metadata_that_name_each_other(store: Store, tmp_path: Path) -> None:
    """A ring is opened at what names something newer, wherever one begins."""
    (tmp_path / "tree").mkdir()
    for name, other in (("a", "c"), ("b", "a"), ("c", "b"), ("self", "self")):
        (tmp_path / "tree" / "file").write_text(name)
        store.ingest(tmp_path / "tree", name=name, metadata={"from": f"{other}:v1"})
    expected = {"a:v1 refers b:v1", "b:v1 refers c:v1"}
    for start in "abc":
        assert words(lineage(store, f"{start}:v1")) - set(words_of("abc")) == expected
    assert words(lineage(store, "self:v1")) == {"self:v1"}


def words_of(names: str) -> list[str]:
    return [f"{name}:v1" for name in names]


def test_metadata_that_name_what_is_gone(store: Store, tmp_path: Path) -> None:
    (tmp_path / "tree").mkdir()
    (tmp_path / "tree" / "file").write_text("1")
    store.ingest(tmp_path / "tree", name="data")
    metadata = {"dataset": "data:v1", "time": "at 12:v9", "typo": "data:v7"}
    (tmp_path / "tree" / "file").write_text("2")
    store.ingest(tmp_path / "tree", name="model", metadata=metadata)
    store.remove_for_good("data:v1")
    graph = lineage(store, "model:v1", "up")
    assert words(graph) == {"model:v1", "data:v1", "data:v1 refers model:v1"}
    assert [node.kind for node in graph.nodes.values()] == ["version", "missing"]


def test_metadata_that_name_several(store: Store, tmp_path: Path) -> None:
    (tmp_path / "tree").mkdir()
    for name in ("a", "b", "c"):
        (tmp_path / "tree" / "file").write_text(name)
        store.ingest(tmp_path / "tree", name=name)
    metadata = {"data": ["a:v1", {"more": "b:v1"}], "data.0": "c:v1", "n": [1, None]}
    (tmp_path / "tree" / "file").write_text("model")
    store.ingest(tmp_path / "tree", name="model", metadata=metadata)
    found = words(lineage(store, "model:v1", "up"))
    assert {f"{name}:v1 refers model:v1" for name in "abc"} <= found
