"""Comparing snapshots with each other, and with a directory as it is now."""

from __future__ import annotations

import contextlib
from collections.abc import Callable
from pathlib import Path

from castfs import settings
from castfs.diff import DiffResult, compare_trees
from castfs.errors import StoreError
from castfs.ingest import ScanOptions, scan
from castfs.manifest import Tree, read_manifest_file
from castfs.progress import SILENT, Progress
from castfs.repository.lookup import resolve_snapshot
from castfs.repository.naming import is_file_name
from castfs.repository.taking import keep_out, open_cache
from castfs.store import Depot


def diff(
    before: str,
    after: str,
    *,
    open_depot: Callable[[], Depot],
    ignore_mtime: bool,
    progress: Progress = SILENT,
) -> DiffResult:
    """A word that names an existing directory and has a `/` (`./dir`, `dir/`) is that directory.

    The store is opened for words that are neither that nor a manifest file.
    """
    depot = None
    trees: list[Tree | None] = []
    for word in (before, after):
        if _is_directory(word):
            trees.append(None)
        elif is_file_name(word):
            trees.append(read_manifest_file(Path(word)).tree)
        else:
            depot = depot or open_depot()
            trees.append(resolve_snapshot(depot, word).manifest.tree)
    if depot is None and None in trees:
        # Needed for nothing but to leave it out of a directory that it lies in.
        with contextlib.suppress(StoreError):
            depot = open_depot()
    # A directory is asked for what the other side has recorded.
    known = [tree for tree in trees if tree is not None]
    options = ScanOptions(
        owner=any(tree.root.uid is not None for tree in known),
        xattrs=any(tree.has_xattrs for tree in known),
    )
    first, second = (
        tree if tree is not None else _scanned(word, options, depot, progress)
        for tree, word in zip(trees, (before, after), strict=True)
    )
    return compare_trees(first, second, ignore_mtime=ignore_mtime)


def _is_directory(word: str) -> bool:
    return "/" in word and Path(word).is_dir()


def _scanned(word: str, options: ScanOptions, depot: Depot | None, progress: Progress) -> Tree:
    with open_cache() as cache:
        result = scan(
            Path(word),
            session=None,
            cache=cache,
            options=options,
            readers=settings.threads(),
            keep_out=keep_out(depot, Path(word)) if depot else None,
            progress=progress,
        )
    return result.manifest.tree
