from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

import castfs
from castfs.repository import Store
from castfs.store import Depot
from tests.store.processes import Holder, lock_holder


@pytest.fixture
def source(tmp_path: Path) -> Path:
    """A small tree."""
    path = tmp_path / "source"
    (path / "sub").mkdir(parents=True)
    for name in ("a", "b", "sub/c"):
        (path / name).write_bytes(name.encode() * 100)
    (path / "large").write_bytes(b"large" * 300_000)
    return path


@pytest.fixture
def store(tmp_path: Path) -> Store:
    return castfs.open(tmp_path / "store", create=True)


@pytest.fixture
def depot(store: Store) -> Depot:
    return store.depot


@pytest.fixture
def collector(store: Store) -> Iterator[Holder]:
    with lock_holder(store.path) as holder:
        yield holder
