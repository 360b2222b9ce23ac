"""Comparing snapshots with each other, and with a directory as it is now."""

from __future__ import annotations

from pathlib import Path

from castfs import settings
from castfs.diff import DiffResult, compare_trees
from castfs.ingest import ScanOptions, scan
from castfs.manifest import Tree
from castfs.progress import SILENT
from castfs.repository.lookup import resolve_snapshot
from castfs.repository.taking import keep_out, open_cache
from castfs.store import Depot


def diff(depot: Depot, before: str, after: str, *, ignore_mtime: bool) -> DiffResult:
    """A word that names an existing directory and has a `/` (`./dir`, `dir/`) is that directory."""
    first = _tree(depot, before, after)
    second = _tree(depot, after, before)
    return compare_trees(first, second, ignore_mtime=ignore_mtime)


def _tree(depot: Depot, word: str, other: str) -> Tree:
    if not ("/" in word and Path(word).is_dir()):
        return resolve_snapshot(depot, word).manifest.tree
    # What the snapshot recorded is what the directory is asked for.
    owner = xattrs = False
    if not ("/" in other and Path(other).is_dir()):
        recorded = resolve_snapshot(depot, other).manifest.tree
        owner = recorded.root.uid is not None
        xattrs = recorded.has_xattrs
    with open_cache() as cache:
        result = scan(
            Path(word),
            session=None,
            cache=cache,
            options=ScanOptions(owner=owner, xattrs=xattrs),
            readers=settings.threads(),
            keep_out=keep_out(depot, Path(word)),
            progress=SILENT,
        )
    return result.manifest.tree
