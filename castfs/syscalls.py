"""The few Linux calls that Python's `os` does not have, each with the errno it failed with."""

from __future__ import annotations

import ctypes
import errno
import fcntl
import functools
import os
from pathlib import Path

#: statfs f_type of filesystems whose syncfs reports write errors and flushes what it says
#: (linux/magic.h; since kernel 5.8, commit 735e4ae5ba28). Elsewhere every file is synced alone.
SYNCFS_MAGIC = {
    0xEF53: "ext4",
    0x58465342: "xfs",
    0x9123683E: "btrfs",
    0xF2F52010: "f2fs",
    0x01021994: "tmpfs",
}

#: _IOW(0x94, 9, int) of linux/fs.h: share the extents of a whole file.
FICLONE = 0x40049409


@functools.cache
def _libc() -> ctypes.CDLL:
    return ctypes.CDLL(None, use_errno=True)


#: f_type of other filesystems that are this machine's own, so that every lock on them is this
#: kernel's (linux/magic.h and the filesystems' sources).
_OTHER_LOCAL_MAGIC = {
    0x794C7630: "overlayfs",
    0x2FC12FC1: "zfs",
    0xCA451A4E: "bcachefs",
    0x3153464A: "jfs",
    0x52654973: "reiserfs",
    0x3434: "nilfs2",
    0x858458F6: "ramfs",
    0x4D44: "vfat",
    0x2011BAB0: "exfat",
    0x7366746E: "ntfs3",
    0xE0F5E1E2: "erofs",
    0x73717368: "squashfs",
    0x9660: "iso9660",
}


def syncfs(fd: int) -> None:
    """Write everything dirty on the filesystem of `fd` to its medium (syncfs(2))."""
    if _libc().syncfs(fd) != 0:
        code = ctypes.get_errno()
        raise OSError(code, os.strerror(code))


def is_read_only_medium(path: Path) -> bool:
    """Can nobody write there: the filesystem itself is mounted read-only, not only this mount of
    it? Of proc_pid_mountinfo(5); False where that cannot be told."""
    try:
        device = path.stat().st_dev
        table = Path("/proc/self/mountinfo").read_bytes()
    except OSError:
        return False
    wanted = b"%d:%d" % (os.major(device), os.minor(device))
    for line in table.splitlines():
        fields = line.split(b" ")
        if fields[2] == wanted:
            return b"ro" in fields[-1].split(b",")
    return False


def filesystem_magic(fd: int) -> int:
    """f_type of statfs(2). The struct starts with it, as a long, on every Linux."""
    buffer = (ctypes.c_long * 32)()
    if _libc().fstatfs(fd, ctypes.byref(buffer)) != 0:
        code = ctypes.get_errno()
        raise OSError(code, os.strerror(code))
    return int(buffer[0]) & 0xFFFFFFFF


def is_local(fd: int) -> bool:
    """Is the filesystem of `fd` known to be this machine's own?"""
    magic = filesystem_magic(fd)
    return magic in SYNCFS_MAGIC or magic in _OTHER_LOCAL_MAGIC


def has_reliable_syncfs(fd: int) -> bool:
    return filesystem_magic(fd) in SYNCFS_MAGIC and kernel_version() >= (5, 8)


def clone_file(source_fd: int, target_fd: int) -> bool:
    """Make `target_fd` share `source_fd`'s extents. False where the filesystem cannot."""
    try:
        fcntl.ioctl(target_fd, FICLONE, source_fd)
    except OSError as exc:
        if exc.errno in (
            errno.EOPNOTSUPP, errno.EXDEV, errno.EINVAL, errno.ENOTTY, errno.EPERM, errno.ETXTBSY,
        ):  # fmt: skip
            return False
        raise
    return True


#: linux/fs.h
_RENAME_NOREPLACE = 1


def rename_noreplace(dir_fd: int, source: bytes, target: bytes) -> bool:
    """Rename within the directory `dir_fd`; FileExistsError if `target` is there (renameat2(2)).

    False where the filesystem or the C library (glibc before 2.28) cannot; nothing is done then.
    """
    call = getattr(_libc(), "renameat2", None)
    if call is None:
        return False
    if call(dir_fd, source, dir_fd, target, _RENAME_NOREPLACE) == 0:
        return True
    code = ctypes.get_errno()
    if code in (errno.EINVAL, errno.ENOSYS, errno.EOPNOTSUPP):
        return False
    raise OSError(code, os.strerror(code), target)


@functools.cache
def boot_id() -> str:
    """Changes with each boot of the kernel; the same in every container on it."""
    return Path("/proc/sys/kernel/random/boot_id").read_text().strip()


def kernel_version() -> tuple[int, int]:
    major, minor = os.uname().release.split(".")[:2]
    return int(major), int("".join(c for c in minor if c.isdigit()))
