"""A tree that the real 0.5.3 made, imported and compared with what it downloads itself."""

from __future__ import annotations

import json
import os
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from castfs.older.importing import import_directory
from castfs.older.report import ImportReport
from tests.older.conftest import Made
from tests.older.memory import Memory

#: The older name and version, what it is called here.
NAMES = {
    "cifar:v1": "cifar",
    "resnet50:v1": "resnet50",
    "resnet50:v2": "resnet50",
    "resnet50:v3": "resnet50",
    "imagenet-full:v1": "imagenet-full",
    "deadbeef:v1": "deadbeef-custom",
}


def take(root: Path, memory: Memory | None = None) -> tuple[Memory, ImportReport]:
    memory = memory or Memory()
    return memory, import_directory(memory, root)


def read_tree(root: Path) -> dict[str, bytes]:
    files = (path for path in root.rglob("*") if path.is_file())
    return {path.relative_to(root).as_posix(): path.read_bytes() for path in files}


def test_everything_is_there(artifacts: Made, unchanged: Callable[[Path], None]) -> None:
    unchanged(artifacts.root)
    memory, report = take(artifacts.root)
    assert (report.damage, report.format) == ((), "runicorn-artifacts")
    assert memory.names() == {
        "cifar": 1,
        "deadbeef-custom": 1,
        "imagenet-full": 1,
        "resnet50": 3,
        "resnet50-code": 1,
        "without-type": 1,
    }
    renamed = {(entry.older, entry.name) for entry in report.renamed}
    assert renamed == {("resnet50", "resnet50-code"), ("deadbeef", "deadbeef-custom")}


def test_as_their_own_download(artifacts: Made, tmp_path: Path) -> None:
    memory, _ = take(artifacts.root)
    said = artifacts.package.run(
        "use_artifacts.py", artifacts.root, tmp_path / "out", *NAMES, cwd=tmp_path
    )
    for spec, name in NAMES.items():
        kept = memory.find(name, said[spec]["version"])
        assert kept.files == read_tree(tmp_path / "out" / spec)
        assert kept.wanted.type == said[spec]["type"]
        assert kept.wanted.run == said[spec]["run"]
        assert (kept.wanted.message or "") == said[spec]["description"]
        assert list(kept.wanted.tags) == said[spec]["tags"]
        metadata = {key: kept.wanted.metadata[key] for key in said[spec]["metadata"]}
        theirs = said[spec]["metadata"]
        if "mean" in theirs:
            assert theirs["mean"] != theirs["mean"]  # NaN, which no JSON can hold
            theirs["mean"] = "NaN"
        assert metadata == theirs
        references = [
            {key: reference[key] for key in ("uri", "checksum", "size", "metadata")}
            for reference in kept.references
        ]
        assert references == said[spec]["references"]
        for path in kept.files:
            downloaded = (tmp_path / "out" / spec / path).stat()
            assert kept.modes[path] == downloaded.st_mode & 0o7777
            # Not the download's: equal contents share an inode there, and so the first's time.
            modified_at = said[spec]["modified"][path]
            assert kept.mtimes[path] / 1e9 == pytest.approx(modified_at, abs=1e-6)


def test_numbers_aliases_deletion(artifacts: Made) -> None:
    memory, _ = take(artifacts.root)
    versions = [memory.find("resnet50", number).wanted for number in (1, 2, 3)]
    assert [wanted.version for wanted in versions] == [1, 2, 3]
    assert [tuple(wanted.aliases) for wanted in versions] == [(), ("production",), ()]
    assert [wanted.deleted for wanted in versions] == [True, False, False]
    times = [wanted.created_at for wanted in versions]
    assert None not in times
    assert times == sorted(times, key=lambda time: time or 0)


