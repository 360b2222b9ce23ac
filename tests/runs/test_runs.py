"""Runs: what they say and keep, and how they end."""

from __future__ import annotations

import json
import multiprocessing
import os
import subprocess
import sys
from pathlib import Path

import pytest

import castfs
from castfs import Artifact, Run, Store
from castfs.catalog import reading
from castfs.errors import NotFoundError, UsageError
from castfs.runs.removing import remove_run


def test_its_life(store: Store) -> None:
    run = castfs.init("vision", "resnet", store=store, metadata={"seed": 3})
    assert (run.project, run.name, run.path, run.status) == (
        "vision", "resnet", "vision/resnet", "running",
    )  # fmt: skip
    assert run.run_dir.is_dir()
    assert castfs.get_active_run() is run
    assert castfs.find_run(run.id) is run
    run.finish()
    assert run.status == "finished"
    assert castfs.get_active_run() is not run
    assert castfs.find_run(run.id, store=store).status == "finished"
    run.finish("failed")
    assert run.status == "finished", "once is enough"


def test_a_path_is_project_and_name(store: Store) -> None:
    with castfs.init(path="training/resnet/50", store=store) as run:
        assert (run.project, run.name) == ("training", "resnet/50")
    with pytest.raises(UsageError):
        castfs.init("training", path="training/resnet", store=store)


def test_what_raises_has_failed(store: Store) -> None:
    with pytest.raises(ZeroDivisionError), castfs.init(store=store) as run:
        _ = 1 / 0
    assert run.status == "failed"


def test_finish_ends_the_newest(store: Store) -> None:
    first, second = castfs.init(store=store), castfs.init(store=store)
    castfs.finish()
    assert (first.status, second.status) == ("running", "finished")
    castfs.finish()
    assert first.status == "finished"


def test_a_run_that_there_is_not(store: Store) -> None:
    for word in ("20260101_000000_abcdef", "../x", ""):
        with pytest.raises(NotFoundError):
            castfs.find_run(word, store=store)


def test_a_directory_of_ones_own(store: Store, tmp_path: Path) -> None:
    with castfs.init(store=store, run_dir=tmp_path / "mine" / "run") as run:
        run.summary({"a": 1})
    assert json.loads((tmp_path / "mine" / "run" / "summary.json").read_text()) == {"a": 1}


def test_log_and_summary(run: Run) -> None:
    run.log({"loss": 0.5}, step=1)
    run.log({"loss": 0.25})
    lines = [json.loads(line) for line in (run.run_dir / "log.jsonl").read_text().splitlines()]
    assert [(line["step"], line["data"]) for line in lines] == [
        (1, {"loss": 0.5}), (None, {"loss": 0.25}),
    ]  # fmt: skip
    assert run.summary({"acc": 0.9}) == {"acc": 0.9}
    assert run.summary({"files": 3}) == {"acc": 0.9, "files": 3}
    with pytest.raises(UsageError):
        run.log({"model": object()})


def test_workspaces_are_kept_apart(run: Run, store: Store, data: Path) -> None:
    before = run.snapshot_workspace(data, exclude=["*.log"])
    (data / "later.py").write_text("x\n")
    after = run.snapshot_workspace(data, include=["*.py"])
    assert sorted(before["files"]) == [".gitignore", "a.csv"]
    assert sorted(after["files"]) == ["later.py"]
    assert before["files"]["a.csv"]["size_bytes"] == 4
    assert {r.id for r in store.iter_snapshots(type="code")} == {before["id"], after["id"]}


def test_blobs(run: Run, store: Store, tmp_path: Path) -> None:
    file = tmp_path / "model.pth"
    file.write_bytes(b"weights")
    digest = run.store_blob(file)
    said = subprocess.run(["sha256sum", file], capture_output=True, text=True, check=True).stdout
    assert said.split()[0] == digest
    assert run.get_blob_path(digest).read_bytes() == b"weights"
    file.unlink()
    store.gc(castfs.GcOptions(grace_seconds=0))
    assert run.get_blob_path(digest).read_bytes() == b"weights"
    for word, error in (("0" * 64, NotFoundError), ("../" * 20, UsageError), ("ab", UsageError)):
        with pytest.raises(error):
            run.get_blob_path(word)


def test_nothing_is_written_that_cannot_be_read_again(store: Store, tmp_path: Path) -> None:
    (tmp_path / "file").write_text("x")
    with castfs.init(store=store) as run:
        for size in (-1, 1.5, "5"):
            with pytest.raises(UsageError):
                Artifact("a").add_reference("s3://x", size=size)  # type: ignore[arg-type]
        with pytest.raises(UsageError):
            Artifact("a").add_reference("s3://x", checksum=5)  # type: ignore[arg-type]
        with pytest.raises(UsageError):
            run.finish("success")  # type: ignore[arg-type]
        with pytest.raises(UsageError):
            castfs.init(project=5, store=store)  # type: ignore[arg-type]
    with reading(store.depot) as catalog:
        assert catalog.damages() == []
        assert [each.id for each in catalog.iter_runs()] == [run.id]


@pytest.mark.parametrize(("code", "status"), [(0, "finished"), (None, "finished"), (3, "failed")])
def test_a_program_that_exits(store: Store, code: int | None, status: str) -> None:
    with pytest.raises(SystemExit), castfs.init(store=store) as run:
        sys.exit(code)
    assert run.status == status


@pytest.mark.filterwarnings("ignore:.*fork:DeprecationWarning")
def test_a_child_that_leaves_the_block(store: Store) -> None:
    with castfs.init(store=store) as run:
        pid = os.fork()
        if pid == 0:
            run.__exit__(None, None, None)
            os._exit(0)
        os.waitpid(pid, 0)
        assert run.status == "running"


def test_a_word_is_no_sequence_of_letters(run: Run, store: Store, tmp_path: Path) -> None:
    (tmp_path / "file.txt").write_text("x")
    run.log_artifact(Artifact("a").add_file(tmp_path / "file.txt"), aliases="prod")
    assert store.aliases("a").aliases == {"prod": 1}
    run.log_config(config_files=tmp_path / "file.txt")  # type: ignore[arg-type]
    for _ in range(3):
        assert run.scan_outputs_once(tmp_path, "*.pt", min_age_sec=0).taken == ()


def _say(place: str, run_id: str, number: int) -> None:
    run = castfs.find_run(run_id, store=place)
    for each in range(10):
        run.summary({f"{number} {each}": 1})


def test_a_summary_by_several_processes(run: Run, store: Store) -> None:
    context = multiprocessing.get_context("spawn")
    workers = [
        context.Process(target=_say, args=(str(store.path), run.id, number)) for number in range(4)
    ]
    for worker in workers:
        worker.start()
    for worker in workers:
        worker.join(60)
        assert worker.exitcode == 0
    assert len(run.summary()) == 40


def test_a_run_that_was_removed(store: Store, tmp_path: Path) -> None:
    (tmp_path / "file").write_text("x")
    run = castfs.init(store=store)
    remove_run(store.depot, run.id, force=True)
    with pytest.raises(NotFoundError):
        run.log({"a": 1})
    with pytest.raises(NotFoundError):
        run.summary({"a": 1})
    with pytest.raises(NotFoundError):
        run.store_blob(tmp_path / "file")
    with pytest.raises(NotFoundError):
        run.log_artifact(Artifact("a").add_file(tmp_path / "file"))
    assert list(store.iter_snapshots()) == []
