"""The file of an index: what it says in every byte, and what becomes of one that is damaged."""

from __future__ import annotations

import os
import random
import struct
import subprocess
from io import BytesIO
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from castfs import fuse
from castfs.digest import Digest
from castfs.manifest import Directory, Symlink, Tree, encode_xattrs
from castfs.tree import BadIndexError, Presentation, TreeIndex, compile_tree
from castfs.tree.compiler import write_index
from castfs.tree.dump import iter_dump
from castfs.tree.index import map_index
from castfs.tree.layout import CHECKSUM_OFFSET, HEADER_SIZE, INDEX_VERSION
from tests.tree.test_compiler import make_file, make_tree, trees

ID = Digest("ab" * 32)

GOLDEN = """\
tree index, version 2
manifest abababababababababababababababababababababababababababababababab
presentation o7-u8-022
6 inodes, 3 directories, 13 entries
4 blocks, owners of some recorded
root 1 40755 links=3 owner=7:8 size=0 blocks=0 mtime=1
directory 1 .
  0 . 1
  160 .. 1
  320 a file 4 100644 links=2 owner=5:8 size=5 blocks=1 mtime=1700000000123456789 \
sha256=5994471abb01112afcc18159f6cc74b4f511b99806da59b3caf5a9c173cacfc5 user.k=0076
  480 dir 2 41755 links=3 owner=7:8 size=0 blocks=0 mtime=-1
  640 link 5 120777 links=1 owner=7:8 size=4 blocks=1 mtime=3 target=dir/
directory 2 dir
  0 . 2
  160 .. 1
  320 sub 3 40700 links=2 owner=7:8 size=0 blocks=0 mtime=0
  480 z 4 100644 links=2 owner=5:8 size=5 blocks=1 mtime=1700000000123456789 \
sha256=5994471abb01112afcc18159f6cc74b4f511b99806da59b3caf5a9c173cacfc5 user.k=0076
  640 \\xff 6 100755 links=1 owner=7:8 size=513 blocks=2 mtime=0 \
sha256=8ae7498b01f40e9d2a04df8a8a91cc0b180eb9eb64b78129f59a6d6ab547816b
directory 3 dir/sub
  0 . 3
  160 .. 2
"""


def sample() -> Tree:
    shared = make_file(
        b"12345",
        mode=0o666,
        mtime_ns=1_700_000_000_123_456_789,
        uid=5,
        gid=6,
        hardlink="a file",
        xattrs=encode_xattrs({b"user.k": b"\0v"}),
    )
    return make_tree(
        {
            b"a file": shared,
            b"dir/z": shared,
            b"dir": Directory(mode=0o1777, mtime_ns=-1),
            b"dir/sub": Directory(mode=0o700, mtime_ns=0),
            b"dir/\xff": make_file(bytes(513), mode=0o755),
            b"link": Symlink(mtime_ns=3, target="dir/"),
        },
        Directory(mode=0o777, mtime_ns=1),
    )


def encode(tree: Tree, presentation: Presentation | None = None) -> bytes:
    file = BytesIO()
    write_index(file, tree, presentation or Presentation(), ID)
    return file.getvalue()


def test_the_dump() -> None:
    raw = encode(sample(), Presentation(owner=7, group=1, gid=8, umask=0o022))
    text = "".join(line + "\n" for line in iter_dump(TreeIndex(raw)))
    assert text == GOLDEN


# What the kernel is sent -------------------------------------------------------------------


def c_struct(name: str, members: list[str], tmp_path: Path) -> tuple[int, list[int]]:
    """(size, offsets of members) of a struct of linux/fuse.h, by the C compiler."""
    offsets = ", ".join(f"offsetof(struct {name}, {member})" for member in members)
    source = f"""
#include <stddef.h>
#include <stdio.h>
#include <linux/fuse.h>
int main(void) {{
    size_t all[] = {{ sizeof(struct {name}), {offsets} }};
    for (size_t i = 0; i < sizeof all / sizeof *all; i++) printf("%zu ", all[i]);
}}
"""
    (tmp_path / "x.c").write_text(source)
    subprocess.run(["gcc", "-o", tmp_path / "x", tmp_path / "x.c"], check=True, timeout=60)
    output = subprocess.run([tmp_path / "x"], capture_output=True, check=True, timeout=10).stdout
    size, *rest = map(int, output.split())
    return size, rest


STRUCTS = {
    "fuse_in_header": (fuse.IN_HEADER, ["len", "opcode", "unique", "nodeid", "uid", "gid", "pid"]),
    "fuse_out_header": (fuse.OUT_HEADER, ["len", "error", "unique"]),
    "fuse_read_in": (
        fuse.READ_IN,
        ["fh", "offset", "size", "read_flags", "lock_owner", "flags", "padding"],
    ),
    "fuse_attr": (
        fuse.ATTR,
        ["ino", "size", "blocks", "atime", "mtime", "ctime", "atimensec", "mtimensec",
         "ctimensec", "mode", "nlink", "uid", "gid", "rdev", "blksize", "flags"],
    ),
    "fuse_dirent": (fuse.DIRENT, ["ino", "off", "namelen", "type"]),
    "fuse_kstatfs": (
        fuse.KSTATFS, ["blocks", "bfree", "bavail", "files", "ffree", "bsize", "namelen", "frsize"],
    ),
    "fuse_interrupt_in": (fuse.INTERRUPT_IN, ["unique"]),
    "fuse_notify_store_out": (fuse.NOTIFY_STORE_OUT, ["nodeid", "offset", "size"]),
}  # fmt: skip


