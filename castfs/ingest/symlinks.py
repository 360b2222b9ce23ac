"""Entries that are taken without being opened: symbolic links, and what hangs on any entry."""

from __future__ import annotations

import os

from castfs.ingest.builder import TreeBuilder
from castfs.ingest.losses import Losses
from castfs.ingest.reading import Unreadable, check_time, read_xattrs


def take_symlink(
    dir_fd: int,
    path: bytes,
    name: bytes,
    status: os.stat_result,
    tree: TreeBuilder,
    losses: Losses,
) -> None:
    """Record symlink `name` of directory `dir_fd` as `path`, verbatim."""
    try:
        check_time(status)
        target = os.readlink(name, dir_fd=dir_fd)
    except OSError as exc:
        losses.fail_entry(path, exc)
        return
    except Unreadable as exc:
        losses.fail(path, exc.reason, vanished=exc.vanished)
        return
    xattrs = xattrs_of(dir_fd, path, name, losses) if tree.wants_xattrs else {}
    tree.add_symlink(path, status, target, xattrs)


def xattrs_of(dir_fd: int, path: bytes, name: bytes, losses: Losses) -> dict[bytes, bytes]:
    """Extended attributes of an entry that is not opened: there is no *at() call for them."""
    try:
        return read_xattrs(b"/proc/self/fd/%d/%s" % (dir_fd, name))
    except Unreadable as exc:
        losses.fail(path, exc.reason, vanished=exc.vanished)
        return {}
