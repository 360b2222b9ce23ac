from __future__ import annotations

import time
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


@pytest.fixture
def later(monkeypatch: pytest.MonkeyPatch) -> None:
    """castfs's clock is an hour ahead of the kernel's: all files are old enough to be cached."""
    now = time.time_ns
    monkeypatch.setattr(time, "time_ns", lambda: now() + 3600 * 10**9)
