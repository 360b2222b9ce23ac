"""Which files the kernel is let to read itself, and what it is told when one is opened or closed.

The kernel is played here: its rules are those of fs/fuse/iomode.c and fs/fuse/backing.c.
"""

from __future__ import annotations

import errno
import fcntl
import os
import random
from collections.abc import Iterator
from pathlib import Path

import pytest

from castfs import fuse
from castfs.fuse import Opcode
from castfs.lane import passthrough as module
from castfs.lane import passthrough_pays
from castfs.lane.passthrough import MEAN_SIZE_MIN, SIZE_MIN, Passthrough
from castfs.manifest import Directory, File, Symlink
from castfs.tree import Presentation, TreeIndex, compile_tree
from tests.lane.samples import BIG, FILES, Sample
from tests.lane.test_rules import OFFERED, World
from tests.tree.test_compiler import make_file, make_tree

DEVICE = 12345
KEPT = fuse.FOPEN_KEEP_CACHE | fuse.FOPEN_NOFLUSH
PASSED = fuse.FOPEN_PASSTHROUGH


class Kernel:
    """Its side of the two ioctls. `refusal` is what the next registrations fail with."""

    def __init__(self) -> None:
        self.refusal = 0
        self.device = DEVICE
        #: The blobs that are registered, by number: (device, inode).
        self.backings: dict[int, tuple[int, int]] = {}
        self.registered = 0

    def ioctl(self, device: int, request: int, argument: bytearray) -> int:
        assert device == self.device
        if request == 0x4010E501:  # _IOW(229, 1, struct fuse_backing_map)
            if self.refusal:
                raise OSError(self.refusal, os.strerror(self.refusal))
            fd, flags, padding = fuse.BACKING_MAP.unpack(argument)
            assert (flags, padding, len(argument)) == (0, 0, 16)
            status = os.fstat(fd)
            self.registered += 1
            self.backings[self.registered] = status.st_dev, status.st_ino
            return self.registered
        assert request == 0x4004E502  # _IOW(229, 2, uint32_t)
        assert len(argument) == 4
        del self.backings[int.from_bytes(argument, "little")]
        return 0


@pytest.fixture
def kernel(monkeypatch: pytest.MonkeyPatch) -> Kernel:
    kernel = Kernel()
    monkeypatch.setattr(fcntl, "ioctl", kernel.ioctl)
    return kernel


@pytest.fixture
def sample(tmp_path: Path) -> Iterator[Sample]:
    sample = Sample(tmp_path / "blobs", blobs=True)
    yield sample
    sample.close()


@pytest.fixture
def offered(sample: Sample, kernel: Kernel) -> Passthrough:
    passthrough = Passthrough(DEVICE, sample.index, sample.contents)
    passthrough.offered = True
    return passthrough


def opened(passthrough: Passthrough, ino: int) -> tuple[int, int, int]:
    """(handle, flags, backing)"""
    reply = passthrough.open(ino)
    assert isinstance(reply, bytes), errno.errorcode[-reply]
    assert len(reply) == 16
    handle, flags, backing = fuse.OPEN_OUT.unpack(reply)
    return handle, flags, backing


def identity(blob: Path) -> tuple[int, int]:
    status = blob.stat()
    return status.st_dev, status.st_ino


# Opening and closing ---------------------------------------------------------------------------


def test_one_backing_for_all_who_have_it_open(
    sample: Sample, kernel: Kernel, offered: Passthrough
) -> None:
    ino, before = sample.ino(b"big"), os.listdir("/proc/self/fd")
    handles = []
    for _ in range(3):
        handle, flags, backing = opened(offered, ino)
        assert (flags, backing) == (PASSED, 1)
        handles.append(handle)
    assert kernel.backings == {1: identity(sample.blob(b"big"))}
    assert os.listdir("/proc/self/fd") == before  # the kernel has its own hold on the blob
    for handle in handles[:2]:
        offered.release(ino, handle)
        assert kernel.backings
    assert opened(offered, ino)[2] == 1
    for handle in handles[:2]:
        offered.release(ino, handle)
    assert kernel.backings == {}
    assert opened(offered, ino)[1:] == (PASSED, 2)  # numbers are not for ever


def test_small_files_stay_in_the_page_cache(
    sample: Sample, kernel: Kernel, offered: Passthrough
) -> None:
    for path in (b"empty", b"other/1", b"many/000"):
        handle, flags, backing = opened(offered, sample.ino(path))
        assert (flags, backing) == (KEPT, 0)
        offered.release(sample.ino(path), handle)
    assert kernel.registered == 0


@pytest.mark.parametrize(("size", "flags"), [(SIZE_MIN - 1, KEPT), (SIZE_MIN, PASSED)])
def test_what_is_large(
    kernel: Kernel,
    offered: Passthrough,
    monkeypatch: pytest.MonkeyPatch,
    sample: Sample,
    size: int,
    flags: int,
) -> None:
    monkeypatch.setattr(module, "SIZE_MIN", SIZE_MIN + len(BIG) - size)
    assert opened(offered, sample.ino(b"big"))[1] == flags


