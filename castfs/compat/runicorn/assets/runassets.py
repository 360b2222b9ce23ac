"""The workspace that a run's `assets.json` names: noted there, and found again."""

from __future__ import annotations

import contextlib
import fcntl
import json
import os
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from castfs import atomic
from castfs.compat.runicorn.assets.layout import (
    ASSETS,
    Asset,
    find_in_archive,
    iter_assets,
    read_assets,
    snapshot_entries,
)
from castfs.compat.runicorn.assets.unpacking import unpack_zip
from castfs.compat.runicorn.assets.writing import BlobWriter
from castfs.digest import digest_fd, parse_digest
from castfs.errors import BlobError, CastfsError, NotFoundError
from castfs.manifest import Tree
from castfs.paths import display, escape, unescape
from castfs.repository.lookup import load_manifest_file, resolve_snapshot
from castfs.repository.snapshot import Snapshot
from castfs.store import BlobDir, find_depot_above, open_depot

#: Keys of which an `assets.json` has some and a manifest none.
_KEYS = {"code", "config", "datasets", "pretrained", "outputs"}
_EMPTY: dict[str, Any] = {
    "code": {}, "config": {}, "datasets": [], "pretrained": [], "outputs": [],
}  # fmt: skip


def is_assets_file(path: Path) -> bool:
    """By what it holds: somebody may have given a copy another name."""
    try:
        document = read_assets(path)
    except CastfsError:
        return path.name == ASSETS  # whose reader will say what is wrong
    return "files" not in document and bool(_KEYS & document.keys())


@contextlib.contextmanager
def open_workspace(
    path: Path, target: Path, blob_root: Path | None
) -> Iterator[tuple[Tree, BlobDir]]:
    """The newest workspace snapshot of a run, with a directory that has its contents, which is
    `blob_root` if that is given. NotFoundError, DamageError."""
    document = read_assets(path)
    entries = snapshot_entries(document)
    if not entries:
        raise NotFoundError(
            f"{display(os.fsencode(path))} names no workspace snapshot",
            hint="was the run begun with snapshot_code, or snapshot_workspace called?",
        )
    entry = entries[-1]
    asset = next(iter_assets({"code": {"snapshot": entry}}))
    if entry.get("format") == "zip":
        with _unpacked(_find_zip(path, asset, blob_root), asset, target) as opened:
            yield opened
        return
    snapshot = _find_snapshot(path, entry, asset)
    with snapshot.pinned("restore"), contextlib.ExitStack() as stack:
        blobs = snapshot.blobs
        if blob_root is not None:
            blobs = BlobDir(blob_root)
            stack.callback(blobs.close)
        yield snapshot.manifest.tree, blobs


def _find_snapshot(path: Path, entry: dict[str, Any], asset: Asset) -> Snapshot:
    """Of a castfs run by `snapshot_id`, in the store that the file lies in, else in that of then;
    of an archive by its manifest's file."""
    if isinstance(entry.get("snapshot_id"), str):
        depot = find_depot_above(path)
        if depot is None:
            depot = open_depot(Path(os.fsdecode(unescape(str(entry.get("store"))))))
        return resolve_snapshot(depot, entry["snapshot_id"])
    for root in _archives_above(path):
        found = find_in_archive(root, asset.archive_path or "")
        if found is not None and found.is_file():
            return load_manifest_file(found, depot=None)
    if asset.is_manifest and Path(asset.archive_path or "").is_file():
        return load_manifest_file(Path(asset.archive_path or ""), depot=None)
    raise NotFoundError(
        f"the manifest that {display(os.fsencode(path))} names is nowhere around it",
        hint=f"it was {asset.archive_path}",
    )


def note_snapshot(run_dir: Path, manifest: dict[str, Any], *, store: Path) -> None:
    """Add a snapshot that a castfs run has taken to the run's `assets.json`, unless it is there.
    DamageError if that file is damaged: what it names would be forgotten."""
    path = run_dir / ASSETS
    with _held(run_dir):
        document = read_assets(path) if path.exists() else {**_EMPTY}
        entries = snapshot_entries(document)
        if any(entry.get("snapshot_id") == manifest["id"] for entry in entries):
            return
        entry = {
            "saved": True,
            "workspace_root": manifest["workspace_root"],
            "format": "manifest",
            "created_at": int(time.time()),
            "fingerprint_kind": "sha256_manifest",
            "fingerprint": manifest["fingerprint"],
            "manifest_id": manifest["manifest_id"],
            "snapshot_id": manifest["id"],
            # For a run whose directory lies elsewhere.
            "store": escape(os.fsencode(store)),
        }
        code = document.get("code")
        named = code if isinstance(code, dict) else {}
        document["code"] = {**named, "snapshot": entry, "snapshots": [*entries, entry]}
        atomic.write_file(path, [json.dumps(document, indent=2).encode()])


@contextlib.contextmanager
def _held(directory: Path) -> Iterator[None]:
    fd = os.open(directory, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    try:
        fcntl.flock(fd, fcntl.LOCK_EX)
        yield
    finally:
        os.close(fd)


def _archives_above(path: Path) -> Iterator[Path]:
    for parent in Path(os.path.realpath(path)).parents:
        if (parent / "archive").is_dir():
            yield parent / "archive"


def _find_zip(path: Path, asset: Asset, blob_root: Path | None) -> int:
    """A descriptor of the zip file, verified. BlobError."""
    digest = asset.digest
    if digest is None:
        raise NotFoundError(
            f"{display(os.fsencode(path))} does not say which content its snapshot has",
            hint="its fingerprint should be a SHA-256",
        )
    name = BlobDir.name(digest)
    roots = [blob_root] if blob_root else [root / "blobs" for root in _archives_above(path)]
    places = [root / name for root in roots]
    places += [path.parent / "code_snapshot.zip", Path(asset.archive_path or "/")]
    found = False
    for place in places:
        with contextlib.suppress(OSError), contextlib.ExitStack() as stack:
            fd = os.open(place, os.O_RDONLY | os.O_CLOEXEC | os.O_NONBLOCK)
            stack.callback(os.close, fd)
            found = True
            if digest_fd(fd) == digest:
                os.lseek(fd, 0, os.SEEK_SET)
                stack.pop_all()
                return fd
    raise BlobError(
        f"the workspace snapshot of {display(os.fsencode(path))} is "
        f"{'damaged' if found else 'missing'} ({digest})",
        digest=digest,
        hint="bring the blob from a copy of the archive",
    )


@contextlib.contextmanager
def _unpacked(fd: int, asset: Asset, target: Path) -> Iterator[tuple[Tree, BlobDir]]:
    """Contents are unpacked beside where they go, so that they can share their extents."""
    where = target if target.is_dir() else target.parent
    with (
        open(fd, "rb") as file,
        tempfile.TemporaryDirectory(prefix=".castfs-", dir=where) as held,
    ):
        with BlobWriter(Path(held), durable=False) as writer:
            tree = unpack_zip(file, writer, parse_digest(asset.digest or ""))
        blobs = BlobDir(Path(held))
        try:
            yield tree, blobs
        finally:
            blobs.close()
