"""A tree index as text, for people and golden tests: every record, in the order of the file."""

from __future__ import annotations

import stat
from collections.abc import Iterator

from castfs import fuse
from castfs.paths import display
from castfs.tree import layout
from castfs.tree.index import TreeIndex


def iter_dump(index: TreeIndex) -> Iterator[str]:
    """Lines. IndexError, ValueError or struct.error come of an index that is damaged."""
    yield f"tree index, version {layout.INDEX_VERSION}"
    yield f"manifest {index.manifest_id}"
    yield f"presentation {index.presentation}"
    yield f"{index.inode_count} inodes, {index.dir_count} directories, {index.entry_count} entries"
    yield f"{index.total_blocks} blocks, owners of {index.owners.name.lower()} recorded"
    yield _describe(index, 1, "root")
    for directory in range(1, index.dir_count + 1):
        yield f"directory {directory} {display(index.path(directory)) or '.'}"
        offset = 0
        for name, ino, next_offset in index.iter_entries(directory):
            if name in (b".", b".."):
                yield f"  {offset} {name.decode()} {ino}"
            else:
                entry = index.find_entry(directory, name)
                record = index.entry_reply(entry)
                nodeid, generation, *valid = fuse.ENTRY_OUT.unpack_from(record)
                assert (nodeid, generation, valid) == (ino, 0, [fuse.FOREVER, fuse.FOREVER, 0, 0])
                yield _describe(index, ino, f"  {offset} {display(name)}")
            offset = next_offset


def _describe(index: TreeIndex, ino: int, head: str) -> str:
    at = index.attributes(ino)
    line = (
        f"{head} {ino} {at.mode:o} links={at.nlink} owner={at.uid}:{at.gid} size={at.size} "
        f"blocks={at.blocks} mtime={at.mtime_ns}"
    )
    if stat.S_ISREG(at.mode):
        line += f" sha256={index.digest(ino)}"
    elif stat.S_ISLNK(at.mode):
        line += f" target={display(index.target(ino))}"
    for name, value in index.xattrs(ino).items():
        line += f" {display(name)}={value.hex()}"
    return line
