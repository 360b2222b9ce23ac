"""Rolling outputs on Runicorn's layout, beside what the real package makes of the same."""

from __future__ import annotations

import contextlib
import inspect
import json
import os
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

import castfs
from castfs.compat.runicorn.assets import archive, assets_json
from castfs.compat.runicorn.assets.outputs_scan import scan_outputs_once
from castfs.older import import_archive
from tests.older.conftest import Package, package, shared

__all__ = ["package", "shared"]

RUN = "20260115_100000_abc123"


class Scan:
    """One run with its workspace."""

    def __init__(self, place: Path) -> None:
        self.root, self.workspace = place / "storage", place / "workspace"
        self.run_dir = self.root / "runs/p" / RUN
        self.outputs = self.workspace / "outputs"
        for directory in (self.run_dir, self.outputs):
            directory.mkdir(parents=True)
        (self.run_dir / "meta.json").write_text('{"path": "p"}')

    @property
    def arguments(self) -> dict[str, Any]:
        return {
            "run_id": RUN, "run_dir": self.run_dir, "storage_root": self.root,
            "workspace_root": self.workspace, "output_dirs": [self.outputs],
            "assets_path": self.run_dir / "assets.json",
            "state_path": self.run_dir / ".outputs_state.json", "min_age_sec": 0,
        }  # fmt: skip

    def once(self, **more: Any) -> dict[str, Any]:
        locks = {"assets_lock": contextlib.nullcontext(), "state_lock": contextlib.nullcontext()}
        return scan_outputs_once(**{**self.arguments, **locks, **more})

    def twice(self, **more: Any) -> list[str]:
        entries = [entry for _ in range(2) for entry in self.once(**more)["archived_entries"]]
        return sorted(entry["key"] for entry in entries)

    @property
    def listed(self) -> list[dict[str, Any]]:
        listed: list[dict[str, Any]] = json.loads((self.run_dir / "assets.json").read_text())[
            "outputs"
        ]
        return listed

    def write(self, name: str, content: bytes) -> Path:
        path = self.outputs / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(content)
        return path


@pytest.fixture
def scan(tmp_path: Path) -> Scan:
    return Scan(tmp_path)


def test_rolling(scan: Scan) -> None:
    scan.write("last.pth", b"one").chmod(0o640)
    scan.write("train.log", b"epoch 1\n")
    scan.write("checkpoint/w.bin", b"w")
    (scan.outputs / "checkpoint" / "link").symlink_to("w.bin")
    os.mkfifo(scan.outputs / "checkpoint" / "fifo")
    patterns = ["*.pth", "*.log", "checkpoint/"]
    assert scan.twice(patterns=patterns) == [
        "outputs/checkpoint", "outputs/last.pth", "outputs/train.log",
    ]  # fmt: skip
    assert scan.twice(patterns=patterns) == []
    scan.write("last.pth", b"two!")
    (scan.outputs / "checkpoint" / "w.bin").unlink()
    scan.write("checkpoint/v.bin", b"vv")
    assert scan.twice(patterns=patterns) == ["outputs/checkpoint", "outputs/last.pth"]
    by_key = {entry["key"]: entry for entry in scan.listed}
    assert len(scan.listed) == 3
    kept = Path(by_key["outputs/last.pth"]["archive_path"])
    assert (kept.read_bytes(), kept.stat().st_mode & 0o777) == (b"two!", 0o640)
    directory = Path(by_key["outputs/checkpoint"]["archive_path"])
    assert sorted(os.listdir(directory)) == [".complete", "link", "v.bin"]
    assert os.readlink(directory / "link") == "w.bin"
    assert sorted(os.listdir(directory.parent)) == sorted(
        Path(entry["archive_path"]).name for entry in scan.listed
    )


def test_by_content(scan: Scan) -> None:
    for content in (b"one", b"two!", b"two!"):
        scan.write("a.ckpt", content)
        scan.twice(mode="overwrite_versions")
    assert [entry["mode"] for entry in scan.listed] == ["overwrite_versions"] * 2
    kept = [Path(entry["archive_path"]) for entry in scan.listed]
    assert [path.read_bytes() for path in kept] == [b"one", b"two!"]
    assert all(path.parts[-3] == "blobs" for path in kept)


def test_told_to_stop(scan: Scan) -> None:
    scan.write("a.pt", b"x")
    scan.once()
    assert scan.once(should_stop=lambda: True)["archived"] == 0
    assert scan.once(should_stop=lambda: False)["archived"] == 1


def test_what_fails_is_tried_again(scan: Scan, caplog: pytest.LogCaptureFixture) -> None:
    scan.write("a.pt", b"x")
    (scan.run_dir / "assets.json").write_text("{")
    assert scan.twice() == []
    assert "cannot take outputs/a.pt" in caplog.text
    assert (scan.run_dir / "assets.json").read_text() == "{"
    (scan.run_dir / "assets.json").unlink()
    assert scan.once()["archived"] == 1


