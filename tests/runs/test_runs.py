"""Runs: what they are given, what they make, what they say, and how they end."""

from __future__ import annotations

import json
import multiprocessing
import os
import signal
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import TextIO

import pytest

import castfs
from castfs import Artifact, Run, Store
from castfs.catalog import reading
from castfs.errors import BlobError, LimitError, NotFoundError, SourceError, UsageError
from castfs.paths import RelPath
from castfs.runs.removing import remove_run
from tests.store.processes import ROOT, python_environment


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


# A run ----------------------------------------------------------------------------------------


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


# What it keeps ----------------------------------------------------------------------------------


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


# Artifacts --------------------------------------------------------------------------------------


def test_an_artifact_there_and_back(run: Run, store: Store, data: Path, tmp_path: Path) -> None:
    (tmp_path / "checkpoint.pth").write_bytes(b"weights")
    made = Artifact("team/model", description="the best", metadata={"acc": 0.95})
    made.add_file(tmp_path / "checkpoint.pth", name="model.pth")
    made.add_dir(data, name="data", exclude_patterns=["*.log"])
    made.add_reference("s3://bucket/rest", checksum="sha256:abc", size=150_000, region="eu")
    made.add_metadata({"epochs": 3, "nested": {"a": [1, None]}}).add_tags("x", "y").add_tags("x")
    assert run.log_artifact(made, aliases=["production"]) == 1
    assert made.full_name == "team/model:v1"

    used = run.use_artifact("team/model:production")
    said = used.get_metadata()
    assert (said.name, said.version, said.type, said.status) == ("team/model", 1, "model", "ready")
    assert said.metadata == {"acc": 0.95, "epochs": 3, "nested": {"a": [1, None]}}
    assert (said.tags, said.aliases) == (("x", "y"), ("latest", "production"))
    assert (said.description, said.created_by_run) == ("the best", run.id)
    assert (said.num_files, said.num_references, said.size_bytes) == (3, 1, 7 + 4 + 6)
    manifest = used.get_manifest()
    assert [file.path for file in manifest.files] == [
        "data/.gitignore", "data/a.csv", "model.pth",
    ]  # fmt: skip
    assert manifest.total_size == said.size_bytes
    [reference] = manifest.references
    assert (reference.uri, reference.checksum, reference.size) == (
        "s3://bucket/rest", "sha256:abc", 150_000,
    )  # fmt: skip
    assert reference.metadata == {"region": "eu"}

    target = used.download()
    assert (target / "model.pth").read_bytes() == b"weights"
    (target / "model.pth").write_bytes(b"mine")
    (target / "data" / "new").write_bytes(b"mine")
    again = used.download(tmp_path / "again")
    assert (again / "model.pth").read_bytes() == b"weights"
    assert json.loads((again / "rest.reference").read_text())["uri"] == "s3://bucket/rest"
    assert used.get_file_path("model.pth").read_bytes() == b"weights"


def test_what_is_read_only_can_be_written_in_ones_copy(run: Run, tmp_path: Path) -> None:
    source = tmp_path / "source"
    source.mkdir()
    (source / "file").write_text("x")
    (source / "file").chmod(0o444)
    run.log_artifact(Artifact("a", "dataset").add_dir(source))
    target = run.use_artifact("a").download()
    assert (target / "file").stat().st_mode & 0o200
    again = run.use_artifact("a").download(target)
    assert (again / "file").read_text() == "x"


@pytest.mark.mounted
@pytest.mark.needs_root
def test_mounted(run: Run, data: Path) -> None:
    run.log_artifact(Artifact("data", "dataset").add_dir(data))
    with run.use_artifact("data:v1").mount() as place:
        assert subprocess.run(["diff", "-r", data, place], check=False).returncode == 0
        with pytest.raises(OSError, match="Read-only"):
            (place / "new").write_text("x")
    assert not os.path.ismount(place)