def test_left_out_type_is_found(artifacts: Made) -> None:
    memory, _ = take(artifacts.root)
    assert (artifacts.root / "artifacts/ArtifactType.MODEL").is_dir()
    kept = memory.find("without-type", 1)
    assert (kept.wanted.type, kept.files) == ("model", {"plain.bin": b"plain"})


def test_lineage(artifacts: Made) -> None:
    memory, report = take(artifacts.root)
    runs = {name: memory.runs[artifacts.said[name]] for name in artifacts.said}
    assert report.runs == 3
    assert {name: (run.project, run.name) for name, (run, _) in runs.items()} == {
        "prepare": ("vision", "data_prep"),
        "train": ("vision", "train"),
        "evaluate": ("vision", "eval"),
    }
    uses = {name: [(use.name, use.version) for use in used] for name, (_, used) in runs.items()}
    assert uses == {"prepare": [], "train": [("cifar", 1)], "evaluate": [("resnet50", 3)]}
    made_by = {kept.wanted.name: kept.wanted.run for kept in memory.versions}
    assert made_by["cifar"] == artifacts.said["prepare"]
    assert made_by["without-type"] == artifacts.said["train"]
    created = runs["train"][0].created
    assert ("artifact", "ArtifactType.MODEL", "without-type", "1") in created


def test_the_tree_alone(artifacts: Made) -> None:
    memory, report = take(artifacts.root / "artifacts")
    assert (report.damage, report.runs) == ((), 0)
    assert len(memory.versions) == 8


def test_second_import_adds_nothing(artifacts: Made, tmp_path: Path) -> None:
    memory, first = take(artifacts.root)
    shutil.copytree(artifacts.root, tmp_path / "copy")
    for root in (artifacts.root, tmp_path / "copy"):
        _, report = take(root, memory)
        assert (report.versions, report.unchanged) == ((), len(first.versions))
        assert (report.runs, report.runs_unchanged) == (0, 3)
    assert memory.completed == 2 * 2  # one with an alias, one that was deleted


def test_newer_version_is_added(artifacts: Made) -> None:
    memory, first = take(artifacts.root)
    maker = (
        "import json, sys, runicorn as rn\n"
        "run = rn.init(project='more', storage=sys.argv[1], capture_env=False)\n"
        "model = rn.Artifact('resnet50', type='model')\n"
        "model.add_file(sys.argv[2])\n"
        "json.dump(run.log_artifact(model), sys.stdout)\n"
        "run.finish()\n"
    )
    script = artifacts.root.parent / "more.py"
    script.write_text(maker)
    version = artifacts.package.run(str(script), artifacts.root, script, cwd=script.parent)
    assert version == 4
    _, report = take(artifacts.root, memory)
    assert [(entry.name, entry.version) for entry in report.versions] == [("resnet50", 4)]
    assert (report.unchanged, report.runs) == (len(first.versions), 1)


@pytest.mark.parametrize("lives", [0, 3, 7])
def test_killed_import_is_completed(artifacts: Made, lives: int) -> None:
    memory = Memory(lives=lives)
    with pytest.raises(KeyboardInterrupt):
        take(artifacts.root, memory)
    memory.lives = 1000
    _, report = take(artifacts.root, memory)
    assert report.unchanged == lives
    assert len(memory.versions) == 8


def version_directory(made: Made, version: int = 2) -> Path:
    return made.root / f"artifacts/model/resnet50/v{version}"


def test_file_is_taken_from_the_pool(artifacts: Made) -> None:
    (version_directory(artifacts) / "files/model.pth").unlink()
    memory, report = take(artifacts.root)
    assert report.damage == ()
    assert memory.find("resnet50", 2).files["model.pth"] == b"weights 2" * 1000


def test_file_changed_in_place(artifacts: Made) -> None:
    """Their hard links share the damage with the pool and every version of the same content."""
    path = version_directory(artifacts) / "files/conf/config.yaml"
    path.write_bytes(b"lr: 0.2\n")
    memory, report = take(artifacts.root)
    damaged = sorted(entry.path for entry in report.damage)
    assert damaged == [
        b"artifacts/model/resnet50/v%d/files/conf/config.yaml" % number for number in (1, 2, 3)
    ]
    assert memory.find("resnet50", 2).files == {"model.pth": b"weights 2" * 1000}
    assert report.exit_code == 5


