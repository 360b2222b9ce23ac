"""Snapshots whose index is there already."""

from __future__ import annotations

import contextlib
import os

from castfs.digest import Digest
from castfs.store import Depot
from castfs.tree import (
    IndexedEntries,
    NotIndexedError,
    Presentation,
    find_index,
    index_directories,
)


def find_entries(depot: Depot, manifest_id: Digest) -> IndexedEntries | None:
    """What a mount of this user has left of a snapshot; None if there is none that says enough."""
    presentation = Presentation(owner=os.getuid(), group=os.getgid())
    index = find_index(index_directories(depot), manifest_id, presentation)
    with contextlib.suppress(NotIndexedError):
        return IndexedEntries(index) if index is not None else None
    return None
