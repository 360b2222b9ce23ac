"""Descriptors of blobs that the lane keeps, and the threads that read them."""

from __future__ import annotations

import errno
import os
import threading
from collections.abc import Callable, Iterator
from pathlib import Path
from queue import SimpleQueue

import pytest

from castfs.lane.files import Files
from castfs.view import Contents, OpenFile
from tests.lane.samples import BIG, FILES, Sample

Reply = tuple[int, bytes | int]


class Reading:
    """`Files` of a sample, and its replies."""

    def __init__(self, base: Path, *, descriptors: int = 1000) -> None:
        self.sample = Sample(base, blobs=True)
        self.replies: SimpleQueue[Reply] = SimpleQueue()
        self._before = set(threading.enumerate())
        self.files = Files(
            self.sample.contents, self._reply, lambda work: work(), descriptors=descriptors
        )

    def _reply(self, unique: int, reply: bytes | bytearray | int) -> None:
        self.replies.put((unique, reply if isinstance(reply, int) else bytes(reply)))

    def open(self, path: bytes) -> OpenFile:
        file = self.files.open(self.sample.ino(path))
        assert file is not None
        return file

    def threads(self) -> set[threading.Thread]:
        return set(threading.enumerate()) - self._before

    def read(self, path: bytes, offset: int, size: int) -> bytes | int:
        self.files.read_later(7, self.open(path), offset, size)
        unique, reply = self.replies.get(timeout=20)
        assert unique == 7
        return reply

    def close(self) -> None:
        self.files.close()
        for thread in self.threads():
            thread.join(20)
            assert not thread.is_alive()
        self.sample.close()


@pytest.fixture
def make_reading(tmp_path: Path) -> Iterator[Callable[..., Reading]]:
    made: list[Reading] = []

    def make(**options: int) -> Reading:
        made.append(Reading(tmp_path / "blobs", **options))
        return made[-1]

    yield make
    for reading in made:
        reading.close()


@pytest.fixture
def reading(make_reading: Callable[..., Reading]) -> Reading:
    return make_reading()


def blobs_open(reading: Reading) -> int:
    """How many descriptors of blobs this process has."""
    count = 0
    for name in os.listdir("/proc/self/fd"):
        try:
            target = Path(os.readlink(f"/proc/self/fd/{name}"))
        except FileNotFoundError:
            continue
        count += target.is_relative_to(reading.sample.base) and target.is_file()
    return count


def test_a_file_is_opened_once(reading: Reading) -> None:
    assert reading.open(b"big") is reading.open(b"big")
    assert blobs_open(reading) == 1


def test_a_quarter_of_the_descriptors(make_reading: Callable[..., Reading]) -> None:
    reading = make_reading(descriptors=40)
    for number in range(100):
        file = reading.open(b"many/%03d" % number)
        assert blobs_open(reading) <= 11
    del file
    assert blobs_open(reading) == 10


def test_what_is_being_read_stays_open(make_reading: Callable[..., Reading]) -> None:
    reading = make_reading(descriptors=4)
    file = reading.open(b"big")
    for number in range(10):
        reading.open(b"many/%03d" % number)
    assert blobs_open(reading) == 2
    assert reading.sample.contents.read(file, 0, 10) == BIG[:10]
    del file
    assert blobs_open(reading) == 1


@pytest.mark.parametrize("number", [errno.EMFILE, errno.ENFILE])
def test_none_is_left(reading: Reading, monkeypatch: pytest.MonkeyPatch, number: int) -> None:
    """Then all that are kept are given up, and only then it fails."""
    for each in range(10):
        reading.open(b"many/%03d" % each)
    original = Contents.open

    def fail(contents: Contents, ino: int) -> OpenFile:
        if blobs_open(reading) > left:
            raise OSError(number, os.strerror(number))
        return original(contents, ino)

    monkeypatch.setattr(Contents, "open", fail)
    left = 0
    assert reading.open(b"big").size == len(BIG)
    assert blobs_open(reading) == 1
    left = -1
    with pytest.raises(OSError, match=os.strerror(number)):
        reading.open(b"other/1")


def test_other_errors_give_nothing_up(reading: Reading) -> None:
    reading.open(b"big")
    for path, number in ((b"many", errno.EISDIR), (b"link", errno.ELOOP)):
        with pytest.raises(OSError, match=os.strerror(number)):
            reading.open(path)
    with pytest.raises(OSError, match=os.strerror(errno.ESTALE)):
        reading.files.open(10_000)
    assert blobs_open(reading) == 1


def test_reads(reading: Reading) -> None:
    assert reading.read(b"big", 1000, 200_000) == BIG[1000:201_000]
    assert reading.read(b"big", 299_000, 4096) == BIG[299_000:]
    assert reading.read(b"big", 300_000, 4096) == b""
    assert reading.read(b"empty", 0, 4096) == b""


