from __future__ import annotations

import time
from pathlib import Path
from typing import Any

import pytest

import castfs
from castfs.ingest import ScanOptions
from castfs.repository import Snapshot, Store
from castfs.repository.results import IngestResult
from tests.ingest.taking import Ingest, ReadNames, Take


@pytest.fixture
def source(tmp_path: Path) -> Path:
    path = tmp_path / "source"
    path.mkdir()
    return path


@pytest.fixture
def store(tmp_path: Path) -> Store:
    return castfs.open(tmp_path / "store", create=True)


@pytest.fixture
def ingest(store: Store, source: Path) -> Ingest:
    """`ingest(**options)` takes `source` into `store`."""

    def run(**options: Any) -> IngestResult:
        return store.ingest(source, options=ScanOptions(**options))

    return run


@pytest.fixture
def take(store: Store, ingest: Ingest) -> Take:
    """The same, giving the snapshot as it is read back from the store."""

    def run(**options: Any) -> Snapshot:
        return store.resolve(ingest(**options).id)

    return run


@pytest.fixture
def with_readers(monkeypatch: pytest.MonkeyPatch) -> None:
    """Two reader processes from the first file on."""
    monkeypatch.setenv("CASTFS_THREADS", "2")
    monkeypatch.setattr("castfs.ingest.readers._ALONE_FILES", 0)


@pytest.fixture
def later(monkeypatch: pytest.MonkeyPatch) -> None:
    """castfs's clock is an hour ahead of the kernel's: all files are old enough to be cached."""
    now = time.time_ns
    monkeypatch.setattr(time, "time_ns", lambda: now() + 3600 * 10**9)


@pytest.fixture
def read_names(monkeypatch: pytest.MonkeyPatch) -> ReadNames:
    """The names of the files that were opened and read, in the order of reading. Cleared by the
    test between ingests."""
    return ReadNames(monkeypatch)
