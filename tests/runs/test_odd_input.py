"""What no program should give: one line, whatever it is."""

from __future__ import annotations

import contextlib
import os
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

import castfs
from castfs import Artifact, Run, Store
from castfs.catalog import reading
from castfs.errors import CastfsError, SourceError, UsageError
from castfs.paths import RelPath

CIRCULAR: dict[str, Any] = {}
CIRCULAR["it"] = CIRCULAR
ODD: list[Any] = [
    None, 5, -1, 1.5, True, object(), b"bytes", b"\xff", "", "\udcff", "\ud800", "a\0b", "x" * 5000,
    "a/" * 3000, [], {}, {"a": object()}, {5: 1}, [1, 2], float("nan"), 2**70, Path("nothing"),
    "file", "directory", "fifo", "dangling", "loop", len, {"\ud800": 1}, {"a": "\ud800"}, "a:b",
    "-x", range(3), CIRCULAR,
]  # fmt: skip

Call = Callable[[Store, Run, Any], object]


def logged(run: Run, artifact: Artifact) -> object:
    return run.log_artifact(artifact)


CALLS: dict[str, Call] = {
    "project": lambda store, run, odd: castfs.init(odd, store=store).finish(),
    "name": lambda store, run, odd: castfs.init("p", odd, store=store).finish(),
    "path": lambda store, run, odd: castfs.init(path=odd, store=store).finish(),
    "run_dir": lambda store, run, odd: castfs.init(store=store, run_dir=odd).finish(),
    "metadata": lambda store, run, odd: castfs.init(store=store, metadata=odd).finish(),
    "run id": lambda store, run, odd: castfs.find_run(odd, store=store),
    "log": lambda store, run, odd: run.log(odd),
    "log a value": lambda store, run, odd: run.log({"a": odd}),
    "step": lambda store, run, odd: run.log({}, step=odd),
    "summary": lambda store, run, odd: run.summary(odd),
    "workspace": lambda store, run, odd: run.snapshot_workspace(odd),
    "include": lambda store, run, odd: run.snapshot_workspace("directory", include=odd),
    "message": lambda store, run, odd: run.snapshot_workspace("directory", message=odd),
    "max_files": lambda store, run, odd: run.snapshot_workspace("directory", max_files=odd),
    "store_blob": lambda store, run, odd: run.store_blob(odd),
    "get_blob_path": lambda store, run, odd: run.get_blob_path(odd),
    "log_artifact": lambda store, run, odd: run.log_artifact(odd),
    "alias": lambda store, run, odd: run.log_artifact(Artifact("a").add_file("file"), aliases=odd),
    "use_artifact": lambda store, run, odd: run.use_artifact(odd),
    "dataset": lambda store, run, odd: run.log_dataset(odd, "s3://x"),
    "dataset's place": lambda store, run, odd: run.log_dataset("d", odd),
    "dataset's content": lambda store, run, odd: run.log_dataset("d", odd, save=True),
    "context": lambda store, run, odd: run.log_dataset("d", "s3://x", context=odd),
    "limit": lambda store, run, odd: run.log_dataset("d", "file", save=True, max_archive_files=odd),
    "model": lambda store, run, odd: run.log_pretrained(odd),
    "model's place": lambda store, run, odd: run.log_pretrained("m", odd),
    "args": lambda store, run, odd: run.log_config(odd),
    "extra": lambda store, run, odd: run.log_config(None, odd),
    "config_files": lambda store, run, odd: run.log_config(None, None, odd),
    "output_dirs": lambda store, run, odd: run.scan_outputs_once(odd),
    "patterns": lambda store, run, odd: run.scan_outputs_once("directory", odd),
    "stable_required": lambda store, run, odd: run.scan_outputs_once("directory", None, odd),
    "min_age_sec": lambda store, run, odd: run.scan_outputs_once("directory", None, 2, odd),
    "interval_sec": lambda store, run, odd: run.watch_outputs("directory", None, odd),
    "artifact's name": lambda store, run, odd: Artifact(odd),
    "artifact's type": lambda store, run, odd: Artifact("a", odd),
    "description": lambda store, run, odd: Artifact("a", description=odd),
    "artifact's metadata": lambda store, run, odd: Artifact("a", metadata=odd),
    "add_file": lambda store, run, odd: logged(run, Artifact("b").add_file(odd)),
    "file's name": lambda store, run, odd: logged(run, Artifact("c").add_file("file", odd)),
    "add_dir": lambda store, run, odd: logged(run, Artifact("d").add_dir(odd)),
    "dir's name": lambda store, run, odd: logged(run, Artifact("e").add_dir("directory", odd)),
    "exclude": lambda store, run, odd: Artifact("f").add_dir("directory", None, odd),
    "uri": lambda store, run, odd: logged(run, Artifact("g").add_reference(odd)),
    "checksum": lambda store, run, odd: Artifact("h").add_reference("s3://x", odd),
    "size": lambda store, run, odd: Artifact("i").add_reference("s3://x", None, odd),
    "reference": lambda store, run, odd: Artifact("j").add_reference("s3://x", name=odd),
    "more": lambda store, run, odd: Artifact("k").add_reference("s3://x", more=odd),
    "tag": lambda store, run, odd: Artifact("l").add_tags(odd),
    "download": lambda store, run, odd: run.use_artifact("logged").download(odd),
    "get_file_path": lambda store, run, odd: run.use_artifact("logged").get_file_path(odd),
}


