"""Restoring the workspace that a run's `assets.json` names."""

from __future__ import annotations

import copy
import json
import os
import shutil
import stat
import subprocess
import zipfile
from pathlib import Path
from typing import Any

import pytest

import castfs
import castfs.compat.runicorn as rn
from castfs.compat.runicorn.assets.runassets import note_snapshot
from castfs.errors import BlobError, DamageError, NotFoundError, TargetError
from tests.compat import older
from tests.interop.conftest import Runicorn

RUN_ID = "20260115_100000_abc123"
ZIP = older.make_zip(older.FILES)

REAL_RUN = """
import sys
import runicorn as rn
storage, workspace = sys.argv[1:]
run = rn.init(path="demo/x", storage=storage, snapshot_code=True, workspace_root=workspace,
              capture_console=False)
run.log_dataset("d", workspace, save=True)
run.finish()
print(run.run_dir)
"""


@pytest.fixture
def assets(storage: Path) -> Path:
    return older.write_run(storage, RUN_ID, code=ZIP) / "assets.json"


@pytest.fixture
def out(tmp_path: Path) -> Path:
    return tmp_path / "out"


def change(assets: Path, **snapshot: Any) -> None:
    document = json.loads(assets.read_text())
    document["code"]["snapshot"].update(snapshot)
    assets.write_text(json.dumps(document))


def put_zip(assets: Path, storage: Path, data: bytes) -> None:
    """Make the run's snapshot another one."""
    older.put_blob(storage / "archive/blobs", data)
    change(assets, fingerprint=older.sha256(data))


def make_run(runicorn: Runicorn, storage: Path, workspace: Path) -> Path:
    """A run that the real package makes; its directory."""
    result = subprocess.run(
        [runicorn.python, "-c", REAL_RUN, storage, workspace],
        capture_output=True,
        timeout=120,
        check=False,
    )
    assert result.returncode == 0, result.stderr.decode()
    return Path(result.stdout.decode().splitlines()[-1])


@pytest.fixture
def real(tmp_path: Path, storage: Path, runicorn: Runicorn) -> Path:
    workspace = older.write_files(tmp_path / "workspace", older.FILES)
    (workspace / "train.py").chmod(0o755)
    return make_run(runicorn, storage, workspace) / "assets.json"


@pytest.mark.parametrize("moved", [False, True])
def test_of_a_run_of_theirs(real: Path, storage: Path, out: Path, moved: bool) -> None:
    """Its paths are absolute, and the archive may have been moved since."""
    if moved:
        storage.rename(storage.with_name("elsewhere"))
        real = storage.with_name("elsewhere") / real.relative_to(storage)
        (real.parent / "code_snapshot.zip").unlink()
    assert rn.restore_from_manifest(manifest_path=str(real), target_dir=str(out)) is None
    assert older.read_files(out) == older.FILES
    assert stat.S_IMODE((out / "train.py").stat().st_mode) == 0o755
    mtime = (storage.parent / "workspace" / "train.py").stat().st_mtime
    assert abs((out / "train.py").stat().st_mtime - mtime) <= 2  # what DOS can say


def test_restored(assets: Path, out: Path) -> None:
    rn.restore_from_manifest(str(assets), str(out))
    assert older.read_files(out) == older.FILES
    assert os.listdir(out.parent).count("out") == 1
    assert not [name for name in os.listdir(out.parent) if name.startswith(".castfs-")]


