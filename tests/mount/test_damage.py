"""What is wrong with a blob shows as EIO and one line in the log, never as other bytes."""

from __future__ import annotations

import errno
import os
from pathlib import Path

import pytest

from castfs.mount import MountStatus
from tests.mount.conftest import Mounter
from tests.mount.snapshots import Snapshot
from tests.mount.trees import write

pytestmark = pytest.mark.mounted

CONTENT = bytes(range(256)) * 2000


@pytest.fixture
def snapshot(mounter: Mounter) -> Snapshot:
    (mounter.source / "directory").mkdir()
    write(mounter.source / "directory" / "bad file", CONTENT)
    write(mounter.source / "good", b"good")
    return mounter.take()


BAD = b"directory/bad file"


def assert_eio(path: Path, *, offset: int = 0) -> None:
    fd = os.open(path, os.O_RDONLY)
    try:
        with pytest.raises(OSError, match=os.strerror(errno.EIO)):
            os.pread(fd, 4096, offset)
    finally:
        os.close(fd)


def log_lines(status: MountStatus) -> list[str]:
    assert status.log is not None
    text = status.log.read_text()
    assert "Traceback" not in text
    return [line for line in text.splitlines() if " ERROR " in line]


def assert_logged(status: MountStatus, snapshot: Snapshot, words: str) -> None:
    (line,) = log_lines(status)
    assert "directory/bad file" in line
    assert snapshot.blob(BAD).name in line
    assert words in line


def test_missing_blob(mounter: Mounter, snapshot: Snapshot) -> None:
    status = mounter.start(snapshot)
    snapshot.blob(BAD).unlink()
    path = mounter.mountpoint / "directory" / "bad file"
    assert path.stat().st_size == len(CONTENT)
    assert_eio(path)
    assert_eio(path, offset=100_000)
    assert (mounter.mountpoint / "good").read_bytes() == b"good"
    assert_logged(status, snapshot, "is missing")


@pytest.mark.semantics("M38", "M39")
def test_blob_of_another_size(mounter: Mounter, snapshot: Snapshot) -> None:
    status = mounter.start(snapshot)
    blob = snapshot.blob(BAD)
    blob.chmod(0o644)
    os.truncate(blob, 1000)
    assert_eio(mounter.mountpoint / "directory" / "bad file")
    assert_logged(status, snapshot, "1000 bytes instead of 512000")


@pytest.mark.semantics("M38")
def test_blob_cut_while_it_is_open(mounter: Mounter, snapshot: Snapshot) -> None:
    status = mounter.start(snapshot)
    path = mounter.mountpoint / "directory" / "bad file"
    fd = os.open(path, os.O_RDONLY)
    os.posix_fadvise(fd, 0, 0, os.POSIX_FADV_RANDOM)
    assert os.pread(fd, 4096, 4096) == CONTENT[4096:8192]
    blob = snapshot.blob(BAD)
    blob.chmod(0o644)
    os.truncate(blob, 300_000)
    assert os.pread(fd, 4096, 0) == CONTENT[:4096]
    for offset in (300_000, 299_008, 500_000):
        with pytest.raises(OSError, match="Input/output error"):
            os.pread(fd, 4096, offset)
    os.close(fd)
    assert path.stat().st_size == len(CONTENT)
    assert_logged(status, snapshot, "ends after 300000 of 512000 bytes")


@pytest.mark.semantics("M38", "M39")
def test_unreadable_blob(mounter: Mounter, snapshot: Snapshot) -> None:
    status = mounter.start(snapshot)
    blob = snapshot.blob(BAD)
    blob.unlink()
    blob.symlink_to("/etc/passwd")
    assert_eio(mounter.mountpoint / "directory" / "bad file")
    assert_logged(status, snapshot, "cannot be read")


def test_flipped_byte_is_found_with_verify(mounter: Mounter, snapshot: Snapshot) -> None:
    status = mounter.start(snapshot, "verify")
    _flip(snapshot.blob(BAD))
    path = mounter.mountpoint / "directory" / "bad file"
    assert_eio(path)
    assert_eio(path, offset=500_000)
    assert (mounter.mountpoint / "good").read_bytes() == b"good"
    assert_logged(status, snapshot, "other content than its name says")


def test_flipped_byte_is_not_found_without(mounter: Mounter, snapshot: Snapshot) -> None:
    """The documented limit of reads that do not verify."""
    status = mounter.start(snapshot)
    _flip(snapshot.blob(BAD))
    path = mounter.mountpoint / "directory" / "bad file"
    assert len(path.read_bytes()) == len(CONTENT)
    assert log_lines(status) == []


def _flip(blob: Path) -> None:
    blob.chmod(0o644)
    with blob.open("r+b") as file:
        file.seek(400_000)
        byte = file.read(1)
        file.seek(400_000)
        file.write(bytes([byte[0] ^ 1]))


@pytest.mark.semantics("M42")
@pytest.mark.parametrize(
    ("options", "in_place"), [("", False), ("verify", False), ("verify", True)]
)
def test_a_healed_blob_is_seen_when_the_file_is_opened(
    mounter: Mounter, snapshot: Snapshot, options: str, in_place: bool
) -> None:
    mounter.start(snapshot, options)
    blob = snapshot.blob(BAD)
    path = mounter.mountpoint / "directory" / "bad file"
    if options:
        _flip(blob)
    else:
        blob.unlink()
    assert_eio(path)
    healed = blob.with_name("healed")
    healed.write_bytes(CONTENT)
    if in_place:
        blob.chmod(0o644)
        blob.write_bytes(healed.read_bytes())
    else:
        healed.rename(blob)
    assert path.read_bytes() == CONTENT


@pytest.mark.semantics("M42")
def test_a_missing_blob_that_comes_back_is_seen_by_open_files(
    mounter: Mounter, snapshot: Snapshot
) -> None:
    mounter.start(snapshot)
    blob = snapshot.blob(BAD)
    away = blob.with_name("away")
    blob.rename(away)
    with (mounter.mountpoint / "directory" / "bad file").open("rb", buffering=0) as file:
        with pytest.raises(OSError, match="Input/output error"):
            file.read(10)
        away.rename(blob)
        assert file.read(10) == CONTENT[:10]


@pytest.mark.semantics("M43")
def test_an_empty_file_needs_no_blob(mounter: Mounter) -> None:
    write(mounter.source / "empty")
    snapshot = mounter.take()
    status = mounter.start(snapshot)
    snapshot.blob(b"empty").unlink()
    assert (mounter.mountpoint / "empty").read_bytes() == b""
    assert log_lines(status) == []