@pytest.fixture
def surroundings(run: Run, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    place = tmp_path / "here"
    (place / "directory").mkdir(parents=True)
    monkeypatch.chdir(place)
    # Others look at what lies in the one of all.
    monkeypatch.setattr("tempfile.tempdir", str(tmp_path))
    Path("file").write_text("x")
    Path("directory/file").write_text("x")
    Path("dangling").symlink_to("nothing")
    Path("loop").symlink_to("loop")
    os.mkfifo("fifo")
    run.log_artifact(Artifact("logged").add_file("file"))


@pytest.mark.usefixtures("surroundings")
@pytest.mark.parametrize("what", CALLS)
def test_one_line(store: Store, run: Run, what: str) -> None:
    said = []
    for odd in ODD:
        try:
            CALLS[what](store, run, odd)
        except CastfsError as exc:
            said.append(str(exc))
        finally:
            run.stop_outputs_watch()
    assert [line for line in said if "\n" in line or not line.isprintable()] == []
    with reading(store.depot) as catalog:
        assert catalog.damages() == []


@pytest.mark.usefixtures("surroundings")
@pytest.mark.parametrize(
    ("what", "odd"),
    [
        ("step", object()), ("run_dir", "file"), ("project", "\udcff"), ("name", "\ud800"),
        ("file's name", "\ud800"), ("tag", "\udcff"), ("metadata", {"\udcff": 1}),
        ("dataset's place", ""), ("artifact's name", ""), ("artifact's name", None),
        ("add_file", "directory"), ("add_dir", "file"), ("use_artifact", ""),
        ("uri", Path("nothing")), ("uri", Path("loop")), ("run id", None), ("log", [1]),
    ],
)  # fmt: skip
def test_refused(store: Store, run: Run, what: str, odd: object) -> None:
    with pytest.raises(CastfsError):
        CALLS[what](store, run, odd)


@pytest.mark.usefixtures("surroundings")
def test_what_only_looks_odd(store: Store, run: Run) -> None:
    artifact = Artifact("odd").add_reference(Path("file")).add_file(b"file", "\udcff")  # type: ignore[arg-type]
    run.log_artifact(artifact)
    [reference] = artifact.get_references()
    assert reference.uri == Path("file").absolute().as_uri()
    assert RelPath(b"\xff") in store.resolve("odd").manifest.tree.files
    uri = "https://bucket.example/" + "x" * 3000
    [reference] = run.log_dataset("signed", uri).get_references()
    assert reference.uri == uri


@pytest.mark.usefixtures("surroundings")
def test_files_that_vanish(run: Run, monkeypatch: pytest.MonkeyPatch) -> None:
    """While a dataset is counted, and between that and the taking."""
    lstat = os.lstat

    def vanish(path: str) -> os.stat_result:
        with contextlib.suppress(FileNotFoundError):
            os.unlink(path)
        return lstat(path)

    monkeypatch.setattr("castfs.runs.keeping.os.lstat", vanish)
    [reference] = run.log_dataset("gone", "directory").get_references()
    assert (reference.size, reference.metadata["file_count"]) == (0, 0)
    monkeypatch.undo()

    def go(*_: object) -> None:
        Path("there").unlink()

    Path("there").write_text("x")
    with monkeypatch.context() as patch:
        patch.chdir(Path.cwd())
        patch.setattr("castfs.runs.inputs.check_limits", go)
        with pytest.raises(SourceError):
            run.log_dataset("gone", Path("there").absolute(), save=True)


def test_a_workspace_of_a_run_that_was_removed(store: Store, data: Path) -> None:
    from castfs.runs.removing import remove_run

    run = castfs.init(store=store)
    remove_run(store.depot, run.id, force=True)
    with pytest.raises(castfs.NotFoundError):
        run.snapshot_workspace(data)
    with pytest.raises(UsageError):
        run.finish(["finished"])  # type: ignore[arg-type]
