"""Artifacts: there and back, what cannot be, and many processes that log one."""

from __future__ import annotations

import json
import multiprocessing
import os
import signal
import subprocess
import sys
import tempfile
from pathlib import Path
from typing import TextIO

import pytest

import castfs
from castfs import Artifact, Run, Store
from castfs.errors import BlobError, NotFoundError, SourceError, UsageError
from castfs.paths import RelPath
from tests.runs.conftest import names_of
from tests.store.processes import ROOT, python_environment


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
def test_mounted(run: Run, data: Path) -> None:
    run.log_artifact(Artifact("data", "dataset").add_dir(data))
    with run.use_artifact("data:v1").mount() as place:
        assert subprocess.run(["diff", "-r", data, place], check=False).returncode == 0
        with pytest.raises(OSError, match="Read-only"):
            (place / "new").write_text("x")
    assert not os.path.ismount(place)


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
