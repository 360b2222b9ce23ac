"""What the lane answers by itself, without a mount: every handler and every errno."""

from __future__ import annotations

import errno
import os
import stat
from collections.abc import Callable, Iterator
from pathlib import Path
from struct import Struct

import pytest

from castfs import fuse
from castfs.fuse import Opcode
from castfs.lane.answers import Answers
from castfs.view.errnos import errno_of
from tests.lane.samples import Sample

#: Inode numbers that there are none of.
UNKNOWN = [0, 10_000, 2**32, 2**63, 2**64 - 1]
CHANGES = [
    "SETATTR", "SYMLINK", "MKNOD", "MKDIR", "UNLINK", "RMDIR", "RENAME", "LINK", "WRITE",
    "SETXATTR", "REMOVEXATTR", "CREATE", "FALLOCATE", "RENAME2", "COPY_FILE_RANGE",
]  # fmt: skip

Ask = Callable[..., bytes | int]


@pytest.fixture(scope="module")
def sample(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Sample]:
    sample = Sample(tmp_path_factory.mktemp("sample") / "blobs")
    yield sample
    sample.close()


def asking(sample: Sample) -> Ask:
    """A function that takes a request and returns a reply's body, or a negative errno."""
    handlers = Answers(sample.view).handlers

    def ask(opcode: Opcode, ino: int, body: bytes = b"") -> bytes | int:
        try:
            reply = handlers[opcode](ino, memoryview(body))
        except Exception as exc:
            return -errno_of(exc)
        return reply if isinstance(reply, int) else bytes(reply)

    return ask


@pytest.fixture
def ask(sample: Sample) -> Ask:
    return asking(sample)


def decode_entry(reply: bytes | int) -> tuple[int, int, int, int]:
    """(nodeid, entry_valid, attr_valid, the attr's own inode number)."""
    assert isinstance(reply, bytes)
    assert len(reply) == fuse.ENTRY_SIZE
    nodeid, generation, entry_valid, attr_valid, *nsecs = fuse.ENTRY_OUT.unpack_from(reply)
    assert (generation, nsecs) == (0, [0, 0])
    return nodeid, entry_valid, attr_valid, fuse.ATTR.unpack_from(reply, fuse.ENTRY_OUT.size)[0]


def test_lookup(sample: Sample, ask: Ask) -> None:
    for directory, name in ((b"", b"big"), (b"many", b"007"), (b"", b"link"), (b"", b"nothing")):
        ino = sample.ino(directory + b"/" + name if directory else name)
        reply = ask(Opcode.LOOKUP, sample.ino(directory), name + b"\0")
        assert decode_entry(reply) == (ino, fuse.FOREVER, fuse.FOREVER, ino)


@pytest.mark.parametrize("name", [b"missing", b"x" * 255, b"\xff", b"007", b"..."])
def test_what_is_not_there_is_not_there_for_ever(ask: Ask, name: bytes) -> None:
    nodeid, entry_valid, _, _ = decode_entry(ask(Opcode.LOOKUP, 1, name + b"\0"))
    assert (nodeid, entry_valid) == (0, fuse.FOREVER)


def test_lookup_of_dots(sample: Sample, ask: Ask) -> None:
    many, big = sample.ino(b"many"), sample.ino(b"big")
    for directory, name, found in (
        (1, b".", 1), (1, b"..", 1), (many, b".", many), (many, b"..", 1), (big, b".", big),
    ):  # fmt: skip
        nodeid, _, _, ino = decode_entry(ask(Opcode.LOOKUP, directory, name + b"\0"))
        assert (nodeid, ino) == (found, found)


def test_lookups_that_fail(sample: Sample, ask: Ask) -> None:
    assert ask(Opcode.LOOKUP, 1, b"x" * 256 + b"\0") == -errno.ENAMETOOLONG
    assert ask(Opcode.LOOKUP, 1, b"x" * 4095 + b"\0") == -errno.ENAMETOOLONG
    for path in (b"big", b"link"):
        assert ask(Opcode.LOOKUP, sample.ino(path), b"x\0") == -errno.ENOTDIR
        assert ask(Opcode.LOOKUP, sample.ino(path), b"..\0") == -errno.ENOTDIR


@pytest.mark.parametrize("ino", UNKNOWN)
def test_stale_inodes(ask: Ask, ino: int) -> None:
    page = fuse.READ_IN.pack(0, 0, 4096, 0, 0, 0, 0)
    for opcode, body in (
        (Opcode.LOOKUP, b"x\0"),
        (Opcode.LOOKUP, b".\0"),
        (Opcode.GETATTR, bytes(16)),
        (Opcode.READLINK, b""),
        (Opcode.READDIRPLUS, page),
        (Opcode.READDIR, page),
    ):
        assert ask(opcode, ino, body) == -errno.ESTALE, opcode


