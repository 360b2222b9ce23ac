"""What a directory is taken for, and what is none."""

from __future__ import annotations

import hashlib
import json
import os
from pathlib import Path

import pytest

import castfs
from castfs.errors import NotFoundError, SourceError, UsageError
from castfs.older.importing import import_directory
from castfs.older.opening import open_archive
from tests.older.memory import Memory

DIGEST = "a" * 64


CONTENT = b"content"


def write_manifest(archive: Path, name: str) -> None:
    """A manifest of one file, and its blob."""
    digest = hashlib.sha256(CONTENT).hexdigest()
    blob = archive / "blobs" / digest[:2] / digest
    blob.parent.mkdir(parents=True)
    blob.write_bytes(CONTENT)
    (archive / name).parent.mkdir(parents=True, exist_ok=True)
    entry = {"sha256": digest, "size_bytes": len(CONTENT)}
    (archive / name).write_text(json.dumps({"files": {"f": entry}}))


def make(root: Path, *directories: str) -> Path:
    for directory in directories:
        (root / directory).mkdir(parents=True)
    return root


@pytest.mark.parametrize(
    ("directories", "format"),
    [
        (["archive/blobs"], "runicorn-assets"),
        (["archive/manifests"], "runicorn-assets"),
        (["archive/outputs/rolling"], "runicorn-assets"),
        (["blobs"], "runicorn-assets"),
        (["manifests"], "runicorn-assets"),
        (["runs"], "runicorn-assets"),
        (["project/name/runs/20260115_100000_abc123"], "runicorn-assets"),
        (["artifacts/.dedup"], "runicorn-artifacts"),
        (["artifacts/model/x/v1"], "runicorn-artifacts"),
        (["model/x/v1"], "runicorn-artifacts"),
        (["artifacts/.dedup", "archive/blobs"], "runicorn"),
        (["artifacts/.dedup", "runs/a/b"], "runicorn-artifacts"),
    ],
)
def test_detected(directories: list[str], format: str, tmp_path: Path) -> None:
    with open_archive(make(tmp_path / "root", *directories)) as archive:
        assert archive.format == format
        # An empty directory is a version, which cannot be read.
        count = sum(directory.endswith("v1") for directory in directories)
        assert len(list(archive.iter_versions())) == count
        assert list(archive.iter_runs()) == []


@pytest.mark.parametrize("name", [DIGEST, f"aa/{DIGEST}"])
def test_blobs(name: str, tmp_path: Path) -> None:
    path = tmp_path / "root" / name
    path.parent.mkdir(parents=True)
    path.write_bytes(b"not what its name says")
    digest = hashlib.sha256(CONTENT).hexdigest()
    (path.parent / digest).write_bytes(CONTENT)
    memory = Memory()
    report = import_directory(memory, tmp_path / "root")
    assert (report.format, memory.names()) == ("blobs", {"loose-blobs": 1})
    assert [entry.path for entry in report.damage] == [os.fsencode(name)]


@pytest.mark.parametrize("sharded", [False, True])
@pytest.mark.parametrize("below", ["", "blobs", "archive/blobs"])
def test_blobs_named_otherwise(below: str, sharded: bool, tmp_path: Path) -> None:
    """HitSave names its blobs by BLAKE3; SHA3 has as long names."""
    root = tmp_path / "root"
    for number in range(20):
        content = b"%d" % number
        digest = hashlib.sha3_256(content).hexdigest()
        path = root / below / (digest[:2] if sharded else "") / digest
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(content)
    (root / "directory_snaps").mkdir()
    for format in (None, "runicorn-assets" if below else "blobs"):
        with pytest.raises(
            NotFoundError, match=r"not named by their SHA-256.*castfs ingest"
        ) as exc:
            import_directory(Memory(), root, format=format)
        assert str(exc.value).isprintable()
    # One that is named so is enough.
    digest = hashlib.sha256(CONTENT).hexdigest()
    content = b"886"  # whose digest sorts before those of the others
    digest = hashlib.sha256(content).hexdigest()
    (root / below / digest).write_bytes(content)
    memory = Memory()
    assert len(import_directory(memory, root).damage) == 20
    assert memory.find("loose-blobs").files == {f"{digest[:2]}/{digest}": content}


def test_blobs_that_cannot_be_read(tmp_path: Path) -> None:
    (tmp_path / "root" / DIGEST).mkdir(parents=True)
    report = import_directory(Memory(), tmp_path / "root", format="blobs")
    assert [entry.path for entry in report.damage] == [DIGEST.encode()]


@pytest.mark.parametrize(
    "directories", [[], ["src/package"], ["archive/zips"], ["artifacts/model"], ["model/x/y"]]
)
def test_none(directories: list[str], tmp_path: Path) -> None:
    root = make(tmp_path / "root", "other", *directories)
    with pytest.raises(NotFoundError, match="no archive") as caught:
        open_archive(root)
    assert str(caught.value).isprintable()


def test_missing(tmp_path: Path) -> None:
    with pytest.raises(NotFoundError):
        open_archive(tmp_path / "nothing")


