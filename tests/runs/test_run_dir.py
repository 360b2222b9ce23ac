"""A run's own files in a directory that somebody named: no two runs share one."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest

import castfs
from castfs import Store
from castfs.catalog import reading
from castfs.errors import CastfsError, TargetError, UsageError
from castfs.runs.removing import remove_run


def run_ids(store: Store) -> list[str]:
    with reading(store.depot) as catalog:
        return [run.id for run in catalog.iter_runs()]


def test_a_second_run_is_refused(store: Store, tmp_path: Path) -> None:
    other = castfs.open(tmp_path / "other", create=True)
    with castfs.init(store=store, run_dir=tmp_path / "mine") as run:
        run.summary({"a": 1})
    for place in (tmp_path / "mine", tmp_path / "x" / ".." / "mine"):
        for of in (store, other):
            with pytest.raises(UsageError, match=run.id):
                castfs.init(store=of, run_dir=place)
    (tmp_path / "link").symlink_to("mine")
    with pytest.raises(UsageError, match=run.id):
        castfs.init(store=store, run_dir=tmp_path / "link")
    assert (run_ids(store), run_ids(other)) == ([run.id], [])
    assert [path.name for path in (store.path / "runs").iterdir() if path.is_symlink()] == [run.id]


def test_the_same_run_goes_on(store: Store, tmp_path: Path) -> None:
    with castfs.init(store=store, run_dir=tmp_path / "mine") as run:
        run.summary({"a": 1})
    assert castfs.find_run(run.id, store=store).summary({"b": 2}) == {"a": 1, "b": 2}


def test_it_is_free_again(store: Store, tmp_path: Path) -> None:
    first = castfs.init(store=store, run_dir=tmp_path / "mine")
    first.finish()
    remove_run(store.depot, first.id)
    with castfs.init(store=store, run_dir=tmp_path / "mine") as second:
        second.log({"a": 1})
    # Of one that was killed between taking the directory and being recorded.
    (store.path / "runs" / f"{second.id}.json").unlink()
    castfs.init(store=store, run_dir=tmp_path / "mine").finish()
    (tmp_path / "mine" / ".castfs-run").write_text("")
    with pytest.raises(UsageError, match=r"another run; .*delete \.castfs-run"):
        castfs.init(store=store, run_dir=tmp_path / "mine")


def as_file(place: Path) -> Path:
    place.write_text("x")
    return place


def below_a_file(place: Path) -> Path:
    return as_file(place) / "below"


def as_loop(place: Path) -> Path:
    place.symlink_to(place)
    return place


@pytest.mark.parametrize("make", [as_file, below_a_file, as_loop, lambda place: "x" * 300])
def test_what_no_directory_can_be(
    store: Store, tmp_path: Path, make: Callable[[Path], Path | str]
) -> None:
    with pytest.raises(TargetError):
        castfs.init(store=store, run_dir=make(tmp_path / "it"))
    assert run_ids(store) == []
    assert list((store.path / "runs").iterdir()) == []


def test_not_in_the_store(store: Store) -> None:
    with castfs.init(store=store) as run:
        pass
    for place in (run.run_dir, store.path, store.path / "runs" / "x"):
        with pytest.raises(CastfsError, match="lies in the store"):
            castfs.init(store=store, run_dir=place)
    assert run_ids(store) == [run.id]
