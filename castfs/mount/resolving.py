"""Where a path leads, found without waiting for a mount that hangs."""

from __future__ import annotations

import os
from pathlib import Path

from castfs.errors import MountError
from castfs.mount.mountinfo import read_mounts
from castfs.mount.probing import ANSWER_SECONDS, is_dead, probe_one
from castfs.mount.wording import quoted, shown

#: As many symlinks as the kernel follows (MAXSYMLINKS of linux/namei.h).
_LINKS_MAX = 40


def resolve_mountpoint(path: Path) -> Path:
    """`path` without symlinks. MountError if it leads through a snapshot that does not answer.

    The last component is only asked whether it is a symlink: that works on a mount that is dead,
    and does not wait for one that hangs. What does not exist is taken as it is written.
    """
    mounts = {mounted.mountpoint for mounted in read_mounts() if mounted.is_castfs}
    start = path if path.is_absolute() else Path.cwd() / path
    pending = list(reversed(str(start).split("/")))
    resolved, links = Path("/"), 0
    while pending:
        name = pending.pop()
        if name in ("", "."):
            continue
        if name == "..":
            resolved = resolved.parent
            continue
        if resolved in mounts:
            _check_answers(resolved)
        try:
            target = os.readlink(resolved / name)
        except OSError:
            resolved /= name
            continue
        links += 1
        if links > _LINKS_MAX:
            return resolved / name
        if target.startswith("/"):
            resolved = Path("/")
        pending += reversed(target.split("/"))
    return resolved


def _check_answers(mountpoint: Path) -> None:
    answer = probe_one(mountpoint)
    if answer is None:
        raise MountError(
            f"{shown(mountpoint)}, which the path leads through, does not answer within "
            f"{ANSWER_SECONDS:.0f} s",
            hint=f"free it with `castfs umount --lazy {quoted(mountpoint)}`",
        )
    if is_dead(answer):
        raise MountError(
            f"the process of the mount at {shown(mountpoint)}, which the path leads through, has "
            "died",
            hint=f"remove it with `castfs umount {quoted(mountpoint)}`",
        )
