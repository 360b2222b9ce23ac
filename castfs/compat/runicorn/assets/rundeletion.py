"""What goes with a run: planned first, then done so that it can be finished after any end."""

from __future__ import annotations

import contextlib
import os
import shutil
import time
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from castfs import atomic
from castfs.compat.runicorn.assets.layout import ASSETS, Asset, RunDir, iter_run_dirs
from castfs.compat.runicorn.assets.liveness import (
    Needs,
    find_needs,
    locate_manifest,
    read_digests,
    read_run,
)
from castfs.compat.runicorn.assets.rolling import safe_leaf
from castfs.store import BlobDir

_SECOND = 1_000_000_000


@dataclass
class Plan:
    run: RunDir
    archive_root: Path
    orphaned: list[Asset] = field(default_factory=list)
    kept: list[Asset] = field(default_factory=list)
    manifests: list[Path] = field(default_factory=list)
    blobs: dict[str, int] = field(default_factory=dict)
    outputs: list[Path] = field(default_factory=list)


def make_plan(run: RunDir, root: Path, *, grace_seconds: float) -> Plan:
    """What to delete. DamageError, OSError."""
    archive_root = root / "archive"
    plan = Plan(run, archive_root)
    assets = read_run(run)
    own = {path for asset in assets if (path := locate_manifest(archive_root, asset)) is not None}
    manifests_dir = os.path.realpath(archive_root / "manifests")
    own = {path for path in own if Path(os.path.realpath(path)).is_relative_to(manifests_dir)}

    def is_doomed(path: Path, needs: Needs) -> bool:
        fingerprint = path.stem.partition("-")[0]
        named = path in needs.manifests or fingerprint in needs.fingerprints
        return path in own and not named

    needs = find_needs(root, without_run=run.run_id, is_doomed=is_doomed)
    for asset in assets:
        (plan.kept if asset.identity in needs.assets else plan.orphaned).append(asset)
    plan.manifests = sorted(path for path in own if is_doomed(path, needs))
    candidates = {asset.digest for asset in plan.orphaned if asset.digest is not None}
    for path in plan.manifests:
        candidates.update(read_digests(path))
    blob_root = archive_root / "blobs"
    if blob_root.is_dir():
        recorded = [run.path / ASSETS, *plan.manifests]
        since = max((_changed_ns(path) for path in recorded if path.exists()), default=0)
        plan.blobs = _find_old(blob_root, candidates - needs.digests, since, grace_seconds)
    rolling = archive_root / "outputs" / "rolling"
    names = {run.run_id, safe_leaf(run.run_id)}
    # Two ids may be one word to a filesystem: what may be another run's stays.
    for other in iter_run_dirs(root):
        if other.run_id != run.run_id:
            names -= {other.run_id, safe_leaf(other.run_id)}
    plan.outputs = [path for name in sorted(names) if (path := rolling / name).is_dir()]
    return plan


def _find_old(
    blob_root: Path, digests: set[str], since_ns: int, grace_seconds: float
) -> dict[str, int]:
    """digest → bytes that deleting it frees, without those that somebody has stored after `since`
    and so recently that nothing need refer to them yet."""
    recent = max(since_ns, time.time_ns() - round(grace_seconds * _SECOND))
    found = {}
    for digest in digests:
        with contextlib.suppress(FileNotFoundError, NotADirectoryError):
            path = blob_root / BlobDir.name(digest)
            status = path.lstat()
            if max(status.st_mtime_ns, status.st_ctime_ns) <= recent:
                found[digest] = status.st_size if status.st_nlink == 1 else 0
    return found


def _changed_ns(path: Path) -> int:
    status = path.stat()
    return max(status.st_mtime_ns, status.st_ctime_ns)


def execute(plan: Plan, result: dict[str, Any], *, dry_run: bool) -> None:
    """First the run goes out of sight, last it goes: whenever this ends early, what it named can be
    found again by its name."""
    run_dir = plan.run.path
    if not dry_run:
        hidden = run_dir.with_name(f".{plan.run.run_id}.deleting")
        if run_dir != hidden:
            run_dir.rename(hidden)
            atomic.fsync_dir(hidden.parent)
        run_dir = hidden
    for digest, size in plan.blobs.items():
        if remove(plan.archive_root / "blobs" / BlobDir.name(digest), result, dry_run=dry_run):
            result["blobs_deleted"] += 1
            result["bytes_freed"] += size
    if result["errors"]:
        return  # a manifest says which blobs were to go
    for path in plan.manifests:
        if remove(path, result, dry_run=dry_run):
            result["manifests_deleted"] += 1
    for directory in plan.outputs:
        count, size = _measure(directory)
        if dry_run or _remove_tree(directory, result):
            result["outputs_deleted"] += count
            result["bytes_freed"] += size
    if dry_run or result["errors"]:
        return
    result["run_dir_deleted"] = _remove_tree(run_dir, result)
    atomic.fsync_dir(run_dir.parent)


def remove(path: Path, result: dict[str, Any], *, dry_run: bool) -> bool:
    try:
        if not dry_run:
            path.unlink()
    except OSError as exc:
        result["errors"].append(f"cannot delete {path}: {exc.strerror}")
        return False
    return True


def _remove_tree(path: Path, result: dict[str, Any]) -> bool:
    try:
        shutil.rmtree(path)
    except OSError as exc:
        result["errors"].append(f"cannot delete {path}: {exc.strerror}")
        return False
    return True


def _measure(directory: Path) -> tuple[int, int]:
    """Files below a directory, and the bytes that deleting it frees."""
    count = size = 0
    for parent, _, names in os.walk(directory):
        for name in names:
            status = os.lstat(os.path.join(parent, name))
            count, size = count + 1, size + (status.st_size if status.st_nlink == 1 else 0)
    return count, size


def summarize(asset: Asset) -> dict[str, Any]:
    return {
        "asset_id": None,
        "asset_type": asset.kind,
        "name": asset.name,
        "fingerprint": asset.fingerprint,
        "archive_uri": asset.archive_path,
        "role": asset.role,
    }