def test_getattr(sample: Sample, ask: Ask) -> None:
    for ino in range(1, sample.index.inode_count + 1):
        reply = ask(Opcode.GETATTR, ino, bytes(16))
        assert isinstance(reply, bytes)
        assert len(reply) == fuse.ATTR_OUT.size + fuse.ATTR.size
        assert fuse.ATTR_OUT.unpack_from(reply) == (fuse.FOREVER, 0, 0)
        number, size, *_, mode, nlink, _, _, _, blksize, _ = fuse.ATTR.unpack_from(reply, 16)
        known = sample.view.attributes(ino)
        assert (number, size, mode, nlink) == (ino, known.size, known.mode, known.nlink)
        assert blksize == fuse.BLKSIZE


def test_readlink(sample: Sample, ask: Ask) -> None:
    assert ask(Opcode.READLINK, sample.ino(b"link")) == b"many/000"
    assert ask(Opcode.READLINK, sample.ino(b"long link")) == b"x/" * 2000
    for path in (b"big", b"many", b""):
        assert ask(Opcode.READLINK, sample.ino(path)) == -errno.EINVAL


@pytest.mark.parametrize("flags", [0, os.O_DIRECT, os.O_NOATIME, os.O_NONBLOCK, os.O_APPEND])
def test_open_is_not_asked_again(sample: Sample, ask: Ask, flags: int) -> None:
    assert ask(Opcode.OPEN, sample.ino(b"big"), Struct("=II").pack(flags, 0)) == -errno.ENOSYS


@pytest.mark.parametrize("flags", [os.O_WRONLY, os.O_RDWR, os.O_TRUNC, os.O_RDWR | os.O_DIRECT])
def test_open_for_writing(sample: Sample, ask: Ask, flags: int) -> None:
    assert ask(Opcode.OPEN, sample.ino(b"big"), Struct("=II").pack(flags, 0)) == -errno.EROFS


@pytest.mark.parametrize("name", CHANGES)
def test_changes(ask: Ask, name: str) -> None:
    assert ask(Opcode[name], 1, bytes(64)) == -errno.EROFS


@pytest.mark.parametrize("name", ["OPENDIR", "FLUSH", "STATX", "TMPFILE"])
def test_what_the_kernel_shall_do_without(ask: Ask, name: str) -> None:
    assert ask(Opcode[name], 1, bytes(64)) == -errno.ENOSYS


def test_no_file_is_a_terminal(sample: Sample, ask: Ask) -> None:
    """Every open() of Python's asks, and the kernel passes it on each time."""
    assert ask(Opcode.IOCTL, sample.ino(b"big"), bytes(32)) == -errno.ENOTTY


@pytest.mark.parametrize("name", ["RELEASE", "RELEASEDIR"])
def test_what_was_never_opened_may_be_closed(ask: Ask, name: str) -> None:
    assert ask(Opcode[name], 1, bytes(24)) == b""


@pytest.mark.parametrize("name", ["READ", "INIT", "FORGET", "BATCH_FORGET", "INTERRUPT", "DESTROY"])
def test_what_others_answer(sample: Sample, name: str) -> None:
    assert Opcode[name] not in Answers(sample.view).handlers


def test_statfs(sample: Sample, ask: Ask) -> None:
    reply = ask(Opcode.STATFS, 1)
    assert isinstance(reply, bytes)
    blocks, bfree, bavail, files, ffree, bsize, namelen, frsize = fuse.KSTATFS.unpack(reply)
    assert (blocks, files) == (sample.index.total_blocks, sample.index.inode_count)
    assert (bfree, bavail, ffree, namelen) == (0, 0, 0, 255)
    assert bsize == frsize == 512


# Listings --------------------------------------------------------------------------------------


def pages(ask: Ask, opcode: Opcode, ino: int, size: int) -> list[tuple[int, int, int, bytes]]:
    """(ino, off, type, name) of each record. Each page is asked for where the last one says."""
    found: list[tuple[int, int, int, bytes]] = []
    offset = 0
    skipped = fuse.ENTRY_SIZE if opcode == Opcode.READDIRPLUS else 0
    while page := ask(opcode, ino, fuse.READ_IN.pack(0, offset, size, 0, 0, 0, 0)):
        assert isinstance(page, bytes)
        assert len(page) <= size
        while page:
            number, offset, length, kind = fuse.DIRENT.unpack_from(page, skipped)
            start = skipped + fuse.DIRENT.size
            found.append((number, offset, kind, page[start : start + length]))
            end = start + length
            page = page[end + -end % fuse.RECORD_ALIGN :]
    return found


@pytest.mark.parametrize("size", [432, 1000, 4096, 1 << 20])
@pytest.mark.parametrize("opcode", [Opcode.READDIRPLUS, Opcode.READDIR])
def test_listings(sample: Sample, ask: Ask, opcode: Opcode, size: int) -> None:
    for path in (b"", b"many", b"nothing"):
        ino = sample.ino(path)
        expected = [
            (entry.attributes.ino, entry.next_offset, stat.S_IFMT(entry.attributes.mode) >> 12,
             entry.name)
            for entry in sample.view.iter_directory(ino, 0)
        ]  # fmt: skip
        assert pages(ask, opcode, ino, size) == expected


