"""The walk: every directory once, its entries told apart, the files handed to the intake.

It never follows a symlink and holds one descriptor at a time, whatever the depth.
"""

from __future__ import annotations

import os
import stat
import sys
from collections.abc import Mapping

from castfs.digest import Digest
from castfs.errors import SourceError
from castfs.ignore import Rule, Scope, open_root_scope
from castfs.ingest.beneath import Identity, identity, open_beneath
from castfs.ingest.builder import TreeBuilder
from castfs.ingest.intake import Intake, Unread
from castfs.ingest.losses import Limits, Losses
from castfs.ingest.options import ScanOptions
from castfs.ingest.reading import Unreadable, check_time, read_xattrs
from castfs.ingest.statcache import StatCache
from castfs.ingest.symlinks import take_symlink, xattrs_of
from castfs.paths import DEPTH_MAX, NAME_MAX, display, split
from castfs.regular import read_regular

_ENCODING = sys.getfilesystemencoding()
_ERRORS = sys.getfilesystemencodeerrors()
_STORE_RULE = Rule(pattern="the store itself", origin="built-in")


class Walk:
    """One walk over one tree. `keep_out` is a directory that is left out wherever it turns up."""

    def __init__(
        self,
        source: bytes,
        options: ScanOptions,
        tree: TreeBuilder,
        losses: Losses,
        intake: Intake,
        *,
        cache: StatCache,
        keep_out: Identity | None,
    ) -> None:
        self._source = source
        self._options = options
        self._tree = tree
        self._losses = losses
        self._intake = intake
        self._cache = cache
        self._keep_out = keep_out
        self._limits = Limits(options) if options.has_limits else None
        self._reads_all = options.rehash or options.check_existing

    def run(self, root_fd: int) -> None:
        """SourceError if the root itself cannot be read, LimitError; OSError is the store's."""
        pending: list[tuple[bytes, Identity | None, Scope | None]] = [(b"", None, None)]
        while pending:
            path, expected, outer = pending.pop()
            try:
                fd = open_beneath(root_fd, path, expected)
            except OSError as exc:
                self._fail(path, exc)
                continue
            try:
                pending += self._visit(fd, path, outer)
            finally:
                os.close(fd)
            self._intake.advance(root_fd)

    def take_single(self, parent_fd: int, name: bytes, said: bytes) -> None:
        """A regular file as source: a tree with one entry, whose root looks the same everywhere.

        A symlink to it gives the name that was `said`.
        """
        try:
            status = os.stat(name, dir_fd=parent_fd, follow_symlinks=False)
            check_time(status)
        except (OSError, Unreadable) as exc:
            self._fail(b"", exc)
            return
        self._tree.add_single_root(status)
        if self._limits is not None:
            self._limits.count(status.st_size)
        self._intake.read_as(parent_fd, name, status.st_size, said)

    def _fail(self, path: bytes, exc: OSError | Unreadable) -> None:
        """A directory that cannot be read. Without the root there is nothing."""
        if not path:
            reason = exc.reason if isinstance(exc, Unreadable) else exc.strerror
            raise SourceError(f"cannot read {display(self._source)}: {reason}") from exc
        if isinstance(exc, Unreadable):
            self._losses.fail(path, exc.reason, vanished=exc.vanished)
        else:
            self._losses.fail_entry(path, exc)

    def _visit(
        self, fd: int, path: bytes, outer: Scope | None
    ) -> list[tuple[bytes, Identity, Scope]]:
        """Take one directory. Returns the directories in it.

        The inner loop runs once for each entry of the tree, so it looks nothing up twice.
        """
        try:
            status = os.fstat(fd)
            with os.scandir(fd) as entries:
                names = {entry.name.encode(_ENCODING, _ERRORS): entry for entry in entries}
            scope = self._enter(fd, path, names, outer)
            check_time(status)
            self._tree.add_dir(path, status, read_xattrs(fd) if self._tree.wants_xattrs else {})
        except (OSError, Unreadable) as exc:
            self._fail(path, exc)
            return []
        tree, losses, intake = self._tree, self._losses, self._intake
        row = self._cache.key(fd, status)
        remembered = {} if self._reads_all else self._cache.lookup(row)
        here, device = identity(status), status.st_dev
        limits = self._limits
        keeps_all, wants_xattrs, vouched = scope.keeps_all, tree.wants_xattrs, intake.vouched
        subdirs: list[tuple[bytes, Identity, Scope]] = []
        right: list[tuple[os.stat_result, Digest]] = []
        unread: list[Unread] = []
        vouched_count = vouched_size = 0
        # In the order of names, so that what is built here lies in memory as it is gone through
        # when it is put into canonical order, encoded and hashed: each takes half as long.
        for name in sorted(names):
            entry = names[name]
            child = path + b"/" + name if path else name
            if len(name) > NAME_MAX:
                losses.fail(
                    child, f"its name is longer than {NAME_MAX} bytes, which a manifest holds"
                )
                continue
            try:
                st = entry.stat(follow_symlinks=False)
            except OSError as exc:
                losses.fail_entry(child, exc)
                continue
            kind = st.st_mode & 0o170000
            if not keeps_all and (rule := scope.judge(name, kind == stat.S_IFDIR)) is not None:
                losses.ignore(rule, st, fd, entry.name)
            elif kind == stat.S_IFREG:
                if limits is not None:
                    limits.count(st.st_size)
                if st.st_nlink > 1 and tree.linked_before(child, st):
                    continue
                was = remembered.get(st.st_ino)
                if (
                    was is None
                    or was[0] != st.st_size
                    or was[1] != st.st_mtime_ns
                    or was[2] != st.st_ctime_ns
                    or st.st_dev != device
                ):
                    unread.append((name, st.st_size))
                    continue
                # Setting an attribute changes the ctime, so it cannot have escaped us.
                xattrs = xattrs_of(fd, child, name, losses) if wants_xattrs else {}
                digest = Digest(was[3].hex())
                right.append((st, digest))
                if digest in vouched:
                    tree.add_file(child, st, digest, xattrs)
                    vouched_count, vouched_size = vouched_count + 1, vouched_size + st.st_size
                else:
                    intake.add_known(child, st, digest, xattrs, here)
            elif kind == stat.S_IFDIR:
                if identity(st) == self._keep_out:
                    losses.ignore(_STORE_RULE, st, -1, "")
                elif len(child) > DEPTH_MAX and child.count(b"/") >= DEPTH_MAX:
                    losses.fail(child, f"deeper than {DEPTH_MAX:,} levels, which a manifest holds")
                else:
                    subdirs.append((child, identity(st), scope))
            elif kind == stat.S_IFLNK:
                if st.st_nlink == 1 or not tree.linked_before(child, st):
                    take_symlink(fd, child, name, st, tree, losses)
            else:
                losses.skip_special(child, st)
        intake.count_unchanged(vouched_count, vouched_size)
        if unread:
            intake.read(fd, path, unread, row=row, right=right)
        subdirs.reverse()
        return subdirs

    def _enter(
        self, fd: int, path: bytes, names: Mapping[bytes, object], outer: Scope | None
    ) -> Scope:
        """The rules in directory `path`. Asks the directory above, `outer`, where there is one."""

        def read(name: bytes) -> bytes | None:
            try:
                return read_regular(name, dir_fd=fd, follow=False)
            except OSError:
                return None

        if outer is not None:
            return outer.enter(split(path)[1], names, read)
        return open_root_scope(fd, self._source, self._options.ignore, names, read)
