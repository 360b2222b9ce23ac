"""Ending mounts."""

from __future__ import annotations

import contextlib
import ctypes
import errno
import os
import select
import subprocess
import time
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from castfs.errors import CastfsError, MountBusyError, MountError, NotFoundError
from castfs.mount import registry
from castfs.mount.mountinfo import Mounted, find_mount, read_mounts
from castfs.mount.probing import is_dead, probe_one
from castfs.mount.request import MountStatus
from castfs.mount.resolving import resolve_mountpoint
from castfs.mount.users import describe_users
from castfs.mount.wording import quoted, shown

#: How long a process may take to end after its mount is gone, in seconds.
EXIT_SECONDS = 10.0
#: fusermount3 itself needs a few milliseconds.
_HELPER_SECONDS = 20.0

# linux/fs.h
_MNT_FORCE = 1
_MNT_DETACH = 2
_UMOUNT_NOFOLLOW = 8


@dataclass(frozen=True, slots=True, kw_only=True)
class Unmounted:
    """A mount that was ended. `served` is False once its process has let go of the snapshot, too.

    It lives on while files are open after a lazy unmount, or while another mount namespace (a
    container, a systemd service) still has the mount.
    """

    mountpoint: Path
    manifest_id: str
    pid: int | None
    served: bool


def unmount(mountpoint: Path, *, lazy: bool = False) -> Unmounted:
    """End the castfs mount at `mountpoint`; `lazy` takes it away from under its users.

    Returns when the process that served it has given up its pin, or after `EXIT_SECONDS`.
    NotFoundError if no mount of ours is there, MountBusyError with the users' names, MountError if
    the kernel refuses.
    """
    path = resolve_mountpoint(mountpoint)
    mounted = find_mount(path)
    if mounted is None or not mounted.is_castfs:
        what = "nothing is" if mounted is None else f"no snapshot but {mounted.filesystem} is"
        raise NotFoundError(f"{what} mounted at {shown(path)}", hint="see `castfs mounts`")
    entry = registry.find_entry(path)
    status = entry[0] if entry and entry[0].manifest_id == mounted.manifest_id else None
    alive = bool(status and entry and entry[1])
    with _process_of(status) as process:
        try:
            detach(path, lazy=lazy, abort=status is not None and not alive)
        except MountBusyError:
            if alive or not is_dead(probe_one(path)):
                raise _busy(path, mounted) from None
            # Its process has gone: whoever still uses it gets nothing but errors anyway.
            detach(path, lazy=True)
        seconds = 0 if lazy else EXIT_SECONDS
        still = alive and status is not None and not _wait_for_end(status, process, seconds)
    return Unmounted(
        mountpoint=path,
        manifest_id=mounted.manifest_id,
        pid=status.pid if status else None,
        served=still,
    )


def unmount_all(*, lazy: bool = False) -> tuple[list[Unmounted], list[CastfsError]]:
    """End every castfs mount that this user made (root: of everybody), the newest first.

    Goes on after a failure and returns what was ended and what went wrong.
    """
    ended: list[Unmounted] = []
    failed: list[CastfsError] = []
    for mounted in reversed(read_mounts()):
        if mounted.is_castfs and os.geteuid() in (0, mounted.owner):
            try:
                ended.append(unmount(mounted.mountpoint, lazy=lazy))
            except CastfsError as exc:
                failed.append(exc)
    return ended, failed


def detach_dead(mountpoint: Path) -> None:
    """Remove a mount whose process has gone, whoever still has a file of it open, or waits."""
    detach(mountpoint, lazy=True, abort=True)


def _busy(path: Path, mounted: Mounted) -> MountBusyError:
    users = describe_users(mounted) or "a process that you may not see"
    return MountBusyError(
        f"{shown(path)} is in use by {users}",
        hint=f"end that first, or take it away with `castfs umount --lazy {quoted(path)}`",
    )


def detach(path: Path, *, lazy: bool, abort: bool = False) -> None:
    """Take a mount away, whoever serves it. MountBusyError, MountError.

    `abort` ends its connection first, for a mount that nobody serves. That ends by itself with its
    process, unless another one is stuck in the kernel with it: requests wait for ever then, and so
    does who unmounts. Root can always do it, users only where fusectl is mounted.
    """
    mounted = find_mount(path) if abort else None
    if mounted is not None:
        with contextlib.suppress(OSError):
            Path(f"/sys/fs/fuse/connections/{mounted.device[1]}/abort").write_text("1")
    if os.geteuid() == 0:
        _umount2(path, (_MNT_DETACH if lazy else 0) | (_MNT_FORCE if abort else 0))
    else:
        _fusermount(path, lazy=lazy)


def _umount2(path: Path, flags: int) -> None:
    """umount2(2) itself: umount(8) and fusermount3 look at paths that may hang, and at tables."""
    libc = ctypes.CDLL(None, use_errno=True)
    if libc.umount2(os.fsencode(path), _UMOUNT_NOFOLLOW | flags) != 0:
        code = ctypes.get_errno()
        if code == errno.EBUSY:
            raise MountBusyError(f"{shown(path)} is in use")
        raise MountError(f"cannot unmount {shown(path)}: {os.strerror(code)}")


def _fusermount(path: Path, *, lazy: bool) -> None:
    command: list[str | bytes] = [
        "fusermount3",
        "-u",
        *(["-z"] if lazy else []),
        "--",
        os.fsencode(path),
    ]
    try:
        result = subprocess.run(
            command, stdin=subprocess.DEVNULL, capture_output=True, timeout=_HELPER_SECONDS, cwd="/"
        )
    except FileNotFoundError as exc:
        raise MountError(
            f"cannot unmount {shown(path)}: fusermount3 is not installed",
            hint="install the package fuse3, or unmount it as root",
        ) from exc
    except subprocess.TimeoutExpired as exc:
        raise MountError(f"cannot unmount {shown(path)}: fusermount3 does not come back") from exc
    if result.returncode != 0:
        reason = result.stderr.decode(errors="replace").strip().splitlines()[-1:]
        if reason and reason[0].endswith(os.strerror(errno.EBUSY)):
            raise MountBusyError(f"{shown(path)} is in use")
        raise MountError(f"cannot unmount {shown(path)}: {''.join(reason) or 'fusermount3 failed'}")


@contextlib.contextmanager
def _process_of(status: MountStatus | None) -> Iterator[int | None]:
    """A pidfd of the process that serves a mount; None if it has ended, or cannot be seen."""
    if status is None or status.pid is None:
        yield None
        return
    try:
        fd = os.pidfd_open(status.pid)
    except OSError:
        yield None
        return
    try:
        # The lock is looked at after the descriptor is had: a process that took the same number
        # later does not hold it.
        yield fd if registry.is_alive(status) else None
    finally:
        os.close(fd)


def _wait_for_end(status: MountStatus, process: int | None, seconds: float) -> bool:
    """Wait until the process that served a mount has ended; False if it still lives after that."""
    deadline = time.monotonic() + seconds
    if process is not None:
        poll = select.poll()
        poll.register(process, select.POLLIN)
        poll.poll(seconds * 1000)
    while registry.is_alive(status):
        if time.monotonic() >= deadline:
            return False
        time.sleep(0.01)  # only where the process lies in another pid namespace
    return True
