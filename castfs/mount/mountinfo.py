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
        match = re.search(r"(?:^|,)user_id=(\d+)", self.super_options)
        return int(match[1]) if match else None


def read_mounts() -> list[Mounted]:
    """Every mount of this process's namespace, oldest first."""
    return [_parse(line) for line in Path("/proc/self/mountinfo").read_bytes().splitlines()]


def find_mount(mountpoint: Path) -> Mounted | None:
    """What is mounted exactly there, the topmost of several. `mountpoint` has no symlinks."""
    found = [mount for mount in read_mounts() if mount.mountpoint == mountpoint]
    return found[-1] if found else None


def resolve_mountpoint(path: Path) -> Path:
    """`path` without symlinks, found without asking anything of what is mounted there.

    The last component is only asked whether it is a symlink: that works on a mount that is dead,
    and does not wait for one that hangs.
    """
    for _ in range(40):  # as many as the kernel follows (MAXSYMLINKS of linux/namei.h)
        path = Path(os.path.realpath(path.parent)) / path.name if path.name != ".." else path
        if path.name in ("", ".."):
            return Path(os.path.realpath(path))
        try:
            path = path.parent / os.readlink(path)
        except OSError:
            return path
    return path


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
