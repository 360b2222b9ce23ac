"""`runs`, `lineage`, `watch`, and `import` and `export` of what is more than a tree."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
import xml.etree.ElementTree as ET
from pathlib import Path

import pytest

import castfs as api
from castfs import Artifact, Store
from castfs.compat.runicorn.assets.archive import archive_dir
from tests.cli.conftest import TIMEOUT, Run, command_to_signal, environment


@pytest.fixture
def store(tmp_path: Path) -> Store:
    """The one that the commands use by default."""
    return api.open(os.environ["CASTFS_STORE"], create=True)


@pytest.fixture
def trained(store: Store, tmp_path: Path) -> str:
    """The id of a run that has made a model from data."""
    (tmp_path / "data").mkdir()
    (tmp_path / "data" / "a.csv").write_text("1\n")
    with api.init("ml", "prep", store=store) as run:
        run.log_artifact(Artifact("data", "dataset").add_dir(tmp_path / "data"))
    with api.init("ml", "train", store=store) as run:
        run.use_artifact("data:v1")
        run.log_artifact(Artifact("team/model").add_dir(tmp_path / "data"), aliases=["production"])
        run.snapshot_workspace(tmp_path / "data")
        run.summary({"acc": 0.5})
    return run.id


def test_runs(castfs: Run, trained: str) -> None:
    [header, train, prep] = castfs("runs").text.splitlines()
    assert header.split() == ["RUN", "STARTED", "STATUS", "PROJECT", "NAME", "USED", "HOST"]
    assert train.split()[0] == trained
    assert [line.split()[4:7] for line in (train, prep)] == [
        ["ml", "train", "1"],
        ["ml", "prep", "0"],
    ]
    assert [run["id"] for run in castfs("runs", "--json", "-n", "1").json] == [trained]
    assert castfs("runs", "--project", "other").err.startswith("no such runs")


def test_one_run(castfs: Run, trained: str) -> None:
    rows = [line.split(maxsplit=1) for line in castfs("runs", "show", trained).text.splitlines()]
    assert ["run", trained] in rows
    assert ["used", "data:v1"] in rows
    assert ["made", "team/model:v1 (model)"] in rows
    assert ["summary", "acc=0.5"] in rows
    shown = castfs("runs", "show", trained, "--json").json
    assert (shown["run"]["id"], shown["used"], shown["summary"]) == (
        trained, ["data:v1"], {"acc": 0.5},
    )  # fmt: skip


def test_removing_a_run(castfs: Run, trained: str) -> None:
    planned = castfs("runs", "rm", "--dry-run", trained)
    assert "kept: team/model:v1, used by alias production" in planned.text
    assert castfs("runs", "--json").json[0]["id"] == trained
    done = castfs("runs", "rm", trained, "--json").json
    assert [each["record"]["name"] for each in done["kept"]] == ["team/model"]
    assert [record["type"] for record in done["removed"]] == ["code"]
    castfs("runs", "show", trained, code=4)
    assert castfs("list", "--deleted", "-q").text.split() == [done["removed"][0]["id"]]


@pytest.mark.parametrize(
    "args",
    [
        ("show",),
        ("rm",),
        ("list", "x"),
        ("odd", "x"),
        ("show", "x", "--dry-run"),
        ("--dry-run",),
        ("show", "x", "y"),
        ("show", "x", "--force"),
        ("--force",),
    ],
)
def test_runs_asked_wrongly(castfs: Run, store: Store, args: tuple[str, ...]) -> None:
    castfs("runs", *args, code=2)


def test_runs_that_there_are_not(castfs: Run, store: Store) -> None:
    assert castfs("runs").text == ""
    for action in ("show", "rm"):
        assert "castfs runs" in castfs("runs", action, "nothing", code=4).err


def test_words_for_runs(castfs: Run, trained: str) -> None:
    for word in (trained[:-1], "ml/train"):
        assert castfs("runs", "show", word, "--json").json["run"]["id"] == trained
    ids = [run["id"] for run in castfs("runs", "--json").json]
    said = castfs("runs", "show", trained[:7], code=4).err  # unless the decade ends in between
    assert all(run_id in said for run_id in ids)
    said = castfs("runs", "rm", "ml/train", "ml/prep").text
    assert f"runs {trained}, {ids[1]} removed: 2 snapshots" in said
    assert castfs("runs", "--json").json == []


def test_a_run_that_is_running(castfs: Run, store: Store) -> None:
    run = api.init("p", "n", store=store)
    assert castfs("runs", "--json").json[0]["status"] == "running"
    assert "running" in castfs("runs", "rm", run.id, code=11).err
    assert "needs --force" in castfs("runs", "rm", run.id, "--dry-run").err
    castfs("runs", "rm", run.id, "--force")
    assert castfs("runs", "--json").json == []


def test_a_run_that_was_lost(castfs: Run, store: Store) -> None:
    code = "import castfs, os; castfs.init('p', 'n'); os.kill(os.getpid(), 9)"
    subprocess.run([sys.executable, "-c", code], env=environment(), timeout=TIMEOUT, check=False)
    [shown] = castfs("runs", "--json").json
    assert shown["status"] == "lost"
    assert "lost" in castfs("runs").text.split()
    assert castfs("runs", "show", shown["id"], "--json").json["run"]["status"] == "lost"
    assert ["status", "lost"] in [
        line.split() for line in castfs("runs", "show", shown["id"]).text.splitlines()
    ]
    assert "status: lost" in castfs("lineage", shown["id"]).text
    castfs("runs", "rm", shown["id"])


def test_numbers_that_json_has_not(castfs: Run, store: Store) -> None:
    with api.init(store=store) as run:
        run.summary({"loss": float("nan")})
    assert castfs("runs", "show", run.id, "--json").json["summary"] == {"loss": "NaN"}
    assert "loss=NaN" in castfs("runs", "show", run.id).text


def test_what_was_there_already(castfs: Run, store: Store, trained: str, tmp_path: Path) -> None:
    with api.init("ml", "again", store=store) as run:
        artifact = Artifact("data", "dataset", metadata={"rows": 1}).add_dir(tmp_path / "data")
        run.log_artifact(artifact)
    lines = castfs("runs", "show", run.id).text.splitlines()
    assert [line.split(maxsplit=1)[1] for line in lines if line.startswith("made")] == [
        "data:v1 (dataset, was there already) rows=1"
    ]
    [made] = castfs("runs", "show", run.id, "--json").json["made"]
    assert (made["was_there"], made["metadata"]) == (True, {"rows": 1})


def test_completing_a_run(program: Run, trained: str) -> None:
    for words in (f"castfs runs show {trained[:9]}", f"castfs runs rm x {trained[:9]}"):
        completed = program(
            _CASTFS_COMPLETE="bash_complete",
            COMP_WORDS=words,
            COMP_CWORD=str(len(words.split()) - 1),
        )
        assert f"plain,{trained}" in completed.text.splitlines()


def test_a_damaged_run_is_said(castfs: Run, store: Store, trained: str) -> None:
    file = store.path / "runs" / f"{trained}.json"
    file.chmod(0o644)
    file.write_text("{")
    os.utime(file.parent)
    assert "runs" in castfs("runs", code=5).err
    castfs("runs", "show", trained, code=5)


# Lineage ----------------------------------------------------------------------------------------


def test_lineage(castfs: Run, trained: str) -> None:
    text = castfs("lineage", "team/model:v1").text
    assert "produced by run ml/train" in text
    assert "used data:v1" in text
    up = castfs("lineage", "--up", "--format", "json", "team/model:production").json
    assert {node["label"].partition(" (")[0] for node in up["nodes"]} == {
        "team/model:v1", "ml/train", "data:v1", "ml/prep",
    }  # fmt: skip
    assert len(castfs("lineage", "--down", "--format", "json", "team/model").json["nodes"]) == 1
    one = castfs("lineage", "--depth", "1", "--format", "json", trained).json
    assert {node["kind"] for node in one["nodes"]} == {"run", "version"}
    assert castfs("lineage", "--format", "dot", "data:v1").text.startswith("digraph")
    ET.fromstring(castfs("lineage", "--format", "svg", "data:v1").text)
    castfs("lineage", "nothing", code=4)


# Watch ------------------------------------------------------------------------------------------


def names(store: Store) -> list[str]:
    return sorted(f"{record.name}:v{record.version}" for record in store.iter_snapshots())


def test_watch_once(castfs: Run, store: Store, tmp_path: Path) -> None:
    outputs = tmp_path / "outputs"
    (outputs / "deep").mkdir(parents=True)
    (outputs / "deep" / "a.pt").write_bytes(b"1")
    (outputs / "other").write_bytes(b"1")
    first = castfs("watch", outputs, "--once", "--min-age", "0")
    assert first.text == "deep/a.pt 1 B outputs/deep/a.pt:v1\n"
    assert castfs("watch", outputs, "--once", "--min-age", "0").text == ""
    (outputs / "deep" / "a.pt").write_bytes(b"22")
    castfs("watch", outputs, "--once", "--min-age", "0")
    assert names(store) == ["outputs/deep/a.pt:v1", "outputs/deep/a.pt:v2"]
    castfs("watch", outputs, "--once", "--min-age", "0", "--name", "mine", "--pattern", "other")
    assert "mine/other:v1" in names(store)
    castfs("watch", tmp_path / "nothing", code=1)
    castfs("watch", outputs, "--name", "a", "--run", "b", code=2)
    castfs("watch", outputs, "--run", "nothing", "--once", code=4)
    castfs("watch", store.path / "snapshots", "--once", code=1)


def test_watch_for_a_run(castfs: Run, store: Store, tmp_path: Path) -> None:
    (tmp_path / "a.pt").write_bytes(b"1")
    run = api.init("p", "n", store=store)
    castfs("watch", tmp_path, "--once", "--min-age", "0", "--run", run.id, "--pattern", "a.pt")
    assert names(store) == ["p/n/outputs/a.pt:v1"]
    assert [made["word"] for made in castfs("runs", "show", run.id, "--json").json["made"]] == [
        "p/n/outputs/a.pt:v1"
    ]
    run.finish()


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
def test_watch_until_it_is_ended(store: Store, tmp_path: Path, number: signal.Signals) -> None:
    (tmp_path / "out").mkdir()
    with subprocess.Popen(
        command_to_signal("watch", tmp_path / "out", "--interval", "0.05s", "--min-age", "0"),
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        env=environment(),
    ) as process:
        assert process.stdout is not None
        (tmp_path / "out" / "a.pt").write_bytes(b"1")
        assert process.stdout.readline().startswith(b"a.pt 1 B ")
        # Written just before the end: the last look is for it.
        (tmp_path / "out" / "b.pt").write_bytes(b"2")
        process.send_signal(number)
        out, err = process.communicate(timeout=TIMEOUT)
    assert (process.returncode, out.split()[:1]) == (0, [b"b.pt"]), err
    assert names(store) == ["out/a.pt:v1", "out/b.pt:v1"]


def test_a_watch_that_is_killed_goes_on(castfs: Run, store: Store, tmp_path: Path) -> None:
    (tmp_path / "out").mkdir()
    (tmp_path / "out" / "a.pt").write_bytes(b"1")
    with subprocess.Popen(
        command_to_signal("watch", tmp_path / "out", "--interval", "0.05s", "--min-age", "0"),
        stdout=subprocess.PIPE,
        env=environment(),
    ) as process:
        assert process.stdout is not None
        process.stdout.readline()
        process.kill()
    deadline = time.monotonic() + TIMEOUT
    while castfs("watch", tmp_path / "out", "--once", "--min-age", "0").text:
        assert time.monotonic() < deadline
    assert names(store) == ["out/a.pt:v1"]


# In and out -------------------------------------------------------------------------------------


@pytest.mark.parametrize("verb", [("rm", "--all-versions"), ("lineage",), ("runs", "show")])
def test_words_that_are_no_text(castfs: Run, store: Store, verb: tuple[str, ...]) -> None:
    result = castfs(*verb, "\udcff", code=4 if verb == ("lineage",) else 2)
    assert "Traceback" not in result.err


def test_an_older_archive(castfs: Run, store: Store, tmp_path: Path) -> None:
    root, source = tmp_path / "runicorn", tmp_path / "digits"
    source.mkdir()
    (source / "a.csv").write_text("1\n")
    archive_dir(source, root / "archive", category="datasets")
    said = castfs("import", root)
    assert "1 new version, 0 there before" in said.text
    [name] = {record["name"] for record in castfs("list", "--json").json}
    assert castfs("cat", name, "a.csv").text == "1\n"
    assert "0 new versions, 1 there before" in castfs("import", root).text
    for blob in (root / "archive" / "blobs").glob("*/*"):
        blob.chmod(0o644)
        blob.write_text("2\n")
    castfs("init", "--store", tmp_path / "other")
    damaged = castfs("import", root, "--store", tmp_path / "other", code=5)
    assert "damaged: " in damaged.err
    castfs("import", tmp_path / "nothing", code=4)


def test_what_runicorn_restores(castfs: Run, trained: str, tmp_path: Path) -> None:
    from castfs.compat.runicorn.assets.restore import restore_from_manifest

    castfs("export", "--format", "runicorn", "--layout", "assets", "data:v1", tmp_path / "root")
    [manifest] = (tmp_path / "root" / "archive" / "manifests").rglob("*.json")
    restore_from_manifest(manifest, tmp_path / "root" / "archive" / "blobs", tmp_path / "back")
    assert (tmp_path / "back" / "a.csv").read_text() == "1\n"
    castfs("export", "--format", "runicorn", "data", tmp_path / "older")
    assert (tmp_path / "older" / "artifacts" / "dataset" / "data" / "versions.json").exists()
    castfs("export", "--layout", "assets", "data", tmp_path / "x.tar", code=2)