def test_file_that_no_manifest_names(artifacts: Made) -> None:
    (version_directory(artifacts) / "files/later.txt").write_bytes(b"put there by hand")
    memory, report = take(artifacts.root)
    assert [entry.path for entry in report.damage] == [
        b"artifacts/model/resnet50/v2/files/later.txt"
    ]
    assert "later.txt" not in memory.find("resnet50", 2).files
    _, again = take(artifacts.root, memory)
    assert again.damage == report.damage


@pytest.mark.parametrize("content", [b"", b"null", b"{}", b"[" * 100_000, b'{"files": {}}'])
def test_manifest_that_is_none(artifacts: Made, content: bytes) -> None:
    (version_directory(artifacts) / "manifest.json").write_bytes(content)
    memory, report = take(artifacts.root)
    assert {entry.path.split(b"/")[3] for entry in report.damage} == {b"v2"}
    assert len(memory.versions) == 7
    # The numbers of the others stay.
    assert memory.find("resnet50", 3).wanted.version == 3


@pytest.mark.parametrize("content", [b"", b"[]", b'{"metadata": ' + b"[" * 500 + b"]" * 500 + b"}"])
def test_metadata_that_is_none(artifacts: Made, content: bytes) -> None:
    (version_directory(artifacts) / "metadata.json").write_bytes(content)
    memory, report = take(artifacts.root)
    assert [entry.path for entry in report.damage] == [b"artifacts/model/resnet50/v2/metadata.json"]
    kept = memory.find("resnet50", 2)
    assert kept.files["model.pth"] == b"weights 2" * 1000
    assert kept.wanted.type == "model"
    assert tuple(kept.wanted.aliases) == ("production",)


def test_index_that_is_none(artifacts: Made) -> None:
    index = version_directory(artifacts).parent / "versions.json"
    index.write_bytes(b"{")
    memory, report = take(artifacts.root)
    assert [entry.path for entry in report.damage] == [b"artifacts/model/resnet50/versions.json"]
    assert [memory.find("resnet50", number).version for number in (1, 2, 3)] == [1, 2, 3]


def test_version_that_is_missing(artifacts: Made) -> None:
    shutil.rmtree(version_directory(artifacts))
    memory, report = take(artifacts.root)
    assert {entry.path for entry in report.damage} == {
        b"artifacts/model/resnet50/v2",
        b"artifacts/model/resnet50/versions.json",  # its alias
    }
    assert memory.names()["resnet50"] == 2


def test_deleted_for_good_is_no_damage(artifacts: Made) -> None:
    script = artifacts.root.parent / "delete.py"
    script.write_text(
        "import sys, runicorn as rn\n"
        "run = rn.init(project='d', storage=sys.argv[1], capture_env=False)\n"
        "run.artifact_storage.delete_artifact_version('resnet50', 'model', 2, soft_delete=False)\n"
        "run.finish()\nprint('null')\n"
    )
    artifacts.package.run(str(script), artifacts.root, cwd=script.parent)
    memory, report = take(artifacts.root)
    assert report.damage == ()
    assert [kept.version for kept in memory.versions if kept.wanted.name == "resnet50"] == [1, 3]


def rewrite(path: Path, change: Callable[[Any], None]) -> None:
    document = json.loads(path.read_bytes())
    change(document)
    path.write_text(json.dumps(document))


