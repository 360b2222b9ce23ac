"""What runs of Runicorn wrote of themselves: metrics, console, pictures, documents."""

from __future__ import annotations

import json
import os
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

import castfs
from castfs.catalog import reading
from castfs.cli import main
from castfs.older import import_archive
from castfs.runs.lines import read_lines
from tests.older.conftest import Package

RUN = "20250115_103015_abc123"
EVENTS = [
    {"ts": 5.5, "type": "metrics", "data": {"loss": 0.5, "global_step": 0, "time": 5.5}},
    {"ts": 6.0, "type": "image", "data": {"key": "k", "path": "media/1.png", "step": 1}},
    {"ts": 7.0, "type": "metrics", "data": {"loss": float("nan"), "global_step": 4, "stage": "a"}},
]


@pytest.fixture
def store(tmp_path: Path) -> castfs.Store:
    return castfs.open(tmp_path / "store", create=True)


@pytest.fixture
def directory(tmp_path: Path) -> Path:
    """Of a run, as they write it."""
    place = tmp_path / "root/runs/demo/deep" / RUN
    (place / "media").mkdir(parents=True)
    (place / "events.jsonl").write_text("".join(json.dumps(each) + "\n" for each in EVENTS))
    (place / "logs.txt").write_bytes(b"10:30:15 | hello\n\xff\n")
    (place / "summary.json").write_text('{"accuracy": 0.5, "loss": NaN}')
    about = {"path": "demo/deep", "created_at": 5.0, "python": "3.8", "alias": "best"}
    (place / "meta.json").write_text(json.dumps(about))
    (place / "status.json").write_text('{"status": "interrupted", "started_at": 5.0}')
    (place / "environment.json").write_text('{"pip": []}')
    (place / "media" / "1.png").write_bytes(b"\x89PNG")
    (place / "events.jsonl.lock").touch()
    return place


def take(store: castfs.Store, directory: Path) -> tuple[castfs.Run, int, list[bytes]]:
    report = import_archive(store.depot, directory.parents[3])
    damage = [each.path for each in report.damage]
    return castfs.find_run(RUN, store=store), report.runs, damage


def test_all_of_it_is_there(
    store: castfs.Store, directory: Path, unchanged: Callable[[Path], None]
) -> None:
    unchanged(directory.parents[3])
    run, count, damage = take(store, directory)
    assert (count, damage) == (1, [])
    assert run.summary()["accuracy"] == 0.5
    for name in ("events.jsonl", "logs.txt", "environment.json", "meta.json", "media/1.png"):
        assert (run.run_dir / name).read_bytes() == (directory / name).read_bytes()
    assert list(read_lines(run.run_dir / "log.jsonl")) == [
        {"at": "1970-01-01T00:00:05.500000+00:00", "step": 0, "data": {"loss": 0.5}},
        {
            "at": "1970-01-01T00:00:07.000000+00:00",
            "step": 4,
            "data": {"loss": "NaN", "stage": "a"},
        },
    ]
    assert not (run.run_dir / "events.jsonl.lock").exists()
    before = sorted((path, path.stat().st_mtime_ns) for path in run.run_dir.rglob("*"))
    assert take(store, directory)[1:] == (0, [])
    assert sorted((path, path.stat().st_mtime_ns) for path in run.run_dir.rglob("*")) == before


def test_what_was_written_since(store: castfs.Store, directory: Path) -> None:
    run, _, _ = take(store, directory)
    event = {"ts": 8.0, "type": "metrics", "data": {"loss": 0.1, "global_step": 5}}
    with (directory / "events.jsonl").open("a") as file:
        file.write(json.dumps(event) + '\n{"ts": 9.0, "type": "met')
    (directory / "summary.json").write_text('{"accuracy": 0.75}')
    assert take(store, directory)[1] == 1
    assert [line["step"] for line in read_lines(run.run_dir / "log.jsonl")] == [0, 4, 5]
    assert run.summary() == {"accuracy": 0.75}
    assert take(store, directory)[1] == 0


