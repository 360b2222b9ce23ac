"""Which files the kernel is given before it asks: those that come next, whole and right."""

from __future__ import annotations

import errno
import os
import socket
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from castfs import fuse
from castfs.lane.ahead import ReadAhead
from castfs.lane.storing import SIZE_MAX, Storing
from tests.lane.samples import FILES, Sample


class Kernel:
    """The other end of a device: what it is told to store."""

    def __init__(self, base: Path, *, verify: bool = False) -> None:
        self.sample = Sample(base, blobs=True, verify=verify)
        self.device, self._end = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
        for end in (self.device, self._end):
            end.settimeout(5)
        self._storing = Storing(self.device.fileno(), self.sample.index, self.sample.contents)
        self.ahead = ReadAhead(self.sample.index, self._storing)

    def read(self, *paths: bytes) -> None:
        for path in paths:
            self.ahead.read(self.sample.ino(path))

    def receive(self) -> tuple[bytes, bytes]:
        """(path, content) of the next file."""
        message = self._end.recv(1 << 20)
        if not message:
            raise ConnectionResetError
        length, code, unique = fuse.OUT_HEADER.unpack_from(message)
        assert (length, code, unique) == (len(message), fuse.NOTIFY_STORE, 0)
        ino, offset, size, _ = fuse.NOTIFY_STORE_OUT.unpack_from(message, fuse.OUT_HEADER.size)
        data = message[fuse.OUT_HEADER.size + fuse.NOTIFY_STORE_OUT.size :]
        assert (offset, size) == (0, len(data))
        return self.sample.index.path(ino), data

    def forget(self) -> None:
        """Take no more."""
        self._end.shutdown(socket.SHUT_RD)

    def finish(self) -> list[tuple[bytes, bytes]]:
        """What else there is, once the process that stores has ended."""
        self._storing.end()
        assert not self._storing.is_busy(20)
        self._storing.close()
        self._end.setblocking(False)
        rest = []
        try:
            while True:
                rest.append(self.receive())
        except (BlockingIOError, ConnectionResetError):
            return rest

    def close(self) -> None:
        self.finish()
        self.device.close()
        self._end.close()
        self.sample.close()


def many(*numbers: int) -> list[bytes]:
    return [b"many/%03d" % number for number in numbers]


@pytest.fixture
def make_kernel(tmp_path: Path) -> Iterator[Callable[..., Kernel]]:
    made: list[Kernel] = []

    def make(**options: bool) -> Kernel:
        made.append(Kernel(tmp_path / "blobs", **options))
        return made[-1]

    yield make
    for kernel in made:
        kernel.close()


@pytest.fixture
def kernel(make_kernel: Callable[..., Kernel]) -> Kernel:
    return make_kernel()


def test_who_only_lists_is_given_nothing(kernel: Kernel) -> None:
    for _ in range(50):
        for path in (b"", b"many", b"more", b"nothing"):
            kernel.ahead.listed(kernel.sample.ino(path))
    assert kernel.finish() == []


def test_who_reads_here_and_there_is_given_nothing(kernel: Kernel) -> None:
    kernel.read(*many(*range(150, 0, -20), *range(145, 0, -20)))
    assert kernel.finish() == []


def test_one_file_is_no_sequence(kernel: Kernel) -> None:
    kernel.read(b"many/000")
    assert kernel.finish() == []


def test_who_reads_in_order_is_given_the_next(kernel: Kernel) -> None:
    kernel.read(*many(0, 1, 2))
    for path in many(*range(3, 11)):
        assert kernel.receive() == (path, FILES[path])


def test_nothing_is_given_twice_or_that_was_read(kernel: Kernel) -> None:
    kernel.read(*many(0, 1, 2))
    seen = [kernel.receive()[0]]
    while len(seen) < 100:
        kernel.read(seen[-1])
        seen.append(kernel.receive()[0])
    seen += [path for path, _ in kernel.finish()]
    assert len(seen) == len(set(seen))
    assert not {*many(0, 1, 2)} & {*seen}
    assert all(path.startswith(b"many/") for path in seen)


def test_a_directory_s_files_and_no_others(kernel: Kernel) -> None:
    kernel.read(*[b"more/%03d" % number for number in range(3)])
    seen = [kernel.receive()[0] for _ in range(17)]
    assert sorted(seen) == [b"more/%03d" % number for number in range(3, 20)]
    assert kernel.finish() == []


def test_a_listing_in_between(kernel: Kernel) -> None:
    """tar(1) lists a directory and reads it, from its first file on."""
    kernel.read(*[b"more/%03d" % number for number in range(20)])
    kernel.ahead.listed(kernel.sample.ino(b"many"))
    while (given := kernel.receive())[0].startswith(b"more"):
        pass
    assert given == (b"many/000", FILES[b"many/000"])


def test_a_kernel_that_does_not_know_the_files_yet(
    make_kernel: Callable[..., Kernel], monkeypatch: pytest.MonkeyPatch
) -> None:
    """It has been given the page, but the reader has not taken it in."""
    writev, refusals = os.writev, iter([errno.ENOENT] * 3)

    def write(device: int, parts: list[bytes]) -> int:
        if b"content 0" in parts[2]:
            for code in refusals:
                raise OSError(code, "unknown")
        return writev(device, parts)

    monkeypatch.setattr("castfs.lane.storing.os.writev", write)
    monkeypatch.setattr("castfs.lane.storing._NEW_NS", 5 * 10**9)
    kernel = make_kernel()
    kernel.read(*[b"more/%03d" % number for number in range(3)])
    kernel.ahead.listed(kernel.sample.ino(b"many"))
    while (given := kernel.receive()[0]).startswith(b"more"):
        pass
    assert given == b"many/000"


def _remove(blob: Path) -> None:
    blob.unlink()


def _shorten(blob: Path) -> None:
    os.truncate(blob, 10)


def _lengthen(blob: Path) -> None:
    blob.write_bytes(blob.read_bytes() + b"x")


def _flip(blob: Path) -> None:
    blob.write_bytes(b"X" + blob.read_bytes()[1:])


@pytest.mark.parametrize(
    ("damage", "verify"),
    [(_remove, False), (_shorten, False), (_lengthen, False), (_flip, True), (_remove, True)],
)
def test_bad_blobs_are_left_to_the_reader(
    make_kernel: Callable[..., Kernel],
    caplog: pytest.LogCaptureFixture,
    damage: Callable[[Path], None],
    verify: bool,
) -> None:
    kernel = make_kernel(verify=verify)
    for number in (4, 6):
        damage(kernel.sample.blob(b"many/%03d" % number))
    kernel.read(*many(0, 1, 2))
    right = many(3, 5, 7, 8)
    assert [kernel.receive() for _ in right] == [(path, FILES[path]) for path in right]
    assert caplog.records == []


def test_large_and_empty_files_are_not_given(kernel: Kernel) -> None:
    contents = kernel.sample.contents
    assert contents.read_small(kernel.sample.ino(b"big"), SIZE_MAX) == b""
    assert contents.read_small(kernel.sample.ino(b"empty"), SIZE_MAX) == b""
    assert contents.read_small(kernel.sample.ino(b"link"), SIZE_MAX) == b""
    assert contents.read_small(kernel.sample.ino(b"many"), SIZE_MAX) == b""


def test_a_kernel_that_takes_nothing(kernel: Kernel) -> None:
    """It has forgotten the inode, or the mount has ended."""
    kernel.forget()
    kernel.read(*many(*range(100)))
    assert kernel.finish() == []
