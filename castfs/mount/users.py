"""Who uses a mount. Nothing here asks the mounted filesystem anything: it may hang."""

from __future__ import annotations

import contextlib
import os
from collections.abc import Iterator
from pathlib import Path

from castfs.mount.mountinfo import Mounted, read_mounts
from castfs.mount.wording import shown

#: As many as a message can name.
_SHOWN = 5


def iter_users(mounted: Mounted) -> Iterator[str]:
    """A few words for each process and each other mount that keeps `mounted` busy.

    Processes of other users are seen by root only.
    """
    for other in read_mounts():
        if other.parent_id == mounted.mount_id:
            yield f"another mount at {shown(other.mountpoint)}"
    for process in sorted(Path("/proc").glob("[0-9]*"), key=lambda path: int(path.name)):
        with contextlib.suppress(OSError):
            uses = sorted(set(_uses(process, mounted)))
            if uses:
                name = (process / "comm").read_text(errors="replace").strip()
                yield f"{name} (pid {process.name}: {', '.join(uses)})"


def describe_users(mounted: Mounted) -> str:
    """The same as one phrase; "" if nobody was found."""
    users = list(iter_users(mounted))
    more = [f"{len(users) - _SHOWN} more"] if len(users) > _SHOWN else []
    return ", ".join(users[:_SHOWN] + more)


def _uses(process: Path, mounted: Mounted) -> Iterator[str]:
    for link, words in (
        ("cwd", "working directory"),
        ("root", "root directory"),
        ("exe", "the program itself"),
    ):
        if _mount_id_of(process / link) == mounted.mount_id:
            yield words
    if any(_fd_mount_ids(process / "fdinfo", mounted.mount_id)):
        yield "open files"
    if _maps(process / "maps", mounted.device):
        yield "mapped files"


def _mount_id_of(link: Path) -> int | None:
    """The mount behind a magic link of /proc: O_PATH follows it without asking the filesystem."""
    try:
        fd = os.open(link, os.O_PATH | os.O_CLOEXEC)
    except OSError:
        return None
    try:
        return _read_mount_id(Path(f"/proc/self/fdinfo/{fd}"))
    finally:
        os.close(fd)


def _read_mount_id(fdinfo: Path) -> int | None:
    for line in fdinfo.read_text().splitlines():
        if line.startswith("mnt_id:"):
            return int(line.split()[1])
    return None


def _fd_mount_ids(directory: Path, mount_id: int) -> Iterator[bool]:
    with contextlib.suppress(OSError):
        for fdinfo in directory.iterdir():
            with contextlib.suppress(OSError):
                yield _read_mount_id(fdinfo) == mount_id


def _maps(path: Path, device: tuple[int, int]) -> bool:
    """proc_pid_maps(5): the fourth field is the device of a mapped file, in hexadecimal."""
    wanted = f"{device[0]:02x}:{device[1]:02x}"
    with contextlib.suppress(OSError), path.open(errors="replace") as lines:
        return any(line.split(maxsplit=4)[3] == wanted for line in lines)
    return False