def test_not_offered(sample: Sample, kernel: Kernel) -> None:
    passthrough = Passthrough(DEVICE, sample.index, sample.contents)
    for path in (b"empty", b"big"):
        assert passthrough.open(sample.ino(path)) == -errno.ENOSYS
    assert kernel.registered == 0


@pytest.mark.parametrize("code", [errno.EPERM, errno.ELOOP, errno.EOPNOTSUPP, errno.EINVAL])
def test_refused_from_the_beginning(
    sample: Sample, kernel: Kernel, offered: Passthrough, code: int
) -> None:
    """The kernel asks no more then; closing what was open before is nothing special."""
    small = opened(offered, sample.ino(b"other/1"))[0]
    kernel.refusal = code
    assert offered.open(sample.ino(b"big")) == -errno.ENOSYS
    kernel.refusal = 0
    # Two at once: nobody would close it, since the kernel has been told that there is no OPEN.
    assert offered.open(sample.ino(b"big")) == -errno.ENOSYS
    offered.release(sample.ino(b"other/1"), small)


@pytest.mark.parametrize("code", [errno.ENOMEM, errno.EMFILE])
def test_refused_this_once(sample: Sample, kernel: Kernel, offered: Passthrough, code: int) -> None:
    ino = sample.ino(b"big")
    kernel.refusal = code
    handle, flags, backing = opened(offered, ino)
    assert (flags, backing) == (KEPT, 0)
    offered.release(ino, handle)
    kernel.refusal = 0
    assert opened(offered, ino)[1] == PASSED


def test_a_blob_that_is_not_as_it_should_be(
    sample: Sample, kernel: Kernel, offered: Passthrough
) -> None:
    """Reading says what is wrong, or finds it healed: not before all have closed the file can it be
    passed through."""
    ino, blob = sample.ino(b"big"), sample.blob(b"big")
    for damage in (b"", BIG[:-1], BIG + b"x"):
        blob.write_bytes(damage)
        first, flags, _ = opened(offered, ino)
        assert flags == KEPT
        blob.write_bytes(BIG)
        second, flags, _ = opened(offered, ino)
        assert flags == KEPT
        offered.release(ino, first)
        third, flags, _ = opened(offered, ino)
        assert flags == KEPT
        for handle in (second, third):
            offered.release(ino, handle)
        handle, flags, _ = opened(offered, ino)
        assert flags == PASSED
        offered.release(ino, handle)
    assert kernel.backings == {}