def test_the_same_again_is_no_new_version(run: Run, store: Store, data: Path) -> None:
    assert run.log_artifact(Artifact("data", "dataset").add_dir(data)) == 1
    os.utime(data / "a.csv", (1, 1))
    assert run.log_artifact(Artifact("data", "dataset").add_dir(data)) == 1
    (data / "a.csv").chmod(0o700)
    assert run.log_artifact(Artifact("data", "dataset").add_dir(data)) == 2
    assert names_of(store) == ["data:v1", "data:v2"]


def test_artifacts_that_cannot_be(run: Run, store: Store, tmp_path: Path) -> None:
    (tmp_path / "file").write_text("x")
    for name in ("", "..", "a//b", "0123456789", "a:b"):
        with pytest.raises(UsageError):
            Artifact(name)
    with pytest.raises(UsageError):
        Artifact("a", type="../x")
    with pytest.raises(SourceError):
        Artifact("a").add_file(tmp_path / "nothing")
    with pytest.raises(SourceError):
        Artifact("a").add_dir(tmp_path / "file")
    for made in (
        Artifact("a"),
        Artifact("a").add_file(tmp_path / "file", name="../up"),
        Artifact("a").add_file(tmp_path / "file", name="/up"),
        Artifact("a").add_file(tmp_path / "file").add_file(tmp_path / "file", "file/below"),
    ):
        with pytest.raises(UsageError):
            run.log_artifact(made)
    assert names_of(store) == []
    logged = Artifact("a").add_file(tmp_path / "file")
    run.log_artifact(logged)
    with pytest.raises(UsageError):
        logged.add_tags("late")
    with pytest.raises(UsageError):
        run.log_artifact(Artifact("a", type="dataset").add_file(tmp_path / "file"))
    with pytest.raises(UsageError):
        _ = Artifact("b").version


def test_what_is_added_twice_is_kept_once(
    run: Run, tmp_path: Path, data: Path, caplog: pytest.LogCaptureFixture
) -> None:
    (tmp_path / "a.csv").write_text("first")
    made = Artifact("a").add_file(tmp_path / "a.csv").add_dir(data).add_dir(data)
    run.log_artifact(made)
    assert made.get_file_path("a.csv").read_text() == "first"
    assert "the first is kept" in caplog.text


def test_use_of_what_there_is_not(run: Run, tmp_path: Path) -> None:
    (tmp_path / "file").write_text("x")
    run.log_artifact(Artifact("a").add_file(tmp_path / "file"), aliases=["staging"])
    for word in ("b", "b:latest", "a:v2", "a:v0", "a:production"):
        with pytest.raises(NotFoundError):
            run.use_artifact(word)
    with pytest.raises(NotFoundError, match="staging"):
        run.use_artifact("a:production")


# Inputs -----------------------------------------------------------------------------------------


def test_inputs(run: Run, store: Store, data: Path) -> None:
    saved = run.log_dataset("digits", data, save=True, description="all of them")
    assert {file.path for file in saved.get_manifest().files} == {
        ".gitignore", "a.csv", "sub/b.log",
    }  # fmt: skip
    remote = run.log_dataset("imagenet", "s3://bucket/imagenet", context="val")
    [reference] = remote.get_references()
    assert (reference.uri, remote.get_metadata().metadata) == (
        "s3://bucket/imagenet", {"context": "val"},
    )  # fmt: skip
    local = run.log_dataset("by place", data)
    [reference] = local.get_references()
    assert (reference.uri, reference.size) == (data.as_uri(), 4 + 6 + 6)
    model = run.log_pretrained("bert", "bert-base-uncased")
    assert (model.type, model.metadata) == ("model", {"source_type": "remote"})
    config = run.log_config({"lr": 0.1}, {"note": "x"}, [data / "a.csv"])
    assert config.name == "vision/resnet/config"
    assert json.loads(config.get_file_path("config.json").read_bytes()) == {
        "args": {"lr": 0.1}, "extra": {"note": "x"},
    }  # fmt: skip
    with reading(store.depot) as catalog:
        known = catalog.run(run.id)
    assert known is not None
    assert [use.name for use in known.uses] == [
        "digits", "imagenet", "by place", "bert", "vision/resnet/config",
    ]  # fmt: skip


