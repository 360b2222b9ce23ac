"""Reading from blobs: whole ranges or an error, and each error said once."""

from __future__ import annotations

import errno
import hashlib
import logging
import os
import resource
import threading
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from castfs.digest import digest_fd
from castfs.errors import BlobError
from castfs.store import BlobDir
from castfs.tree import Presentation, compile_tree
from castfs.view import Contents, OpenFile, SnapshotView
from castfs.view import contents as contents_module
from tests.tree.test_compiler import make_file, make_tree

CONTENT = os.urandom(300_000)
INO = 2


@pytest.fixture
def blob(tmp_path: Path) -> Path:
    digest = hashlib.sha256(CONTENT).hexdigest()
    path = tmp_path / "blobs" / digest[:2] / digest
    path.parent.mkdir(parents=True)
    path.write_bytes(CONTENT)
    return path


@pytest.fixture
def open_contents(tmp_path: Path, blob: Path) -> Iterator[Callable[..., Contents]]:
    view = SnapshotView(compile_tree(make_tree({b"f": make_file(CONTENT)}), Presentation()))
    blobs = BlobDir(tmp_path / "blobs")
    yield lambda **options: Contents(view, blobs, **options)
    blobs.close()


@pytest.fixture
def errors(caplog: pytest.LogCaptureFixture) -> Callable[[], list[str]]:
    return lambda: [r.getMessage() for r in caplog.records if r.levelno >= logging.ERROR]


RANGES = [(0, 10), (0, 300_000), (299_990, 100), (300_000, 5), (400_000, 1), (17, 0), (4095, 9000)]


@pytest.mark.parametrize("verify", [False, True])
def test_ranges(open_contents: Callable[..., Contents], verify: bool) -> None:
    contents = open_contents(verify=verify)
    file = contents.open(INO)
    buffer = memoryview(bytearray(1 << 20))
    for offset, count in RANGES:
        assert contents.read(file, offset, count) == CONTENT[offset : offset + count]
        got = contents.read_cached(file, offset, count, buffer)
        assert buffer[:got] == CONTENT[offset : offset + count]
    file.close()
    assert file.fd == -1


def test_nothing_is_served_from_memory_before_it_is_verified(
    open_contents: Callable[..., Contents],
) -> None:
    contents = open_contents(verify=True)
    file = contents.open(INO)
    buffer = memoryview(bytearray(100))
    assert contents.read_cached(file, 0, 100, buffer) == -1
    assert bytes(buffer) == bytes(100)
    contents.read(file, 0, 1)
    assert contents.read_cached(file, 0, 100, buffer) == 100
    file.close()


def test_filesystems_without_nowait(
    open_contents: Callable[..., Contents], monkeypatch: pytest.MonkeyPatch
) -> None:
    contents = open_contents()
    file = contents.open(INO)
    calls = []

    def refuse(*args: object) -> int:
        calls.append(args)
        raise OSError(errno.EOPNOTSUPP, "no")

    with monkeypatch.context() as patch:
        patch.setattr(os, "preadv", refuse)
        buffer = memoryview(bytearray(10))
        assert contents.read_cached(file, 0, 10, buffer) == -1
        assert contents.read_cached(file, 0, 10, buffer) == -1
    assert len(calls) == 1
    assert contents.read(file, 0, 10) == CONTENT[:10]
    file.close()


def damage_missing(blob: Path) -> None:
    blob.unlink()


def damage_short(blob: Path) -> None:
    os.truncate(blob, 10)


def damage_longer(blob: Path) -> None:
    os.truncate(blob, 300_001)


def damage_directory(blob: Path) -> None:
    blob.unlink()
    blob.mkdir()


def damage_fifo(blob: Path) -> None:
    blob.unlink()
    os.mkfifo(blob)


def damage_symlink(blob: Path) -> None:
    blob.rename(blob.with_name("real"))
    blob.symlink_to("real")


@pytest.mark.parametrize(
    "damage",
    [damage_missing, damage_short, damage_longer, damage_directory, damage_fifo, damage_symlink],
)
def test_a_bad_blob(
    open_contents: Callable[..., Contents],
    blob: Path,
    errors: Callable[[], list[str]],
    damage: Callable[[Path], None],
) -> None:
    damage(blob)
    contents = open_contents()
    buffer = memoryview(bytearray(10))
    for _ in range(2):
        file = contents.open(INO)
        assert contents.read_cached(file, 0, 10, buffer) == -1
        with pytest.raises(BlobError) as caught:
            contents.read(file, 0, 10)
        assert caught.value.digest == blob.name
        file.close()
    (line,) = errors()
    assert line.startswith("f: blob ")
    assert blob.name in line


