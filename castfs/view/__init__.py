"""What a snapshot looks like as a filesystem, in plain Python: engines only translate it."""

from castfs.view.contents import Contents, OpenFile
from castfs.view.snapshot import DirectoryEntry, SnapshotView, Totals

__all__ = ["Contents", "DirectoryEntry", "OpenFile", "SnapshotView", "Totals"]
