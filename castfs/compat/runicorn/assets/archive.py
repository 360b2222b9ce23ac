"""Files and directories into an archive: contents as blobs, a directory as a manifest besides."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Any

from castfs import atomic
from castfs.compat.runicorn.assets.blob_store import get_blob_path, store_blob
from castfs.compat.runicorn.assets.failures import WrongKindError
from castfs.compat.runicorn.assets.rolling import (
    archive_dir_overwrite,
    archive_file_overwrite,
    archive_file_overwrite_stat,
    check_category,
)
from castfs.compat.runicorn.assets.writing import BlobWriter, make_dirs
from castfs.errors import CastfsError
from castfs.ignore import IgnoreOptions
from castfs.ingest import ScanOptions, scan
from castfs.ingest.beneath import identity
from castfs.manifest import Manifest, content_id, encode_manifest, read_manifest_file
from castfs.paths import display
from castfs.repository.taking import open_cache

__all__ = [
    "archive_dir",
    "archive_dir_overwrite",
    "archive_file",
    "archive_file_overwrite",
    "archive_file_overwrite_stat",
]

#: Digits of a manifest's id in its file's name, where the fingerprint alone is taken.
_ID_DIGITS = 16


def archive_file(src: Path, archive_root: Path, *, category: str) -> dict[str, Any]:
    """Store one file. `fingerprint_kind` ("sha256"), `fingerprint`, `archive_path` (the blob's).
    ValueError if it is none; see store_blob."""
    check_category(category)
    if not Path(src).is_file():
        raise WrongKindError(f"archive_file expects a file, got: {src}")
    blob_root = Path(archive_root) / "blobs"
    digest = store_blob(Path(src), blob_root)
    path = get_blob_path(digest, blob_root)
    return {"fingerprint_kind": "sha256", "fingerprint": digest, "archive_path": str(path)}


def archive_dir(src: Path, archive_root: Path, *, category: str) -> dict[str, Any]:
    """Store all that is in a directory, ignored or not, and a manifest of it.

    `fingerprint_kind` ("sha256_manifest"), `fingerprint` (over names and contents), `archive_path`
    and `manifest_path` (the same), `file_count`, `total_size_bytes`; `skipped` if there was a FIFO,
    socket or device: a line for each. A tree that is there already, whatever its times, keeps its
    manifest. ValueError if `src` is no directory, UnreadableError lists what cannot be read;
    nothing refers to what was stored then.
    """
    check_category(category)
    src, root = Path(src), Path(archive_root)
    if not src.is_dir():
        raise WrongKindError(f"archive_dir expects a directory, got: {src}")
    with BlobWriter(root / "blobs") as writer, open_cache() as cache:
        result = scan(
            src,
            session=writer.as_session(),
            cache=cache,
            options=ScanOptions(ignore=IgnoreOptions(no_ignore=True)),
            readers=1,
            keep_out=identity(root.stat()),
        )
        writer.sync()
        manifest = result.manifest
        path = _publish(manifest, root / "manifests" / category)
    found: dict[str, Any] = {
        "fingerprint_kind": "sha256_manifest",
        "fingerprint": manifest.fingerprint,
        "archive_path": str(path),
        "manifest_path": str(path),
        "file_count": len(manifest.tree.files),
        "total_size_bytes": manifest.tree.total_size_bytes,
    }
    if result.skipped:
        found["skipped"] = [f"{display(entry.path)}: {entry.reason}" for entry in result.skipped]
    return found


def _publish(manifest: Manifest, directory: Path) -> Path:
    """The manifest's file. The fingerprint says nothing of modes and symlinks, so a tree that
    differs in those alone gets a second name."""
    fingerprint = manifest.fingerprint
    directory = directory / fingerprint[:2]
    make_dirs(directory)
    path = directory / f"{fingerprint}.json"
    if (there := _find_content(path)) not in (None, content_id(manifest.tree)):
        path = directory / f"{fingerprint}-{content_id(manifest.tree)[:_ID_DIGITS]}.json"
        there = _find_content(path)
    if there is None:
        atomic.write_file(path, encode_manifest(manifest))
    else:
        # Younger than the blobs that this made young: see cleanup.
        os.utime(path)
    return path


def _find_content(path: Path) -> str | None:
    """None where no sound manifest lies: it may be written, or written anew."""
    try:
        return content_id(read_manifest_file(path).tree)
    except CastfsError:
        return None