def test_what_was_changed_here_stays(store: castfs.Store, directory: Path) -> None:
    run, _, _ = take(store, directory)
    run.log({"loss": 0.25}, step=9)
    run.summary({"note": "mine"})
    (run.run_dir / "logs.txt").write_text("mine")
    (run.run_dir / "media" / "1.png").unlink()
    for _ in range(2):
        (directory / "logs.txt").write_text("theirs")
        (directory / "summary.json").write_text('{"accuracy": 0.75}')
        take(store, directory)
        assert [line["step"] for line in read_lines(run.run_dir / "log.jsonl")] == [0, 4, 9]
        assert run.summary()["note"] == "mine"
        assert (run.run_dir / "logs.txt").read_text() == "mine"


def test_an_import_that_was_killed(store: castfs.Store, directory: Path) -> None:
    run, _, _ = take(store, directory)
    (run.run_dir / ".castfs-imported").unlink()
    (run.run_dir / "log.jsonl").unlink()
    (run.run_dir / "logs.txt").unlink()
    assert take(store, directory)[1] == 1
    assert (run.run_dir / "logs.txt").read_bytes() == (directory / "logs.txt").read_bytes()
    assert [line["step"] for line in read_lines(run.run_dir / "log.jsonl")] == [0, 4]
    assert take(store, directory)[1] == 0


def test_hostile(store: castfs.Store, directory: Path, tmp_path: Path) -> None:
    (tmp_path / "secret").write_text("secret")
    (directory / "logs.txt").unlink()
    (directory / "logs.txt").symlink_to(tmp_path / "secret")
    (directory / "media" / "link").symlink_to(tmp_path / "secret")
    os.mkfifo(directory / "media" / "fifo")
    (directory / "environment.json").unlink()
    (directory / "environment.json").mkdir()
    (directory / "summary.json").write_text("[1]")
    (directory / "artifacts_used.json").touch()
    os.truncate(directory / "artifacts_used.json", 1 << 40)
    odd: list[Any] = [1, "x", None, {"type": "metrics"}, {"type": "metrics", "data": []}]
    odd += [{"ts": "x", "type": "metrics", "data": {"global_step": "x", "a": 10**400}}]
    odd += [{"ts": 1e300, "type": "metrics", "data": {"global_step": -1, "b": [[[]]]}}]
    lines = [json.dumps(each).encode() for each in odd]
    lines += [b"[" * 100_000, b"\xff\x00", b'{"type":"metrics","data":' + b'{"a":' * 5000]
    (directory / "events.jsonl").write_bytes(b"\n".join(lines))
    run, count, damage = take(store, directory)
    base = b"runs/demo/deep/" + RUN.encode()
    assert sorted(path.removeprefix(base) for path in damage) == [
        b"/artifacts_used.json", b"/environment.json", b"/logs.txt", b"/media/fifo",
        b"/media/link", b"/summary.json",
    ]  # fmt: skip
    assert count == 1
    assert run.summary() == {}
    assert [line["data"] for line in read_lines(run.run_dir / "log.jsonl")] == [
        {"a": str(10**400)}, {"b": [[[]]]},
    ]  # fmt: skip
    kept = [path for path in run.run_dir.rglob("*") if path.is_file()]
    assert all(b"secret" not in path.read_bytes() for path in kept)
    assert take(store, directory)[1] == 0


def test_a_run_of_castfs_keeps_its_own(store: castfs.Store, directory: Path) -> None:
    with castfs.init(store=store) as run:
        run.summary({"mine": 1})
    directory.rename(directory.with_name(run.id))
    import_archive(store.depot, directory.parents[3])
    assert castfs.find_run(run.id, store=store).summary() == {"mine": 1}
    assert not (run.run_dir / "logs.txt").exists()


