"""Directories into trees and blobs: the walk, the readers, the stat cache."""

from castfs.ingest.options import Ignored, ScanOptions, ScanResult, SkippedEntry
from castfs.ingest.scan import scan
from castfs.ingest.statcache import StatCache

__all__ = [
    "Ignored",
    "ScanOptions",
    "ScanResult",
    "SkippedEntry",
    "StatCache",
    "scan",
]
