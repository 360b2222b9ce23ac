"""Names, versions, aliases, tags and runs: what people call snapshots, and what they say of them.

The truth is in small files (`files`); `catalog.db` is an index over them and over the records.
"""

from castfs.catalog.catalog import Change, changing, reading, rebuild
from castfs.catalog.files import Event, MadeAgain, NameFile, Note, RunFile, Use
from castfs.catalog.questions import Catalog, Place

__all__ = [
    "Catalog",
    "Change",
    "Event",
    "MadeAgain",
    "NameFile",
    "Note",
    "Place",
    "RunFile",
    "Use",
    "changing",
    "reading",
    "rebuild",
]
