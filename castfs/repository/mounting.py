"""From a resolved snapshot to what the mount's launcher wants to know."""

from __future__ import annotations

from pathlib import Path

from castfs.mount import MountOptions, MountRequest
from castfs.repository.snapshot import Snapshot


def mount_request(
    snapshot: Snapshot,
    mountpoint: Path,
    options: MountOptions | None = None,
    *,
    label: str = "",
    fast_lane: bool = True,
) -> MountRequest:
    """`label` is what the user called the snapshot; its name or source by default."""
    depot, record = snapshot.depot, snapshot.record
    in_store = depot is not None and depot.manifest_path(snapshot.manifest_id).exists()
    if not label:
        label = (record.name or record.source) if record else snapshot.manifest.source_path
    return MountRequest(
        mountpoint=mountpoint,
        blob_dir=snapshot.blobs.path,
        manifest_id=snapshot.manifest_id,
        store=depot.path if depot else None,
        record_id=record.id if record and in_store else None,
        manifest_file=None if in_store else snapshot.file,
        label=label,
        options=options or MountOptions(),
        fast_lane=fast_lane,
    )
