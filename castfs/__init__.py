"""castfs: freeze directories, get them back exactly, mount them in between.

General layout, from the ground up; each room imports only from rooms below it:

    errors, digest, paths, atomic, syscalls, settings, progress   the ground
    manifest, ignore      what a tree is; what is left out of one
    store                 blobs, manifests, records, locks, leases: the protocol of the disk
    tree                  a manifest compiled for look-ups
    ingest, restore, archive, diff      one verb each
    view                  a snapshot as a filesystem, without FUSE
    mount                 the same through FUSE
    repository            the verbs together: Store, Snapshot
    cli                   the command line

Public are the names below and what they return. Importing castfs imports nothing else: each name is
loaded when it is first used.
"""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from castfs.errors import CastfsError as CastfsError
    from castfs.repository import Snapshot as Snapshot
    from castfs.repository import Store as Store
    from castfs.repository import find_snapshot as find_snapshot
    from castfs.repository import open_store as open

__version__ = "0.1.0"

_PUBLIC = {
    "CastfsError": "castfs.errors:CastfsError",
    "Snapshot": "castfs.repository:Snapshot",
    "Store": "castfs.repository:Store",
    "find_snapshot": "castfs.repository:find_snapshot",
    "open": "castfs.repository:open_store",
}

__all__ = ["CastfsError", "Snapshot", "Store", "__version__", "find_snapshot", "open"]


def __getattr__(name: str) -> Any:
    try:
        module, _, attribute = _PUBLIC[name].partition(":")
    except KeyError:
        raise AttributeError(f"module 'castfs' has no attribute {name!r}") from None
    return getattr(importlib.import_module(module), attribute)
