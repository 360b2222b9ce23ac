"""What is to be mounted where, and what is mounted: the plain data of this package."""

from __future__ import annotations

import json
from dataclasses import asdict, dataclass, field, fields, replace
from pathlib import Path
from typing import Any, Literal

from castfs.mount.options import MountOptions


@dataclass(frozen=True, slots=True, kw_only=True)
class MountRequest:
    """A resolved snapshot and the place for it.

    `store` is pinned; None where there is none (an older system's archive). `manifest_file` is a
    manifest outside the store, of this format or an older one; None means the store's own
    `manifest_id`. `label` is what the user called the snapshot.
    """

    mountpoint: Path
    blob_dir: Path
    manifest_id: str
    store: Path | None = None
    record_id: str | None = None
    manifest_file: Path | None = None
    label: str = ""
    options: MountOptions = field(default_factory=MountOptions)
    #: False: pyfuse3 answers every request itself.
    fast_lane: bool = True

    def absolute(self) -> MountRequest:
        """The same for a process with another working directory."""
        return replace(
            self,
            mountpoint=self.mountpoint.absolute(),
            blob_dir=self.blob_dir.absolute(),
            store=self.store and self.store.absolute(),
            manifest_file=self.manifest_file and self.manifest_file.absolute(),
        )

    def encode(self) -> bytes:
        """As JSON. The standard library's writer keeps lone surrogates, which paths may have."""
        return json.dumps(_plain(self)).encode()

    @staticmethod
    def decode(raw: bytes) -> MountRequest:
        values = json.loads(raw)
        values["options"] = MountOptions(**values["options"])
        return MountRequest(**_with_paths(MountRequest, values))


@dataclass(frozen=True, slots=True, kw_only=True)
class MountStatus:
    """A mount. `since` is in seconds since the epoch.

    What is only known to the user who mounted it (record, label, pid, store, log) is None for
    others. `state`: "ok" answers, "dead" has lost its process, "hung" does not answer in time.
    `warnings` is what a fresh mount has to say, a line each.
    """

    mountpoint: Path
    manifest_id: str
    record_id: str | None = None
    label: str | None = None
    since: float | None = None
    engine: Literal["fuse"] = "fuse"
    pid: int | None = None
    store: Path | None = None
    options: str = ""
    log: Path | None = None
    state: Literal["ok", "dead", "hung"] = "ok"
    warnings: tuple[str, ...] = ()

    def encode(self) -> bytes:
        return json.dumps(_plain(self)).encode()

    @staticmethod
    def decode(raw: bytes) -> MountStatus:
        """ValueError or TypeError for anything else than what `encode` made."""
        values = json.loads(raw)
        values["warnings"] = tuple(values["warnings"])
        return MountStatus(**_with_paths(MountStatus, values))


def _plain(value: MountRequest | MountStatus) -> dict[str, Any]:
    return {
        key: str(item) if isinstance(item, Path) else item for key, item in asdict(value).items()
    }


def _with_paths(kind: type, values: dict[str, Any]) -> dict[str, Any]:
    paths = {item.name for item in fields(kind) if "Path" in str(item.type)}
    return {
        key: Path(item) if key in paths and item is not None else item
        for key, item in values.items()
    }
