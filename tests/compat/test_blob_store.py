"""Blobs in Runicorn's layout: stored once, whole, verified; readable by its own package."""

from __future__ import annotations

import hashlib
import os
import stat
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import pytest

import castfs
import castfs.compat.runicorn as rn
from castfs import atomic
from castfs.compat.runicorn import runs
from castfs.compat.runicorn.assets import blob_store
from castfs.errors import BlobError, StoreError, UsageError
from tests.compat import older
from tests.interop.conftest import Runicorn

STORE = "runicorn.assets.blob_store"
LARGE = bytes(range(256)) * 8192  # 2 MiB: not read whole


@pytest.fixture
def root(tmp_path: Path) -> Path:
    return tmp_path / "archive" / "blobs"


@pytest.fixture(params=[b"weights", LARGE, b""], ids=["small", "large", "empty"])
def source(tmp_path: Path, request: pytest.FixtureRequest) -> Path:
    path = tmp_path / "model.pth"
    path.write_bytes(request.param)
    return path


def leftovers(root: Path) -> list[str]:
    """What is neither a blob nor a lock."""
    known = {".castfs-gate", ".castfs-store"}
    files = [path for path in root.rglob("*") if path.is_file() and path.name not in known]
    return [path.name for path in files if len(path.name) != 64]


def test_stored(root: Path, source: Path) -> None:
    digest = rn.store_blob(source, root)
    said = subprocess.run(["sha256sum", source], capture_output=True, check=True, timeout=60)
    assert said.stdout.decode().split()[0] == digest
    assert older.blobs_in(root) == {digest: source.read_bytes()}
    path = rn.get_blob_path(digest, root)
    assert path == older.blob_path(root, digest)
    assert stat.S_IMODE(path.stat().st_mode) == 0o444
    assert rn.blob_exists(digest, root)
    assert rn.read_blob(digest, root) == source.read_bytes()
    assert rn.get_blob_stats(root) == {"blob_count": 1, "total_size_bytes": source.stat().st_size}
    assert leftovers(root) == []


def test_stored_twice(root: Path, source: Path, tmp_path: Path) -> None:
    digest = rn.store_blob(source, root)
    inode = rn.get_blob_path(digest, root).stat().st_ino
    copy = tmp_path / "copy"
    copy.write_bytes(source.read_bytes())
    assert rn.store_blob(src_path=copy, blob_root=root) == digest
    assert rn.get_blob_path(digest, root).stat().st_ino == inode
    assert rn.get_blob_stats(root)["blob_count"] == 1
    assert leftovers(root) == []


def test_read_by_their_package(root: Path, source: Path, runicorn: Runicorn) -> None:
    digest = rn.store_blob(source, root)
    assert runicorn(f"{STORE}.blob_exists", digest, root) is True
    assert runicorn(f"{STORE}.get_blob_path", digest, root) == str(rn.get_blob_path(digest, root))
    assert runicorn(f"{STORE}.get_blob_stats", root) == rn.get_blob_stats(root)
    assert runicorn(f"{STORE}.store_blob", source, root) == digest
    assert len(older.blobs_in(root)) == 1


def test_theirs_are_deduplicated(root: Path, source: Path, runicorn: Runicorn) -> None:
    digest = runicorn(f"{STORE}.store_blob", source, root)
    inode = older.blob_path(root, digest).stat().st_ino
    assert rn.store_blob(source, root) == digest
    assert older.blob_path(root, digest).stat().st_ino == inode
    assert rn.read_blob(digest, root) == source.read_bytes()


@pytest.mark.parametrize("spoil", [b"Xeights", b"weight", b"", LARGE])
def test_damaged_blob_is_found_and_healed(root: Path, tmp_path: Path, spoil: bytes) -> None:
    source = tmp_path / "model.pth"
    source.write_bytes(b"weights")
    digest = rn.store_blob(source, root)
    path = rn.get_blob_path(digest, root)
    path.chmod(0o644)
    path.write_bytes(spoil)
    with pytest.raises(BlobError):
        rn.read_blob(digest, root)
    assert rn.store_blob(source, root) == digest
    assert rn.read_blob(digest, root) == b"weights"


