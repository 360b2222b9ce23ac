"""What is mounted."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

from castfs.mount import registry
from castfs.mount.mountinfo import Mounted, read_mounts
from castfs.mount.probing import is_dead, probe
from castfs.mount.request import MountStatus


def list_mounts() -> list[MountStatus]:
    """Every castfs mount of this mount namespace, oldest first, whoever made it.

    Takes as long as the slowest answers, at most `probing.ANSWER_SECONDS`.
    """
    mounts = [mounted for mounted in read_mounts() if mounted.is_castfs]
    registry.remove_dead_entries({mounted.mountpoint for mounted in mounts})
    answers = probe({mounted.mountpoint for mounted in mounts})
    return [_describe(mounted, answers[mounted.mountpoint]) for mounted in mounts]


def find_status(mountpoint: Path) -> MountStatus | None:
    """The same of one mount point, which has no symlinks."""
    found = [status for status in list_mounts() if status.mountpoint == mountpoint]
    return found[-1] if found else None


def _describe(mounted: Mounted, answer: int | None) -> MountStatus:
    entry = registry.find_entry(mounted.mountpoint)
    if entry is not None and entry[0].manifest_id == mounted.manifest_id:
        status = entry[0] if entry[1] else replace(entry[0], pid=None)
    else:
        status = MountStatus(
            mountpoint=mounted.mountpoint,
            manifest_id=mounted.manifest_id,
            options=mounted.options,
        )
    # statfs is never cached, so the answer tells the truth; the lock only says whose entry it is.
    if is_dead(answer):
        return replace(status, state="dead")
    return replace(status, state="hung" if answer is None else "ok")