def test_inputs_that_are_too_large(run: Run, store: Store, data: Path) -> None:
    with pytest.raises(LimitError):
        run.log_dataset("digits", data, save=True, max_archive_files=2)
    with pytest.raises(LimitError):
        run.log_dataset("digits", data, save=True, max_archive_bytes=10)
    with pytest.raises(SourceError):
        run.log_dataset("digits", data / "nothing", save=True)
    assert names_of(store) == []
    run.log_dataset("digits", data, force_save=True, max_archive_bytes=10)
    assert names_of(store) == ["digits:v1"]


# Outputs ----------------------------------------------------------------------------------------


def test_outputs_become_versions(run: Run, store: Store, tmp_path: Path) -> None:
    outputs = tmp_path / "outputs"
    (outputs / "deep").mkdir(parents=True)
    (outputs / "deep" / "last.pt").write_bytes(b"1")
    (outputs / "notes.md").write_bytes(b"no")

    def scan() -> int:
        return len(run.scan_outputs_once(outputs, min_age_sec=0, root=tmp_path).taken)

    assert [scan(), scan(), scan()] == [0, 1, 0]
    (outputs / "deep" / "last.pt").write_bytes(b"22")
    assert [scan(), scan()] == [0, 1]
    name = "vision/resnet/outputs/outputs/deep/last.pt"
    assert names_of(store) == [f"{name}:v1", f"{name}:v2"]
    assert run.use_artifact(f"{name}:v1").get_file_path("last.pt").read_bytes() == b"1"


def test_watching_ends_with_the_run(store: Store, tmp_path: Path) -> None:
    (tmp_path / "outputs").mkdir()
    with castfs.init("p", store=store) as run:
        run.watch_outputs("outputs", interval_sec=3600, root=tmp_path, min_age_sec=0)
        (tmp_path / "outputs" / "a.ckpt").write_bytes(b"x")
    assert names_of(store) == ["p/outputs/outputs/a.ckpt:v1"]


# Others at the same time ------------------------------------------------------------------------


def _log(place: str, number: int, versions: multiprocessing.Queue[int]) -> None:
    file = Path(place) / f"file{number}"
    file.write_text(str(number))
    with castfs.init("p", str(number), store=Path(place) / "store") as run:
        for _ in range(2):
            versions.put(run.log_artifact(Artifact("shared").add_file(file, "file")))
            file.write_text(f"{number} again")


def test_ten_processes_log_versions_of_one_artifact(store: Store, tmp_path: Path) -> None:
    context = multiprocessing.get_context("spawn")
    versions = context.Queue()
    workers = [
        context.Process(target=_log, args=(str(tmp_path), number, versions)) for number in range(10)
    ]
    for worker in workers:
        worker.start()
    found = sorted(versions.get(timeout=100) for _ in range(20))
    for worker in workers:
        worker.join(60)
        assert worker.exitcode == 0
    assert found == list(range(1, 21))
    of_name = sorted(
        (record.version or 0, record.id) for record in store.iter_snapshots(name="shared")
    )
    assert [version for version, _ in of_name] == list(range(1, 21))


_KILLED = """
import sys
import tempfile
from pathlib import Path
import castfs
place = Path(sys.argv[1])
run = castfs.init("p", "killed", store=place / "store")
number = 0
while True:
    number += 1
    (place / "file").write_text(str(number))
    print(run.log_artifact(castfs.Artifact("a").add_file(place / "file")), flush=True)
"""