def test_into_a_directory_that_is_there(
    assets: Path, out: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    older.write_files(out, {"mine": b"mine"})
    monkeypatch.chdir(out)
    rn.restore_from_manifest(str(assets))
    assert older.read_files(out) == {**older.FILES, "mine": b"mine"}
    (out / "train.py").write_bytes(b"changed")
    with pytest.raises(TargetError, match="nothing was written"):
        rn.restore_from_manifest(str(assets))
    assert (out / "train.py").read_bytes() == b"changed"


def test_with_blob_root(assets: Path, storage: Path, out: Path, tmp_path: Path) -> None:
    """Where the older package restores nothing and says nothing."""
    (assets.parent / "code_snapshot.zip").unlink()
    (storage / "archive/blobs").rename(tmp_path / "blobs")
    result = rn.restore_from_manifest(assets, tmp_path / "blobs", out)
    assert result == {
        "restored_count": 2,
        "total_bytes": sum(map(len, older.FILES.values())),
        "target_dir": str(out),
    }
    assert older.read_files(out) == older.FILES
    with pytest.raises(FileExistsError):
        rn.restore_from_manifest(assets, tmp_path / "blobs", out)


def test_snapshot_that_castfs_made(assets: Path, storage: Path, out: Path, tmp_path: Path) -> None:
    workspace = older.write_files(tmp_path / "workspace", older.FILES)
    (workspace / "train.py").chmod(0o751)
    (workspace / "void").mkdir()
    (workspace / "link").symlink_to("configs/base.yaml")
    os.utime(workspace / "train.py", (1_000_000_001, 1_000_000_001))
    rn.snapshot_workspace(workspace, tmp_path / "code.zip")
    put_zip(assets, storage, (tmp_path / "code.zip").read_bytes())
    rn.restore_from_manifest(str(assets), str(out))
    assert older.read_files(out) == older.read_files(workspace)
    status = (out / "train.py").stat()
    assert (stat.S_IMODE(status.st_mode), status.st_mtime) == (0o751, 1_000_000_001)
    assert (out / "void").is_dir()
    assert (out / "link").is_symlink()


def test_from_the_copy_in_the_run(assets: Path, storage: Path, out: Path) -> None:
    shutil.rmtree(storage / "archive")
    rn.restore_from_manifest(str(assets), str(out))
    assert older.read_files(out) == older.FILES


def test_bad_blob_gives_way_to_the_copy_in_the_run(assets: Path, storage: Path, out: Path) -> None:
    older.blob_path(storage / "archive/blobs", older.sha256(ZIP)).write_bytes(b"x" * len(ZIP))
    rn.restore_from_manifest(str(assets), str(out))
    assert older.read_files(out) == older.FILES


@pytest.mark.parametrize("state", ["missing", "damaged"])
def test_no_sound_copy(assets: Path, storage: Path, out: Path, state: str) -> None:
    shutil.rmtree(storage / "archive")
    if state == "missing":
        (assets.parent / "code_snapshot.zip").unlink()
    else:
        (assets.parent / "code_snapshot.zip").write_bytes(older.make_zip({"evil": b""}))
    with pytest.raises(BlobError, match=f"is {state}"):
        rn.restore_from_manifest(str(assets), str(out))
    assert not out.exists()


def test_archive_path_is_no_way_out(assets: Path, storage: Path, out: Path, tmp_path: Path) -> None:
    """A stranger's file that names one of ours gets nothing that it did not know the digest of."""
    secret = tmp_path / "secret"
    secret.write_bytes(older.make_zip({"secret": b"secret"}))
    shutil.rmtree(storage / "archive")
    (assets.parent / "code_snapshot.zip").unlink()
    change(assets, archive_path=str(secret))
    with pytest.raises(BlobError):
        rn.restore_from_manifest(str(assets), str(out))
    change(assets, fingerprint=None)
    with pytest.raises(NotFoundError):
        rn.restore_from_manifest(str(assets), str(out))
    assert not out.exists()


@pytest.mark.parametrize(
    "names", [["../evil"], ["/evil"], ["a/../../evil"], ["a", "a/b"], ["./x"], ["a//b"], ["a\0b"]]
)
def test_hostile_zip(
    assets: Path, storage: Path, out: Path, tmp_path: Path, names: list[str]
) -> None:
    put_zip(assets, storage, hostile_zip(names, tmp_path))
    before = sorted(tmp_path.rglob("*"))
    with pytest.raises(DamageError):
        rn.restore_from_manifest(str(assets), str(out))
    assert sorted(tmp_path.rglob("*")) == before


def hostile_zip(names: list[str], tmp_path: Path) -> bytes:
    """With names as they are given: `zipfile` itself is more careful."""
    path = tmp_path / "hostile.zip"
    with zipfile.ZipFile(path, "w") as archive:
        for name in names:
            info = zipfile.ZipInfo("x" * len(name))
            info.filename = name
            archive.writestr(info, b"evil")
    data = path.read_bytes()
    path.unlink()
    return data


def test_same_name_twice(assets: Path, storage: Path, out: Path) -> None:
    with pytest.warns(UserWarning, match="Duplicate name"):
        data = twice()
    put_zip(assets, storage, data)
    with pytest.raises(DamageError, match="twice"):
        rn.restore_from_manifest(str(assets), str(out))
    assert not out.exists()


def twice() -> bytes:
    from io import BytesIO

    output = BytesIO()
    with zipfile.ZipFile(output, "w") as archive:
        archive.writestr("a", b"1")
        archive.writestr("a", b"2")
    return output.getvalue()


def test_symlink_in_a_zip_is_not_gone_through(
    assets: Path, storage: Path, out: Path, tmp_path: Path
) -> None:
    """A symlink that leads out, and a file below it."""
    outside = tmp_path / "outside"
    outside.mkdir()
    path = tmp_path / "evil.zip"
    with zipfile.ZipFile(path, "w") as archive:
        link = zipfile.ZipInfo("a")
        link.create_system, link.external_attr = 3, (stat.S_IFLNK | 0o777) << 16
        archive.writestr(link, str(outside))
        archive.writestr("a/evil", b"evil")
    put_zip(assets, storage, path.read_bytes())
    with pytest.raises(DamageError):
        rn.restore_from_manifest(str(assets), str(out))
    assert os.listdir(outside) == []


def test_set_id_bits_are_a_strangers(
    assets: Path, storage: Path, out: Path, tmp_path: Path
) -> None:
    path = tmp_path / "evil.zip"
    with zipfile.ZipFile(path, "w") as archive:
        info = zipfile.ZipInfo("su")
        info.create_system, info.external_attr = 3, (stat.S_IFREG | 0o6755) << 16
        archive.writestr(info, b"#!")
    put_zip(assets, storage, path.read_bytes())
    rn.restore_from_manifest(str(assets), str(out))
    assert stat.S_IMODE((out / "su").stat().st_mode) == 0o755


@pytest.mark.parametrize("bomb", ["zeros", "overlap"])
def test_bomb(assets: Path, storage: Path, out: Path, tmp_path: Path, bomb: str) -> None:
    path = tmp_path / "bomb.zip"
    with zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED) as archive:
        if bomb == "zeros":
            archive.writestr("zeros", bytes(2 << 20))
            archive.filelist[0].file_size = 5 << 30
        else:
            archive.writestr("a", os.urandom(1000))
            for name in "bcd":
                info = copy.copy(archive.filelist[0])
                info.filename = name
                archive.filelist.append(info)
    put_zip(assets, storage, path.read_bytes())
    with pytest.raises(DamageError, match=r"(?i)unpacks to|overlap"):
        rn.restore_from_manifest(str(assets), str(out))
    assert not out.exists()


