"""What becomes of the files that the walk finds: known to the cache, or read, then recorded.

A file that the stat cache knows needs no reading if its content is there. Contents of the last
snapshot of the same source are vouched for by another process that looks at them meanwhile; others
are claimed from the store in batches. The rest goes to the readers.
"""

from __future__ import annotations

import os
import stat
import time
from collections import Counter
from collections.abc import Container, Sequence

from castfs.digest import Digest
from castfs.ingest.beneath import Identity, identity, open_beneath, open_stepwise
from castfs.ingest.builder import TreeBuilder
from castfs.ingest.losses import Losses
from castfs.ingest.presence import PresenceCheck
from castfs.ingest.readers import Readers
from castfs.ingest.reading import TakenFile
from castfs.ingest.statcache import NO_ROW, DirKey, StatCache, pack
from castfs.ingest.symlinks import take_symlink
from castfs.ingest.wire import Refusal
from castfs.paths import join, split
from castfs.progress import Progress
from castfs.store import WriteSession

#: Names that one job of a reader has: enough that handing it over costs little, few enough that two
#: readers share a large directory. Large files end a job, for the same reason.
_JOB_FILES = 64
_JOB_BYTES = 8_000_000
#: Known files that are claimed at a time.
_CLAIM_FILES = 1024
#: Seconds between writing what was hashed into the stat cache: what a killed ingest loses.
_CACHE_SECONDS = 20.0

#: What the readers were given: directory, its cache row, names.
_Job = tuple[bytes, DirKey, Sequence[bytes]]
#: A file that the cache knows and nobody vouches for: path, lstat, digest, extended attributes, its
#: directory.
_Known = tuple[bytes, os.stat_result, Digest, dict[bytes, bytes], Identity]
#: A file that has to be read: name, size.
Unread = tuple[bytes, int]