@pytest.mark.parametrize("size", [100, 2 << 20])
def test_source_that_changes_meanwhile(
    root: Path, tmp_path: Path, size: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Every blob has the content that its name says, whenever the source changes."""
    source = tmp_path / "log"
    source.write_bytes(b"a" * size)
    write, changes = atomic.write_temp, iter([b"b", b"c"])

    def change_first(*args: Any, **kwargs: Any) -> Path:
        if letter := next(changes, None):
            source.write_bytes(letter * size)
        return write(*args, **kwargs)

    monkeypatch.setattr(atomic, "write_temp", change_first)
    digest = rn.store_blob(source, root)
    assert rn.read_blob(digest, root) == source.read_bytes() == b"c" * size
    for name, content in older.blobs_in(root).items():
        assert older.sha256(content) == name


def test_hit_makes_it_young(root: Path, source: Path) -> None:
    path = rn.get_blob_path(rn.store_blob(source, root), root)
    os.utime(path, (1, 1))
    before = time.time()
    rn.store_blob(source, root)
    assert path.stat().st_mtime >= before - 1


def test_new_blob_is_young_however_old_its_source(root: Path, source: Path) -> None:
    os.utime(source, (1, 1))
    path = rn.get_blob_path(rn.store_blob(source, root), root)
    assert path.stat().st_mtime > time.time() - 60


def test_symlink_stores_what_it_leads_to(root: Path, source: Path, tmp_path: Path) -> None:
    link = tmp_path / "latest.pth"
    link.symlink_to(source.name)
    assert rn.read_blob(rn.store_blob(link, root), root) == source.read_bytes()


def test_no_file(root: Path, tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "fifo")
    (tmp_path / "dangling").symlink_to("nowhere")
    for name in ("fifo", ".", "missing", "dangling"):
        with pytest.raises(ValueError, match="store_blob expects a file, got: "):
            rn.store_blob(tmp_path / name, root)
    assert not root.exists()


@pytest.mark.parametrize("name", ["/etc/hostname", "../../x", "A" * 64, "ab", "", "a" * 65])
def test_no_digest(root: Path, name: str) -> None:
    rn.store_blob(Path(__file__), root)
    with pytest.raises(ValueError, match="not a SHA-256 digest"):
        rn.get_blob_path(name, root)
    with pytest.raises(ValueError, match="not a SHA-256 digest"):
        rn.read_blob(name, root)
    assert rn.blob_exists(name, root) is False


def test_missing(root: Path) -> None:
    digest = "a" * 64
    assert rn.blob_exists(digest, root) is False
    assert rn.get_blob_path(digest, root) == root / "aa" / digest
    assert rn.get_blob_stats(root) == {"blob_count": 0, "total_size_bytes": 0}
    with pytest.raises(FileNotFoundError, match=digest):
        rn.read_blob(digest, root)
    root.mkdir(parents=True)
    with pytest.raises(BlobError, match="Blob not found"):
        rn.read_blob(digest, root)


def test_statistics_count_blobs_alone(root: Path, source: Path, runicorn: Runicorn) -> None:
    digest = rn.store_blob(source, root)
    (root / "README").write_text("not a blob")
    (root / digest[:2] / f".{digest[:8]}_x.tmp").write_text("left by a crash")
    assert rn.get_blob_stats(root) == runicorn(f"{STORE}.get_blob_stats", root)


def test_on_the_medium_before_it_has_its_name(
    root: Path, source: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Its bytes are synced before the rename, its directories after."""
    events: list[tuple[str, int]] = []
    fsync, replace = os.fsync, Path.replace

    def log_sync(fd: int) -> None:
        fsync(fd)
        events.append(("sync", os.fstat(fd).st_ino))

    def log_rename(self: Path, target: Path) -> Path:
        events.append(("rename", self.stat().st_ino))
        return replace(self, target)

    monkeypatch.setattr(os, "fsync", log_sync)
    monkeypatch.setattr(Path, "replace", log_rename)
    path = rn.get_blob_path(rn.store_blob(source, root), root)
    inode = path.stat().st_ino
    renamed = events.index(("rename", inode))
    assert ("sync", inode) in events[:renamed]
    for directory in (path.parent, root):
        assert ("sync", directory.stat().st_ino) in events[renamed:]


@pytest.mark.needs_root
def test_full_disk_leaves_nothing(small_disk: Path, tmp_path: Path) -> None:
    source = tmp_path / "large"
    source.write_bytes(LARGE * 4)
    with pytest.raises(StoreError, match="No space left"):
        rn.store_blob(source, small_disk / "blobs")
    assert older.blobs_in(small_disk / "blobs") == {}
    assert leftovers(small_disk / "blobs") == []


def test_failure_leaves_nothing(root: Path, source: Path) -> None:
    """A file lies where the blob's directory belongs."""
    root.mkdir(parents=True)
    (root / rn.sha256_file(source)[:2]).write_bytes(b"")
    with pytest.raises(FileExistsError):
        rn.store_blob(source, root)
    assert [name for name in leftovers(root) if len(name) > 2] == []


STORE_MANY = """
import sys
from pathlib import Path
import castfs.compat.runicorn as rn
for path in sorted(Path(sys.argv[1]).iterdir()):
    rn.store_blob(path, Path(sys.argv[2]))
"""


def test_several_at_once(root: Path, tmp_path: Path) -> None:
    contents = {f"f{number}": b"%d" % (number % 20) * 1000 for number in range(60)}
    older.write_files(tmp_path / "source", contents)
    command: list[str | Path] = [sys.executable, "-c", STORE_MANY, tmp_path / "source", root]
    started = [subprocess.Popen(command, stderr=subprocess.PIPE) for _ in range(4)]
    for process in started:
        _, said = process.communicate(timeout=60)
        assert process.returncode == 0, said
    assert older.blobs_in(root) == {
        hashlib.sha256(data).hexdigest(): data for data in contents.values()
    }
    assert leftovers(root) == []


def test_castfs_store_is_left_alone(tmp_path: Path, source: Path) -> None:
    """It has a protocol, by which nothing would keep such a blob."""
    store = castfs.open(tmp_path / "store", create=True)
    with pytest.raises(UsageError, match="castfs store"):
        rn.store_blob(source, store.path / "blobs")
    assert older.blobs_in(store.path / "blobs") == {}


class OpenRun:
    def store_blob(self, file_path: str) -> str:
        return f"stored {file_path}"

    def get_blob_path(self, blob_id: str) -> Path:
        return Path("/store", blob_id)


def test_without_blob_root_it_is_the_open_run(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(runs, "load", {"get_active_run": OpenRun}.__getitem__)
    assert rn.store_blob("model.pth") == blob_store.store_blob(file_path="model.pth")
    assert rn.store_blob("model.pth") == "stored model.pth"
    assert rn.get_blob_path("ab") == rn.get_blob_path(blob_id="ab") == "/store/ab"


def test_without_blob_root_and_run(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(runs, "load", lambda name: lambda: None)
    for call in (rn.store_blob, rn.get_blob_path):
        with pytest.raises(UsageError, match="no run is open"):
            call("model.pth")
