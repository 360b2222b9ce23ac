"""The lane between a kernel and a libfuse that are both played here: what the protocol demands of
it, and what it must never do. Each message is one of a socket, as each of the device's is."""

from __future__ import annotations

import contextlib
import errno
import os
import random
import socket
import subprocess
import sys
import threading
from collections.abc import Callable, Iterator
from queue import SimpleQueue
from typing import Any

import pytest

from castfs import fuse
from castfs.fuse import Opcode
from castfs.lane import FastLane, Wires
from castfs.view import Contents, OpenFile
from tests.lane.samples import BIG, FILES, Sample

PATIENCE = 10.0
#: An opcode of which the lane knows nothing: FUSE_LSEEK.
OTHER = 46


class World:
    """`kernel` is one end of the device, `libfuse` the descriptor that libfuse has in its place."""

    def __init__(self, sample: Sample, *, passthrough: bool = False) -> None:
        self.sample = sample
        self.kernel, device = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
        self.kernel.settimeout(PATIENCE)
        for end in (self.kernel, device):
            end.setsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF, 4 << 20)
        self.libfuse = device.detach()
        self.wires = Wires(self.libfuse)
        self.ends: SimpleQueue[Exception | None] = SimpleQueue()
        self.lane = FastLane(
            self.wires,
            self.sample.view,
            self.sample.contents,
            self.ends.put,
            descriptors=1000,
            passthrough=passthrough,
        )
        self._stopped = False
        self.lane.start()

    def send(
        self, opcode: int, unique: int, ino: int = 1, body: bytes = b"", *, pid: int = 0
    ) -> None:
        size = fuse.IN_HEADER.size + len(body)
        header = fuse.IN_HEADER.pack(size, opcode, unique, ino, 0, 0, pid, 0)
        self.kernel.send(header + body)

    def send_read(self, unique: int, path: bytes, offset: int, size: int, *, pid: int = 0) -> None:
        body = fuse.READ_IN.pack(0, offset, size, 0, 0, 0, 0)
        self.send(Opcode.READ, unique, self.sample.ino(path), body, pid=pid)

    def receive(self) -> tuple[int, int, bytes]:
        """(unique, error, body) of the next reply."""
        message = self.kernel.recv(4 << 20)
        length, error, unique = fuse.OUT_HEADER.unpack_from(message)
        assert length == len(message)
        if unique == 0:  # a notification: files that are stored ahead
            return self.receive()
        return unique, error, message[fuse.OUT_HEADER.size :]

    def passed_on(self) -> tuple[int, int, bytes]:
        """(opcode, unique, all of it) of the next request that libfuse gets."""
        message = os.read(self.libfuse, 2 << 20)
        _, opcode, unique, *_ = fuse.IN_HEADER.unpack_from(message)
        return opcode, unique, message

    def answer(self, unique: int, body: bytes = b"", error: int = 0) -> None:
        """As libfuse does."""
        header = fuse.OUT_HEADER.pack(fuse.OUT_HEADER.size + len(body), error, unique)
        os.write(self.libfuse, header + body)

    def is_quiet(self) -> bool:
        """No more replies: what is asked last is answered next."""
        self.send(Opcode.GETATTR, 2**40, 1, bytes(16))
        return self.receive()[0] == 2**40

    def stop(self) -> None:
        self.lane.stop()
        self._stopped = True

    def close(self) -> None:
        if not self._stopped:
            self.stop()
        os.close(self.libfuse)
        self.kernel.close()


@pytest.fixture(scope="module")
def sample(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Sample]:
    sample = Sample(tmp_path_factory.mktemp("sample") / "blobs", blobs=True)
    yield sample
    sample.close()


@pytest.fixture
def world(sample: Sample) -> Iterator[World]:
    world = World(sample)
    yield world
    world.close()


# INIT ------------------------------------------------------------------------------------------

OFFERED = 0x73FF_FFFB


