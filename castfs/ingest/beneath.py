"""Directories of the ingested tree, opened so that nobody can lead the ingest out of it."""

from __future__ import annotations

import os

#: Below PATH_MAX (4096 with its NUL). Longer paths are walked in pieces of this size.
_PIECE = 3800
_FLAGS = os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW | os.O_CLOEXEC

#: (device, inode)
Identity = tuple[int, int]


def identity(status: os.stat_result) -> Identity:
    return status.st_dev, status.st_ino


def open_beneath(root_fd: int, path: bytes, expected: Identity | None) -> int:
    """A descriptor of directory `path` below `root_fd`, of any length and depth.

    Components in the middle are resolved by the kernel; so that a symlink swapped in there leads
    nowhere, the result must be the inode that was `expected`: FileNotFoundError if it is another.
    """
    if not path:
        return os.dup(root_fd)
    at = root_fd
    try:
        rest = path
        while len(rest) > _PIECE:
            cut = rest.rindex(b"/", 0, _PIECE)
            deeper = os.open(rest[:cut], _FLAGS, dir_fd=at)
            if at != root_fd:
                os.close(at)
            at, rest = deeper, rest[cut + 1 :]
        fd = os.open(rest, _FLAGS, dir_fd=at)
    finally:
        if at != root_fd:
            os.close(at)
    if expected is not None and identity(os.fstat(fd)) != expected:
        os.close(fd)
        raise FileNotFoundError(2, "the directory was replaced", path)
    return fd


def open_stepwise(root_fd: int, path: bytes) -> int:
    """The same without knowing the inode: one component at a time, none of them a symlink."""
    fd = os.dup(root_fd)
    try:
        for name in path.split(b"/") if path else ():
            deeper = os.open(name, _FLAGS, dir_fd=fd)
            os.close(fd)
            fd = deeper
    except BaseException:
        os.close(fd)
        raise
    return fd