def test_links_and_empty_directories(
    assets: Path, storage: Path, out: Path, tmp_path: Path
) -> None:
    workspace = older.write_files(tmp_path / "workspace", {"train.py": b"1"})
    (workspace / "link").symlink_to("/nowhere")
    (workspace / "empty").mkdir(mode=0o700)
    for name in ("train.py", "link", "empty"):
        os.utime(workspace / name, (1_000_000_001, 1_000_000_001), follow_symlinks=False)
    rn.snapshot_workspace(workspace, tmp_path / "code.zip")
    put_zip(assets, storage, (tmp_path / "code.zip").read_bytes())
    rn.restore_from_manifest(str(assets), str(out))
    for name in ("train.py", "link", "empty"):
        ours, theirs = (out / name).lstat(), (workspace / name).lstat()
        assert (ours.st_mode, ours.st_mtime_ns) == (theirs.st_mode, theirs.st_mtime_ns)
    assert os.readlink(out / "link") == "/nowhere"


def test_file_that_is_shorter_than_it_says(assets: Path, storage: Path, out: Path) -> None:
    raw = bytearray(older.make_zip({"a": b"x" * 1000}))
    at = raw.index(b"PK\x01\x02") + 24
    raw[at : at + 4] = (2000).to_bytes(4, "little")
    put_zip(assets, storage, bytes(raw))
    with pytest.raises(BlobError, match="instead of 2000"):
        rn.restore_from_manifest(str(assets), str(out))
    assert not out.exists()


@pytest.mark.parametrize("cut", [10, 60])
def test_blob_that_is_no_zip(assets: Path, storage: Path, out: Path, cut: int) -> None:
    put_zip(assets, storage, ZIP[:-cut])
    with pytest.raises(BlobError, match="no sound zip file"):
        rn.restore_from_manifest(str(assets), str(out))
    assert not out.exists()