@pytest.mark.parametrize("symlinks", [True, False], ids=["offered", "not offered"])
def test_init_asks_for_what_was_offered(world: World, symlinks: bool) -> None:
    offered = OFFERED | fuse.CACHE_SYMLINKS if symlinks else OFFERED & ~fuse.CACHE_SYMLINKS
    chosen = offered & 0x4001_F039
    request = fuse.INIT_IN.pack(7, 41, 131072, offered) + bytes(48)
    world.send(Opcode.INIT, 2, 0, request)
    opcode, unique, message = world.passed_on()
    assert (opcode, unique) == (Opcode.INIT, 2)
    assert message[fuse.IN_HEADER.size :] == request
    # max_stack_depth is followed by what nobody uses yet.
    reply = fuse.INIT_OUT.pack(7, 40, 131072, chosen, 12, 9, 1 << 20, 1, 256, 3, 2, 0)
    reply += b"rest" * 6
    world.answer(2, reply)
    unique, error, body = world.receive()
    assert (unique, error, len(body)) == (2, 0, len(reply))
    fields = fuse.INIT_OUT.unpack_from(body)
    flags = fields[3]
    assert flags & ~offered == 0
    assert bool(flags & fuse.CACHE_SYMLINKS) == symlinks
    assert flags & ~fuse.CACHE_SYMLINKS == chosen & ~fuse.ASYNC_DIO
    assert fields[:3] == (7, 40, 131072)
    assert fields[6:] == (1 << 20, 1, 256, 3, 2, 0)
    assert body[fuse.INIT_OUT.size :] == b"rest" * 6


def test_only_the_reply_to_init_is_changed(world: World) -> None:
    world.send(Opcode.INIT, 2, 0, fuse.INIT_IN.pack(7, 41, 131072, OFFERED) + bytes(48))
    world.passed_on()
    world.answer(2, error=-errno.EPROTO)
    assert world.receive() == (2, -errno.EPROTO, b"")
    world.send(OTHER, 4)
    assert world.passed_on()[:2] == (OTHER, 4)
    world.answer(4, bytes(64))
    assert world.receive() == (4, 0, bytes(64))


# One reply for each request --------------------------------------------------------------------


def test_the_kernel_is_told_to_do_without(world: World) -> None:
    for number, opcode in enumerate(
        (Opcode.OPENDIR, Opcode.OPEN, Opcode.FLUSH, Opcode.GETXATTR), 1
    ):
        world.send(opcode, number, 1, bytes(24))
        assert world.receive() == (number, -errno.ENOSYS, b"")


def test_each_request_has_one_reply(world: World) -> None:
    """Requests of every kind at random, as fast as they go, while libfuse answers out of order."""
    rng = random.Random(3)
    requests: list[Callable[[], None]] = []
    expected: dict[int, tuple[int, bytes]] = {}
    others: list[int] = []

    def ask(unique: int, opcode: int, ino: int, body: bytes) -> None:
        requests.append(lambda: world.send(opcode, unique, ino, body))

    def ask_to_read(unique: int, path: bytes, offset: int) -> None:
        requests.append(lambda: world.send_read(unique, path, offset, 4096))

    for unique in range(1, 601):
        path = rng.choice(sorted(FILES))
        kind = rng.choice(("getattr", "read", "mkdir", "forget", "other"))
        if kind == "getattr":
            ask(unique, Opcode.GETATTR, 10_000 + unique, bytes(16))
            expected[unique] = -errno.ESTALE, b""
        elif kind == "read":
            offset = rng.randrange(len(FILES[path]) + 10)
            ask_to_read(unique, path, offset)
            expected[unique] = 0, FILES[path][offset : offset + 4096]
        elif kind == "mkdir":
            ask(unique, Opcode.MKDIR, 1, bytes(8) + b"x\0")
            expected[unique] = -errno.EROFS, b""
        elif kind == "forget":  # has no reply
            ask(unique, Opcode.FORGET, 1, bytes(8))
        else:
            ask(unique, OTHER, 1, b"")
            others.append(unique)
            expected[unique] = 0, b"x" * 70_000

    def be_processes() -> None:
        for request in requests:
            request()

    def be_libfuse() -> None:
        held: list[int] = []
        for number in range(len(others)):
            held.append(world.passed_on()[1])
            while len(held) > 20 or (held and number == len(others) - 1):
                world.answer(held.pop(number % len(held)), b"x" * 70_000)

    threads = [threading.Thread(target=work) for work in (be_processes, be_libfuse)]
    for thread in threads:
        thread.start()
    for _ in range(len(expected)):
        unique, error, body = world.receive()
        assert expected.pop(unique) == (error, body)
    for thread in threads:
        thread.join(PATIENCE)
        assert not thread.is_alive()
    assert world.is_quiet()


def test_reads_are_whole(world: World) -> None:
    for unique, (offset, size) in enumerate(((0, 300_000), (4096, 131_072), (299_000, 4096)), 1):
        world.send_read(unique, b"big", offset, size)
        assert world.receive() == (unique, 0, BIG[offset : offset + size])
    world.send_read(9, b"big", 300_000, 4096)
    assert world.receive() == (9, 0, b"")


