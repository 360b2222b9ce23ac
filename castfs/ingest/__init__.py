"""Directories into trees and blobs: the walk, the readers, the stat cache."""

from castfs.ingest.options import Ignored, ScanOptions, ScanResult, SkippedEntry
from castfs.ingest.presence import PresenceCheck
from castfs.ingest.scan import scan
from castfs.ingest.statcache import StatCache

__all__ = [
    "Ignored",
    "PresenceCheck",
    "ScanOptions",
    "ScanResult",
    "SkippedEntry",
    "StatCache",
    "scan",
]
