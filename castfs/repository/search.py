"""Questions over all snapshots of a store: where is this, how much is there."""

from __future__ import annotations

import contextlib
import fnmatch
import os
import re
from collections import Counter
from collections.abc import Iterator, Sequence

from castfs.catalog import reading
from castfs.digest import Digest
from castfs.errors import DamageError
from castfs.manifest import Entry, File, Tree
from castfs.repository.lookup import load_manifest, resolve_snapshot
from castfs.repository.results import Found, StoreStats, TypeStats
from castfs.store import Depot
from castfs.store.trash import parse_trash_name

#: A word of hex digits at least this long is taken for (the beginning of) a digest.
_DIGEST_MIN = 7


def find_in_snapshots(depot: Depot, what: str, snapshots: Sequence[str]) -> Iterator[Found]:
    """See `Store.find`. A manifest that records share is searched once, under the newest.

    What is damaged is an error at the end, after all others were searched.
    """
    matches = _Matcher(what)
    damaged: list[DamageError] = []
    for snapshot_id, manifest_id, tree in _chosen(depot, snapshots, damaged):
        for path, entry in tree.iter_entries():
            if matches(path, entry):
                file = entry if isinstance(entry, File) else None
                yield Found(
                    snapshot=snapshot_id,
                    manifest_id=manifest_id,
                    path=path,
                    size_bytes=file.size_bytes if file else 0,
                    sha256=file.sha256 if file else None,
                )
    if damaged:
        raise damaged[0]


def _chosen(
    depot: Depot, words: Sequence[str], damaged: list[DamageError]
) -> Iterator[tuple[str, Digest, Tree]]:
    if words:
        for word in words:
            snapshot = resolve_snapshot(depot, word)
            yield snapshot.id, snapshot.manifest_id, snapshot.manifest.tree
        return
    seen = set()
    with reading(depot) as catalog:
        records = list(catalog.iter_records())
        damaged += catalog.damaged_records("live")
    for record in records:
        if record.manifest not in seen:
            seen.add(record.manifest)
            try:
                manifest = load_manifest(depot, Digest(record.manifest))
            except DamageError as exc:
                damaged.append(exc)
            else:
                yield record.id, manifest.id, manifest.tree


class _Matcher:
    """Does an entry match a pattern? A pattern without a `/` is compared with the last name."""

    def __init__(self, what: str) -> None:
        is_digest = re.fullmatch(f"[0-9a-f]{{{_DIGEST_MIN},64}}", what)
        self._digest = what if is_digest else None
        pattern = os.fsencode(what.strip("/")).decode(errors="surrogateescape")
        self._whole = "/" in pattern
        self._pattern = re.compile(fnmatch.translate(pattern))

    def __call__(self, path: bytes, entry: Entry) -> bool:
        if self._digest and isinstance(entry, File) and entry.sha256.startswith(self._digest):
            return True
        name = path if self._whole else path.rpartition(b"/")[2]
        return self._pattern.match(name.decode(errors="surrogateescape")) is not None


def compute_stats(depot: Depot) -> StoreStats:
    counts = Counter[str]()
    names: dict[str | None, set[str]] = {}
    snapshots, sizes = Counter[str | None](), Counter[str | None]()
    with reading(depot) as catalog:
        damaged = catalog.damaged_records("live")
        for record in catalog.iter_records():
            counts["versions"] += record.version is not None
            snapshots[record.type] += 1
            sizes[record.type] += record.total_size_bytes
            of_type = names.setdefault(record.type, set())
            if record.name is not None:
                of_type.add(record.name)
            for reference in record.references:
                counts["references"] += 1
                counts["reference bytes"] += reference.size_bytes or 0
    for manifest_id in depot.iter_manifest_ids():
        with contextlib.suppress(FileNotFoundError):  # collected at this moment
            counts["manifest bytes"] += depot.manifest_path(manifest_id).stat().st_size
            counts["manifests"] += 1
    for _, status in depot.blobs.iter_blobs():
        counts["blobs"] += 1
        counts["blob bytes"] += status.st_size
    logical = sizes.total()
    # Blobs of snapshots that are gone wait for the collector; they save nothing.
    saved = max(0, logical - counts["blob bytes"])
    return StoreStats(
        store=depot.path,
        name_count=len(set().union(*names.values())),
        version_count=counts["versions"],
        snapshot_count=snapshots.total() + len(damaged),
        trash_count=sum(1 for name in os.listdir(depot.trash_dir) if parse_trash_name(name)),
        manifest_count=counts["manifests"],
        manifest_bytes=counts["manifest bytes"],
        blob_count=counts["blobs"],
        blob_bytes=counts["blob bytes"],
        logical_bytes=logical,
        saved_bytes=saved,
        saved_ratio=saved / logical if logical else 0.0,
        reference_count=counts["references"],
        reference_bytes=counts["reference bytes"],
        types=tuple(
            TypeStats(
                type=kind,
                name_count=len(names[kind]),
                snapshot_count=snapshots[kind],
                size_bytes=sizes[kind],
            )
            for kind in sorted(snapshots, key=lambda kind: (kind is None, kind))
        ),
    )
