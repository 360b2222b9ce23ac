"""A store, a run in it, and something to take."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

import castfs
from castfs import Run, Store


@pytest.fixture
def store(tmp_path: Path) -> Store:
    return castfs.open(tmp_path / "store", create=True)


@pytest.fixture
def run(store: Store) -> Iterator[Run]:
    with castfs.init("vision", "resnet", store=store) as run:
        yield run


@pytest.fixture
def data(tmp_path: Path) -> Path:
    (tmp_path / "data" / "sub").mkdir(parents=True)
    (tmp_path / "data" / "a.csv").write_text("1,2\n")
    (tmp_path / "data" / "sub" / "b.log").write_text("noise\n")
    (tmp_path / "data" / ".gitignore").write_text("*.csv\n")
    return tmp_path / "data"


def names_of(store: Store) -> list[str]:
    return sorted(f"{r.name}:v{r.version}" for r in store.iter_snapshots() if r.name)
