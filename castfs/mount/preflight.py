"""What can be told before a mount is tried: libfuse reports failures badly, so each usual one is
looked for first and said in one line with its remedy."""

from __future__ import annotations

import errno
import os
import shutil
import stat
from pathlib import Path

from castfs.errors import MountError, StoreError
from castfs.mount.mountinfo import Mounted, find_mount
from castfs.mount.options import MountOptions
from castfs.mount.probing import ANSWER_SECONDS, is_dead, probe_one
from castfs.mount.request import MountRequest
from castfs.mount.resolving import resolve_mountpoint
from castfs.mount.unmounting import detach_dead
from castfs.mount.wording import quoted, shown

FUSE_DEVICE = Path("/dev/fuse")
FUSE_CONF = Path("/etc/fuse.conf")

_CONTAINER = "in a container: start it with `--device /dev/fuse --cap-add SYS_ADMIN`"


def check_device(device: Path = FUSE_DEVICE) -> None:
    """Can this user talk to the kernel's FUSE? fusermount3 opens the device as the user, too."""
    try:
        os.close(os.open(device, os.O_RDWR | os.O_CLOEXEC))
    except FileNotFoundError as exc:
        raise MountError(
            f"{shown(device)} does not exist",
            hint=f"load the module with `modprobe fuse`; {_CONTAINER}",
        ) from exc
    except OSError as exc:
        if exc.errno == errno.EACCES:
            raise MountError(
                f"you may not open {shown(device)} (mode {stat.S_IMODE(device.stat().st_mode):o})",
                hint=f"as root: `chmod 666 {quoted(device)}`",
            ) from exc
        if exc.errno in (errno.ENODEV, errno.ENXIO):
            hint = "load the module with `modprobe fuse`"
        else:
            hint = _CONTAINER
        raise MountError(f"{shown(device)} cannot be opened: {exc.strerror}", hint=hint) from exc


def check_privileges(options: MountOptions, *, euid: int, fuse_conf: Path = FUSE_CONF) -> None:
    """What an ordinary user needs besides the device."""
    if euid == 0:
        return
    if shutil.which("fusermount3") is None:
        raise MountError(
            "fusermount3 is not installed; only root can mount without it",
            hint="install the package fuse3",
        )
    if options.allow_other and not _users_may_share(fuse_conf):
        raise MountError(
            f"option allow_other is not allowed: {shown(fuse_conf)} has no line `user_allow_other`",
            hint="leave the option away, or have root add that line",
        )
    for flag in ("suid", "dev"):
        if getattr(options, flag):
            raise MountError(f"only root may mount with option {flag}", hint="leave it away")


def _users_may_share(fuse_conf: Path) -> bool:
    try:
        lines = fuse_conf.read_text(errors="replace").splitlines()
    except OSError:
        return False
    return any(line.strip() == "user_allow_other" for line in lines)


def prepare_mountpoint(request: MountRequest, *, euid: int) -> tuple[Path, tuple[str, ...]]:
    """The mount point without symlinks, empty and usable, and what was done to make it so.

    A dead mount of ours there is removed. MountError says what is wrong with the place.
    """
    warnings: tuple[str, ...] = ()
    path = resolve_mountpoint(request.mountpoint)
    answer = probe_one(path)
    mounted = find_mount(path)
    if answer is None:
        raise MountError(
            f"{shown(path)} does not answer within {ANSWER_SECONDS:.0f} s",
            hint=f"what is mounted there hangs; free it with `castfs umount --lazy {quoted(path)}`",
        )
    if is_dead(answer):
        warnings = (_remove_dead(path, mounted),)
    else:
        check_free(path)
    path = Path(os.path.realpath(path))
    _check_directory(path, euid)
    _check_apart(path, request)
    _check_empty(path)
    return path, warnings


def check_free(path: Path) -> None:
    """MountError if a snapshot is mounted at `path`, which has no symlinks."""
    mounted = find_mount(path)
    if mounted is not None and mounted.is_castfs:
        raise MountError(
            f"{mounted.source} is already mounted at {shown(path)}",
            hint=f"use it, or unmount it with `castfs umount {quoted(path)}`",
        )


def _remove_dead(path: Path, mounted: Mounted | None) -> str:
    if mounted is None:
        raise MountError(
            f"{shown(path)} lies in a mount whose process has died",
            hint="unmount that first; `castfs mounts` or `findmnt` shows it",
        )
    if not mounted.is_castfs:
        raise MountError(
            f"a dead {mounted.filesystem} mount ({mounted.source}) is at {shown(path)}",
            hint=f"unmount it with `fusermount3 -uz {quoted(path)}`",
        )
    detach_dead(path)
    return f"replaced the dead mount of {mounted.source} at {shown(path)}"


def _check_directory(path: Path, euid: int) -> None:
    try:
        mode = path.stat().st_mode
    except FileNotFoundError as exc:
        raise MountError(
            f"the mount point {shown(path)} does not exist",
            hint=f"make it with `mkdir -p {quoted(path)}`",
        ) from exc
    except OSError as exc:
        raise MountError(
            f"the mount point {shown(path)} cannot be used: {exc.strerror}",
            hint="choose another directory",
        ) from exc
    if not stat.S_ISDIR(mode):
        raise MountError(
            f"the mount point {shown(path)} is not a directory", hint="choose a directory"
        )
    # Root may mount on what is read-only or not its own; fusermount3 refuses that to users.
    needed = os.R_OK | os.X_OK | (0 if euid == 0 else os.W_OK)
    if not os.access(path, needed, effective_ids=True):
        raise MountError(
            f"you may not write to the mount point {shown(path)}",
            hint="choose a directory of your own",
        )


def _check_empty(path: Path) -> None:
    with os.scandir(path) as entries:
        for entry in entries:
            raise MountError(
                f"the mount point {shown(path)} is not empty (it has {shown(Path(entry.name))})",
                hint="choose an empty directory; a mount would hide what is in it",
            )


def _check_apart(path: Path, request: MountRequest) -> None:
    """A mount over the store freezes whoever serves it; one inside it is taken for its contents."""
    for what, place in (("store", request.store), ("blob directory", request.blob_dir)):
        if place is None:
            continue
        real = Path(os.path.realpath(place))
        if path.is_relative_to(real):
            raise MountError(
                f"the mount point {shown(path)} lies inside the {what} {shown(real)}",
                hint="choose a directory outside",
            )
        if real.is_relative_to(path):
            raise MountError(
                f"a mount at {shown(path)} would hide the {what} {shown(real)} below it",
                hint="choose another directory",
            )


def check_blob_dir(path: Path) -> None:
    if not path.is_dir():
        raise StoreError(
            f"there is no blob directory {shown(path)}",
            hint="give the store that has the blobs with --store",
        )
