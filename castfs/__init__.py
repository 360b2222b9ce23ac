"""castfs: freeze directories, get them back exactly, mount them in between.

General layout, from the ground up; each room imports only from rooms below it:

    errors, digest, paths, atomic, regular, syscalls, settings, progress   the ground
    manifest, ignore      what a tree is; what is left out of one
    store                 blobs, manifests, records, locks, leases: the protocol of the disk
    tree                  a manifest compiled for look-ups
    ingest, restore, archive, diff, retention, gc, verify      one verb each
    view                  a snapshot as a filesystem, without FUSE
    mount                 the same through FUSE
    catalog               names, versions, aliases, runs: files, and a database over them
    repository            the verbs together: Store, Snapshot
    bundles               names with all their versions, as one file
    runs                  Run, Artifact, drawings of lineage
    cli                   the command line

Public are the names below and what they return. Importing castfs imports nothing else: each name is
loaded when it is first used.
"""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from castfs.errors import AmbiguousError as AmbiguousError
    from castfs.errors import BlobError as BlobError
    from castfs.errors import BusyError as BusyError
    from castfs.errors import CastfsError as CastfsError
    from castfs.errors import DamageError as DamageError
    from castfs.errors import LimitError as LimitError
    from castfs.errors import ManifestError as ManifestError
    from castfs.errors import MountBusyError as MountBusyError
    from castfs.errors import MountError as MountError
    from castfs.errors import NoStoreError as NoStoreError
    from castfs.errors import NotFoundError as NotFoundError
    from castfs.errors import SourceError as SourceError
    from castfs.errors import StoreError as StoreError
    from castfs.errors import TargetError as TargetError
    from castfs.errors import UnreadableError as UnreadableError
    from castfs.errors import UsageError as UsageError
    from castfs.gc import GcOptions as GcOptions
    from castfs.ignore import IgnoreOptions as IgnoreOptions
    from castfs.ingest import ScanOptions as ScanOptions
    from castfs.mount import MountOptions as MountOptions
    from castfs.repository import Snapshot as Snapshot
    from castfs.repository import Store as Store
    from castfs.repository import find_snapshot as find_snapshot
    from castfs.repository import open_store as open
    from castfs.retention import Policy as Policy
    from castfs.runs import Artifact as Artifact
    from castfs.runs import Run as Run
    from castfs.runs import find_run as find_run
    from castfs.runs import finish as finish
    from castfs.runs import get_active_run as get_active_run
    from castfs.runs import init as init
    from castfs.runs import iter_runs as iter_runs
    from castfs.runs import remove_run as remove_run
    from castfs.verify import VerifyOptions as VerifyOptions

__version__ = "0.1.0"

#: Where the public names are that are no errors.
_PUBLIC = {
    "Artifact": "castfs.runs",
    "GcOptions": "castfs.gc",
    "IgnoreOptions": "castfs.ignore",
    "MountOptions": "castfs.mount",
    "Policy": "castfs.retention",
    "Run": "castfs.runs",
    "ScanOptions": "castfs.ingest",
    "Snapshot": "castfs.repository",
    "Store": "castfs.repository",
    "VerifyOptions": "castfs.verify",
    "find_run": "castfs.runs",
    "find_snapshot": "castfs.repository",
    "finish": "castfs.runs",
    "get_active_run": "castfs.runs",
    "init": "castfs.runs",
    "iter_runs": "castfs.runs",
    "open": "castfs.repository",
    "remove_run": "castfs.runs",
}
_OTHER_NAMES = {"open": "open_store"}

__all__ = [
    "AmbiguousError",
    "Artifact",
    "BlobError",
    "BusyError",
    "CastfsError",
    "DamageError",
    "GcOptions",
    "IgnoreOptions",
    "LimitError",
    "ManifestError",
    "MountBusyError",
    "MountError",
    "MountOptions",
    "NoStoreError",
    "NotFoundError",
    "Policy",
    "Run",
    "ScanOptions",
    "Snapshot",
    "SourceError",
    "Store",
    "StoreError",
    "TargetError",
    "UnreadableError",
    "UsageError",
    "VerifyOptions",
    "__version__",
    "find_run",
    "find_snapshot",
    "finish",
    "get_active_run",
    "init",
    "iter_runs",
    "open",
    "remove_run",
]


def __getattr__(name: str) -> Any:
    if name not in __all__:
        raise AttributeError(f"module 'castfs' has no attribute {name!r}")
    module = importlib.import_module(_PUBLIC.get(name, "castfs.errors"))
    return getattr(module, _OTHER_NAMES.get(name, name))


def __dir__() -> list[str]:
    return sorted({*globals(), *__all__})
