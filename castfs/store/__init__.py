"""The store: blobs by digest, manifests by id, records, and the locks that keep them together.

Manifests are opaque bytes here. docs/CONCURRENCY.md owns the protocol.
"""

from castfs.store.blobs import BlobDir
from castfs.store.depot import Depot, ensure_depot, find_depot_above, open_depot
from castfs.store.pins import Pin, pin_foreign, pin_manifest
from castfs.store.records import Record
from castfs.store.session import WriteSession
from castfs.store.staging import StagedFile, Staging, StagingParams

__all__ = [
    "BlobDir",
    "Depot",
    "Pin",
    "Record",
    "StagedFile",
    "Staging",
    "StagingParams",
    "WriteSession",
    "ensure_depot",
    "find_depot_above",
    "open_depot",
    "pin_foreign",
    "pin_manifest",
]
