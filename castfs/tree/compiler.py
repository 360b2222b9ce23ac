"""From a manifest's tree to the file of its index: inode numbers, attributes, link counts and every
reply are decided here.

Written for a million entries: plain loops over local names. Callers drop the tree afterwards.
"""

from __future__ import annotations

import stat
from array import array
from collections import Counter
from collections.abc import Iterator, Mapping
from io import BytesIO
from operator import itemgetter
from typing import BinaryIO

import xxhash

from castfs import fuse
from castfs.digest import Digest
from castfs.errors import ManifestError
from castfs.manifest import Directory, File, Symlink, Tree
from castfs.paths import RelPath
from castfs.tree import layout
from castfs.tree.index import ROOT_INO, TreeIndex, checksum, hash_salt
from castfs.tree.presentation import BLOCK_SIZE, Presentation

_NO_DIGEST = Digest("0" * 64)
_first = itemgetter(0)
#: Stands for a hash of 0, which marks entries that are no names; it has the same slot.
_ZERO_HASH = 1 << 63
#: A name padded to where the next record begins: by the remainder of its length.
_PADDING = tuple(
    bytes(-(fuse.DIRENTPLUS.size + size) % fuse.RECORD_ALIGN) for size in range(fuse.RECORD_ALIGN)
)
_DT_DIR, _DT_REG, _DT_LNK = (stat.S_IFMT(kind) >> 12 for kind in (
    stat.S_IFDIR, stat.S_IFREG, stat.S_IFLNK,
))  # fmt: skip
#: How much of the pages is gathered before it is written.
_PIECE = 1 << 20
_PAGES_MAX = (1 << 32) * fuse.RECORD_ALIGN

_OWNERS = {
    frozenset({(False, False)}): layout.Owners.NONE,
    frozenset({(True, True)}): layout.Owners.ALL,
}

#: An entry of a directory while it is compiled: its name, and a directory's number or what it is.
_Child = tuple[bytes, int | File | Symlink]


def compile_tree(
    tree: Tree, presentation: Presentation, manifest_id: Digest = _NO_DIGEST
) -> TreeIndex:
    """The index of a checked tree, in memory. The same tree gives the same inode numbers."""
    file = BytesIO()
    write_index(file, tree, presentation, manifest_id)
    return TreeIndex(file.getbuffer())


def write_index(
    file: BinaryIO, tree: Tree, presentation: Presentation, manifest_id: Digest
) -> None:
    """The index of a checked tree, into an empty file that can be read, too. OSError."""
    _Compiler(file, tree, presentation, manifest_id).write()