@pytest.mark.parametrize("name", STRUCTS)
def test_the_structs_are_those_of_the_kernels_header(name: str, tmp_path: Path) -> None:
    layout, members = STRUCTS[name]
    size, offsets = c_struct(name, members, tmp_path)
    assert layout.size == size
    codes = [code for code in layout.format.lstrip("=") if code.isalpha() and code != "x"]
    if "x" in layout.format:
        codes = list("QQQQQIII")
    ours = [struct.calcsize("=" + "".join(codes[:count])) for count in range(len(members))]
    assert ours == offsets


@pytest.mark.parametrize(
    ("name", "parts"),
    [
        ("fuse_entry_out", (fuse.ENTRY_OUT, fuse.ATTR)),
        ("fuse_attr_out", (fuse.ATTR_OUT, fuse.ATTR)),
        ("fuse_direntplus", (fuse.DIRENTPLUS,)),
    ],
)
def test_composed_structs(name: str, parts: tuple[struct.Struct, ...], tmp_path: Path) -> None:
    assert sum(part.size for part in parts) == c_struct(name, [], tmp_path)[0]


def parse_page(page: bytes | memoryview) -> list[tuple[bytes, int, int, int]]:
    """(name, nodeid, off, type) of each fuse_direntplus, read as the kernel reads them."""
    entries = []
    while page:
        (nodeid,) = struct.unpack_from("=Q", page)
        _, off, size, kind = struct.unpack_from("=QQII", page, 128)
        entries.append((bytes(page[152 : 152 + size]), nodeid, off, kind))
        page = page[(152 + size + 7) // 8 * 8 :]
    return entries


@given(trees(), st.integers(408, 5000))
def test_pages_of_any_size_give_every_entry_once(tree: Tree, size: int) -> None:
    index = compile_tree(tree, Presentation())
    for directory in range(1, index.dir_count + 1):
        whole = [(entry.name, entry.next_offset) for entry in index.iter_entries(directory)]
        seen: list[tuple[bytes, int]] = []
        offset = 0
        while page := index.page(directory, offset, size):
            assert len(page) <= size
            entries = parse_page(page)
            seen += [(name, off) for name, _, off, _ in entries]
            offset = entries[-1][2]
            assert index.is_end(directory, offset) == (len(seen) == len(whole))
            # As many as fit: with one more it would be too long.
            following = index.page(directory, offset, 1 << 20)
            if following:
                first = (152 + len(parse_page(following)[0][0]) + 7) // 8 * 8
                assert len(page) + first > size
        assert seen == whole
        for name, nodeid, off, kind in parse_page(index.page(directory, 0, 1 << 20)):
            if name in (b".", b".."):
                assert (nodeid, kind) == (0, 4)
                continue
            assert nodeid == index.child(directory, name)
            assert kind == index.attributes(nodeid).mode >> 12
            assert index.page(directory, off, 1 << 20) == index.page(directory, 0, 1 << 20)[off:]


def test_a_page_too_small_for_one_entry_is_no_end() -> None:
    index = compile_tree(make_tree({b"x" * 255: make_file()}), Presentation())
    start = index.page(1, 0, 320)
    assert [entry[0] for entry in parse_page(start)] == [b".", b".."]
    with pytest.raises(ValueError, match="fits"):
        index.page(1, 320, 400)
    assert len(index.page(1, 320, 408)) == 408
    assert len(index.page(1, 728, 408)) == 0


def test_names_of_any_length_and_many_in_one_directory() -> None:
    names = [b"n" * length for length in range(1, 256)]
    names += [b"%06d" % number for number in range(20_000)]
    index = compile_tree(make_tree({name: make_file() for name in names}), Presentation())
    assert [entry.name for entry in index.iter_entries(1)][2:] == sorted(names)
    for name in names:
        ino = index.child(1, name)
        assert index.path(ino) == name
    assert index.child(1, b"n" * 256) == 0
    assert index.child(1, b"020000") == 0


# Damage --------------------------------------------------------------------------------------


def test_every_bit_is_checked() -> None:
    raw = encode(sample())
    TreeIndex(raw)
    used = [*range(CHECKSUM_OFFSET + 16), *range(HEADER_SIZE, len(raw))]
    for position in random.Random(0).sample(used, 400):
        damaged = bytearray(raw)
        damaged[position] ^= 1 << random.Random(position).randrange(8)
        with pytest.raises(BadIndexError):
            TreeIndex(bytes(damaged))


@pytest.mark.parametrize("cut", [0, 1, HEADER_SIZE - 1, HEADER_SIZE, -8, -1])
def test_one_that_was_cut(tmp_path: Path, cut: int) -> None:
    raw = encode(sample())
    path = tmp_path / "index"
    path.write_bytes(raw[:cut])
    fd = os.open(path, os.O_RDONLY)
    try:
        with pytest.raises(BadIndexError):
            map_index(fd)
    finally:
        os.close(fd)


def test_another_version_or_machine() -> None:
    raw = bytearray(encode(sample()))
    assert struct.unpack_from("<I", raw, 8) == (INDEX_VERSION,)
    for offset, value in ((8, INDEX_VERSION + 1), (12, 7)):
        other = bytearray(raw)
        struct.pack_into("<I", other, offset, value)
        with pytest.raises(BadIndexError, match="version or machine"):
            TreeIndex(bytes(other))
    with pytest.raises(BadIndexError, match="no tree index"):
        TreeIndex(b"x" * len(raw))
