"""What castfs writes for them, restored by the real packages."""

from __future__ import annotations

import json
import os
import stat
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import pytest

import castfs
from castfs.errors import BlobError, TargetError, UsageError
from castfs.manifest import Tree
from castfs.older.exporting import LAYOUTS, ExportRun, ExportVersion, export_runicorn
from castfs.older.importing import import_directory
from castfs.store import BlobDir
from castfs.store.records import Reference
from tests.older.conftest import ASSETS_VERSIONS, Package
from tests.older.memory import Memory

CONTENTS = {
    "train.py": b"print('hello')\n",
    "empty": b"",
    "binary": bytes(range(256)) * 5000,
    "sub/.hidden": b"hidden\n",
    "sub/copy of train.py": b"print('hello')\n",
    "ünïcode/目录/\U0001f9ca.txt": "ü".encode(),
    "quotes/\"double\" \\ 'single'": b"q",
    "quotes/tab\tand\nnewline": b"n",
}


@pytest.fixture
def store(tmp_path: Path) -> castfs.Store:
    return castfs.open(tmp_path / "store", create=True)


def write_tree(root: Path, contents: Mapping[str, bytes] = CONTENTS) -> Path:
    for name, content in contents.items():
        path = root / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(content)
    return root


def read_tree(root: Path) -> dict[str, bytes]:
    files = (path for path in root.rglob("*") if path.is_file())
    return {path.relative_to(root).as_posix(): path.read_bytes() for path in files}


def take(store: castfs.Store, source: Path) -> Tree:
    return store.resolve(store.ingest(source).id).manifest.tree


def blobs_of(store: castfs.Store) -> BlobDir:
    return store.depot.blobs


@pytest.mark.parametrize("release", ASSETS_VERSIONS)
def test_manifest_is_restored_by_them(
    release: str, store: castfs.Store, tmp_path: Path, package: Callable[[str], Package]
) -> None:
    tree = take(store, write_tree(tmp_path / "source"))
    version = ExportVersion(tree=tree, type="dataset", created_at=5.0, source="/data")
    report = export_runicorn([version], blobs_of(store), tmp_path / "out", layout="assets")
    (manifest,) = report.written
    assert report.losses == ()
    assert report.file_count == len(CONTENTS)
    assert manifest.relative_to(tmp_path / "out").parts[:3] == ("archive", "manifests", "datasets")
    call = [
        "runicorn.assets.restore.restore_from_manifest",
        [{"path": str(manifest)}, {"path": str(tmp_path / "out/archive/blobs")},
         {"path": str(tmp_path / "restored")}],
        {},
    ]  # fmt: skip
    (result,) = package(release).run("call.py", json.dumps([call]), cwd=tmp_path)
    assert result["restored_count"] == len(CONTENTS)
    assert "missing_blobs" not in result
    assert read_tree(tmp_path / "restored") == CONTENTS


def test_manifest_is_the_one_that_they_make(
    store: castfs.Store, tmp_path: Path, package: Callable[[str], Package]
) -> None:
    source = write_tree(tmp_path / "source")
    version = ExportVersion(tree=take(store, source), type="dataset")
    report = export_runicorn([version], blobs_of(store), tmp_path / "ours", layout="assets")
    call = [
        "runicorn.assets.archive.archive_dir",
        [{"path": str(source)}, {"path": str(tmp_path / "theirs/archive")}],
        {"category": "datasets"},
    ]
    (result,) = package("0.7.2").run("call.py", json.dumps([call]), cwd=tmp_path)
    place = report.written[0].relative_to(tmp_path / "ours")
    assert place == Path(result["manifest_path"]).relative_to(tmp_path / "theirs")
    ours, theirs = (json.loads((tmp_path / who / place).read_bytes()) for who in ("ours", "theirs"))
    for document in (ours, theirs):
        del document["created_at"], document["source_path"]
    assert ours == theirs
    archives = tmp_path / "ours/archive/blobs", tmp_path / "theirs/archive/blobs"
    assert read_tree(archives[0]) == read_tree(archives[1])


def test_into_an_archive_of_theirs(store: castfs.Store, tmp_path: Path) -> None:
    """What is there and sound stays; what is damaged is healed."""
    tree = take(store, write_tree(tmp_path / "source"))
    version = ExportVersion(tree=tree)
    first = export_runicorn([version], blobs_of(store), tmp_path / "out", layout="assets")
    before = {path: path.stat().st_ino for path in (tmp_path / "out").rglob("*")}
    damaged = next(path for path in before if path.is_file() and path.stat().st_size == 2)
    damaged.write_bytes(b"xx")
    again = export_runicorn([version], blobs_of(store), tmp_path / "out", layout="assets")
    assert again.written == first.written
    after = {path: path.stat().st_ino for path in (tmp_path / "out").rglob("*")}
    assert after.keys() == before.keys()
    assert [path for path in after if after[path] != before[path]] == [damaged]
    assert damaged.read_bytes() == "ü".encode()