def test_never_both_ways_at_once(
    sample: Sample, kernel: Kernel, offered: Passthrough, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The kernel fails an open(2) that has another way or another blob than those before it."""
    monkeypatch.setattr(module, "SIZE_MIN", 1)
    rng = random.Random(4)
    inos = [sample.ino(path) for path in (b"big", b"other/1")]
    blob = sample.blob(b"big")
    offered.release(inos[0], opened(offered, inos[0])[0])  # an error counts for one file from now
    held: list[tuple[int, int, int, int]] = []
    ways = set()
    for _ in range(2000):
        kernel.refusal = rng.choice((0, 0, errno.ELOOP, errno.ENOMEM))
        if rng.random() < 0.1:
            (blob.unlink if blob.exists() else lambda: blob.write_bytes(BIG))()
        if held and rng.random() < 0.55:
            ino, handle, _, _ = held.pop(rng.randrange(len(held)))
            offered.release(ino, handle)
        else:
            ino = rng.choice(inos)
            held.append((ino, *opened(offered, ino)))
        for ino in inos:
            same = {(flags, backing) for each, _, flags, backing in held if each == ino}
            assert len(same) <= 1
            ways |= same
            assert all(not backing or backing in kernel.backings for _, backing in same)
        assert set(kernel.backings) == {backing for *_, backing in held if backing}
    for ino, handle, _, _ in held:
        offered.release(ino, handle)
    assert kernel.backings == {}
    assert len(ways) > 30


# The default -----------------------------------------------------------------------------------


def compiled(*sizes: int, **others: Directory | Symlink) -> TreeIndex:
    entries: dict[bytes, File | Symlink | Directory] = {
        b"%d" % number: make_file(b"x" * size) for number, size in enumerate(sizes)
    }
    entries |= {name.encode(): other for name, other in others.items()}
    return compile_tree(make_tree(entries), Presentation())


@pytest.mark.parametrize(
    ("index", "pays"),
    [
        (compiled(), False),
        (compiled(directory=Directory(mode=0o755, mtime_ns=0)), False),
        (compiled(0), False),
        (compiled(MEAN_SIZE_MIN), True),
        (compiled(MEAN_SIZE_MIN - 512), False),
        (compiled(2 * MEAN_SIZE_MIN, 0), True),
        (compiled(2 * MEAN_SIZE_MIN - 512, 0), False),
        (compiled(2 * MEAN_SIZE_MIN, 0, 1), False),
        (compiled(MEAN_SIZE_MIN, directory=Directory(mode=0o755, mtime_ns=0)), True),
    ],
)
def test_pays(index: TreeIndex, pays: bool) -> None:
    """Symbolic links count as files; directories do not."""
    assert passthrough_pays(index) is pays


# Between kernel and libfuse --------------------------------------------------------------------


@pytest.fixture
def world(sample: Sample, kernel: Kernel) -> Iterator[World]:
    world = World(sample, passthrough=True)
    kernel.device = world.wires.device
    yield world
    world.close()


#: What of flags2 a kernel offers besides passthrough.
OTHER_FLAGS2 = 0x0000_001B


def initialized(world: World, request: bytes, chosen: int = 0x4001_F039) -> tuple[int, ...]:
    """The fields of the reply to INIT that the kernel gets."""
    world.send(Opcode.INIT, 2, 0, request)
    assert world.passed_on()[2][fuse.IN_HEADER.size :] == request
    reply = fuse.INIT_OUT.pack(7, 40, 131072, chosen, 12, 9, 1 << 20, 1, 256, 3, 2, 0) + bytes(24)
    world.answer(2, reply)
    unique, error, body = world.receive()
    assert (unique, error, len(body)) == (2, 0, 64)
    assert body[fuse.INIT_OUT.size :] == bytes(24)
    return fuse.INIT_OUT.unpack_from(body)


def init(flags2: int) -> bytes:
    """struct fuse_init_in."""
    words = (7, 44, 131072, OFFERED | fuse.INIT_EXT, flags2)
    return b"".join(word.to_bytes(4, "little") for word in words) + bytes(44)


def test_init(world: World) -> None:
    assert not world.lane.passes_through
    fields = initialized(world, init(OTHER_FLAGS2 | 1 << 5), chosen=0x0001_F039)
    assert fields[3] & fuse.INIT_EXT
    assert fields[10:] == (2 | 1 << 5, 1)
    assert world.lane.passes_through


@pytest.mark.parametrize(
    "request_",
    [init(OTHER_FLAGS2), fuse.INIT_IN.pack(7, 35, 131072, OFFERED & ~fuse.INIT_EXT)],
    ids=["not offered", "of a kernel before 5.17"],
)
def test_init_without(world: World, sample: Sample, request_: bytes) -> None:
    fields = initialized(world, request_)
    assert fields[3] & fuse.INIT_EXT == 0x4001_F039 & fuse.INIT_EXT
    assert fields[10:] == (2, 0)
    assert not world.lane.passes_through
    world.send(Opcode.OPEN, 4, sample.ino(b"big"), bytes(8))
    assert world.receive() == (4, -errno.ENOSYS, b"")


def test_init_if_it_is_not_wanted(sample: Sample, kernel: Kernel) -> None:
    world = World(sample)
    try:
        assert initialized(world, init(OTHER_FLAGS2 | 1 << 5))[10:] == (2, 0)
        assert not world.lane.passes_through
        world.send(Opcode.OPEN, 4, sample.ino(b"big"), bytes(8))
        assert world.receive() == (4, -errno.ENOSYS, b"")
    finally:
        world.close()


def test_requests(world: World, sample: Sample, kernel: Kernel) -> None:
    initialized(world, init(1 << 5))
    ino = sample.ino(b"big")
    world.send(Opcode.OPEN, 4, ino, os.O_WRONLY.to_bytes(4, "little") + bytes(4))
    assert world.receive() == (4, -errno.EROFS, b"")
    assert kernel.registered == 0
    world.send(Opcode.OPEN, 6, ino, bytes(8))
    unique, error, body = world.receive()
    handle, flags, backing = fuse.OPEN_OUT.unpack(body)
    assert (unique, error, flags, backing) == (6, 0, PASSED, 1)
    # struct fuse_release_in: fh, flags, release_flags, lock_owner.
    world.send(Opcode.RELEASE, 8, ino, handle.to_bytes(8, "little") + bytes(16))
    assert world.receive() == (8, 0, b"")
    assert kernel.backings == {}
    world.send(Opcode.RELEASE, 10, ino, handle.to_bytes(8, "little") + bytes(16))  # there is none
    assert world.receive()[0] == 10
    world.send_read(12, b"other/1", 0, 4096)
    assert world.receive() == (12, 0, FILES[b"other/1"])


def test_the_numbers_of_the_header() -> None:
    """_IOW of asm-generic/ioctl.h."""
    for number, struct, request in (
        (1, fuse.BACKING_MAP, fuse.DEV_IOC_BACKING_OPEN),
        (2, fuse.BACKING_ID, fuse.DEV_IOC_BACKING_CLOSE),
    ):
        assert request == 1 << 30 | struct.size << 16 | 229 << 8 | number