def test_a_blob_that_fails_is_opened_again(reading: Reading) -> None:
    blob = reading.sample.blob(b"big")
    reading.open(b"big")
    os.truncate(blob, 1000)
    assert reading.read(b"big", 0, 4096) == -errno.EIO
    blob.unlink()
    assert reading.read(b"big", 0, 4096) == -errno.EIO
    blob.write_bytes(BIG)
    assert reading.read(b"big", 0, 4096) == BIG[:4096]
    assert reading.open(b"big") is reading.open(b"big")


@pytest.mark.parametrize(("exception", "logged"), [(ValueError("a bug"), 1), (MemoryError(), 0)])
def test_every_exception_is_an_errno(
    reading: Reading,
    monkeypatch: pytest.MonkeyPatch,
    caplog: pytest.LogCaptureFixture,
    exception: Exception,
    logged: int,
) -> None:
    def fail(*arguments: object) -> bytes:
        raise exception

    with monkeypatch.context() as patch:
        patch.setattr(Contents, "read", fail)
        expected = -errno.ENOMEM if isinstance(exception, MemoryError) else -errno.EIO
        assert reading.read(b"big", 0, 4096) == expected
    assert len(caplog.records) == logged
    assert reading.read(b"big", 0, 4096) == BIG[:4096]


def test_one_thread_is_enough_for_one_reader(reading: Reading) -> None:
    for _ in range(20):
        reading.read(b"big", 0, 10)
    # One may not have said yet that it is idle when the next read came.
    assert 1 <= len(reading.threads()) <= 2


def test_a_slow_disk_has_sixteen_readers(reading: Reading, monkeypatch: pytest.MonkeyPatch) -> None:
    go_on = threading.Event()
    original = Contents.read

    def slow(contents: Contents, file: OpenFile, offset: int, count: int) -> bytes | bytearray:
        assert go_on.wait(20)
        return original(contents, file, offset, count)

    monkeypatch.setattr(Contents, "read", slow)
    for number in range(150):
        path = b"many/%03d" % number
        reading.files.read_later(number, reading.open(path), 0, 4096)
    assert len(reading.threads()) == 16
    go_on.set()
    found = dict(reading.replies.get(timeout=20) for _ in range(150))
    assert found == {number: FILES[b"many/%03d" % number] for number in range(150)}
    assert reading.replies.empty()


@pytest.mark.parametrize("opened", [True, False], ids=["hashed", "opened"])
def test_one_large_file_has_one_thread_until_it_is_hashed(
    reading: Reading, monkeypatch: pytest.MonkeyPatch, opened: bool
) -> None:
    go_on = threading.Event()
    original = Contents.read

    def hashing(contents: Contents, file: OpenFile, offset: int, count: int) -> bytes | bytearray:
        assert file.trusted or file.size != len(BIG) or go_on.wait(20)
        file.trusted = True
        return original(contents, file, offset, count)

    monkeypatch.setattr(Contents, "read", hashing)
    file = reading.open(b"big")
    file.trusted = False
    for number in range(40):
        reading.files.read_later(number, file if opened else file.ino, number * 1000, 1000)
    for number in range(100, 140):
        path = b"many/%03d" % number
        reading.files.read_later(number, reading.open(path), 0, 4096)
        assert reading.replies.get(timeout=20) == (number, FILES[path])
    assert reading.replies.empty()
    go_on.set()
    found = dict(reading.replies.get(timeout=20) for _ in range(40))
    assert found == {number: BIG[number * 1000 :][:1000] for number in range(40)}


def test_reads_that_wait_end_when_it_is_closed(
    reading: Reading, monkeypatch: pytest.MonkeyPatch
) -> None:
    """They have been answered by then; no thread may begin them, or stay."""
    go_on = threading.Event()
    original = Contents.read

    def hashing(contents: Contents, file: OpenFile, offset: int, count: int) -> bytes | bytearray:
        assert go_on.wait(20)
        return original(contents, file, offset, count)

    monkeypatch.setattr(Contents, "read", hashing)
    file = reading.open(b"big")
    file.trusted = False
    for number in range(10):
        reading.files.read_later(number, file, 0, 10)
    assert not reading.files.close()
    go_on.set()
    assert reading.replies.get(timeout=20) == (0, BIG[:10])
    for thread in reading.threads():
        thread.join(20)
        assert not thread.is_alive()


def test_jobs_end_when_it_is_closed(reading: Reading) -> None:
    reading.read(b"big", 0, 10)
    reading.files.close()
    for thread in reading.threads():
        thread.join(20)
        assert not thread.is_alive()
    assert blobs_open(reading) == 0
