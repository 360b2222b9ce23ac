"""Fingerprints, against the older package and sha256sum."""

from __future__ import annotations

import hashlib
import os
import subprocess
from pathlib import Path

import pytest

import castfs.compat.runicorn as rn
from tests.compat import older
from tests.interop.conftest import Runicorn

THEIRS = "runicorn.assets.fingerprint"


@pytest.fixture
def tree(tmp_path: Path) -> Path:
    root = older.write_files(
        tmp_path / "data", {"a": b"1", "sub/b": b"22", "sub/deeper/c": b"x" * 3_000_000}
    )
    (root / "link").symlink_to("sub/b")
    (root / "dangling").symlink_to("nowhere")
    (root / "linked").symlink_to("sub")
    return root


@pytest.mark.parametrize("name", ["a", "sub/deeper/c", "link"])
def test_file(tree: Path, name: str, runicorn: Runicorn) -> None:
    path = tree / name
    said = subprocess.run(["sha256sum", path], capture_output=True, check=True, timeout=60)
    digest = said.stdout.decode().split()[0]
    assert rn.sha256_file(path) == digest
    assert rn.sha256_file(path, chunk_size=7 if path.stat().st_size < 9 else 65_537) == digest
    assert rn.sha256_file(path, 1 << 20) == digest
    assert rn.content_fingerprint(path) == ("sha256", digest)
    assert list(rn.content_fingerprint(path)) == runicorn(f"{THEIRS}.content_fingerprint", path)
    assert rn.stat_fingerprint(path) == runicorn(f"{THEIRS}.stat_fingerprint", path)


def test_bytes() -> None:
    assert rn.sha256_bytes(b"abc") == hashlib.sha256(b"abc").hexdigest()


def test_directory(tree: Path, runicorn: Runicorn) -> None:
    os.utime(tree, (1_500_000_000.25, 1_500_000_000.25))
    assert rn.dir_stat_fingerprint(tree) == {
        "mtime": 1_500_000_000.25,
        "file_count": 4,
        "total_size_bytes": 1 + 2 + 2 + 3_000_000,
    }
    assert rn.dir_stat_fingerprint(tree) == runicorn(f"{THEIRS}.dir_stat_fingerprint", tree)


def test_no_file(tree: Path) -> None:
    with pytest.raises(ValueError, match="expects a file"):
        rn.content_fingerprint(tree)
    with pytest.raises(FileNotFoundError):
        rn.sha256_file(tree / "missing")
    with pytest.raises(FileNotFoundError):
        rn.stat_fingerprint(tree / "missing")
