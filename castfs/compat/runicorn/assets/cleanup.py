"""Deleting: a run with what only it needs, and blobs that nothing needs."""

from __future__ import annotations

import contextlib
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from castfs.compat.runicorn.assets.layout import iter_run_dirs
from castfs.compat.runicorn.assets.liveness import find_needs
from castfs.compat.runicorn.assets.rundeletion import execute, make_plan, remove, summarize
from castfs.compat.runicorn.assets.writing import ArchiveLocks, refuse_store
from castfs.digest import Digest
from castfs.errors import CastfsError
from castfs.store import BlobDir

#: A blob younger than this may be somebody's whose manifest is still to come: the older package
#: takes no lock.
GRACE_SECONDS = 3600.0
_SECOND = 1_000_000_000
_OF_A_STORE = "there it is `castfs runs rm` and `castfs gc`"


def delete_run_completely(run_id: str, storage_root: Path, dry_run: bool = False) -> dict[str, Any]:
    """Delete a run, and the manifests, blobs and rolling outputs that only it needs.

    `orphaned_assets` are those of the run that no other has, `kept_assets` the others. A blob stays
    if any other manifest or run names it, or somebody stored the same content within the last hour,
    after this run did. `blobs_deleted`, `manifests_deleted`, `outputs_deleted` (files) and
    `bytes_freed` (blobs and outputs) are what was deleted, or with `dry_run` would be;
    `run_dir_deleted` is False then. Never raises for what it finds: `success` is False and `errors`
    says why. If anything that could need a blob is unreadable, nothing is deleted. What was
    interrupted is finished by calling it again. Runicorn's own index is not touched.
    """
    result: dict[str, Any] = {
        "success": False,
        "run_id": run_id,
        "run_dir_deleted": False,
        "orphaned_assets": [],
        "kept_assets": [],
        "blobs_deleted": 0,
        "manifests_deleted": 0,
        "outputs_deleted": 0,
        "bytes_freed": 0,
        "errors": [],
    }
    root = Path(storage_root)
    try:
        refuse_store(root, hint=_OF_A_STORE)
        with _alone(root / "archive" / "blobs", dry_run=dry_run):
            run = next((run for run in iter_run_dirs(root) if run.run_id == run_id), None)
            if run is None:
                result["errors"].append(f"Run not found: {run_id}")
                return result
            plan = make_plan(run, root, grace_seconds=GRACE_SECONDS)
            result["orphaned_assets"] = [summarize(asset) for asset in plan.orphaned]
            result["kept_assets"] = [summarize(asset) for asset in plan.kept]
            execute(plan, result, dry_run=dry_run)
    except (CastfsError, OSError) as exc:
        result["errors"].append(str(exc))
    result["success"] = not result["errors"]
    return result


def cleanup_orphaned_blobs(
    storage_root: Path, dry_run: bool = False, *, grace_seconds: float = GRACE_SECONDS
) -> dict[str, Any]:
    """Delete the blobs that no manifest and no run names, but for those younger than
    `grace_seconds`, whose manifest may be on its way.

    `blobs_scanned`, `orphaned_blobs` and `bytes_freed`: what was deleted, or with `dry_run` would
    be; `recent_blobs` if some were too young. Never raises for what it finds: `success` is False
    and `errors` says why. If any manifest or `assets.json` is unreadable, nothing is deleted.
    """
    result: dict[str, Any] = {
        "success": False,
        "blobs_scanned": 0,
        "orphaned_blobs": 0,
        "bytes_freed": 0,
        "errors": [],
    }
    root = Path(storage_root)
    blob_root = root / "archive" / "blobs"
    try:
        refuse_store(root, hint=_OF_A_STORE)
        with _alone(blob_root, dry_run=dry_run):
            if blob_root.is_dir():
                _sweep(root, blob_root, result, dry_run=dry_run, grace_seconds=grace_seconds)
    except (CastfsError, OSError) as exc:
        result["errors"].append(str(exc))
    result["success"] = not result["errors"]
    return result


def _sweep(
    root: Path, blob_root: Path, result: dict[str, Any], *, dry_run: bool, grace_seconds: float
) -> None:
    needed = find_needs(root).digests
    limit = time.time_ns() - round(grace_seconds * _SECOND)
    blobs = BlobDir(blob_root)
    recent = 0
    try:
        for digest, status in blobs.iter_blobs():
            result["blobs_scanned"] += 1
            if digest in needed:
                continue
            # Runicorn gives a blob its source's mtime, so that alone says nothing of its age.
            if max(status.st_mtime_ns, status.st_ctime_ns) > limit:
                recent += 1
            elif remove(blob_root / BlobDir.name(Digest(digest)), result, dry_run=dry_run):
                result["orphaned_blobs"] += 1
                result["bytes_freed"] += status.st_size if status.st_nlink == 1 else 0
    finally:
        blobs.close()
    if recent:
        result["recent_blobs"] = recent
    if not dry_run:
        # Nobody else is writing: what is unfinished belongs to the dead.
        for path in blob_root.glob("tmp-" + "[0-9a-f]" * 16):
            path.unlink()


@contextlib.contextmanager
def _alone(blob_root: Path, *, dry_run: bool) -> Iterator[None]:
    """Hold an archive against writers; not for a dry run, which writes no lock file. BusyError."""
    if dry_run or not blob_root.is_dir():
        yield
        return
    locks = ArchiveLocks(blob_root)
    locks.create()
    with locks.exclusive():
        yield
