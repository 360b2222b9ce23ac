"""From a word or a manifest file to a snapshot that can be read."""

from __future__ import annotations

import contextlib
import itertools
import os
from pathlib import Path

from castfs import settings
from castfs.catalog import reading
from castfs.digest import Digest
from castfs.errors import DamageError, NoStoreError, NotFoundError, StoreError
from castfs.manifest import Manifest, decode_stored, read_manifest_file
from castfs.paths import display
from castfs.repository import naming
from castfs.repository.snapshot import Snapshot
from castfs.store import BlobDir, Depot, find_depot_above, open_depot

#: Levels above a manifest file at which a `blobs` directory is looked for: an older archive has it
#: four up (archive/manifests/<category>/<xx>/<id>.json), the flat layout two.
_BLOBS_SEARCH_LEVELS = 5
#: Names of directories with blobs: Runicorn's artifacts have theirs three levels up.
_BLOBS_NAMES = ("blobs", ".dedup")
#: Files of a manifest whose blobs are looked for there.
_PROBED = 100


def resolve_snapshot(depot: Depot, word: str, *, read: bool = True) -> Snapshot:
    """The snapshot that `word` names: a manifest file, a name, or an id's prefix.

    NotFoundError, AmbiguousError, ManifestError; DamageError, unless `read` is False, which leaves
    the manifest for later.
    """
    if naming.is_file_name(word):
        naming.check_one_reading(depot, word)
        return load_manifest_file(Path(word), depot=depot)
    named = naming.resolve(depot, word)

    def load() -> Manifest:
        try:
            return load_manifest(depot, named.manifest_id)
        except DamageError as exc:
            if named.record is not None and not depot.record_path(named.record.id).exists():
                # Its manifest was collected between the two looks: nothing is damaged.
                raise NotFoundError(
                    f"snapshot {named.record.id} was removed", hint="see `castfs list`"
                ) from exc
            raise

    snapshot = Snapshot(named.manifest_id, load, depot.blobs, depot, named.record)
    if read:
        _ = snapshot.manifest
    return snapshot


def load_manifest(depot: Depot, manifest_id: Digest) -> Manifest:
    """A manifest of a store. DamageError names it."""
    return decode_stored(depot.read_manifest(manifest_id), manifest_id)


def load_manifest_file(path: Path, *, depot: Depot | None) -> Snapshot:
    """Read a manifest file and find its blobs: in `depot`, beside it, or in the default store."""
    manifest = read_manifest_file(path)
    snapshot = None if depot else load_beside(path, manifest)
    if snapshot is not None:
        return snapshot
    if depot is None:
        try:
            depot = open_depot(settings.default_store())
        except NoStoreError as exc:
            raise StoreError(
                f"no blobs found for {display(os.fsencode(path))}",
                hint="give the store that has them with --store, or `castfs import` the archive",
            ) from exc
    return _load_from(depot, path, manifest)


def load_beside(path: Path, manifest: Manifest) -> Snapshot | None:
    """The snapshot in manifest file `path` if it lies in a store or beside blobs of its own."""
    depot = find_depot_above(path)
    if depot is not None:
        return _load_from(depot, path, manifest)
    blobs = find_blobs_above(path, manifest)
    if blobs is None:
        return None
    return Snapshot(manifest.id, lambda: manifest, BlobDir(blobs), None, None, path)


def _load_from(depot: Depot, path: Path, manifest: Manifest) -> Snapshot:
    with reading(depot) as catalog:
        record = catalog.with_manifest(manifest.id)
    return Snapshot(manifest.id, lambda: manifest, depot.blobs, depot, record, path)


def find_blobs_above(path: Path, manifest: Manifest) -> Path | None:
    """A directory of blobs above a manifest file that has one of its own."""
    digests = {file.digest for file in itertools.islice(manifest.tree.files.values(), _PROBED)}
    for parent in list(Path(os.path.realpath(path)).parents)[:_BLOBS_SEARCH_LEVELS]:
        for name in _BLOBS_NAMES:
            candidate = parent / name
            # One that this user may not read is none of this manifest's.
            with (
                contextlib.suppress(OSError, StoreError),
                contextlib.closing(BlobDir(candidate)) as blobs,
            ):
                if not digests or any(blobs.size(digest) is not None for digest in digests):
                    return candidate
    return None
