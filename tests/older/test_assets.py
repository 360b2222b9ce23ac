"""Archives that the real 0.7.2 and 0.6.0 made, imported and compared with what these restore."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
from collections.abc import Callable
from pathlib import Path

import pytest

from castfs.older.importing import import_directory
from castfs.older.report import ImportReport
from tests.older.conftest import Made, describe
from tests.older.memory import Memory

DATA = {
    "a.csv": b"1,2\n",
    "deep/er/b.csv": b"3,4\n",
    "copy of a.csv": b"1,2\n",
    "big.bin": bytes(range(256)) * 9000,
}
CODE = {
    "train.py": b"print('train')\n",
    "package/model.py": b"class Model: ...\n",
    "package/ünïcode 目录.txt": "ü".encode(),
    "empty": b"",
    ".rnignore": b"*.pyc\n",
    "zeros": bytes(3 << 20),
}


def read_tree(root: Path) -> dict[str, bytes]:
    files = (path for path in root.rglob("*") if path.is_file())
    return {path.relative_to(root).as_posix(): path.read_bytes() for path in files}


def take(root: Path, memory: Memory | None = None) -> tuple[Memory, ImportReport]:
    memory = memory or Memory()
    return memory, import_directory(memory, root)


def run_directories(made: Made) -> list[Path]:
    return [made.root / path for path in made.said["directories"]]


def test_everything_is_there(assets: Made, unchanged: Callable[[Path], None]) -> None:
    unchanged(assets.root)
    memory, report = take(assets.root)
    assert (report.damage, report.renamed, report.exit_code) == ((), (), 0)
    assert report.format == "runicorn-assets"
    outputs = "training/resnet/outputs/outputs"
    assert (
        memory.names()
        == {
            "alone": 1,
            "cifar": 2,
            "default/code": 1,
            "far away": 1,
            "loose-blobs": 1,
            "resnet-base": 1,
            "single": 1,
            "training/resnet/code": 2,
            "training/resnet/config": 1,
            f"{outputs}/checkpoint": 1,
            f"{outputs}/model.pth": 1,
            f"{outputs}/train.log": 1,
            f"{outputs}/versioned.ckpt": 2 if assets.package.version != "0.6.0" else 1,
        }
        or assets.package.version == "0.6.0"
    )
    assert memory.find("cifar", 1).files == DATA
    assert memory.find("cifar", 2).files == {**DATA, "more.csv": b"5,6\n"}
    assert memory.find("resnet-base").files == DATA
    assert memory.find("single").files == {"single.bin": b"a single file"}
    assert memory.find("far away").references[0]["uri"] == "s3://bucket/imagenet"
    assert memory.find("alone").files == {"x": b"only in a manifest"}
    loose = assets.said["loose"]
    assert memory.find("loose-blobs").files == {f"{loose[:2]}/{loose}": b"loose: true\n"}
    assert memory.find(f"{outputs}/model.pth").files == {"model.pth": b"weights" * 1000}
    assert memory.find(f"{outputs}/train.log").files == {"train.log": b"epoch 1\n"}
    assert memory.find(f"{outputs}/checkpoint").files == {"w.bin": b"w"}
    config = json.loads(memory.find("training/resnet/config").files["config.json"])
    assert config == {"args": {"lr": 0.1, "loss": "NaN"}, "extra": {"note": "ü"}}


def test_types_and_what_is_said_of_them(assets: Made) -> None:
    memory, _ = take(assets.root)
    types = {kept.wanted.name: kept.wanted.type for kept in memory.versions}
    assert types["cifar"] == "dataset"
    assert types["resnet-base"] == "model"
    assert types["training/resnet/code"] == "code"
    assert types["training/resnet/config"] == "config"
    assert types["training/resnet/outputs/outputs/model.pth"] == "output"
    cifar = memory.find("cifar", 1).wanted
    assert cifar.message == "the small one"
    assert cifar.metadata["context"] == "train"
    assert cifar.source == str(assets.origin / "data")
    assert memory.find("training/resnet/code", 1).wanted.run == assets.said["runs"][0]
    assert memory.find("training/resnet/code", 2).wanted.run == assets.said["runs"][1]


def test_runs(assets: Made) -> None:
    memory, report = take(assets.root)
    first, second, third = (memory.runs[run_id] for run_id in assets.said["runs"])
    assert report.runs == 3
    assert (first[0].project, first[0].name, first[0].status) == ("training", "resnet", "finished")
    assert first[0].summary == {"accuracy": 0.5}
    assert {(known.name, known.version) for known in first[1]} == {
        ("cifar", 1), ("single", 1), ("far away", 1), ("resnet-base", 1),
        ("training/resnet/config", 1),
    }  # fmt: skip
    assert {(known.name, known.version) for known in second[1]} == {("cifar", 1), ("cifar", 2)}
    assert (third[0].project, third[0].name, third[0].status) == ("default", "", "failed")


def test_code_is_what_unzip_makes_of_it(assets: Made, tmp_path: Path) -> None:
    memory, _ = take(assets.root)
    for number, directory in enumerate(run_directories(assets)[:2], 1):
        out = tmp_path / f"code{number}"
        command: list[str | Path] = ["unzip", "-q", directory / "code_snapshot.zip", "-d", out]
        subprocess.run(command, check=True, timeout=60)
        kept = memory.find("training/resnet/code", number)
        assert kept.files == read_tree(out)
        for name in kept.files:
            status = (out / name).stat()
            assert kept.modes[name] == status.st_mode & 0o7777
            assert kept.mtimes[name] == status.st_mtime_ns
    assert memory.find("training/resnet/code", 1).files == CODE


def test_manifests_are_what_they_restore(assets: Made, tmp_path: Path) -> None:
    memory, _ = take(assets.root)
    manifests = sorted((assets.root / "archive/manifests").rglob("*.json"))
    calls = [
        [
            "runicorn.assets.restore.restore_from_manifest",
            [{"path": str(path)} for path in (
                manifest, assets.root / "archive/blobs", tmp_path / f"restored{number}"
            )],
            {},
        ]
        for number, manifest in enumerate(manifests)
    ]  # fmt: skip
    assets.package.run("call.py", json.dumps(calls), cwd=tmp_path)
    restored = [read_tree(tmp_path / f"restored{number}") for number in range(len(manifests))]
    ours = [kept.files for kept in memory.versions]
    assert len(restored) >= 4
    assert all(tree in ours for tree in restored)


def test_second_import_adds_nothing(assets: Made) -> None:
    memory, first = take(assets.root)
    count = len(memory.versions)
    _, second = take(assets.root, memory)
    assert len(memory.versions) == count == len(first.versions)
    assert (second.versions, second.unchanged) == ((), count)
    assert (second.runs, second.runs_unchanged) == (0, 3)


def test_copy_of_the_archive_adds_nothing(assets: Made, tmp_path: Path) -> None:
    memory, _ = take(assets.root)
    shutil.copytree(assets.root, tmp_path / "elsewhere")  # also other paths in assets.json
    shutil.rmtree(assets.root)
    _, report = take(tmp_path / "elsewhere", memory)
    assert (report.versions, report.damage) == ((), ())


@pytest.mark.parametrize("lives", [0, 1, 5, 9])
def test_killed_import_is_completed(assets: Made, lives: int) -> None:
    memory = Memory(lives=lives)
    with pytest.raises(KeyboardInterrupt):
        take(assets.root, memory)
    assert len(memory.versions) == lives
    memory.lives = 1000
    _, report = take(assets.root, memory)
    whole, _ = take(assets.root)
    assert report.unchanged == lives
    assert memory.names() == whole.names()
    assert sorted(memory.runs) == sorted(whole.runs)


def test_the_archive_directory_alone(assets: Made) -> None:
    memory, report = take(assets.root / "archive")
    assert report.damage == ()
    # Without runs nothing has the name that it was logged by.
    assert memory.find("alone").files == {"x": b"only in a manifest"}
    assert [k.files for k in memory.versions if k.wanted.name == "data"].count(DATA) == 1
    run = assets.said["runs"][0]
    assert memory.find(f"{run}/outputs/model.pth").files == {"model.pth": b"weights" * 1000}
    assert memory.find(f"{run}/outputs/checkpoint").files == {"w.bin": b"w"}


def test_blobs_alone(assets: Made) -> None:
    memory, report = take(assets.root / "archive/blobs")
    assert (report.format, report.damage) == ("blobs", ())
    assert memory.find("loose-blobs").files == read_tree(assets.root / "archive/blobs")


def test_older_place_of_runs(assets: Made, unchanged: Callable[[Path], None]) -> None:
    """<project>/<name>/runs/<id>, as the documents of 0.6.0 draw it."""
    project = assets.root / "training"
    (project / "resnet").mkdir(parents=True)
    (assets.root / "runs/training/resnet").rename(project / "resnet/runs")
    unchanged(assets.root)
    memory, report = take(assets.root)
    assert report.damage == ()
    assert memory.find("training/resnet/code", 1).files == CODE
    assert report.runs == 3


def first_blob(made: Made, content: bytes) -> Path:
    for path in (made.root / "archive/blobs").rglob("*"):
        if path.is_file() and path.read_bytes() == content:
            return path
    raise AssertionError(content)


def make_fifo(path: Path) -> None:
    path.unlink()
    os.mkfifo(path)


def make_directory(path: Path) -> None:
    path.unlink()
    path.mkdir()


def make_symlink(path: Path) -> None:
    path.rename(path.with_name(".moved"))
    path.symlink_to(".moved")


def flip(path: Path) -> None:
    path.write_bytes(bytes(byte ^ 1 for byte in path.read_bytes()))


def truncate(path: Path) -> None:
    path.write_bytes(path.read_bytes()[:-1])


@pytest.mark.parametrize(
    "spoil", [flip, truncate, Path.unlink, make_fifo, make_directory, make_symlink]
)
def test_damaged_blob(assets: Made, spoil: Callable[[Path], None]) -> None:
    blob = first_blob(assets, b"3,4\n")
    spoil(blob)
    before = describe(assets.root)
    memory, report = take(assets.root)
    assert describe(assets.root) == before
    assert report.exit_code == 5
    at = os.fsencode(blob.relative_to(assets.root))
    # Each version that needs it says so.
    mine = [entry for entry in report.damage if b"deep/er/b.csv" in entry.reason.encode()]
    assert {entry.path for entry in mine} == {at}
    assert len(mine) == 2  # of cifar, of resnet-base: of cifar the two versions say the same
    # Everything else is there.
    rest = {name: content for name, content in DATA.items() if name != "deep/er/b.csv"}
    assert memory.find("cifar", 1).files == rest
    missing = memory.find("cifar", 1).wanted.metadata["imported"]["missing"]
    assert [entry["path"] for entry in missing] == ["deep/er/b.csv"]
    assert memory.find("training/resnet/code", 1).files == CODE
    # It is said again, and nothing is added.
    _, again = take(assets.root, memory)
    assert again.versions == ()
    assert set(again.damage) == set(report.damage)


def test_healed_archive_is_taken_again(assets: Made) -> None:
    blob = first_blob(assets, b"3,4\n")
    blob.unlink()
    memory, _ = take(assets.root)
    blob.write_bytes(b"3,4\n")
    _, report = take(assets.root, memory)
    assert report.damage == ()
    assert {version.name for version in report.versions} == {"cifar", "resnet-base"}
    assert DATA in [kept.files for kept in memory.versions if kept.wanted.name == "cifar"]
    _, third = take(assets.root, memory)
    assert (third.versions, third.damage) == ((), ())


def test_damaged_manifest(assets: Made) -> None:
    blob = next((assets.root / "archive/manifests/datasets").rglob("*.json"))
    content = read_manifest_tree(assets.root / "archive/blobs", blob)
    blob.write_bytes(blob.read_bytes()[:-20])
    memory, report = take(assets.root)
    assert [entry.path for entry in report.damage] == [os.fsencode(blob.relative_to(assets.root))]
    # What it named is not lost: nothing else does, so it is among the loose ones.
    assert content not in [kept.files for kept in memory.versions if kept.wanted.type == "dataset"]
    everything = {data for kept in memory.versions for data in kept.files.values()}
    assert set(content.values()) <= everything


def read_manifest_tree(blobs: Path, manifest: Path) -> dict[str, bytes]:
    files = json.loads(manifest.read_bytes())["files"]
    return {
        name: (blobs / entry["sha256"][:2] / entry["sha256"]).read_bytes()
        for name, entry in files.items()
    }


def test_code_is_taken_from_the_run_where_its_blob_is_damaged(assets: Made) -> None:
    archive = run_directories(assets)[0] / "code_snapshot.zip"
    flip(first_blob(assets, archive.read_bytes()))
    memory, report = take(assets.root)
    assert len(report.damage) == 1
    assert memory.find("training/resnet/code", 1).files == CODE


def test_rolling_output_that_changed(assets: Made) -> None:
    rolling = assets.root / "archive/outputs/rolling" / assets.said["runs"][0]
    for path in rolling.glob("*_model.pth"):
        flip(path)
    for path in rolling.glob("*_checkpoint"):
        (path / "w.bin").write_bytes(b"W")
    memory, report = take(assets.root)
    assert len(report.damage) == 2
    names = memory.names()
    assert "training/resnet/outputs/outputs/train.log" in names
    assert "training/resnet/outputs/outputs/model.pth" not in names
    assert "training/resnet/outputs/outputs/checkpoint" not in names


def test_assets_json_that_was_reset(assets: Made) -> None:
    """Their own code makes it {} where it cannot read it."""
    (run_directories(assets)[0] / "assets.json").write_text("{}")
    memory, report = take(assets.root)
    assert report.damage == ()
    assert memory.find("training/resnet/code", 1).files == CODE
    assert memory.find("training/resnet/outputs/model.pth").files == {
        "model.pth": b"weights" * 1000
    }
    # The dataset is still named by the second run.
    assert memory.find("cifar", 1).files == DATA


@pytest.mark.parametrize("content", [b"", b"[]", b"{", b"[" * 100_000, b"\xff", b'{"outputs": 1}'])
def test_assets_json_that_is_none(assets: Made, content: bytes) -> None:
    (run_directories(assets)[0] / "assets.json").write_bytes(content)
    memory, report = take(assets.root)
    assert len(report.damage) == (0 if b"outputs" in content else 1)
    assert memory.find("training/resnet/code", 1).files == CODE
    assert report.runs == 3
