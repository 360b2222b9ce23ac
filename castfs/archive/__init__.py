"""Archives: a tree as one tar, tar.zst or zip file. The same tree gives the same bytes."""

from castfs.archive.export import (
    ArchiveResult,
    Format,
    export_archive,
    format_for,
    write_archive,
    write_target,
)
from castfs.archive.members import Member, iter_members

__all__ = [
    "ArchiveResult",
    "Format",
    "Member",
    "export_archive",
    "format_for",
    "iter_members",
    "write_archive",
    "write_target",
]