def test_losses_are_listed(store: castfs.Store, tmp_path: Path) -> None:
    source = write_tree(tmp_path / "source", {"f": b"1"})
    (source / "link").symlink_to("f")
    (source / "hollow").mkdir()
    (Path(os.fsdecode(os.fsencode(source) + b"/\xff"))).write_bytes(b"2")
    version = ExportVersion(tree=take(store, source), name="n", type="dataset")
    for layout in LAYOUTS:
        report = export_runicorn([version], blobs_of(store), tmp_path / layout, layout=layout)
        lost = {(loss.path, loss.reason) for loss in report.losses}
        assert lost == {
            (b"link", "a symbolic link"),
            (b"hollow", "an empty directory"),
            (b"\xff", "a name that is not UTF-8"),
        }
        assert report.file_count == 1


def make_versions(store: castfs.Store, tmp_path: Path) -> list[ExportVersion]:
    first = take(store, write_tree(tmp_path / "first"))
    second = take(store, write_tree(tmp_path / "second", {**CONTENTS, "more": b"more"}))
    nothing = take(store, write_tree(tmp_path / "third", {"pointer": b"{}"}))
    return [
        ExportVersion(
            tree=first,
            name="resnet50",
            type="model",
            version=1,
            tags=["a", "b"],
            metadata={"acc": 0.5, "nested": {"x": [1, None]}, "imported": {"key": []}},
            description="the first",
            created_at=100.5,
            run="20260115_100000_abc123",
            deleted=True,
        ),
        ExportVersion(
            tree=second,
            name="resnet50",
            type="model",
            version=4,
            aliases=["production"],
            created_at=200.5,
            run="20260115_100000_abc123",
        ),
        ExportVersion(
            tree=nothing,
            name="team/far",
            type="evaluation",
            version=1,
            references=[
                Reference(
                    uri="s3://bucket/x",
                    path="pointer",
                    checksum="sha256:" + "0" * 64,
                    size_bytes=7,
                    metadata={"split": "train"},
                )
            ],
            created_at=300.0,
        ),
    ]


def export_artifacts(store: castfs.Store, tmp_path: Path) -> Path:
    target = tmp_path / "storage"
    run = ExportRun(
        id="20260115_100000_abc123",
        project="vision",
        name="train",
        created_at=50.0,
        ended_at=60.0,
        summary={"accuracy": 1},
        uses=[("team/far", 1)],
    )
    export_runicorn(
        make_versions(store, tmp_path), blobs_of(store), target, layout="artifacts", runs=[run]
    )
    return target


def test_artifacts_are_used_by_them(
    store: castfs.Store, tmp_path: Path, package: Callable[[str], Package]
) -> None:
    target = export_artifacts(store, tmp_path)
    specs = ("resnet50:v1", "resnet50:v4", "resnet50:latest", "resnet50:production", "team-far:v1")
    said = package("0.5.3").run("use_artifacts.py", target, tmp_path / "out", *specs, cwd=tmp_path)
    assert read_tree(tmp_path / "out/resnet50:v1") == CONTENTS
    for spec in ("resnet50:v4", "resnet50:latest", "resnet50:production"):
        assert read_tree(tmp_path / "out" / spec) == {**CONTENTS, "more": b"more"}
    first = said["resnet50:v1"]
    assert first["metadata"] == {"acc": 0.5, "nested": {"x": [1, None]}}
    assert (first["tags"], first["description"], first["type"]) == (
        ["a", "b"],
        "the first",
        "model",
    )
    far = said["team-far:v1"]
    assert (far["type"], far["files"]) == ("custom", {})
    assert far["references"] == [
        {"uri": "s3://bucket/x", "checksum": "sha256:" + "0" * 64, "size": 7,
         "metadata": {"split": "train"}}
    ]  # fmt: skip


def run_theirs(package: Package, tmp_path: Path, target: Path, code: str) -> Any:
    script = tmp_path / "script.py"
    script.write_text(
        "import json, sys, runicorn as rn\n"
        "run = rn.init(project='more', storage=sys.argv[1], capture_env=False)\n"
        f"{code}\nrun.finish()\n"
    )
    return package.run(str(script), target, cwd=tmp_path)


def test_they_go_on_with_it(
    store: castfs.Store, tmp_path: Path, package: Callable[[str], Package]
) -> None:
    """A gap in the numbers would make every later version fail: their count would meet it."""
    target = export_artifacts(store, tmp_path)
    version = run_theirs(
        package("0.5.3"),
        tmp_path,
        target,
        "model = rn.Artifact('resnet50', type='model')\n"
        "model.add_file(__file__)\n"
        "json.dump(run.log_artifact(model), sys.stdout)",
    )
    assert version == 5