@pytest.mark.parametrize("claimed", [41, 4096, 0])
def test_a_request_that_came_short(world: World, claimed: int) -> None:
    for opcode in (Opcode.GETATTR, Opcode.READ, OTHER):
        header = fuse.IN_HEADER.pack(claimed, opcode, 8, 1, 0, 0, 0, 0)
        world.kernel.send(header)
        assert world.receive() == (8, -errno.EIO, b"")
    assert world.is_quiet()


def test_a_body_that_is_missing(world: World) -> None:
    for number, opcode in enumerate((Opcode.READ, Opcode.READDIRPLUS, Opcode.OPEN), 1):
        world.send(opcode, number)
        assert world.receive() == (number, -errno.EIO, b"")
    assert world.is_quiet()


def test_a_refused_reply_is_replaced(world: World, monkeypatch: pytest.MonkeyPatch) -> None:
    original = os.writev

    def refuse(fd: int, pieces: list[Any]) -> int:
        if fd == world.wires.device:
            raise OSError(code, os.strerror(code))
        return original(fd, pieces)

    code = errno.EINVAL
    monkeypatch.setattr(os, "writev", refuse)
    for code in (errno.EINVAL, errno.ENOMEM, errno.EFAULT):
        world.send(Opcode.GETATTR, code, 1, bytes(16))
        assert world.receive() == (code, -errno.EIO, b"")
    code = errno.ENOENT  # whoever asked has gone
    world.send(Opcode.GETATTR, 7, 1, bytes(16))
    world.send(Opcode.MKDIR, 8)
    assert world.receive() == (8, -errno.EROFS, b"")


def test_a_refused_reply_of_libfuse_is_replaced(
    world: World, monkeypatch: pytest.MonkeyPatch
) -> None:
    original = os.write

    def refuse(fd: int, data: Any) -> int:
        if fd == world.wires.device and len(data) > fuse.OUT_HEADER.size:
            raise OSError(errno.EINVAL, "no")
        return original(fd, data)

    monkeypatch.setattr(os, "write", refuse)
    world.send(OTHER, 5)
    assert world.passed_on()[1] == 5
    world.answer(5, b"a reply that is refused")
    assert world.receive() == (5, -errno.EIO, b"")


def test_forgetting_has_no_reply(world: World) -> None:
    world.send(Opcode.FORGET, 1, 1, bytes(8))
    world.send(Opcode.BATCH_FORGET, 2, 0, bytes(24))
    world.send(Opcode.INTERRUPT, 3, 0, fuse.INTERRUPT_IN.pack(99))
    assert world.is_quiet()


# Passing on ------------------------------------------------------------------------------------


def test_a_hundred_requests_for_libfuse(world: World) -> None:
    """Large replies of a libfuse that reads nothing while it writes would fill the socket."""
    for unique in range(1, 101):
        world.send(OTHER, unique, 1, bytes(100))
    # The lane itself waits for nobody.
    assert world.is_quiet()
    os.set_blocking(world.libfuse, False)
    assert [world.passed_on()[1] for _ in range(32)] == list(range(1, 33))
    with pytest.raises(BlockingIOError):
        world.passed_on()
    os.set_blocking(world.libfuse, True)

    # The device never refuses a reply for want of room; the socket in its place would.
    room = threading.Semaphore(16)

    def be_libfuse() -> None:
        for unique in range(1, 101):
            if unique > 32:
                assert world.passed_on()[1] == unique
            assert room.acquire(timeout=PATIENCE)
            world.answer(unique, bytes(120_000))

    libfuse = threading.Thread(target=be_libfuse)
    libfuse.start()
    for unique in range(1, 101):
        assert world.receive()[0] == unique
        room.release()
    libfuse.join(PATIENCE)
    assert not libfuse.is_alive()
    assert world.is_quiet()


# Interrupts ------------------------------------------------------------------------------------


@pytest.fixture
def slow_reads(monkeypatch: pytest.MonkeyPatch) -> Iterator[threading.Event]:
    """Reads wait for it."""
    go_on = threading.Event()
    original = Contents.read

    def read(contents: Contents, file: OpenFile, offset: int, count: int) -> bytes | bytearray:
        assert go_on.wait(PATIENCE)
        return original(contents, file, offset, count)

    monkeypatch.setattr(Contents, "read", read)
    monkeypatch.setattr(Contents, "read_cached", lambda *arguments: -1)
    yield go_on
    go_on.set()