def test_a_listing_goes_on_anywhere(sample: Sample, ask: Ask) -> None:
    many = sample.ino(b"many")
    whole = pages(ask, Opcode.READDIRPLUS, many, 4096)
    for number, (_, offset, _, _) in enumerate(whole[:-1]):
        page = ask(Opcode.READDIRPLUS, many, fuse.READ_IN.pack(0, offset, 4096, 0, 0, 0, 0))
        assert isinstance(page, bytes)
        assert fuse.DIRENT.unpack_from(page, fuse.ENTRY_SIZE)[0] == whole[number + 1][0]
    for beyond in (whole[-1][1], whole[-1][1] + 1, 2**40, 2**63 - 1):
        assert ask(Opcode.READDIRPLUS, many, fuse.READ_IN.pack(0, beyond, 4096, 0, 0, 0, 0)) == b""


def test_dots_of_a_page_are_not_remembered(ask: Ask) -> None:
    """Their nodeid is 0: the kernel would count a look-up of what it never forgets."""
    page = ask(Opcode.READDIRPLUS, 1, fuse.READ_IN.pack(0, 0, 4096, 0, 0, 0, 0))
    assert isinstance(page, bytes)
    assert fuse.ENTRY_OUT.unpack_from(page)[0] == 0
    assert fuse.ENTRY_OUT.unpack_from(page, 160)[0] == 0
    assert fuse.ENTRY_OUT.unpack_from(page, 320)[0] != 0


@pytest.mark.parametrize("opcode", [Opcode.READDIRPLUS, Opcode.READDIR])
def test_only_directories_are_listed(sample: Sample, ask: Ask, opcode: Opcode) -> None:
    body = fuse.READ_IN.pack(0, 0, 4096, 0, 0, 0, 0)
    for path in (b"big", b"link", b"empty"):
        assert ask(opcode, sample.ino(path), body) == -errno.ENOTDIR


# Extended attributes ---------------------------------------------------------------------------


def test_without_xattrs_nobody_asks_again(ask: Ask) -> None:
    size = Struct("=II").pack(100, 0)
    assert ask(Opcode.GETXATTR, 1, size + b"user.a\0") == -errno.ENOSYS
    assert ask(Opcode.LISTXATTR, 1, size) == -errno.ENOSYS


@pytest.fixture
def ask_xattrs(tmp_path: Path) -> Iterator[Callable[[Opcode, bytes, int, bytes], bytes | int]]:
    """The same by path, room and name."""
    sample = Sample(tmp_path / "blobs", xattrs=True)
    ask = asking(sample)
    yield lambda opcode, path, room, name: ask(
        opcode, sample.ino(path), Struct("=II").pack(room, 0) + name
    )
    sample.close()


AskXattrs = Callable[[Opcode, bytes, int, bytes], bytes | int]


@pytest.mark.parametrize(
    ("opcode", "name", "value"),
    [
        (Opcode.GETXATTR, b"user.a\0", b"value"),
        (Opcode.LISTXATTR, b"", b"user.a\0user.empty\0"),
    ],
)
def test_xattr_sizes(ask_xattrs: AskXattrs, opcode: Opcode, name: bytes, value: bytes) -> None:
    size = len(value)
    assert ask_xattrs(opcode, b"big", 0, name) == Struct("=II").pack(size, 0)
    assert ask_xattrs(opcode, b"big", size, name) == value
    assert ask_xattrs(opcode, b"big", 65536, name) == value
    for room in (1, size - 1):
        assert ask_xattrs(opcode, b"big", room, name) == -errno.ERANGE


def test_xattrs_that_are_empty_or_missing(ask_xattrs: AskXattrs) -> None:
    get, names = Opcode.GETXATTR, Opcode.LISTXATTR
    assert ask_xattrs(get, b"big", 0, b"user.empty\0") == bytes(8)
    assert ask_xattrs(get, b"big", 10, b"user.empty\0") == b""
    assert ask_xattrs(get, b"big", 10, b"user.b\0") == -errno.ENODATA
    assert ask_xattrs(get, b"many", 10, b"user.a\0") == -errno.ENODATA
    assert ask_xattrs(names, b"many", 10, b"") == b""
    assert ask_xattrs(names, b"many", 0, b"") == bytes(8)


def test_xattrs_of_stale_inodes(tmp_path: Path) -> None:
    sample = Sample(tmp_path / "blobs", xattrs=True)
    ask = asking(sample)
    for ino in UNKNOWN:
        assert ask(Opcode.GETXATTR, ino, bytes(8) + b"user.a\0") == -errno.ESTALE
        assert ask(Opcode.LISTXATTR, ino, bytes(8)) == -errno.ESTALE
    sample.close()