def test_their_lineage_knows_it(
    store: castfs.Store, tmp_path: Path, package: Callable[[str], Package]
) -> None:
    target = export_artifacts(store, tmp_path)
    graph = run_theirs(
        package("0.5.3"),
        tmp_path,
        target,
        "from runicorn.artifacts import LineageTracker\n"
        "from pathlib import Path\n"
        "tracker = LineageTracker(Path(sys.argv[1]))\n"
        "graph = tracker.build_lineage_graph('resnet50', 'model', 4)\n"
        "json.dump(graph.to_dict(), sys.stdout)",
    )
    edges = {(edge["source"], edge["target"]) for edge in graph["edges"]}
    assert edges == {
        ("run:20260115_100000_abc123", "resnet50:v4"),
        ("team-far:v1", "run:20260115_100000_abc123"),
    }


def test_imported_again(store: castfs.Store, tmp_path: Path) -> None:
    target = export_artifacts(store, tmp_path)
    memory = Memory()
    report = import_directory(memory, target)
    assert report.damage == ()
    assert memory.names() == {"resnet50": 2, "team-far": 1}
    assert memory.find("resnet50", 1).files == CONTENTS
    assert memory.find("resnet50", 1).wanted.deleted
    assert tuple(memory.find("resnet50", 4).wanted.aliases) == ("production",)
    assert memory.find("team-far", 1).references[0]["size"] == 7
    run, used = memory.runs["20260115_100000_abc123"]
    assert (run.project, run.name, run.summary) == ("vision", "train", {"accuracy": 1})
    assert [(use.name, use.version) for use in used] == [("team-far", 1)]


def test_nothing_of_theirs_is_overwritten(store: castfs.Store, tmp_path: Path) -> None:
    target = export_artifacts(store, tmp_path)
    before = read_tree(target)
    with pytest.raises(TargetError, match="exists already"):
        export_runicorn(make_versions(store, tmp_path), blobs_of(store), target, layout="artifacts")
    assert read_tree(target) == before


@pytest.mark.parametrize("layout", ["assets", "artifacts"])
def test_damaged_blob_leaves_nothing_that_lies(
    layout: Any, store: castfs.Store, tmp_path: Path
) -> None:
    tree = take(store, write_tree(tmp_path / "source"))
    digest = tree.files[next(path for path in tree.files if path == b"binary")].digest
    blob = store.depot.blobs.path / store.depot.blobs.name(digest)
    blob.chmod(0o644)
    blob.write_bytes(bytes(len(CONTENTS["binary"])))
    version = ExportVersion(tree=tree, name="n", type="model")
    with pytest.raises(BlobError):
        export_runicorn([version], blobs_of(store), tmp_path / "out", layout=layout)
    names = [path.name for path in (tmp_path / "out").rglob("*") if path.is_file()]
    assert digest not in names
    assert not any(name.endswith((".json", ".tmp")) for name in names)


def test_modes_of_blobs(store: castfs.Store, tmp_path: Path) -> None:
    source = write_tree(tmp_path / "source", {"script": b"#!/bin/sh\n"})
    (source / "script").chmod(0o555)
    version = ExportVersion(tree=take(store, source), name="n", type="code")
    export_runicorn([version], blobs_of(store), tmp_path / "out", layout="artifacts")
    path = tmp_path / "out/artifacts/code/n/v1/files/script"
    assert stat.S_IMODE(path.stat().st_mode) == 0o755
    assert path.stat().st_nlink == 2


def test_names_that_become_one(store: castfs.Store, tmp_path: Path) -> None:
    tree = take(store, write_tree(tmp_path / "source", {"f": b"1"}))
    versions = [ExportVersion(tree=tree, name=name, type="model") for name in ("a/b", "a-b", "..")]
    report = export_runicorn(versions, blobs_of(store), tmp_path / "out", layout="artifacts")
    names = sorted(path.name for path in (tmp_path / "out/artifacts/model").iterdir())
    assert names == ["__", "a-b", "a-b-2"]
    assert len(report.losses) == 3


def test_what_makes_no_sense(store: castfs.Store, tmp_path: Path) -> None:
    tree = take(store, write_tree(tmp_path / "source", {"f": b"1"}))
    blobs = blobs_of(store)
    with pytest.raises(UsageError):
        export_runicorn([], blobs, tmp_path / "out", layout="zip")  # type: ignore[arg-type]
    with pytest.raises(UsageError):
        export_runicorn([ExportVersion(tree=tree)], blobs, tmp_path / "out", layout="artifacts")
    twice = [ExportVersion(tree=tree, name="n", type="model")] * 2
    with pytest.raises(UsageError):
        export_runicorn(twice, blobs, tmp_path / "out", layout="artifacts")
    (tmp_path / "file").write_bytes(b"")
    with pytest.raises(TargetError):
        export_runicorn([], blobs, tmp_path / "file" / "below", layout="assets")
