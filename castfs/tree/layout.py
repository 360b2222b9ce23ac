"""The file of a tree index: where everything lies in it (docs/FORMAT.md, "The tree index").

A header of one page, then the sections. All integers have the byte order of the machine that made
it, as the FUSE structs in it have.
"""

from __future__ import annotations

import enum
import sys
from struct import Struct

#: Raised whenever the same manifest would give other bytes.
INDEX_VERSION = 2

MAGIC = b"castfsix"
#: A whole page, so that the sections after it are aligned.
HEADER_SIZE = 4096
#: magic, version, byte order (1 where it is little-endian), length of the file, manifest id,
#: presentation as text, counts of inodes, directories and entries, sum of st_blocks, Owners.
HEADER = Struct("<8sIIQ32s64sQQQQQ")


class Owners(enum.IntEnum):
    """Whose owners the manifest records, user and group both: attributes alone do not tell."""

    NONE = 0
    ALL = 1
    SOME = 2


LITTLE = 1 if sys.byteorder == "little" else 0
#: Where one section begins and how long it is, in bytes. They follow the header's fields.
SECTION = Struct("<QQ")
#: xxh3_128 of everything after the header's page and then of the header up to here.
CHECKSUM_SIZE = 16

SECTIONS = (
    #: fuse_direntplus records; entry 0 is the root's own.
    "pages",
    #: By entry: where its record begins in `pages`, in units of RECORD_ALIGN. One more at the end.
    "entry_offsets",
    #: By directory's inode number: its first entry. One more at the end.
    "starts",
    #: By inode number: an entry that names it, of its own directory where there are several.
    "first_entry",
    #: A hash table of entries, 0 where there is none: see `slot_of`.
    "slots",
    #: By inode number after the last directory's: raw SHA-256 of a file, CELL of a symlink.
    "cells",
    #: XATTR_CELL of each inode that has some, ordered by inode number.
    "xattr_cells",
    #: Targets and extended attributes, as the cells say where.
    "strings",
)

#: Where a symlink's target lies in `strings` and how long it is.
CELL = Struct("<QQ16x")
#: Inode number, then the same of XATTR items one after another.
XATTR_CELL = Struct("<QQQ")
#: Lengths of a name and a value, which follow.
XATTR = Struct("<HI")

#: Where a section may begin.
SECTION_ALIGN = 8
#: A record of `.` or `..`.
DOT_SIZE = 160

CHECKSUM_OFFSET = HEADER.size + SECTION.size * len(SECTIONS)
