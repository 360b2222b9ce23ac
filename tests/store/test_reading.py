"""Blobs read whole: what is missing, short, long, other than its name, or no file at all."""

from __future__ import annotations

import hashlib
import os
from collections.abc import Iterator
from pathlib import Path

import pytest

from castfs.digest import Digest
from castfs.errors import BlobError
from castfs.store import Depot, WriteSession
from castfs.store.reading import check_present, iter_blob, iter_verified, open_blob, read_blob

SMALL, LARGE = b"small", b"large" * 600_000


def digest_of(data: bytes) -> Digest:
    return Digest(hashlib.sha256(data).hexdigest())


@pytest.fixture
def blobs(depot: Depot) -> Depot:
    with WriteSession(depot, purpose="test") as session:
        session.stage_bytes(SMALL)
        session.stage_bytes(LARGE)
        session.commit_blobs()
    return depot


BOTH = pytest.mark.parametrize("data", [SMALL, LARGE], ids=["small", "large"])


def path_of(depot: Depot, data: bytes) -> Path:
    return depot.blobs.path / depot.blobs.name(digest_of(data))


def all_of(depot: Depot, data: bytes) -> bytes:
    return b"".join(bytes(p) for p in iter_blob(depot.blobs, b"f", digest_of(data), len(data)))


@BOTH
def test_what_is_right_is_given(blobs: Depot, data: bytes) -> None:
    assert all_of(blobs, data) == data


@BOTH
@pytest.mark.parametrize("damage", ["missing", "short", "long", "other", "symlink", "directory"])
def test_what_is_wrong_is_named(blobs: Depot, data: bytes, damage: str) -> None:
    path = path_of(blobs, data)
    path.unlink()
    if damage == "symlink":
        path.symlink_to("/etc/passwd")
    elif damage == "directory":
        path.mkdir()
    elif damage != "missing":
        other = {"short": data[:-1], "long": data + b"x", "other": b"X" + data[1:]}
        path.write_bytes(other[damage])
    with pytest.raises(BlobError) as caught:
        all_of(blobs, data)
    assert caught.value.digest == digest_of(data)
    assert str(caught.value).startswith("f: ")


@pytest.fixture
def descriptor(blobs: Depot) -> Iterator[int]:
    fd = open_blob(blobs.blobs, b"f", digest_of(LARGE), len(LARGE))
    yield fd
    os.close(fd)


@pytest.mark.needs_root
def test_a_blob_that_changes_its_size_after_it_was_opened(blobs: Depot, descriptor: int) -> None:
    os.truncate(path_of(blobs, LARGE), 100)
    with pytest.raises(BlobError):
        list(iter_verified(descriptor, b"f", digest_of(LARGE), len(LARGE)))


@pytest.mark.needs_root
def test_a_blob_that_grows_gives_no_more_than_its_size(blobs: Depot, descriptor: int) -> None:
    with path_of(blobs, LARGE).open("ab") as file:
        file.write(b"more" * 10**6)
    given: list[int] = []
    pieces = iter_verified(descriptor, b"f", digest_of(LARGE), len(LARGE))
    with pytest.raises(BlobError):
        given.extend(len(piece) for piece in pieces)
    assert sum(given) <= len(LARGE)


def test_without_verification_the_size_counts_alone(blobs: Depot) -> None:
    path = path_of(blobs, SMALL)
    path.chmod(0o644)
    path.write_bytes(b"SMALL")
    fd = open_blob(blobs.blobs, b"f", digest_of(SMALL), 5)
    assert read_blob(fd, b"f", digest_of(SMALL), 5, verify=False) == b"SMALL"
    os.lseek(fd, 0, os.SEEK_SET)
    with pytest.raises(BlobError, match="other content"):
        read_blob(fd, b"f", digest_of(SMALL), 5)
    os.close(fd)


def test_an_error_of_the_disk(blobs: Depot, monkeypatch: pytest.MonkeyPatch) -> None:
    def fail(*args: object) -> int:
        raise OSError(5, "Input/output error")

    for name, data in (("read", SMALL), ("readv", LARGE)):
        with monkeypatch.context() as patch:
            patch.setattr(os, name, fail)
            with pytest.raises(BlobError, match="Input/output error"):
                all_of(blobs, data)


def test_are_they_all_there(blobs: Depot) -> None:
    good = [(b"a", digest_of(SMALL), 5), (b"b", digest_of(LARGE), len(LARGE))]
    check_present(blobs.blobs, good * 3)
    bad = [(b"c", digest_of(b"none"), 4), (b"d", digest_of(b"none"), 4)]
    with pytest.raises(BlobError, match=r"c in .* missing .* 1 more"):
        check_present(blobs.blobs, good + bad)
    # One content with two sizes, in a hostile manifest.
    with pytest.raises(BlobError, match="5 bytes long instead of 6"):
        check_present(blobs.blobs, [*good, (b"e", digest_of(SMALL), 6)])
