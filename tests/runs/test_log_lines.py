"""A run's log: whole lines, also on a disk that is full."""

from __future__ import annotations

import contextlib
import json
import multiprocessing
import resource
from collections.abc import Iterator
from pathlib import Path

import pytest

import castfs
from castfs import Run, Store
from castfs.errors import StoreError
from castfs.runs.lines import read_lines


@contextlib.contextmanager
def files_of_at_most(size: int) -> Iterator[None]:
    """A write beyond it is short, as on a disk that is full."""
    before = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (size, before[1]))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, before)


def test_no_half_line(run: Run) -> None:
    run.log({"loss": 1}, step=1)
    path = run.run_dir / "log.jsonl"
    before = path.read_bytes()
    with (
        files_of_at_most(len(before) + 10),
        pytest.raises(StoreError, match=r"log\.jsonl: File too large; .*nothing of it"),
    ):
        run.log({"loss": 2}, step=2)
    assert path.read_bytes() == before
    run.log({"loss": 3}, step=3)
    assert [json.loads(line)["step"] for line in path.read_text().splitlines()] == [1, 3]


def test_a_half_line_of_a_power_cut(run: Run) -> None:
    path = run.run_dir / "log.jsonl"
    path.write_bytes(b'{"at":"2026","step":1,"da')
    run.log({"loss": 2}, step=2)
    run.log({"loss": 3}, step=3)
    path.write_bytes(path.read_bytes() + b'[1]\n"x"\n\xff\n\n{"step":4}')
    assert [line["step"] for line in read_lines(path)] == [2, 3, 4]
    assert path.read_bytes().startswith(b'{"at":"2026","step":1,"da\n{"at"')
    assert list(read_lines(path.with_name("nothing"))) == []


@pytest.mark.parametrize("content", ["[1]", "{", "\udcff"])
def test_a_summary_that_is_no_object_stays(run: Run, content: str) -> None:
    path = run.run_dir / "summary.json"
    path.write_bytes(content.encode(errors="surrogateescape"))
    with pytest.raises(castfs.UsageError, match=r"summary\.json is no JSON"):
        run.summary({"a": 1})
    assert path.read_bytes() == content.encode(errors="surrogateescape")


def test_a_summary_on_a_full_disk(run: Run) -> None:
    run.summary({"a": 1})
    with files_of_at_most(4), pytest.raises(StoreError):
        run.summary({"b": 2})
    assert run.summary() == {"a": 1}


def _say(place: str, run_id: str, number: int) -> None:
    run = castfs.find_run(run_id, store=place)
    for each in range(50):
        run.log({"by": number, "text": "x" * 5000}, step=each)


def test_lines_of_several_processes(run: Run, store: Store) -> None:
    context = multiprocessing.get_context("spawn")
    workers = [
        context.Process(target=_say, args=(str(store.path), run.id, number)) for number in range(3)
    ]
    for worker in workers:
        worker.start()
    for worker in workers:
        worker.join(60)
        assert worker.exitcode == 0
    lines = [json.loads(line) for line in (run.run_dir / "log.jsonl").read_text().splitlines()]
    for number in range(3):
        assert [each["step"] for each in lines if each["data"]["by"] == number] == list(range(50))


def test_a_log_that_cannot_be_opened(run: Run, tmp_path: Path) -> None:
    (run.run_dir / "log.jsonl").mkdir()
    with pytest.raises(StoreError, match="Is a directory"):
        run.log({"a": 1})