def test_store_of_castfs(tmp_path: Path) -> None:
    store = castfs.open(tmp_path / "store", create=True)
    with pytest.raises(SourceError, match="store of castfs"):
        open_archive(store.path)


def test_symlink_in_the_place_of_the_archive(tmp_path: Path) -> None:
    make(tmp_path / "elsewhere", "blobs")
    make(tmp_path / "root", "other")
    (tmp_path / "root/archive").symlink_to(tmp_path / "elsewhere")
    with pytest.raises(NotFoundError, match="symbolic link"):
        open_archive(tmp_path / "root")


def test_root_may_be_a_symlink(tmp_path: Path) -> None:
    make(tmp_path / "elsewhere", "archive/blobs")
    (tmp_path / "root").symlink_to(tmp_path / "elsewhere")
    with open_archive(tmp_path / "root") as archive:
        assert archive.format == "runicorn-assets"


def test_forced(tmp_path: Path) -> None:
    root = make(tmp_path / "root", "artifacts/.dedup", "archive/blobs", "runs")
    for format in ("runicorn", "runicorn-assets", "runicorn-artifacts"):
        with open_archive(root, format=format) as archive:
            assert archive.format == format
    with pytest.raises(NotFoundError, match="format blobs"):
        open_archive(root, format="blobs")
    with pytest.raises(UsageError, match="no format"):
        open_archive(root, format="tar")
    with pytest.raises(UsageError, match="not a manifest"):
        open_archive(root, format="manifest")
    with pytest.raises(NotFoundError):
        open_archive(make(tmp_path / "assets", "archive/blobs"), format="runicorn-artifacts")


def test_nothing_is_opened_where_assets_json_says(tmp_path: Path) -> None:
    """`archive_path` is absolute, and a stranger's."""
    secret = tmp_path / "secret"
    secret.write_bytes(b"secret")
    root = make(tmp_path / "root", "archive/blobs", "runs/x/20260115_100000_abc123")
    paths = [
        str(secret),
        f"rolling/../{secret}",
        "/x/rolling/../secret",
        f"/x/rolling/{'..'}/..",
        "rolling/a\0b/c",
    ]
    outputs = [
        {"key": f"../../{number}", "name": "../secret", "kind": kind, "saved": True,
         "archive_path": path, "fingerprint": "x", "fingerprint_kind": "stat"}
        for number, path in enumerate(paths)
        for kind in ("file", "dir")
    ]  # fmt: skip
    run = root / "runs/x/20260115_100000_abc123"
    (run / "assets.json").write_text(json.dumps({"outputs": outputs}))
    memory = Memory()
    report = import_directory(memory, root)
    assert memory.versions == []
    assert report.exit_code == 5


def test_endless_documents_are_not_read(tmp_path: Path) -> None:
    root = make(tmp_path / "root", "archive/manifests/datasets/aa", "runs/x/20260115_100000_abc123")
    manifest = root / f"archive/manifests/datasets/aa/{DIGEST}.json"
    for path in (manifest, root / "runs/x/20260115_100000_abc123/assets.json"):
        path.touch()
        os.truncate(path, 1 << 40)
    memory = Memory()
    report = import_directory(memory, root)
    assert memory.versions == []
    assert len(report.damage) == 2
    assert all("longer than" in entry.reason for entry in report.damage)


def test_manifest_of_another_name(tmp_path: Path) -> None:
    root = make(tmp_path / "root", "archive/manifests/datasets/aa")
    path = root / f"archive/manifests/datasets/aa/{DIGEST}.json"
    path.write_text(json.dumps({"files": {}}))
    report = import_directory(Memory(), root)
    assert "fingerprint" in report.damage[0].reason


def test_flat_manifests(tmp_path: Path) -> None:
    """As the asset guide draws them: manifests/run_001.json."""
    write_manifest(tmp_path / "root/archive", "manifests/run_001.json")
    memory = Memory()
    assert import_directory(memory, tmp_path / "root").damage == ()
    assert memory.find("run_001").files == {"f": CONTENT}


def test_empty_version_is_skipped(tmp_path: Path) -> None:
    root = make(tmp_path / "root", "archive/manifests")
    (root / "archive/manifests/empty.json").write_text(json.dumps({"files": {}}))
    memory = Memory()
    report = import_directory(memory, root)
    assert (memory.versions, report.damage, report.exit_code) == ([], (), 3)
    assert [entry.path for entry in report.skipped] == [b"archive/manifests/empty.json"]


def test_deep_directories_end(tmp_path: Path) -> None:
    root = make(tmp_path / "root", "archive/blobs", "runs")
    os.chdir(root / "runs")
    for _ in range(300):
        os.mkdir("d")
        os.chdir("d")
    Path("meta.json").write_text("{}")
    os.chdir(tmp_path)
    assert import_directory(Memory(), root).runs == 0


def test_name_of_another_type_in_the_store(tmp_path: Path) -> None:
    root = tmp_path / "root"
    write_manifest(root / "archive", "manifests/datasets/mine.json")
    memory = Memory(types={"mine": "model"})
    report = import_directory(memory, root)
    assert memory.names() == {"mine-dataset": 1}
    assert report.renamed[0].name == "mine-dataset"
    assert import_directory(memory, root).versions == ()
