"""The composition root: stores and snapshots with the verbs that users call."""

from castfs.repository.snapshot import Snapshot
from castfs.repository.store import Store, compare, find_snapshot, open_store

__all__ = ["Snapshot", "Store", "compare", "find_snapshot", "open_store"]