def interrupt(world: World, unique: int) -> None:
    world.send(Opcode.INTERRUPT, unique | 1, 0, fuse.INTERRUPT_IN.pack(unique))


def test_a_signal_is_no_reason_to_give_up(world: World, slow_reads: threading.Event) -> None:
    world.send_read(10, b"big", 0, 4096, pid=os.getpid())
    interrupt(world, 10)
    interrupt(world, 12)
    assert world.is_quiet()
    slow_reads.set()
    assert world.receive() == (10, 0, BIG[:4096])


def test_who_is_killed_has_an_answer(world: World, slow_reads: threading.Event) -> None:
    """One answer: what is read in the end is nobody's any more."""
    with subprocess.Popen([sys.executable, "-c", "input()"], stdin=subprocess.PIPE) as process:
        world.send_read(10, b"big", 0, 4096, pid=process.pid)
        world.send_read(12, b"big", 8192, 4096, pid=os.getpid())
        interrupt(world, 10)
        assert world.is_quiet()
        process.kill()
        # The kernel tells of the first signal only.
        assert world.receive() == (10, -errno.EINTR, b"")
    slow_reads.set()
    assert world.receive() == (12, 0, BIG[8192:12288])
    assert world.is_quiet()


# The end ---------------------------------------------------------------------------------------


def failing_once(
    monkeypatch: pytest.MonkeyPatch, world: World, codes: list[int]
) -> Callable[[], None]:
    """Reading the device fails with each of `codes`, once; then it works again."""
    original = os.readv

    def readv(fd: int, buffers: list[Any]) -> int:
        if fd == world.wires.device and codes:
            code = codes.pop()
            raise OSError(code, os.strerror(code))
        return original(fd, buffers)

    monkeypatch.setattr(os, "readv", readv)
    return lambda: world.send(Opcode.MKDIR, 1)


def test_errors_of_the_device_that_mean_nothing(
    world: World, monkeypatch: pytest.MonkeyPatch
) -> None:
    codes = [errno.EINTR, errno.EAGAIN, errno.ENOENT]
    wake = failing_once(monkeypatch, world, codes)
    wake()
    assert world.receive() == (1, -errno.EROFS, b"")
    assert world.is_quiet()
    assert not codes
    assert world.ends.empty()


@pytest.mark.parametrize("code", [errno.ENODEV, errno.ECONNABORTED, errno.EIO, errno.EPERM])
def test_errors_of_the_device_that_end_the_mount(
    world: World, monkeypatch: pytest.MonkeyPatch, code: int
) -> None:
    wake = failing_once(monkeypatch, world, [code])
    wake()
    assert world.ends.get(timeout=PATIENCE) is None
    world.stop()
    assert world.ends.empty()


def test_stopping_is_not_an_end(world: World) -> None:
    world.stop()
    assert world.ends.empty()


def test_late_replies_after_the_end(world: World, slow_reads: threading.Event) -> None:
    """The device's number stays taken, and libfuse has the device itself again."""
    world.send_read(10, b"big", 0, 4096)
    world.send_read(12, b"big", 0, 4096)
    assert world.is_quiet()
    world.stop()
    world.kernel.setblocking(False)
    replies = []
    with contextlib.suppress(BlockingIOError):
        while True:
            replies.append(world.receive())
    assert replies in ([], [(10, -errno.EIO, b""), (12, -errno.EIO, b"")])
    assert os.readlink(f"/proc/self/fd/{world.wires.device}") == os.devnull
    opened = os.open(os.devnull, os.O_RDONLY)
    assert opened != world.wires.device
    os.close(opened)
    slow_reads.set()
    for thread in threading.enumerate():
        if thread.name == "castfs reads":
            thread.join(PATIENCE)
            assert not thread.is_alive()
    os.write(world.libfuse, b"from libfuse")
    assert world.kernel.recv(100) == b"from libfuse"
    with pytest.raises(BlockingIOError):
        world.kernel.recv(100)


def test_threads_end(world: World) -> None:
    before = {thread.name for thread in threading.enumerate()}
    assert {"castfs lane", "castfs replies"} <= before
    lane = [
        each for each in threading.enumerate() if each.name in ("castfs lane", "castfs replies")
    ]
    world.stop()
    assert not any(thread.is_alive() for thread in lane)
