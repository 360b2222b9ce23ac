"""Blobs that are missing, short, of other content, or cannot be read."""

from __future__ import annotations

import errno
import os
from pathlib import Path

import pytest

from castfs.errors import BlobError
from castfs.restore import restore_tree, workers
from tests.restore.building import Stored, store_files
from tests.restore.oracles import temporary_files

LARGE = b"0123456789abcdef" * (200_000)


@pytest.fixture
def stored(tmp_path: Path) -> Stored:
    contents = {b"a": b"first", b"d/b": b"second", b"d/same": b"second", b"z/large": LARGE}
    return store_files(contents, tmp_path / "store")


def overwrite(path: Path, data: bytes) -> None:
    path.chmod(0o644)
    path.write_bytes(data)
    path.chmod(0o444)


def test_missing_blobs_are_found_before_anything_is_written(tmp_path: Path, stored: Stored) -> None:
    stored.blob_path(b"d/b").unlink()
    overwrite(stored.blob_path(b"z/large"), LARGE[:-1])
    with pytest.raises(BlobError) as caught:
        restore_tree(stored.tree, stored.blobs, tmp_path / "out")
    digest = stored.tree.get(b"d/b").digest  # type: ignore[union-attr]
    assert caught.value.digest == digest
    assert caught.value.message == (
        f"the blob of d/b in {stored.blobs.path} is missing ({digest}), "
        "and those of 2 more files are bad too"
    )
    assert caught.value.hint
    assert "ingest" in caught.value.hint
    assert not (tmp_path / "out").exists()


def test_a_short_blob_is_found_before_anything_is_written(tmp_path: Path, stored: Stored) -> None:
    overwrite(stored.blob_path(b"z/large"), LARGE[:-1])
    with pytest.raises(BlobError, match=r"z/large .* is 3199999 bytes long instead of 3200000"):
        restore_tree(stored.tree, stored.blobs, tmp_path / "out")
    assert not (tmp_path / "out").exists()


@pytest.mark.parametrize("threads", [1, 3])
@pytest.mark.parametrize(("path", "data"), [(b"d/b", b"sEcond"), (b"z/large", LARGE[:-1] + b"X")])
def test_other_content_never_gets_the_name(
    tmp_path: Path,
    stored: Stored,
    monkeypatch: pytest.MonkeyPatch,
    path: bytes,
    data: bytes,
    threads: int,
) -> None:
    monkeypatch.setattr(workers, "_WORTH_BYTES", 0)
    overwrite(stored.blob_path(path), data)
    out = tmp_path / "out"
    with pytest.raises(BlobError, match=r"blob [0-9a-f]{64} has other content") as caught:
        restore_tree(stored.tree, stored.blobs, out, threads=threads)
    assert caught.value.message.startswith(os.fsdecode(path))
    assert not (out / os.fsdecode(path)).exists()
    assert temporary_files(out) == []


def test_other_content_does_not_replace_a_file(tmp_path: Path, stored: Stored) -> None:
    """The user's own file survives: nothing is removed before its successor is there."""
    overwrite(stored.blob_path(b"a"), b"fIrst")
    (tmp_path / "out").mkdir()
    (tmp_path / "out/a").write_text("mine")
    with pytest.raises(BlobError):
        restore_tree(stored.tree, stored.blobs, tmp_path / "out", if_exists="replace")
    assert (tmp_path / "out/a").read_text() == "mine"


def test_verify_can_be_left_out(tmp_path: Path, stored: Stored) -> None:
    overwrite(stored.blob_path(b"a"), b"fIrst")
    overwrite(stored.blob_path(b"z/large"), LARGE[:-1] + b"X")
    restore_tree(stored.tree, stored.blobs, tmp_path / "out", verify=False)
    assert (tmp_path / "out/a").read_bytes() == b"fIrst"


@pytest.mark.parametrize("path", [b"a", b"z/large"])
@pytest.mark.parametrize("verify", [True, False])
def test_a_blob_that_shrinks_while_it_is_copied(
    tmp_path: Path, stored: Stored, monkeypatch: pytest.MonkeyPatch, path: bytes, verify: bool
) -> None:
    entry = stored.tree.get(path)
    real = type(stored.blobs).open

    def shrink(self: object, digest: str, size: int) -> int:
        fd = real(stored.blobs, digest, size)  # type: ignore[arg-type]
        if digest == entry.digest:  # type: ignore[union-attr]
            blob = stored.blob_path(path)
            blob.chmod(0o644)
            os.truncate(blob, size - 1)
        return fd

    monkeypatch.setattr(type(stored.blobs), "open", shrink)
    with pytest.raises(BlobError, match="has other content"):
        restore_tree(stored.tree, stored.blobs, tmp_path / "out", verify=verify)
    assert not (tmp_path / "out" / os.fsdecode(path)).exists()
    assert temporary_files(tmp_path / "out") == []


def test_a_disk_that_cannot_be_read_is_damage_of_the_blob(
    tmp_path: Path, stored: Stored, monkeypatch: pytest.MonkeyPatch
) -> None:
    def fail(fd: int, count: int) -> bytes:
        raise OSError(errno.EIO, os.strerror(errno.EIO))

    monkeypatch.setattr("castfs.store.reading.os.read", fail)
    with pytest.raises(BlobError, match=r"a: blob .* cannot be read: Input/output error"):
        restore_tree(stored.tree, stored.blobs, tmp_path / "out")


def test_a_blob_that_is_a_symlink_is_not_followed(tmp_path: Path, stored: Stored) -> None:
    blob = stored.blob_path(b"a")
    secret = tmp_path / "secret"
    secret.write_bytes(b"first")
    blob.unlink()
    blob.symlink_to(secret)
    with pytest.raises(BlobError, match="missing"):
        restore_tree(stored.tree, stored.blobs, tmp_path / "out")