@pytest.mark.parametrize(
    "path",
    [
        "../../../../outside",
        "/etc/hostname",
        "a/../../b",
        "a\0b",
        "",
        "a//b",
        ".",
        "x" * 256,
        "a/" * 30_000 + "b",
        "\ud800",
    ],
)
def test_hostile_path(artifacts: Made, path: str) -> None:
    (artifacts.root.parent / "outside").write_bytes(b"weights 2" * 1000)

    def change(document: Any) -> None:
        document["files"][0]["path"] = path

    rewrite(version_directory(artifacts) / "manifest.json", change)
    memory, report = take(artifacts.root)
    assert any(b"v2/manifest.json" in entry.path for entry in report.damage)
    assert list(memory.find("resnet50", 2).files) == ["conf/config.yaml"]


def test_deep_path(artifacts: Made) -> None:
    """As deep as a path can be; its content is still in the pool."""
    deep = "d/" * 2000 + "f"

    def change(document: Any) -> None:
        document["files"][0]["path"] = deep

    rewrite(version_directory(artifacts) / "manifest.json", change)
    memory, report = take(artifacts.root)
    assert memory.find("resnet50", 2).files[deep] == b"weights 2" * 1000
    # The file where it was is a stranger now, and the manifest another than its digest says.
    assert {entry.path.rpartition(b"/")[2] for entry in report.damage} == {
        b"manifest.json",
        b"model.pth",
    }


@pytest.mark.parametrize("path", ["conf", "conf/config.yaml", "conf/config.yaml/below"])
def test_path_that_is_taken(artifacts: Made, path: str) -> None:
    def change(document: Any) -> None:
        document["files"].reverse()
        document["files"][1]["path"] = path

    rewrite(version_directory(artifacts) / "manifest.json", change)
    memory, report = take(artifacts.root)
    assert report.exit_code == 5
    assert list(memory.find("resnet50", 2).files) == ["conf/config.yaml"]
    _, again = take(artifacts.root, memory)
    assert (again.versions, set(again.damage)) == ((), set(report.damage))


@pytest.mark.parametrize(
    ("key", "value"),
    [
        ("digest", "sha256:../../../etc/hostname"),
        ("digest", "sha256:" + "A" * 64),
        ("digest", 7),
        ("size", -1),
        ("size", 2**64),
        ("size", True),
        ("size", 10**4000),
        ("size", 8999),
    ],
)
def test_hostile_entry(artifacts: Made, key: str, value: object) -> None:
    def change(document: Any) -> None:
        document["files"][0][key] = value

    rewrite(version_directory(artifacts) / "manifest.json", change)
    memory, report = take(artifacts.root)
    assert report.exit_code == 5
    assert list(memory.find("resnet50", 2).files) == ["conf/config.yaml"]
    _, again = take(artifacts.root, memory)
    assert (again.versions, set(again.damage)) == ((), set(report.damage))


def test_windows_separators(artifacts: Made) -> None:
    def change(document: Any) -> None:
        for entry in document["files"]:
            entry["path"] = entry["path"].replace("/", "\\")

    rewrite(version_directory(artifacts) / "manifest.json", change)
    memory, _ = take(artifacts.root)
    assert sorted(memory.find("resnet50", 2).files) == ["conf/config.yaml", "model.pth"]


@pytest.mark.parametrize("name", ["files", "files/conf", "manifest.json", "metadata.json"])
def test_symlinks_are_not_followed(artifacts: Made, name: str, tmp_path: Path) -> None:
    path = version_directory(artifacts) / name
    moved = tmp_path / "moved"
    path.rename(moved)
    path.symlink_to(moved)
    memory, report = take(artifacts.root)
    relative = os.fsencode(path.relative_to(artifacts.root))
    assert any(
        entry.path.startswith(relative) and "symbolic link" in entry.reason
        for entry in report.damage
    )
    found = [
        kept for kept in memory.versions if (kept.wanted.name, kept.version) == ("resnet50", 2)
    ]
    if name == "metadata.json":
        assert len(found[0].files) == 2
    elif name == "manifest.json":
        assert found == []


