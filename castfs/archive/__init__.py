"""Archives: a tree as one tar, tar.zst or zip file. The same tree gives the same bytes."""

from castfs.archive.export import (
    ArchiveResult,
    Format,
    export_archive,
    format_for,
    write_archive,
    write_target,
)

__all__ = [
    "ArchiveResult",
    "Format",
    "export_archive",
    "format_for",
    "write_archive",
    "write_target",
]
