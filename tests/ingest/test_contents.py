"""Contents: the bytes that are hashed are the bytes that are stored."""

from __future__ import annotations

import hashlib
import os
import random
import subprocess
from pathlib import Path

import pytest

from castfs.ingest.reading import SMALL
from castfs.repository import Snapshot, Store
from castfs.store import BlobDir
from tests.ingest.taking import Ingest, Take
from tests.store.checking import assert_idle, check_store, hash_blobs


def blob_of(snapshot: Snapshot, path: bytes) -> Path:
    entry = snapshot.get(path)
    return snapshot.blobs.path / BlobDir.name(entry.sha256)  # type: ignore[union-attr]


def sha256sum(path: Path) -> str:
    return subprocess.run(
        ["sha256sum", path], capture_output=True, check=True, text=True
    ).stdout.split()[0]


@pytest.mark.parametrize(
    "size", [0, 1, 4095, SMALL - 1, SMALL, SMALL + 1, 2 * SMALL, 3 * SMALL + 17]
)
def test_every_size(source: Path, take: Take, size: int) -> None:
    (source / "file").write_bytes(random.Random(size).randbytes(size))
    snapshot = take()
    entry = snapshot.get(b"file")
    assert entry.size_bytes == size  # type: ignore[union-attr]
    assert entry.sha256 == sha256sum(source / "file")  # type: ignore[union-attr]
    with snapshot.open(b"file") as file:
        assert file.read() == (source / "file").read_bytes()
    subprocess.run(["cmp", source / "file", blob_of(snapshot, b"file")], check=True)


def test_two_files_of_one_content_make_one_blob(source: Path, store: Store, ingest: Ingest) -> None:
    large = random.Random(1).randbytes(SMALL + 5)
    for name, data in {"a": b"same", "b": b"same", "c": large, "d": large}.items():
        (source / name).write_bytes(data)
    result = ingest()
    wanted = {hashlib.sha256(data).hexdigest() for data in (b"same", large)}
    assert set(hash_blobs(store.path)) == wanted
    assert (result.added_count, result.added_bytes) == (2, 4 + len(large))
    assert (result.deduplicated_count, result.deduplicated_bytes) == (2, 4 + len(large))
    assert (result.file_count, result.total_size_bytes) == (4, 2 * (4 + len(large)))
    assert_idle(store.path)


@pytest.mark.parametrize("umask", [0o022, 0o077, 0o777, 0])
@pytest.mark.needs_root
def test_blobs_are_read_only_whatever_the_umask(
    source: Path, take: Take, store: Store, umask: int
) -> None:
    (source / "small").write_bytes(b"x")
    (source / "large").write_bytes(bytes(SMALL + 1))
    before = os.umask(umask)
    try:
        snapshot = take()
    finally:
        os.umask(before)
    files = [blob_of(snapshot, b"small"), blob_of(snapshot, b"large")]
    files += [*store.path.glob("manifests/??/*"), *store.path.glob("snapshots/*")]
    assert len(files) == 4
    assert {path.stat().st_mode & 0o7777 for path in files} == {0o444}
    below = (*store.path.glob("blobs/*"), *store.path.glob("manifests/*"))
    assert {path.stat().st_mode & 0o7777 for path in below} == {0o700}


def test_holes_stay_holes_in_the_store(source: Path, take: Take) -> None:
    size = 24 * SMALL + 1000
    dense = source / "dense"
    with dense.open("wb") as file:
        file.write(b"begin")
        file.seek(9 * SMALL + 3)
        file.write(b"middle")
        file.truncate(size)
    subprocess.run(["cp", "--sparse=always", dense, source / "sparse"], check=True)
    dense.unlink()
    snapshot = take()
    blob = blob_of(snapshot, b"sparse")
    assert snapshot.get(b"sparse").sha256 == sha256sum(source / "sparse")  # type: ignore[union-attr]
    assert blob.stat().st_size == size
    assert blob.stat().st_blocks * 512 <= 3 * SMALL
    subprocess.run(["cmp", source / "sparse", blob], check=True)


def test_zeros_that_are_written_out_are_contents_too(source: Path, take: Take) -> None:
    (source / "zeros").write_bytes(bytes(3 * SMALL))
    snapshot = take()
    subprocess.run(["cmp", source / "zeros", blob_of(snapshot, b"zeros")], check=True)


@pytest.mark.slow  # 4 GiB are read and hashed twice, and once more by sha256sum
def test_more_than_4_gib(source: Path, store: Store, take: Take) -> None:
    size = 4 * 2**30 + 4097
    with (source / "huge").open("wb") as file:
        file.seek(2**32 - 3)
        file.write(b"across the border")
        file.truncate(size)
    snapshot = take()
    entry = snapshot.get(b"huge")
    assert (entry.size_bytes, entry.sha256) == (size, sha256sum(source / "huge"))  # type: ignore[union-attr]
    assert blob_of(snapshot, b"huge").stat().st_blocks * 512 <= 4 * SMALL
    check_store(store.path)
