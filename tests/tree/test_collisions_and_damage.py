"""Look-ups where names share their hashes, and in an index that is overwritten while it is used."""

from __future__ import annotations

import random
import struct
from collections.abc import Callable, Iterator
from functools import partial
from io import BytesIO

import pytest
import xxhash

from castfs.digest import Digest
from castfs.manifest import Directory, File, Symlink, Tree, encode_xattrs
from castfs.tree import ROOT_INO, Presentation, TreeIndex, compile_tree
from castfs.tree.compiler import write_index
from castfs.tree.layout import HEADER_SIZE
from tests.tree.test_compiler import make_file, make_tree, names_in, resolve

#: What an index may answer with that was damaged after it had been opened (`TreeIndex`).
DAMAGED = (IndexError, ValueError, struct.error)

Hash = Callable[[bytes, int], int]
#: 0 stands for "no name" while it is compiled; the last two lead to the last slot and go on at the
#: first one.
HASHES: dict[str, Hash] = {
    "zero": lambda name, seed: 0,
    "one": lambda name, seed: 1,
    "high bits": lambda name, seed: len(name) << 40,
    "two": lambda name, seed: len(name) % 2,
    "last": lambda name, seed: (1 << 64) - 1,
    "last but one": lambda name, seed: (1 << 64) - 2 + len(name) % 2,
}


def sample() -> Tree:
    entries: dict[bytes, File | Symlink | Directory] = {
        b"%s%d" % (directory, number): make_file(b"%d" % number)
        for directory in (b"", b"a/", b"b/", b"a/b/")
        for number in range(40)
    }
    entries[b"link"] = Symlink(mtime_ns=0, target="a/1")
    entries[b"b/xattrs"] = make_file(b"x", xattrs=encode_xattrs({b"user.a": b"value"}))
    entries[b"empty"] = Directory(mode=0o755, mtime_ns=0)
    return make_tree(entries)


@pytest.mark.parametrize("name", HASHES)
def test_names_that_share_a_hash(name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(xxhash, "xxh3_64_intdigest", HASHES[name])
    tree = sample()
    index = compile_tree(tree, Presentation())
    for path in (*tree.files, *tree.dirs, *tree.symlinks):
        assert index.path(resolve(index, path)) == path
    for directory in (b"", b"a", b"b", b"a/b", b"empty"):
        ino = resolve(index, directory)
        for absent in (b"40", b"missing", b"", b".", b"..", b"1\0", b"xattr", b"a/1"):
            assert index.find_entry(ino, absent) == 0
            assert index.child(ino, absent) == 0
        # What is somewhere else only.
        for elsewhere in {b"a", b"b", b"link", b"xattrs", b"39"} - {*names_in(index, ino)}:
            assert index.find_entry(ino, elsewhere) == 0


# Damage ----------------------------------------------------------------------------------------


def make_raw() -> bytearray:
    file = BytesIO()
    write_index(file, sample(), Presentation(), Digest("ab" * 32))
    return bytearray(file.getvalue())


def _listed(index: TreeIndex, ino: int, offset: int) -> object:
    return [*index.iter_entries(ino, offset)]


def look_everywhere(index: TreeIndex) -> Iterator[str]:
    """What each question gives: "answer", or its exception's name. Anything else is raised."""
    questions: list[Callable[[], object]] = []
    each_inode: tuple[Callable[[int], object], ...] = (
        index.attributes, index.attr_reply, index.inode_reply, index.path, index.parent,
        index.xattrs,
    )  # fmt: skip
    of_directories: tuple[Callable[[int], object], ...] = (index.first_file, index.last_file)
    of_others: tuple[Callable[[int], object], ...] = (index.digest, index.target)
    for ino in range(ROOT_INO, index.inode_count + 1):
        more = of_directories if index.is_dir(ino) else of_others
        questions += [partial(ask, ino) for ask in (*each_inode, *more)]
    for ino in range(ROOT_INO, index.dir_count + 1):
        questions += [partial(index.find_entry, ino, name) for name in (b"1", b"a", b"missing")]
        for offset in (0, 320, 1000, 10**6):
            questions.append(partial(index.page, ino, offset, 4096))
            questions.append(partial(_listed, index, ino, offset))
    questions.append(lambda: [*index.iter_files()])
    for question in questions:
        try:
            question()
        except DAMAGED as exc:
            yield type(exc).__name__
        else:
            yield "answer"


@pytest.mark.timeout(20)
@pytest.mark.parametrize("content", [b"\0", b"\xff", b"\x01", b"\x01\0\0\0\0\0\0\0", b"\x03\0\0\0"])
@pytest.mark.parametrize("start", [0, HEADER_SIZE])
def test_one_that_is_overwritten(content: bytes, start: int) -> None:
    """No question takes for ever, or all memory, or raises what nobody expects."""
    raw = make_raw()
    index = TreeIndex(memoryview(raw))
    count = sum(1 for _ in look_everywhere(index))
    raw[start:] = (content * len(raw))[: len(raw) - start]
    assert sum(1 for _ in look_everywhere(index)) == count


@pytest.mark.timeout(60)
def test_one_that_is_garbled_here_and_there() -> None:
    rng = random.Random(7)
    right = make_raw()
    raw = bytearray(right)
    index = TreeIndex(memoryview(raw))
    for _ in range(200):
        raw[:] = right
        for _ in range(rng.choice((1, 20, 500))):
            raw[rng.randrange(HEADER_SIZE, len(raw))] = rng.choice(
                (0, 1, 3, 255, rng.randrange(256))
            )
        for _ in look_everywhere(index):
            pass


def test_a_table_without_an_empty_slot() -> None:
    """A name that is not there ends the search when all have been seen."""
    raw = make_raw()
    index = TreeIndex(memoryview(raw))
    index._slots[:] = memoryview(struct.pack("=I", 3) * len(index._slots)).cast("I")
    with pytest.raises(ValueError, match="the hash table is damaged"):
        index.find_entry(ROOT_INO, b"missing")