def test_what_is_written_is_imported(scan: Scan, tmp_path: Path) -> None:
    scan.write("a.pt", b"x")
    scan.twice()
    store = castfs.open(tmp_path / "store", create=True)
    assert import_archive(store.depot, scan.root).damage == ()
    with store.resolve("p/outputs/outputs/a.pt").open("a.pt") as file:
        assert file.read() == b"x"


def test_documents(tmp_path: Path) -> None:
    path = tmp_path / "run" / "assets.json"
    assert assets_json.read_assets(path) == {}
    assets_json.ensure_assets_file(path)
    assert json.loads(path.read_text())["outputs"] == []
    lock = contextlib.nullcontext()
    done = assets_json.update_assets_atomic(path, lock, lambda it: {**it, "ü": 1})
    assert assets_json.read_assets(path) == done
    assets_json.ensure_assets_file(path)
    assets_json.write_assets_atomic(path, lock, {"code": {}})
    assert assets_json.read_assets(path) == {"code": {}}


@pytest.mark.parametrize("run_id", ["..", ".", ""])
def test_odd_places(scan: Scan, run_id: str) -> None:
    file = scan.write("a", b"x")
    with pytest.raises(castfs.UsageError):
        archive.archive_file_overwrite(file, scan.root, category="x", run_id=run_id, key="a")
    with pytest.raises(castfs.UsageError):
        archive.archive_file_overwrite(file, scan.root, category="../x", run_id="a", key="a")
    with pytest.raises(ValueError, match="expects a file"):
        archive.archive_file_overwrite(scan.outputs, scan.root, category="x", run_id="a", key="a")
    with pytest.raises(ValueError, match="expects a directory"):
        archive.archive_dir_overwrite(file, scan.root, category="x", run_id="a", key="a")


FUNCTIONS: list[tuple[str, Any]] = [
    ("outputs_scan.scan_outputs_once", scan_outputs_once),
    ("archive.archive_file_overwrite", archive.archive_file_overwrite),
    ("archive.archive_file_overwrite_stat", archive.archive_file_overwrite_stat),
    ("archive.archive_dir_overwrite", archive.archive_dir_overwrite),
    ("assets_json.ensure_assets_file", assets_json.ensure_assets_file),
    ("assets_json.read_assets", assets_json.read_assets),
    ("assets_json.update_assets_atomic", assets_json.update_assets_atomic),
    ("assets_json.write_assets_atomic", assets_json.write_assets_atomic),
]


def test_beside_the_real_one(scan: Scan, tmp_path: Path, package: Callable[[str], Package]) -> None:
    """Signatures, results, and what is written."""
    other = Scan(tmp_path / "other")
    for each in (scan, other):
        each.write("last.pth", b"one")
        each.write("deep/train.log", b"epoch 1\n")
        each.write("checkpoint/w.bin", b"w")
        each.write("notes.md", b"no")
        for path in sorted(each.outputs.rglob("*"), reverse=True):
            os.utime(path, (1_700_000_000, 1_700_000_000))
    patterns = ["*.pth", "**/*.log", "checkpoint/"]
    said = package("0.7.2").run(
        "use_scan.py",
        json.dumps({**other.arguments, "patterns": patterns}, default=str),
        json.dumps([name for name, _ in FUNCTIONS]),
        cwd=tmp_path,
    )
    ours = {
        name: [[each.name, repr(each.default), each.kind.name] for each in parameters(function)]
        for name, function in FUNCTIONS
    }
    assert said["signatures"] == ours
    results = [scan.once(patterns=patterns) for _ in range(2)]

    def plain(value: Any, root: Path) -> Any:
        text = json.dumps(value).replace(str(root), "")
        return json.loads(
            text,
            object_hook=lambda it: {k: v for k, v in it.items() if k != "archived_at"},
        )

    for mine, theirs in zip(results, said["results"], strict=True):
        mine, theirs = plain(mine, scan.root), plain(theirs, other.root)
        for each in (mine, theirs):
            each["archived_entries"].sort(key=lambda entry: entry["key"])
        assert mine == theirs
    by_key = [
        sorted(plain(each.listed, each.root), key=lambda entry: str(entry["key"]))
        for each in (scan, other)
    ]
    assert by_key[0] == by_key[1]
    trees = [
        {
            str(path.relative_to(each.root)): path.read_bytes()
            for path in (each.root / "archive").rglob("*")
            if path.is_file()
        }
        for each in (scan, other)
    ]
    assert trees[0] == trees[1]


def parameters(function: Any) -> list[inspect.Parameter]:
    return list(inspect.signature(function).parameters.values())
