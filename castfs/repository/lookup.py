"""From a word or a manifest file to a snapshot that can be read."""

from __future__ import annotations

import os
from pathlib import Path

from castfs import settings
from castfs.errors import DamageError, ManifestError, NoStoreError, NotFoundError, StoreError
from castfs.manifest import Manifest, decode_manifest, parse_manifest
from castfs.paths import display
from castfs.repository import naming
from castfs.repository.snapshot import Snapshot
from castfs.store import BlobDir, Depot, find_depot_above, open_depot

#: Levels above a manifest file at which a `blobs` directory is looked for: an older archive has it
#: four up (archive/manifests/<category>/<xx>/<id>.json), the flat layout two.
_BLOBS_SEARCH_LEVELS = 5


def resolve_snapshot(depot: Depot, word: str) -> Snapshot:
    """The snapshot that `word` names: a manifest file, a name, or an id's prefix.

    NotFoundError, AmbiguousError, ManifestError, DamageError.
    """
    if naming.is_file_name(word):
        return load_manifest_file(Path(word), depot=depot)
    named = naming.resolve(depot, word)
    manifest = decode_manifest(depot.read_manifest(named.manifest_id))
    if manifest.id != named.manifest_id:
        raise DamageError(
            f"manifest {named.manifest_id} holds another tree ({manifest.id})",
            hint="ingest the same tree again, or import its manifest",
        )
    return Snapshot(manifest, depot.blobs, depot, named.record)


def read_manifest_file(path: Path) -> Manifest:
    """A manifest of any format. NotFoundError; ManifestError names the file."""
    shown = display(os.fsencode(path))
    try:
        raw = path.read_bytes()
    except FileNotFoundError as exc:
        raise NotFoundError(f"no manifest file {shown}", hint="see `castfs list`") from exc
    except OSError as exc:
        raise NotFoundError(f"cannot read {shown}: {exc.strerror}", hint="check the path") from exc
    try:
        return parse_manifest(raw)
    except ManifestError as exc:
        raise ManifestError(f"{shown}: {exc.message}", hint=exc.hint) from exc


def load_manifest_file(path: Path, *, depot: Depot | None) -> Snapshot:
    """Read a manifest file and find its blobs: in `depot`, beside it, or in the default store."""
    manifest = read_manifest_file(path)
    depot = depot or find_depot_above(path)
    if depot is None and (blobs := find_blobs_above(path)) is not None:
        return Snapshot(manifest, BlobDir(blobs), None, None, path)
    if depot is None:
        try:
            depot = open_depot(settings.default_store())
        except NoStoreError as exc:
            raise StoreError(
                f"no blobs found for {display(os.fsencode(path))}",
                hint="give the store that has them with --store",
            ) from exc
    record = next((r for r in depot.iter_records() if r.manifest == manifest.id), None)
    return Snapshot(manifest, depot.blobs, depot, record, path)


def find_blobs_above(path: Path) -> Path | None:
    for parent in list(path.absolute().parents)[:_BLOBS_SEARCH_LEVELS]:
        candidate = parent / "blobs"
        if candidate.is_dir():
            return candidate
    return None


def has_blobs_beside(path: Path) -> bool:
    """Does manifest file `path` lie in a store or an older archive?"""
    return find_depot_above(path) is not None or find_blobs_above(path) is not None