def test_a_blob_cut_while_it_is_read(
    open_contents: Callable[..., Contents], blob: Path, errors: Callable[[], list[str]]
) -> None:
    contents = open_contents()
    file = contents.open(INO)
    os.truncate(blob, 100_000)
    buffer = memoryview(bytearray(1 << 20))
    assert contents.read_cached(file, 0, 300_000, buffer) == -1
    assert contents.read(file, 0, 100_000) == CONTENT[:100_000]
    for _ in range(2):
        with pytest.raises(BlobError, match="ends after 100000 of 300000 bytes"):
            contents.read(file, 50_000, 100_000)
    assert len(errors()) == 1
    file.close()


def test_an_io_error(
    open_contents: Callable[..., Contents],
    errors: Callable[[], list[str]],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    contents = open_contents()
    file = contents.open(INO)

    def fail(*args: object) -> int:
        raise OSError(errno.EIO, "Input/output error")

    with monkeypatch.context() as patch:
        patch.setattr(os, "preadv", fail)
        with pytest.raises(BlobError, match="cannot be read: Input/output error"):
            contents.read(file, 0, 10)
    assert len(errors()) == 1
    file.close()


def test_verify_hashes_once_however_many_read(
    open_contents: Callable[..., Contents], monkeypatch: pytest.MonkeyPatch
) -> None:
    contents = open_contents(verify=True)
    files = [contents.open(INO) for _ in range(8)]
    hashed = []

    def count(fd: int) -> str:
        hashed.append(fd)
        return digest_fd(fd)

    monkeypatch.setattr(contents_module, "digest_fd", count)
    results: list[bytes] = []

    def read(file: OpenFile) -> None:
        results.append(bytes(contents.read(file, 0, 300_000)))

    threads = [threading.Thread(target=read, args=(file,)) for file in files for _ in range(2)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(20)
    assert results == [CONTENT] * 16
    assert len(hashed) == 1
    for file in files:
        file.close()


def test_verify_refuses_other_content_and_hashes_it_once(
    open_contents: Callable[..., Contents],
    blob: Path,
    errors: Callable[[], list[str]],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    blob.write_bytes(CONTENT[:-1] + bytes([CONTENT[-1] ^ 1]))
    contents = open_contents(verify=True)
    file = contents.open(INO)
    for _ in range(2):
        with pytest.raises(BlobError, match="other content than its name says"):
            contents.read(file, 0, 10)
        monkeypatch.setattr(contents_module, "digest_fd", None)  # called again, it would fail
    assert len(errors()) == 1
    file.close()


def test_verify_trusts_a_replaced_blob_only_after_hashing_it(
    open_contents: Callable[..., Contents], blob: Path
) -> None:
    contents = open_contents(verify=True)
    first = contents.open(INO)
    assert contents.read(first, 0, 10) == CONTENT[:10]
    other = blob.with_name("other")
    other.write_bytes(bytes(300_000))
    other.rename(blob)
    second = contents.open(INO)
    with pytest.raises(BlobError):
        contents.read(second, 0, 10)
    assert contents.read(first, 0, 10) == CONTENT[:10]
    first.close()
    second.close()


def test_out_of_descriptors_is_not_the_blobs_fault(
    open_contents: Callable[..., Contents], errors: Callable[[], list[str]]
) -> None:
    contents = open_contents()
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    taken = os.open("/", os.O_RDONLY)
    resource.setrlimit(resource.RLIMIT_NOFILE, (0, hard))
    try:
        with pytest.raises(OSError, match="Too many open files"):
            contents.open(INO)
    finally:
        resource.setrlimit(resource.RLIMIT_NOFILE, (soft, hard))
        os.close(taken)
    assert errors() == []
    contents.open(INO).close()


def test_what_is_no_file_cannot_be_opened(open_contents: Callable[..., Contents]) -> None:
    with pytest.raises(IsADirectoryError):
        open_contents().open(1)
    with pytest.raises(OSError, match="Stale"):
        open_contents().open(99)