class _Compiler:
    def __init__(
        self, file: BinaryIO, tree: Tree, presentation: Presentation, manifest_id: Digest
    ) -> None:
        self._file = file
        self._tree = tree
        self._presentation = presentation
        self._manifest_id = manifest_id
        self._salt = hash_salt(manifest_id)
        self._position = layout.HEADER_SIZE
        self._sections: dict[str, tuple[int, int]] = {}
        self._dir_paths = sorted(tree.dirs)
        #: By directory's inode number.
        self._directories = [tree.root, *(tree.dirs[path] for path in self._dir_paths)]
        self._subdirs = [0] * (len(self._directories) + 1)
        self._parents = [0, ROOT_INO]
        self._links = Counter(
            (type(node), node.hardlink)
            for nodes in (tree.files.values(), tree.symlinks.values())
            for node in nodes
            if node.hardlink is not None
        )
        #: (kind, leader) of a group of hard links → its inode and attributes.
        self._groups: dict[tuple[type, str], tuple[int, tuple[int, ...]]] = {}
        self._inode_count = len(self._directories)
        self._total_blocks = 0
        self._entry_offsets = array("I")
        self._starts = array("I", [0])
        self._first_entry = array("I", bytes(4 * (self._inode_count + 1)))
        self._hashes = array("Q", [0])
        self._cells: list[str] = []
        self._strings = bytearray()
        self._xattr_cells: list[tuple[int, int, int]] = []
        #: (user, group) is recorded, of the entries so far.
        self._recorded: set[tuple[bool, bool]] = set()

    def write(self) -> None:
        self._file.write(bytes(layout.HEADER_SIZE))
        self._write_section("pages", self._iter_pages())
        self._write_section("entry_offsets", [self._entry_offsets.tobytes()])
        self._write_section("starts", [self._starts.tobytes()])
        self._write_section("first_entry", [self._first_entry.tobytes()])
        self._write_section("slots", [_fill_slots(self._hashes).tobytes()])
        self._write_section("cells", [bytes.fromhex("".join(self._cells))])
        cells = sorted(self._xattr_cells)
        self._write_section("xattr_cells", [layout.XATTR_CELL.pack(*cell) for cell in cells])
        self._write_section("strings", [bytes(self._strings)])
        self._write_header()

    def _write_section(self, name: str, pieces: Iterator[bytes] | list[bytes]) -> None:
        start = self._position
        for piece in pieces:
            self._file.write(piece)
            self._position += len(piece)
        self._sections[name] = start, self._position - start
        padding = bytes(-self._position % layout.SECTION_ALIGN)
        self._file.write(padding)
        self._position += len(padding)

    def _write_header(self) -> None:
        header = layout.HEADER.pack(
            layout.MAGIC,
            layout.INDEX_VERSION,
            layout.LITTLE,
            self._position,
            bytes.fromhex(self._manifest_id),
            str(self._presentation).encode(),
            self._inode_count,
            len(self._directories),
            len(self._entry_offsets) - 1,
            self._total_blocks,
            _OWNERS.get(frozenset(self._recorded), layout.Owners.SOME),
        )
        header += b"".join(layout.SECTION.pack(*self._sections[name]) for name in layout.SECTIONS)
        self._file.seek(layout.HEADER_SIZE)
        pieces = iter(lambda: memoryview(self._file.read(_PIECE)), b"")
        digest = checksum(pieces, header)
        self._file.seek(0)
        self._file.write(header + digest)
        self._file.flush()

    def _iter_pages(self) -> Iterator[bytes]:
        children = self._group_by_directory()
        root = self._attributes(ROOT_INO, self._tree.root)
        buffer = bytearray(_record(b"", root, after=0))
        self._entry_offsets.append(0)
        self._first_entry[ROOT_INO] = 0
        written = 0
        for directory in range(ROOT_INO, len(self._directories) + 1):
            self._starts.append(len(self._entry_offsets))
            names = children[directory - 1]
            children[directory - 1] = []
            names.sort(key=_first)
            self._add_directory(buffer, written, directory, names)
            if len(buffer) >= _PIECE:
                yield bytes(buffer)
                written += len(buffer)
                buffer.clear()
        yield bytes(buffer)
        written += len(buffer)
        if written >= _PAGES_MAX:
            raise ManifestError("the tree is too large for an index", hint="split it")
        self._starts.append(len(self._entry_offsets))
        self._entry_offsets.append(written // fuse.RECORD_ALIGN)

    def _add_directory(
        self, buffer: bytearray, written: int, directory: int, children: list[_Child]
    ) -> None:
        """The page of one directory, and the inodes of the files and symlinks that it names first.

        The hot loop of the compiler: a million times 5 µs.
        """
        offsets, hashes, first_entry = self._entry_offsets, self._hashes, self._first_entry
        pack, hash_name = fuse.DIRENTPLUS.pack, xxhash.xxh3_64_intdigest
        prefix, forever, align = fuse.DIRENTPLUS.size, fuse.FOREVER, fuse.RECORD_ALIGN
        base = len(buffer)
        seed = directory ^ self._salt
        parent = self._parents[directory]
        for name, ino in ((b".", directory), (b"..", parent)):
            offsets.append((written + len(buffer)) // align)
            hashes.append(0)
            # The kernel skips them, and a nodeid of 0 says that nothing is to be made of them.
            after = len(buffer) + layout.DOT_SIZE - base
            buffer += bytes(fuse.ENTRY_SIZE)
            buffer += fuse.DIRENT.pack(ino, after, len(name), _DT_DIR)
            buffer += name + bytes(layout.DOT_SIZE - prefix - len(name))
        for name, node in children:
            entry = len(offsets)
            start = len(buffer)
            if isinstance(node, int):
                ino = node
                first_entry[ino] = entry
                attributes = self._attributes(ino, self._directories[ino - 1])
            elif node.hardlink is None:
                ino = self._add_inode(node, entry)
                attributes = self._attributes(ino, node)
            else:
                ino, attributes = self._find_inode(node, entry)
            offsets.append((written + start) // align)
            hashes.append(hash_name(name, seed) or _ZERO_HASH)
            padding = _PADDING[len(name) % align]
            after = start + prefix + len(name) + len(padding) - base
            buffer += pack(
                ino, 0, forever, forever, 0, 0, *attributes,
                ino, after, len(name), attributes[9] >> 12,
            )  # fmt: skip
            buffer += name
            buffer += padding

    def _find_inode(self, node: File | Symlink, entry: int) -> tuple[int, tuple[int, ...]]:
        """The inode of one name of a group of hard links."""
        assert node.hardlink is not None
        group = (type(node), node.hardlink)
        found = self._groups.get(group)
        if found is None:
            ino = self._add_inode(node, entry)
            found = self._groups[group] = ino, self._attributes(ino, node)
        return found

    def _add_inode(self, node: File | Symlink, entry: int) -> int:
        self._inode_count += 1
        self._first_entry.append(entry)
        if isinstance(node, File):
            self._cells.append(node.sha256)
        else:
            target = node.raw_target
            self._cells.append(layout.CELL.pack(len(self._strings), len(target)).hex())
            self._strings += target
        return self._inode_count

    def _attributes(self, ino: int, node: File | Symlink | Directory) -> tuple[int, ...]:
        """All that stat(2) tells of an inode: the fields of fuse_attr. Called once for each.

        A directory has 2 links, its name and its own `.`, and one more for the `..` of each
        subdirectory. Directories have size 0: what a real one says depends on the filesystem.
        """
        presentation = self._presentation
        size, nlink = 0, 1
        if isinstance(node, File):
            mode = stat.S_IFREG | (node.mode & ~presentation.umask)
            size = node.size_bytes
        elif isinstance(node, Directory):
            mode = stat.S_IFDIR | (node.mode & ~presentation.umask)
            nlink = 2 + self._subdirs[ino]
        else:
            mode = stat.S_IFLNK | 0o777
            size = len(node.raw_target)
        if not isinstance(node, Directory) and node.hardlink is not None:
            nlink = self._links[type(node), node.hardlink]
        if node.xattrs is not None:
            self._add_xattrs(ino, node)
        self._recorded.add((node.uid is not None, node.gid is not None))
        seconds, nanoseconds = divmod(node.mtime_ns, 10**9)
        blocks = -(-size // BLOCK_SIZE)
        self._total_blocks += blocks
        return (
            ino, size, blocks, seconds, seconds, seconds, nanoseconds, nanoseconds, nanoseconds,
            mode, nlink, presentation.uid_of(node.uid), presentation.gid_of(node.gid), 0,
            fuse.BLKSIZE, 0,
        )  # fmt: skip

    def _add_xattrs(self, ino: int, node: File | Symlink | Directory) -> None:
        start = len(self._strings)
        for name, value in node.iter_xattrs():
            self._strings += layout.XATTR.pack(len(name), len(value)) + name + value
        self._xattr_cells.append((ino, start, len(self._strings) - start))

    def _group_by_directory(self) -> list[list[_Child]]:
        """The entries of each directory, in the order of the directories' inode numbers."""
        children: list[list[_Child]] = [[] for _ in self._directories]
        numbers: dict[bytes, int] = {b"": ROOT_INO}
        for ino, path in enumerate(self._dir_paths, ROOT_INO + 1):
            numbers[path] = ino
        for ino, path in enumerate(self._dir_paths, ROOT_INO + 1):
            parent, _, name = path.rpartition(b"/")
            number = numbers[parent]
            children[number - 1].append((name, ino))
            self._subdirs[number] += 1
            self._parents.append(number)
        kinds: tuple[Mapping[RelPath, File] | Mapping[RelPath, Symlink], ...]
        kinds = (self._tree.files, self._tree.symlinks)
        for mapping in kinds:
            for path, node in mapping.items():
                parent, _, name = path.rpartition(b"/")
                children[numbers[parent] - 1].append((name, node))
        return children


def _record(name: bytes, attributes: tuple[int, ...], after: int) -> bytes:
    """A fuse_direntplus."""
    ino, mode = attributes[0], attributes[9]
    record = fuse.DIRENTPLUS.pack(
        ino, 0, fuse.FOREVER, fuse.FOREVER, 0, 0, *attributes, ino, after, len(name), mode >> 12
    )
    return record + name + _PADDING[len(name) % fuse.RECORD_ALIGN]


def _fill_slots(hashes: array[int]) -> array[int]:
    """A hash table of entries, at most half full, with linear probing. Entries without a hash are
    no names."""
    count = 4
    while count < 2 * len(hashes):
        count *= 2
    slots = array("I", bytes(4 * count))
    mask = count - 1
    for entry, value in enumerate(hashes):
        if value:
            slot = value & mask
            while slots[slot]:
                slot = (slot + 1) & mask
            slots[slot] = entry
    return slots
