"""Runicorn's functions, under their own names, signatures, defaults and result keys.

    import castfs.compat.runicorn as rn
    from castfs.compat.runicorn.assets.restore import restore_from_manifest

`castfs.compat.runicorn.assets` works on Runicorn's own layout (a directory of blobs, manifests
beside it, `assets.json` in each run), which its 0.7.2 goes on reading. Where its English and its
Chinese guide give one name two signatures, both work: arguments decide. What a run or an artifact
is comes from castfs itself.
"""

from __future__ import annotations

from typing import Any

from castfs.compat.runicorn import runs
from castfs.compat.runicorn.assets import (
    archive_dir,
    archive_file,
    blob_exists,
    cleanup_orphaned_blobs,
    content_fingerprint,
    delete_run_completely,
    dir_stat_fingerprint,
    export_manifest_to_zip,
    get_blob_path,
    get_blob_stats,
    get_file_from_manifest,
    load_manifest,
    read_blob,
    restore_from_manifest,
    sha256_bytes,
    sha256_file,
    snapshot_workspace,
    stat_fingerprint,
    store_blob,
)

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


def __getattr__(name: str) -> Any:
    """`init`, `finish`, `Artifact` …: castfs's own, loaded when they are first used."""
    if name not in runs.PUBLIC:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    return runs.load(name)


def __dir__() -> list[str]:
    return sorted({*globals(), *runs.PUBLIC})
