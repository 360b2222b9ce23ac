"""Runicorn's assets on its own layout:

    <storage_root>/archive/blobs/<aa>/<sha256>
    <storage_root>/archive/manifests/<category>/<aa>/<fingerprint>.json
    <storage_root>/archive/outputs/rolling/<run id>/
    <storage_root>/runs/<path>/<run id>/assets.json      (or <project>/<name>/runs/<run id>/)

Blobs are hashed while they are copied, written durably and atomically, 0444, and verified whenever
they are read. Manifests are castfs's, which hold all that Runicorn reads of one and modes, times,
symlinks and empty directories besides. Two lock files beside the blobs keep writers and deleting
apart (castfs.store.locks); the older package knows of no locks, so a grace period protects it.
"""

from castfs.compat.runicorn.assets.archive import archive_dir, archive_file
from castfs.compat.runicorn.assets.blob_store import (
    blob_exists,
    get_blob_path,
    get_blob_stats,
    read_blob,
    store_blob,
)
from castfs.compat.runicorn.assets.cleanup import cleanup_orphaned_blobs, delete_run_completely
from castfs.compat.runicorn.assets.fingerprint import (
    content_fingerprint,
    dir_stat_fingerprint,
    sha256_bytes,
    sha256_file,
    stat_fingerprint,
)
from castfs.compat.runicorn.assets.restore import (
    export_manifest_to_zip,
    get_file_from_manifest,
    load_manifest,
    restore_from_manifest,
)
from castfs.compat.runicorn.assets.snapshot import snapshot_workspace

__all__ = [
    "archive_dir",
    "archive_file",
    "blob_exists",
    "cleanup_orphaned_blobs",
    "content_fingerprint",
    "delete_run_completely",
    "dir_stat_fingerprint",
    "export_manifest_to_zip",
    "get_blob_path",
    "get_blob_stats",
    "get_file_from_manifest",
    "load_manifest",
    "read_blob",
    "restore_from_manifest",
    "sha256_bytes",
    "sha256_file",
    "snapshot_workspace",
    "stat_fingerprint",
    "store_blob",
]