def test_a_killed_process_leaves_no_half_version(store: Store, tmp_path: Path) -> None:
    said = 0
    for wait in (1, 2, 3, 5, 8):
        with subprocess.Popen(
            [sys.executable, "-c", _KILLED, tmp_path],
            stdout=subprocess.PIPE,
            env=python_environment(),
            cwd=ROOT,
        ) as process:
            assert process.stdout is not None
            for _ in range(wait):
                said = int(process.stdout.readline())
            process.send_signal(signal.SIGKILL)
        records = list(store.iter_snapshots(name="a"))
        versions = [record.version or 0 for record in records]
        assert versions == sorted(set(versions), reverse=True)
        assert versions[0] >= said
        assert store.verify().problems == ()
    with castfs.init(store=store) as run:
        (tmp_path / "file").write_text("last")
        assert run.log_artifact(Artifact("a").add_file(tmp_path / "file")) > versions[0]


# What a review found ----------------------------------------------------------------------------


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


def test_a_copy_is_ones_own(run: Run, store: Store, tmp_path: Path) -> None:
    source = tmp_path / "source"
    source.mkdir()
    (source / "file").write_text("x")
    source.chmod(0o555)
    artifact = Artifact("a", "dataset").add_dir(source)
    run.log_artifact(artifact)
    assert artifact.download().stat().st_mode & 0o777 == 0o700
    assert artifact.download(tmp_path / "there").stat().st_mode & 0o200
    blob = run.get_blob_path(store.resolve("a").manifest.tree.files[RelPath(b"file")].sha256)
    blob.chmod(0o644)
    blob.write_text("y")
    before = set(Path(tempfile.gettempdir()).glob("castfs_*"))
    with pytest.raises(BlobError):
        artifact.download()
    assert set(Path(tempfile.gettempdir()).glob("castfs_*")) <= before


@pytest.mark.mounted
@pytest.mark.needs_root
def test_a_mount_with_an_open_file(run: Run, data: Path) -> None:
    run.log_artifact(Artifact("data", "dataset").add_dir(data))
    artifact = run.use_artifact("data:v1")

    def open_and_fail() -> tuple[Path, TextIO]:
        try:
            with artifact.mount() as place:
                file = (place / "a.csv").open()
                raise KeyError("mine")
        except KeyError:
            return place, file

    place, file = open_and_fail()
    assert not os.path.ismount(place)
    assert file.read() == "1,2\n"
    file.close()


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


def test_no_two_outputs_share_a_name(run: Run, store: Store, tmp_path: Path) -> None:
    outputs = tmp_path / "outputs"
    outputs.mkdir()
    odd = ["a b.pt", "a?b.pt", "a_b.pt", "a:b.pt", "x" * 120 + "1.pt", "y" + "x" * 119 + "1.pt"]
    for number, name in enumerate(odd):
        (outputs / name).write_text(str(number))
    for _ in range(2):
        run.scan_outputs_once(outputs, ["*.pt"], min_age_sec=0, root=outputs)
    names = [record.name for record in store.iter_snapshots(type="output")]
    assert len(set(names)) == len(names) == len(odd)


def test_a_run_that_was_removed(store: Store, tmp_path: Path) -> None:
    (tmp_path / "file").write_text("x")
    run = castfs.init(store=store)
    remove_run(store.depot, run.id)
    with pytest.raises(NotFoundError):
        run.log({"a": 1})
    with pytest.raises(NotFoundError):
        run.summary({"a": 1})
    with pytest.raises(NotFoundError):
        run.store_blob(tmp_path / "file")
    with pytest.raises(NotFoundError):
        run.log_artifact(Artifact("a").add_file(tmp_path / "file"))
    assert list(store.iter_snapshots()) == []


def test_configurations_that_cannot_be(run: Run) -> None:
    circular: dict[str, object] = {}
    circular["a"] = circular
    for args in ({1: 3, "a": 4}, {(1, 2): 3}, {"a": float("nan")}, circular):
        with pytest.raises(UsageError):
            run.log_config(args)