class Intake:
    """Belongs to the thread that walks. `tree` and `losses` get the outcome."""

    def __init__(
        self,
        tree: TreeBuilder,
        losses: Losses,
        readers: Readers,
        *,
        session: WriteSession | None,
        cache: StatCache,
        presence: PresenceCheck | None,
        progress: Progress,
    ) -> None:
        self._tree = tree
        self._losses = losses
        self._readers = readers
        self._session = session
        self._cache = cache
        self._presence = presence
        self._progress = progress
        #: Contents that need not be claimed.
        self.vouched: Container[str] = presence.digests if presence else ()
        self._jobs: dict[int, _Job] = {}
        self._tickets = 0
        self._known: list[_Known] = []
        self._rows: dict[DirKey, bytearray] = {}
        self._unfinished: Counter[DirKey] = Counter()
        self._rows_written = time.monotonic()
        self._started_ns = time.time_ns()
        #: [files, bytes]
        self.added = [0, 0]
        self.unchanged = 0

    def add_known(
        self,
        path: bytes,
        status: os.stat_result,
        digest: Digest,
        xattrs: dict[bytes, bytes],
        directory: Identity,
    ) -> None:
        """A file of `directory` whose content is known, though perhaps not there any more."""
        self._known.append((path, status, digest, xattrs, directory))

    def count_unchanged(self, count: int, size: int) -> None:
        """Files that were recorded without being read; negative to take them back."""
        self.unchanged += count
        if count > 0:
            self._progress.advance(count, size)

    def read(
        self,
        dir_fd: int,
        path: bytes,
        files: Sequence[Unread],
        *,
        row: DirKey = NO_ROW,
        right: Sequence[tuple[os.stat_result, Digest]] = (),
    ) -> None:
        """Give files of directory `path` to the readers, in jobs of a fair size.

        The directory's `row` in the cache is written again as a whole, so it starts with what is
        still `right` in it.
        """
        if row is not NO_ROW:
            records = self._rows.setdefault(row, bytearray())
            for status, digest in right:
                records += pack(status, digest)
        names: list[bytes] = []
        total = 0
        for name, size in files:
            if names and (len(names) >= _JOB_FILES or total + size > _JOB_BYTES):
                self._submit(dir_fd, path, row, names, total)
                names, total = [], 0
            names.append(name)
            total += size
        if names:
            self._submit(dir_fd, path, row, names, total)

    def read_as(self, dir_fd: int, name: bytes, size: int, recorded: bytes) -> None:
        """Give one file to the readers that is to have another name in the tree, at the top."""
        self._submit(dir_fd, b"", NO_ROW, [name], size, recorded=[recorded])

    def _submit(
        self,
        dir_fd: int,
        path: bytes,
        row: DirKey,
        names: Sequence[bytes],
        size: int,
        *,
        recorded: Sequence[bytes] | None = None,
    ) -> None:
        self._tickets += 1
        self._jobs[self._tickets] = (path, row, recorded or names)
        self._unfinished[row] += 1
        self._readers.submit(self._tickets, dir_fd, names, size)

    def advance(self, root_fd: int) -> None:
        """Between two directories: record what is done, claim what has gathered."""
        if len(self._known) >= _CLAIM_FILES:
            self._claim(root_fd)
        self._collect(wait=False)

    def finish(self, root_fd: int) -> None:
        """After the walk: every file is recorded, or among the losses."""
        self._claim(root_fd)
        self._settle_vouched(root_fd)
        self._collect(wait=True)
        self._read_other_names(root_fd)
        self._write_cache()

    def _collect(self, *, wait: bool) -> None:
        if self._session is not None:
            self._session.beat()
        count = size = 0
        for ticket, items in self._readers.collect(wait=wait):
            path, row, names = self._jobs.pop(ticket)
            self._unfinished[row] -= 1
            for name, item in zip(names, items, strict=True):
                if isinstance(item, Refusal):
                    self._losses.fail(join(path, name), item.reason, vanished=item.vanished)
                    continue
                self._record(join(path, name), row, item.file)
                count, size = count + 1, size + item.file.st_size
        if count:
            self._progress.advance(count, size)
        if self._rows and time.monotonic() - self._rows_written > _CACHE_SECONDS:
            self._write_cache()

    def _record(self, path: bytes, row: DirKey, file: TakenFile) -> None:
        self._tree.add_file(path, file, Digest(file.sha256), file.xattrs)
        if file.new:
            self.added[0] += 1
            self.added[1] += file.st_size
        if row is not NO_ROW:
            self._rows.setdefault(row, bytearray()).extend(pack(file, file.sha256))

    def _write_cache(self) -> None:
        """Write the rows of the directories that are done."""
        done = [key for key in self._rows if self._unfinished[key] == 0]
        # All of them were read after the start; when exactly, only the readers know.
        self._cache.store({key: self._rows.pop(key) for key in done}, self._started_ns)
        self._rows_written = time.monotonic()

    def _claim(self, root_fd: int) -> None:
        """Settle the known files; read those whose blob is not there after all."""
        known, self._known = self._known, []
        if self._session is None:
            claims = [True] * len(known)
        else:
            claims = self._session.claim([(digest, st.st_size) for _, st, digest, *_ in known])
        size = 0
        gone: dict[tuple[bytes, Identity], list[Unread]] = {}
        for (path, st, digest, xattrs, directory), present in zip(known, claims, strict=True):
            if present:
                self._tree.add_file(path, st, digest, xattrs)
                size += st.st_size
            else:
                parent, name = split(path)
                gone.setdefault((parent, directory), []).append((name, st.st_size))
        self.count_unchanged(sum(claims), size)
        for (parent, directory), files in gone.items():
            self._read_again(root_fd, parent, directory, files)

    def _read_again(
        self, root_fd: int, parent: bytes, expected: Identity, files: Sequence[Unread]
    ) -> None:
        """Read files of a directory that the walk has left behind."""
        try:
            fd = open_beneath(root_fd, parent, expected)
        except OSError as exc:
            for name, _ in files:
                self._losses.fail_entry(join(parent, name), exc)
            return
        try:
            self.read(fd, parent, files)
        finally:
            os.close(fd)

    def _settle_vouched(self, root_fd: int) -> None:
        """Read the files again whose blob turned out not to be there."""
        bad = self._presence.wait() if self._presence else frozenset()
        # What a reader has staged since is there when this ingest is.
        session = self._session
        bad = frozenset(x for x in bad if not (session and session.has_staged(x)))
        if not bad:
            return
        gone = [(path, file) for path, file in self._tree.files.items() if file.sha256 in bad]
        for path, file in gone:
            del self._tree.files[path]
            self.count_unchanged(-1, -file.size_bytes)
            parent, name = split(path)
            try:
                fd = open_stepwise(root_fd, parent)
            except OSError as exc:
                self._losses.fail_entry(path, exc)
                continue
            try:
                self.read(fd, parent, [(name, file.size_bytes)])
            finally:
                os.close(fd)

    def _read_other_names(self, root_fd: int) -> None:
        """A hard-linked file is read by its first name; if that failed, by the next, and so on."""
        while names := self._tree.next_names():
            for path, inode in names:
                self._take_name(root_fd, path, inode)
            self._collect(wait=True)

    def _take_name(self, root_fd: int, path: bytes, inode: Identity) -> None:
        parent, name = split(path)
        try:
            fd = open_stepwise(root_fd, parent)
        except OSError as exc:
            self._losses.fail_entry(path, exc)
            return
        try:
            status = os.stat(name, dir_fd=fd, follow_symlinks=False)
        except OSError as exc:
            os.close(fd)
            self._losses.fail_entry(path, exc)
            return
        try:
            if identity(status) != inode:
                self._losses.fail(path, "vanished while it was read", vanished=True)
            elif stat.S_ISREG(status.st_mode):
                self.read(fd, parent, [(name, status.st_size)])
            else:
                take_symlink(fd, path, name, status, self._tree, self._losses)
        finally:
            os.close(fd)