def test_newest_of_several(assets: Path, storage: Path, out: Path) -> None:
    document = json.loads(assets.read_text())
    newer = older.make_zip({"newer.py": b"newer"})
    older.put_blob(storage / "archive/blobs", newer)
    first = document["code"]["snapshot"]
    document["code"]["snapshots"] = [first, {**first, "fingerprint": older.sha256(newer)}]
    assets.write_text(json.dumps(document))
    rn.restore_from_manifest(str(assets), str(out))
    assert older.read_files(out) == {"newer.py": b"newer"}


@pytest.mark.parametrize("moved", [False, True])
def test_manifest_snapshot(
    assets: Path, storage: Path, out: Path, tmp_path: Path, moved: bool
) -> None:
    workspace = older.write_files(tmp_path / "workspace", older.FILES)
    found = rn.archive_dir(workspace, storage / "archive", category="code")
    change(assets, format="manifest", **found)
    if moved:
        storage.rename(storage.with_name("elsewhere"))
        assets = storage.with_name("elsewhere") / assets.relative_to(storage)
    rn.restore_from_manifest(str(assets), str(out))
    assert older.read_files(out) == older.FILES


def test_of_a_castfs_run(out: Path, tmp_path: Path) -> None:
    store = castfs.open(tmp_path / "store", create=True)
    result = store.ingest(older.write_files(tmp_path / "workspace", older.FILES))
    assets = store.path / "runs" / RUN_ID / "assets.json"
    assets.parent.mkdir(parents=True)
    snapshot = {"saved": True, "format": "manifest", "snapshot_id": result.id}
    assets.write_text(json.dumps({"code": {"snapshot": snapshot}}))
    rn.restore_from_manifest(str(assets), str(out))
    assert older.read_files(out) == older.FILES


@pytest.mark.parametrize("elsewhere", [False, True])
def test_of_a_run_that_castfs_keeps(tmp_path: Path, out: Path, elsewhere: bool) -> None:
    """Through both functions; the run is in the default store, or its directory elsewhere."""
    workspace = older.write_files(tmp_path / "workspace", {**older.FILES, ".rnignore": b"*.log\n"})
    (workspace / "train.py").chmod(0o755)
    run = rn.init(project="demo", run_dir=tmp_path / "run" if elsewhere else None)
    assets = run.run_dir / "assets.json"
    for number in range(3):  # of the last two, which are the same tree, each is noted
        older.write_files(workspace, {"n": b"%d" % min(number, 1), "x.log": b""})
        manifest = rn.snapshot_workspace(run_id=run.id, workspace_root=str(workspace))
        assert set(manifest["files"]) == {*older.FILES, "n", ".rnignore"}
        named = json.loads(assets.read_text())["code"]
        assert named["snapshot"] == named["snapshots"][-1]
        assert len(named["snapshots"]) == number + 1
        assert named["snapshot"]["fingerprint"] == manifest["fingerprint"]
    run.finish()
    note_snapshot(run.run_dir, manifest, store=run.store.path)  # already there
    assert len(json.loads(assets.read_text())["code"]["snapshots"]) == 3
    rn.restore_from_manifest(manifest_path=str(assets), target_dir=str(out))
    assert older.read_files(out) == {**older.FILES, "n": b"1", ".rnignore": b"*.log\n"}
    assert stat.S_IMODE((out / "train.py").stat().st_mode) == 0o755
    assets.write_text("{")
    with pytest.raises(DamageError):
        rn.snapshot_workspace(run_id=run.id, workspace_root=str(workspace))
    assert assets.read_text() == "{"


def test_no_snapshot(assets: Path, out: Path) -> None:
    assets.write_text(json.dumps({"code": {}, "datasets": []}))
    with pytest.raises(NotFoundError, match="names no workspace snapshot"):
        rn.restore_from_manifest(str(assets), str(out))
    assets.write_text("{")
    with pytest.raises(DamageError, match="damaged"):
        rn.restore_from_manifest(str(assets), str(out))
    assets.unlink()
    with pytest.raises(NotFoundError, match=r"assets\.json"):
        rn.restore_from_manifest(str(assets), str(out))
    assert not out.exists()
