"""When a run began and how it ended, where its documents do not say."""

from __future__ import annotations

import json
import os
import time
from collections.abc import Iterator
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import pytest

import castfs
from castfs.catalog import RunFile, reading
from castfs.older import import_archive

RUN = "20250115_103015_abc123"
#: 2025-01-15 10:30:15 in India.
STARTED = datetime(2025, 1, 15, 5, 0, 15, tzinfo=UTC).timestamp()


@pytest.fixture
def store(tmp_path: Path) -> castfs.Store:
    return castfs.open(tmp_path / "store", create=True)


@pytest.fixture(autouse=True)
def in_india(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    monkeypatch.setenv("TZ", "Asia/Kolkata")
    time.tzset()
    yield
    monkeypatch.undo()
    time.tzset()


def take(store: castfs.Store, root: Path, run_id: str, **documents: Any) -> RunFile:
    directory = root / "runs/demo" / run_id
    directory.mkdir(parents=True)
    for name, document in documents.items():
        (directory / f"{name}.json").write_text(json.dumps(document))
    for number, path in enumerate(sorted(directory.iterdir())):
        os.utime(path, (0, 1_600_000_000 + number))
    assert import_archive(store.depot, root).runs == 1
    assert import_archive(store.depot, root).runs == 0
    with reading(store.depot) as catalog:
        [run] = catalog.iter_runs()
    return run


def started(run: RunFile) -> float:
    return datetime.fromisoformat(run.created_at).timestamp()


@pytest.mark.parametrize(
    ("run_id", "meta", "status", "expected"),
    [
        (RUN, {"created_at": 5.0}, {}, 5.0),
        (RUN, {}, {"started_at": 6.0}, 6.0),
        (RUN, {}, {}, STARTED),
        (RUN, {"created_at": "yesterday"}, {}, STARTED),
        ("20251315_103015_abc123", {}, {}, 1_600_000_000),
        ("99990115_103015_abc123", {}, {}, 1_600_000_000),
        ("run-1", {}, {}, 1_600_000_000),
    ],
)
def test_start(
    run_id: str,
    meta: dict[str, Any],
    status: dict[str, Any],
    expected: float,
    store: castfs.Store,
    tmp_path: Path,
) -> None:
    assert started(take(store, tmp_path / "root", run_id, meta=meta, status=status)) == expected


def test_start_that_nothing_says(store: castfs.Store, tmp_path: Path) -> None:
    """Now, and the same at the next import."""
    directory = tmp_path / "root/runs/demo/run-1"
    directory.mkdir(parents=True)
    (directory / "meta.json").symlink_to("nowhere")
    before = time.time() - 1
    assert import_archive(store.depot, tmp_path / "root").runs == 1
    assert import_archive(store.depot, tmp_path / "root").runs == 0
    with reading(store.depot) as catalog:
        [run] = catalog.iter_runs()
    assert before <= started(run) <= time.time()


def test_what_the_run_made_is_as_old(store: castfs.Store, tmp_path: Path) -> None:
    take(store, tmp_path / "root", RUN, assets={"config": {"lr": 1}})
    record = store.resolve("demo/config:v1").record
    assert record is not None
    assert datetime.fromisoformat(record.created_at).timestamp() == STARTED


@pytest.mark.parametrize(
    ("documents", "status"),
    [
        ({}, "finished"),
        ({"status": {}}, "finished"),
        ({"status": {"status": "running"}}, "running"),
        ({"status": {"status": "failed"}}, "failed"),
        ({"status": {"status": "interrupted"}}, "failed"),
    ],
)
def test_status(
    documents: dict[str, Any], status: str, store: castfs.Store, tmp_path: Path
) -> None:
    assert take(store, tmp_path / "root", RUN, meta={}, **documents).status == status