@pytest.mark.parametrize("level", ["artifacts", "artifacts/model", "artifacts/model/resnet50/v2"])
def test_directories_are_not_followed_either(artifacts: Made, level: str, tmp_path: Path) -> None:
    path = artifacts.root / level
    path.rename(tmp_path / "moved")
    path.symlink_to(tmp_path / "moved")
    memory, report = take(artifacts.root)
    assert report.damage[0].path == level.encode()
    assert not any(kept.wanted.message == "number 2" for kept in memory.versions)


def test_fifos_are_not_waited_for(artifacts: Made) -> None:
    for name in ("manifest.json", "files/model.pth"):
        path = version_directory(artifacts, 3) / name
        path.unlink()
        os.mkfifo(path)
    os.mkfifo(artifacts.root / "artifacts/model/fifo")
    for path in artifacts.root.glob("vision/*/runs/*/artifacts_used.json"):
        path.unlink()
        os.mkfifo(path)
    _, report = take(artifacts.root)
    assert sum("no regular file" in entry.reason for entry in report.damage) >= 4


@pytest.mark.parametrize("run", ["../../x", "a/b", "", 7, ".hidden", "x" * 500, "a\nb", "a..b"])
def test_hostile_run(artifacts: Made, run: object) -> None:
    def change(document: Any) -> None:
        document["created_by_run"] = run

    rewrite(version_directory(artifacts) / "metadata.json", change)
    memory, _ = take(artifacts.root)
    assert memory.find("resnet50", 2).wanted.run is None


@pytest.mark.parametrize("document", ["artifacts_used.json", "artifacts_created.json"])
def test_hostile_links(artifacts: Made, document: str) -> None:
    words = ("..", "../..", ".", "a\0b", "/", "", "x" * 5000, "\ud800", "model", 7, None)
    entries = [
        {"type": type, "name": name, "version": version}
        for type in words
        for name in words
        for version in (1, -1, 2**70, "1")
    ]
    for run in artifacts.root.glob("vision/*/runs/*"):
        (run / document).write_text(json.dumps({"artifacts": [*entries, 7, None]}))
    memory, report = take(artifacts.root)
    assert (report.damage, report.runs) == ((), 3)
    if document == "artifacts_used.json":
        assert not any(used for _, used in memory.runs.values())


def test_hostile_aliases(artifacts: Made) -> None:
    def change(document: Any) -> None:
        document["aliases"] = {
            "v7": 2, "LATEST": 2, "a:b/c": 2, "": 2, "gone": 9, "list": [1], "good": 3, "\ud800": 3
        }  # fmt: skip

    rewrite(version_directory(artifacts).parent / "versions.json", change)
    memory, report = take(artifacts.root)
    aliases = memory.find("resnet50", 2).wanted.aliases
    assert set(aliases) == {"older-v7", "older-LATEST", "older-a-b-c", "older-"}
    assert "good" in memory.find("resnet50", 3).wanted.aliases
    assert len(report.damage) == 2


def test_both_layouts_in_one_root(artifacts: Made, newest_assets: Made) -> None:
    """0.6.0 left the artifacts of 0.5.3 where they were."""
    assert newest_assets.root == artifacts.root
    memory, report = take(artifacts.root)
    assert (report.format, report.damage) == ("runicorn", ())
    # The dataset `cifar` of both is one: the numbers of the older one stay.
    assert memory.find("cifar", 1).files == {"a.csv": b"1,2\n", "deep/b.csv": b"3,4\n"}
    assert memory.names()["cifar"] == 3
    assert report.runs == 6
    for format, count in (("runicorn-assets", 3), ("runicorn-artifacts", 6)):
        alone = Memory()
        only = import_directory(alone, artifacts.root, format=format)
        assert only.format == format
        assert only.runs >= count
        assert ("resnet50" in alone.names()) == (format == "runicorn-artifacts")
        assert ("single" in alone.names()) == (format == "runicorn-assets")
