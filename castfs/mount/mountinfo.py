"""The kernel's table of mounts, read without touching any of them (proc_pid_mountinfo(5))."""

from __future__ import annotations

import os
import re
from dataclasses import dataclass
from pathlib import Path

#: Our mounts have this type, and `castfs:<manifest id>` as their source.
FILESYSTEM_TYPE = "fuse.castfs"
SOURCE_PREFIX = "castfs:"

_OCTAL = re.compile(rb"\\([0-7]{3})")


@dataclass(frozen=True, slots=True)
class Mounted:
    """One line of the table. `device` is (major, minor), as st_dev of everything in the mount."""

    mount_id: int
    parent_id: int
    device: tuple[int, int]
    mountpoint: Path
    options: str
    filesystem: str
    source: str
    super_options: str

    @property
    def is_castfs(self) -> bool:
        return self.filesystem == FILESYSTEM_TYPE and self.source.startswith(SOURCE_PREFIX)

    @property
    def manifest_id(self) -> str:
        return self.source.removeprefix(SOURCE_PREFIX)

    @property
    def owner(self) -> int | None:
        """Who made a FUSE mount."""
        return self._number("user_id")

    @property
    def group(self) -> int | None:
        """The group of whoever made a FUSE mount."""
        return self._number("group_id")

    def _number(self, option: str) -> int | None:
        match = re.search(rf"(?:^|,){option}=(\d+)", self.super_options)
        return int(match[1]) if match else None


def read_mounts() -> list[Mounted]:
    """Every mount of this process's namespace, oldest first."""
    # Not splitlines(): the kernel escapes newlines, but no carriage returns.
    lines = Path("/proc/self/mountinfo").read_bytes().split(b"\n")
    return [_parse(line) for line in lines if line]


def find_mount(mountpoint: Path) -> Mounted | None:
    """What is mounted exactly there, the topmost of several. `mountpoint` has no symlinks."""
    found = [mount for mount in read_mounts() if mount.mountpoint == mountpoint]
    return found[-1] if found else None


def _unescape(field: bytes) -> str:
    return os.fsdecode(_OCTAL.sub(lambda match: bytes([int(match[1], 8)]), field))


def _parse(line: bytes) -> Mounted:
    fields, _, rest = line.partition(b" - ")
    mount_id, parent_id, device, _root, mountpoint, options = fields.split(b" ")[:6]
    filesystem, source, super_options = rest.split(b" ")[:3]
    major, minor = device.split(b":")
    return Mounted(
        mount_id=int(mount_id),
        parent_id=int(parent_id),
        device=(int(major), int(minor)),
        mountpoint=Path(_unescape(mountpoint)),
        options=os.fsdecode(options),
        filesystem=_unescape(filesystem),
        source=_unescape(source),
        super_options=os.fsdecode(super_options),
    )