def test_it_goes_with_the_run(store: castfs.Store, directory: Path) -> None:
    run, _, _ = take(store, directory)
    assert main(["runs", "rm", "--store", str(store.path), run.id]) == 0
    assert not run.run_dir.exists()


@pytest.mark.parametrize("layout", ["assets", "artifacts"])
def test_back_again(
    store: castfs.Store, directory: Path, tmp_path: Path, layout: str, unchanged: Any
) -> None:
    (directory / "assets.json").write_text('{"config": {"args": {"lr": 1}}}')
    run, _, _ = take(store, directory)
    run.log({"loss": 0.1}, step=7)
    run.summary({"more": 1})
    back, word = tmp_path / "back", "demo/deep/config"
    place = ["--store", str(store.path)]
    assert (
        main(["export", "--format", "runicorn", "--layout", layout, word, str(back), *place]) == 0
    )
    [there] = back.glob(f"**/runs/**/{RUN}")
    for name in ("logs.txt", "environment.json", "media/1.png"):
        assert (there / name).read_bytes() == (directory / name).read_bytes()
    events = (there / "events.jsonl").read_text().splitlines()
    assert events[:3] == (directory / "events.jsonl").read_text().splitlines()
    assert [json.loads(line)["data"]["global_step"] for line in events[3:]] == [7]
    meta, status = (json.loads((there / f"{each}.json").read_text()) for each in ("meta", "status"))
    assert (meta["python"], meta["alias"], status["status"]) == ("3.8", "best", "interrupted")
    assert json.loads((there / "summary.json").read_text())["more"] == 1
    unchanged(back)
    again = castfs.open(tmp_path / "again", create=True)
    import_archive(again.depot, back)
    copy = castfs.find_run(RUN, store=again)
    lines = [
        [(line["step"], line["data"]) for line in read_lines(each.run_dir / "log.jsonl")]
        for each in (run, copy)
    ]
    assert lines[0] == lines[1]
    assert copy.summary()["more"] == 1


def test_a_log_of_castfs_as_events(store: castfs.Store, tmp_path: Path) -> None:
    (tmp_path / "file").write_text("x")
    with castfs.init("p", "n", store=store) as run:
        run.log({"loss": 1.5}, step=3)
        run.log({"loss": 1.25})
        run.log_artifact(castfs.Artifact("m").add_file(tmp_path / "file"))
    main(["export", "--format", "runicorn", "m", str(tmp_path / "out"), "--store", str(store.path)])
    [events] = (tmp_path / "out").rglob("events.jsonl")
    found = [json.loads(line) for line in events.read_text().splitlines()]
    assert [each["data"]["global_step"] for each in found] == [3, 4]
    assert [each["data"]["loss"] for each in found] == [1.5, 1.25]


@pytest.mark.parametrize("version", ["0.7.2", "0.6.0", "0.5.3"])
def test_of_the_real_packages(
    store: castfs.Store, package: Callable[[str], Package], tmp_path: Path, version: str
) -> None:
    (tmp_path / "work").mkdir()
    root = tmp_path / "storage"
    run_id = package(version).run("make_metrics.py", root, version, cwd=tmp_path / "work")
    assert import_archive(store.depot, root).damage == ()
    run = castfs.find_run(run_id, store=store)
    points = [(line["step"], line["data"]) for line in read_lines(run.run_dir / "log.jsonl")]
    assert points == [(0, {"loss": 1.0}), (1, {"loss": 0.5}), (2, {"loss": "NaN"})]
    assert run.summary()["accuracy"] == 0.5
    assert b"hello" in (run.run_dir / "logs.txt").read_bytes()
    [picture] = (run.run_dir / "media").iterdir()
    assert picture.read_bytes() == b"\x89PNG"
    with reading(store.depot) as catalog:
        assert [each.id for each in catalog.iter_runs()] == [run_id]
    assert import_archive(store.depot, root).runs == 0
