"""Comparing snapshots with each other, and with a directory as it is now."""

from __future__ import annotations

import contextlib
import dataclasses
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import Any

import msgspec

from castfs import settings
from castfs.diff import DetailChange, DetailKind, DiffResult, compare_trees
from castfs.errors import StoreError
from castfs.ingest import ScanOptions, scan
from castfs.manifest import Tree, read_manifest_file
from castfs.progress import SILENT, Progress
from castfs.repository.lookup import resolve_snapshot
from castfs.repository.naming import is_file_name
from castfs.repository.taking import keep_out, open_cache
from castfs.store import Depot, Record


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
    records: list[Record] = []
    for word in (before, after):
        if _is_directory(word):
            trees.append(None)
        elif is_file_name(word):
            trees.append(read_manifest_file(Path(word)).tree)
        else:
            depot = depot or open_depot()
            snapshot = resolve_snapshot(depot, word)
            trees.append(snapshot.manifest.tree)
            records += filter(None, [snapshot.record])
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
    result = compare_trees(first, second, ignore_mtime=ignore_mtime)
    if len(records) < 2:
        return result
    return dataclasses.replace(result, details=tuple(compare_details(*records)))


def compare_details(before: Record, after: Record) -> Iterator[DetailChange]:
    """What is said of two snapshots, apart from names and dates."""
    kinds: list[tuple[DetailKind, Mapping[str, Any], Mapping[str, Any]]] = [
        ("type", {"": before.type}, {"": after.type}),
        ("tag", dict.fromkeys(before.tags, True), dict.fromkeys(after.tags, True)),
        ("metadata", before.metadata, after.metadata),
        ("message", {"": before.message}, {"": after.message}),
        ("reference", _references(before), _references(after)),
    ]
    for kind, old, new in kinds:
        for key in sorted(old.keys() | new.keys()):
            # As JSON has them: 1, 1.0 and true are three values.
            same = msgspec.json.encode(old.get(key)) == msgspec.json.encode(new.get(key))
            if not same or (key in old) != (key in new):
                yield DetailChange(kind=kind, key=key, before=old.get(key), after=new.get(key))


def _references(record: Record) -> dict[str, Any]:
    return {
        each.uri: {"checksum": each.checksum, "size_bytes": each.size_bytes}
        for each in record.references
    }


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
