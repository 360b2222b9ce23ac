"""The restore itself: survey, write, link, finish."""

from __future__ import annotations

import contextlib
import os
import threading
from collections.abc import Sequence
from pathlib import Path

from castfs.manifest import File, Tree
from castfs.paths import RelPath
from castfs.progress import SILENT, Progress
from castfs.restore.copying import Stopped
from castfs.restore.cursor import Cursor
from castfs.restore.directories import DirectoryMaker, create_target, open_target
from castfs.restore.failures import disturbed, target_errors
from castfs.restore.leaf import Identity, LeafWriter
from castfs.restore.metadata import Metadata
from castfs.restore.plan import Plan, make_plan
from castfs.restore.result import IfExists, NotSet, RestoreResult
from castfs.restore.survey import find_existing
from castfs.restore.workers import Meter, Workers
from castfs.store import BlobDir
from castfs.store.reading import check_present


def restore_tree(
    tree: Tree,
    blobs: BlobDir,
    target: Path,
    *,
    paths: Sequence[bytes] = (),
    if_exists: IfExists = "fail",
    owner: bool = False,
    verify: bool = True,
    threads: int = 1,
    progress: Progress = SILENT,
) -> RestoreResult:
    """Recreate `tree`, or its entries `paths` with all below them, in directory `target`.

    The target is created if it is missing. Directories that are there are used, and what else they
    hold stays. For files and symlinks that are there `if_exists` decides: "fail" raises before
    anything is written, "skip" leaves them, "replace" renames over them. Recorded modes and times
    go to all files that are written and all directories that are made here; with "replace" also to
    existing directories, unless they only lead to one of `paths`. `owner` sets recorded owners too.

    TargetError: the target is in the way, full, read-only … BlobError: a blob is missing (nothing
    was written) or has other content (nothing stands under that file's name). NotFoundError: one of
    `paths` is not in the tree. After an error the files that are there are whole; directories that
    were made have mode 0700.
    """
    plan = make_plan(tree, paths)
    with target_errors(target), contextlib.ExitStack() as stack:
        progress.phase("checking")
        root_fd = open_target(target)
        skipped: frozenset[bytes] = frozenset()
        if root_fd is not None:
            stack.callback(os.close, root_fd)
            existing = find_existing(plan, root_fd, target, if_exists)
            skipped = existing if if_exists == "skip" else skipped
        check_present(blobs, plan.iter_blobs(without=skipped))

        directories = DirectoryMaker(plan, target, if_exists)
        if root_fd is None:
            root_fd = create_target(target)
            stack.callback(os.close, root_fd)
            directories.root_was_created()
        metadata = Metadata(owner=owner)
        stop = threading.Event()
        writer = LeafWriter(target, blobs, metadata, if_exists=if_exists, verify=verify, stop=stop)
        total = sum(size for _, _, size in plan.iter_blobs(without=skipped))
        progress.phase("restoring", total=total, unit="bytes")
        leaves = _Leaves(plan, writer, skipped, Meter(progress), stop)
        try:
            directories.open_up_root(root_fd)
            leaves.write(root_fd, directories, threads=max(threads, 1))
            leaves.link(root_fd, target)
            directories.finish(root_fd, metadata)
        except BaseException:
            directories.put_back(root_fd)
            raise
    return RestoreResult(
        target=target,
        file_count=leaves.file_count,
        dir_count=len(plan.dirs),
        symlink_count=leaves.symlink_count,
        total_size_bytes=leaves.size,
        skipped_existing=tuple(sorted(leaves.skipped)),
        not_set=(*metadata.not_set, *_owners_not_recorded(tree, owner=owner)),
    )


def _owners_not_recorded(tree: Tree, *, owner: bool) -> tuple[NotSet, ...]:
    if not owner or tree.root.uid is not None:
        return ()
    reason = "the snapshot does not record owners"
    return (NotSet(path=b"", what="owner", reason=reason, count=1),)


class _Leaves:
    """Writes the files and symlinks of a plan, and counts them.

    `write` and `link` belong to the thread that runs the restore.
    """

    def __init__(
        self,
        plan: Plan,
        writer: LeafWriter,
        skipped: frozenset[bytes],
        meter: Meter,
        stop: threading.Event,
    ) -> None:
        self._plan = plan
        self._writer = writer
        self._meter = meter
        self._stop = stop
        #: Members of groups of hard links but the first of each, in walk order.
        self._later: list[RelPath] = []
        self._guard = threading.Lock()
        # Guarded by _guard while threads run.
        self.file_count = 0
        self.symlink_count = 0
        self.size = 0
        self.skipped = set(skipped)
        #: Group of hard links → the path that was written for it, and its inode.
        self._written: dict[str, tuple[RelPath, Identity]] = {}

    def write(self, root_fd: int, directories: DirectoryMaker, *, threads: int) -> None:
        """Every directory of the plan, and all that is in them but further hard links."""
        groups: set[str] = set()
        with (
            Cursor(root_fd, directories.make) as cursor,
            Workers(
                self._write_batch,
                self._plan.size_of,
                threads=threads,
                stop=self._stop,
                meter=self._meter,
            ) as workers,
        ):
            for directory in (RelPath(b""), *self._plan.dirs):
                fd = cursor.go(directory)
                leaves = self._plan.leaves.get(directory)
                if leaves:
                    workers.run(fd, (p for p in leaves if self._is_due(p, groups)))
        self._meter.report()

    def _is_due(self, path: RelPath, groups: set[str]) -> bool:
        if path in self.skipped:
            return False
        group = self._plan.leaf(path).hardlink
        if group is None:
            return True
        if group in groups:
            self._later.append(path)
            return False
        groups.add(group)
        return True

    def _write_batch(self, dir_fd: int, paths: Sequence[RelPath]) -> None:
        for path in paths:
            if self._stop.is_set():
                raise Stopped
            entry = self._plan.leaf(path)
            self._note(path, self._writer.write(dir_fd, path, entry))

    def link(self, root_fd: int, target: Path) -> None:
        """The other members of hard-link groups. One whose first was skipped is written instead."""
        with Cursor(root_fd) as first_cursor, Cursor(root_fd) as cursor:
            for path in self._later:
                entry = self._plan.leaf(path)
                assert entry.hardlink is not None
                try:
                    dir_fd = cursor.go(path.rpartition(b"/")[0])
                    first = self._written.get(entry.hardlink)
                    if first is None:
                        self._note(path, self._writer.write(dir_fd, path, entry))
                        continue
                    first_dir_fd = first_cursor.go(first[0].rpartition(b"/")[0])
                except (FileNotFoundError, NotADirectoryError):
                    raise disturbed(target, path) from None
                source = (first_dir_fd, *first)
                self._note(path, self._writer.link(source, dir_fd, path, entry))
        self._meter.report()

    def _note(self, path: RelPath, made: Identity | None) -> None:
        entry = self._plan.leaf(path)
        size = self._plan.size_of(path)
        with self._guard:
            if made is None:
                self.skipped.add(path)
            elif isinstance(entry, File):
                self.file_count += 1
                self.size += size
            else:
                self.symlink_count += 1
            if made is not None and entry.hardlink is not None:
                self._written.setdefault(entry.hardlink, (path, made))
        self._meter.add(1, size)
