"""One pass over a directory: this process walks, readers take what is new.

The walk never follows a symlink and holds one descriptor at a time, whatever the depth. Files that
the stat cache knows are claimed from the store in batches; the others go to the readers, at most a
directory at a time.
"""

from __future__ import annotations

import os
import stat
import sys
import time
from collections import Counter
from collections.abc import Container, Mapping, Sequence
from pathlib import Path

from castfs.digest import Digest
from castfs.errors import SourceError
from castfs.ignore import Rule, Scope, open_root_scope
from castfs.ingest.beneath import Identity, identity, open_beneath, open_stepwise
from castfs.ingest.builder import TreeBuilder
from castfs.ingest.losses import Limits, Losses
from castfs.ingest.options import ScanOptions, ScanResult
from castfs.ingest.presence import PresenceCheck
from castfs.ingest.readers import Readers
from castfs.ingest.reading import TakenFile, Unreadable, check_time, read_xattrs
from castfs.ingest.statcache import DirKey, StatCache, dir_key, pack
from castfs.ingest.wire import Refusal
from castfs.manifest import make_manifest
from castfs.paths import display, escape, join, split
from castfs.progress import SILENT, Progress
from castfs.store import WriteSession

#: Names that one job of a reader has: enough that handing it over costs little, few enough that two
#: readers share a large directory. Large files end a job, for the same reason.
_JOB_FILES = 64
_JOB_BYTES = 8_000_000
#: Unchanged files that are claimed at a time.
_CLAIM_FILES = 1024
#: Seconds between writing what was hashed into the stat cache: what a killed ingest loses.
_CACHE_SECONDS = 20.0

_ENCODING = sys.getfilesystemencoding()
_ERRORS = sys.getfilesystemencodeerrors()
_STORE_RULE = Rule(pattern="the store itself", origin="built-in")

#: Files that no row of the cache is for.
_NO_ROW: DirKey = ("", 0)

#: What the readers were given: directory, its cache row, names.
_Job = tuple[bytes, DirKey, Sequence[bytes]]
#: A file that the cache knows: path, lstat, digest, extended attributes, its directory.
_Known = tuple[bytes, os.stat_result, Digest, dict[bytes, bytes], Identity]
#: A file that has to be read: name, size.
_Unknown = tuple[bytes, int]


def scan(
    source: Path,
    *,
    session: WriteSession | None,
    cache: StatCache,
    options: ScanOptions,
    readers: int,
    presence: PresenceCheck | None = None,
    keep_out: Identity | None = None,
    progress: Progress = SILENT,
) -> ScanResult:
    """Read directory (or file) `source` into `session` and describe it.

    Without a session nothing is stored, only hashed. `presence` vouches for contents of a pinned
    manifest. `keep_out` is a directory that is left out wherever it turns up (the store).
    SourceError, UnreadableError, LimitError; StoreError and OSError where the store fails.
    """
    xattrs = options.xattrs and not options.reproducible
    with Readers(session, xattrs=xattrs, count=readers) as pool:
        scanner = _Scanner(source, session, cache, options, pool, presence, keep_out, progress)
        return scanner.run()


class _Scanner:
    def __init__(
        self,
        source: Path,
        session: WriteSession | None,
        cache: StatCache,
        options: ScanOptions,
        readers: Readers,
        presence: PresenceCheck | None,
        keep_out: Identity | None,
        progress: Progress,
    ) -> None:
        self._source = source
        self._shown = display(os.fsencode(source))
        self._session = session
        self._cache = cache
        self._options = options
        self._readers = readers
        self._presence = presence
        #: Contents that need not be claimed: they are pinned, and another process looks at them.
        self._vouched: Container[str] = presence.digests if presence else ()
        self._keep_out = keep_out
        self._progress = progress
        self._tree = TreeBuilder(options)
        self._losses = Losses()
        self._limits = Limits(options)
        self._jobs: dict[int, _Job] = {}
        self._unfinished: Counter[DirKey] = Counter()
        self._known: list[_Known] = []
        #: The name of the file that is the whole source; b"" for a directory.
        self._single = b""
        self._rows: dict[DirKey, bytearray] = {}
        self._rows_written = time.monotonic()
        self._started_ns = time.time_ns()
        self._tickets = 0
        self._reads_all = options.rehash or options.check_existing
        self._added = [0, 0]
        self._deduplicated = [0, 0]
        self._unchanged = 0

    def run(self) -> ScanResult:
        self._progress.phase("reading")
        root_fd = self._open_root()
        try:
            if self._single:
                self._visit_single(root_fd)
            else:
                self._walk(root_fd)
            self._claim(root_fd)
            self._settle_vouched(root_fd)
            self._collect(wait=True)
            self._read_other_names(root_fd)
        finally:
            os.close(root_fd)
        self._write_cache()
        self._losses.settle(self._options)
        if not self._tree.files and not self._tree.symlinks:
            self._losses.refuse_empty(os.fsencode(self._source))
        manifest = make_manifest(
            self._tree.build(),
            created_at=self._started_ns // 1000 / 1e6,
            source_path=escape(os.fsencode(self._source.absolute())),
        )
        return ScanResult(
            manifest=manifest,
            added_count=self._added[0],
            added_bytes=self._added[1],
            deduplicated_count=self._deduplicated[0],
            deduplicated_bytes=self._deduplicated[1],
            unchanged_count=self._unchanged,
            ignored=self._losses.ignored(),
            skipped=tuple(sorted(self._losses.skipped, key=lambda entry: entry.path)),
        )

    # The walk -------------------------------------------------------------------------------

    def _open_root(self) -> int:
        """The root may be a symlink: the user named it. Of a file it is the directory, which need
        not be readable, that is opened, and `_single` the name in it."""
        flags = os.O_DIRECTORY | os.O_CLOEXEC
        try:
            status = self._source.stat()
            if stat.S_ISREG(status.st_mode):
                parent, self._single = os.path.split(os.path.realpath(os.fsencode(self._source)))
                return os.open(parent, flags | os.O_PATH)
            if not stat.S_ISDIR(status.st_mode):
                raise SourceError(
                    f"{self._shown} is neither a directory nor a regular file",
                    hint="name the directory that it is in",
                )
            return os.open(self._source, flags | os.O_RDONLY)
        except OSError as exc:
            raise SourceError(
                f"cannot open {self._shown}: {exc.strerror}", hint="check the path"
            ) from exc

    def _walk(self, root_fd: int) -> None:
        pending: list[tuple[bytes, Identity | None, Scope | None]] = [(b"", None, None)]
        while pending:
            path, expected, outer = pending.pop()
            try:
                fd = open_beneath(root_fd, path, expected)
            except OSError as exc:
                self._fail_dir(path, exc)
                continue
            try:
                pending += self._visit(fd, path, outer)
            finally:
                os.close(fd)
            if len(self._known) >= _CLAIM_FILES:
                self._claim(root_fd)
            self._collect(wait=False)

    def _fail_dir(self, path: bytes, exc: OSError) -> None:
        vanished = isinstance(exc, FileNotFoundError | NotADirectoryError)
        if not path:
            raise SourceError(f"cannot read {self._shown}: {exc.strerror}") from exc
        reason = "vanished while it was read" if vanished else exc.strerror or str(exc)
        self._losses.fail(path, reason, vanished=vanished)

    def _visit_single(self, parent_fd: int) -> None:
        """A regular file as source: a tree with one entry, whose root looks the same everywhere.

        A symlink to it gives the name that was said."""
        try:
            status = os.stat(self._single, dir_fd=parent_fd, follow_symlinks=False)
        except OSError as exc:
            self._fail_dir(b"", exc)
            return
        self._tree.add_single_root(status)
        self._limits.count(status.st_size)
        said = os.fsencode(self._source.name) or self._single
        self._submit(parent_fd, b"", _NO_ROW, [self._single], status.st_size, recorded=[said])

    def _visit(
        self, fd: int, path: bytes, outer: Scope | None
    ) -> list[tuple[bytes, Identity, Scope]]:
        """Take one directory. Returns the directories in it. OSError is the store's."""
        try:
            status = os.fstat(fd)
            with os.scandir(fd) as entries:
                names = {entry.name.encode(_ENCODING, _ERRORS): entry for entry in entries}
            scope = self._enter(fd, path, names, outer)
            check_time(status)
            self._tree.add_dir(path, status, read_xattrs(fd) if self._tree.wants_xattrs else {})
        except OSError as exc:
            self._fail_dir(path, exc)
            return []
        except Unreadable as exc:
            if not path:
                raise SourceError(f"cannot read {self._shown}: {exc.reason}") from exc
            self._losses.fail(path, exc.reason, vanished=exc.vanished)
            return []
        here = identity(status)
        key = dir_key(status)
        remembered = {} if self._reads_all else self._cache.lookup(key)
        device = status.st_dev
        keeps_all = scope.keeps_all
        wants_xattrs = self._tree.wants_xattrs
        subdirs: list[tuple[bytes, Identity, Scope]] = []
        vouched = self._vouched
        kept: list[tuple[os.stat_result, Digest]] = []
        known: list[_Known] = []
        unknown: list[_Unknown] = []
        for name, entry in names.items():
            try:
                st = entry.stat(follow_symlinks=False)
            except OSError as exc:
                self._fail_entry(join(path, name), exc)
                continue
            kind = st.st_mode & 0o170000
            if not keeps_all and (rule := scope.judge(name, kind == stat.S_IFDIR)) is not None:
                self._losses.ignore(rule, st, fd, entry.name)
                continue
            child = path + b"/" + name if path else name
            if kind == stat.S_IFREG:
                self._limits.count(st.st_size)
                if st.st_nlink > 1 and self._tree.linked_before(child, st):
                    continue
                was = remembered.get(st.st_ino)
                if (
                    was is not None
                    and was[0] == st.st_size
                    and was[1] == st.st_mtime_ns
                    and was[2] == st.st_ctime_ns
                    and st.st_dev == device
                ):
                    # Setting an attribute changes the ctime, so it cannot have escaped us.
                    found = self._xattrs_of(fd, child, name) if wants_xattrs else {}
                    digest = Digest(was[3].hex())
                    if digest in vouched:
                        self._tree.add_file(child, st, digest, found)
                        kept.append((st, digest))
                    else:
                        known.append((child, st, digest, found, here))
                else:
                    unknown.append((name, st.st_size))
            elif kind == stat.S_IFDIR:
                if identity(st) == self._keep_out:
                    self._losses.ignore(_STORE_RULE, st, -1, "")
                else:
                    subdirs.append((child, identity(st), scope))
            elif kind == stat.S_IFLNK:
                self._take_symlink(fd, child, name, st)
            else:
                self._losses.skip_special(child, st)
        self._count_unchanged(len(kept), sum(st.st_size for st, _ in kept))
        self._known += known
        if unknown:
            # The row is written again as a whole, so it starts with what is still right in it.
            row = self._rows.setdefault(key, bytearray())
            kept += [(st, digest) for _, st, digest, *_ in known]
            for st, digest in kept:
                row += pack(st, digest)
            self._submit_all(fd, path, key, unknown)
        return subdirs

    def _enter(
        self, fd: int, path: bytes, names: Mapping[bytes, object], outer: Scope | None
    ) -> Scope:
        """The rules in directory `path`. Asks the directory above, `outer`, where there is one."""

        def read(name: bytes) -> bytes | None:
            return _read_rules(fd, name)

        if outer is not None:
            return outer.enter(split(path)[1], names, read)
        return open_root_scope(fd, os.fsencode(self._source), self._options.ignore, names, read)

    def _fail_entry(self, path: bytes, exc: OSError) -> None:
        vanished = isinstance(exc, FileNotFoundError | NotADirectoryError)
        reason = "vanished while it was read" if vanished else exc.strerror or str(exc)
        self._losses.fail(path, reason, vanished=vanished)

    def _take_symlink(self, fd: int, path: bytes, name: bytes, status: os.stat_result) -> None:
        if status.st_nlink > 1 and self._tree.linked_before(path, status):
            return
        self._add_symlink(fd, path, name, status)

    def _add_symlink(self, fd: int, path: bytes, name: bytes, status: os.stat_result) -> None:
        try:
            check_time(status)
            target = os.readlink(name, dir_fd=fd)
        except OSError as exc:
            self._fail_entry(path, exc)
            return
        except Unreadable as exc:
            self._losses.fail(path, exc.reason, vanished=exc.vanished)
            return
        xattrs = self._xattrs_of(fd, path, name) if self._tree.wants_xattrs else {}
        self._tree.add_symlink(path, status, target, xattrs)

    def _xattrs_of(self, fd: int, path: bytes, name: bytes) -> dict[bytes, bytes]:
        """Of an entry that is not opened: there is no *at() call for this."""
        try:
            return read_xattrs(b"/proc/self/fd/%d/%s" % (fd, name))
        except Unreadable as exc:
            self._losses.fail(path, exc.reason, vanished=exc.vanished)
            return {}

    # Reading --------------------------------------------------------------------------------

    def _submit_all(self, fd: int, path: bytes, key: DirKey, files: Sequence[_Unknown]) -> None:
        """Give files of one directory to the readers, in jobs of a fair size."""
        names: list[bytes] = []
        total = 0
        for name, size in files:
            if names and (len(names) >= _JOB_FILES or total + size > _JOB_BYTES):
                self._submit(fd, path, key, names, total)
                names, total = [], 0
            names.append(name)
            total += size
        if names:
            self._submit(fd, path, key, names, total)

    def _submit(
        self,
        dir_fd: int,
        path: bytes,
        key: DirKey,
        names: Sequence[bytes],
        size: int,
        *,
        recorded: Sequence[bytes] | None = None,
    ) -> None:
        """`recorded` are the names in the tree, where they are not those in the directory."""
        self._tickets += 1
        self._jobs[self._tickets] = (path, key, recorded or names)
        self._unfinished[key] += 1
        self._readers.submit(self._tickets, dir_fd, names, size)

    def _collect(self, *, wait: bool) -> None:
        """Record what the readers have done."""
        if self._session is not None:
            self._session.beat()
        count = size = 0
        for ticket, items in self._readers.collect(wait=wait):
            path, key, names = self._jobs.pop(ticket)
            self._unfinished[key] -= 1
            for name, item in zip(names, items, strict=True):
                if isinstance(item, Refusal):
                    self._losses.fail(join(path, name), item.reason, vanished=item.vanished)
                    continue
                self._record(join(path, name), key, item.file)
                count, size = count + 1, size + item.file.st_size
        if count:
            self._progress.advance(count, size)
        if self._rows and time.monotonic() - self._rows_written > _CACHE_SECONDS:
            self._write_cache()

    def _record(self, path: bytes, key: DirKey, file: TakenFile) -> None:
        self._tree.add_file(path, file, Digest(file.sha256), file.xattrs)
        total = self._added if file.new else self._deduplicated
        total[0] += 1
        total[1] += file.st_size
        if key is not _NO_ROW:
            self._rows.setdefault(key, bytearray()).extend(pack(file, file.sha256))

    def _write_cache(self) -> None:
        """Write the rows of the directories that are done."""
        done = [key for key in self._rows if self._unfinished[key] == 0]
        # All of them were read after the start; when exactly, only the readers know.
        self._cache.store({key: self._rows.pop(key) for key in done}, self._started_ns)
        self._rows_written = time.monotonic()

    def _claim(self, root_fd: int) -> None:
        """Settle the files that the cache knows; read those whose blob is not there after all."""
        known, self._known = self._known, []
        if self._session is None:
            claims = [True] * len(known)
        else:
            claims = self._session.claim([(digest, st.st_size) for _, st, digest, *_ in known])
        size = 0
        gone: dict[tuple[bytes, Identity], list[_Unknown]] = {}
        for (path, st, digest, xattrs, here), present in zip(known, claims, strict=True):
            if present:
                self._tree.add_file(path, st, digest, xattrs)
                size += st.st_size
            else:
                parent, name = split(path)
                gone.setdefault((parent, here), []).append((name, st.st_size))
        for (parent, here), files in gone.items():
            self._read_again(root_fd, parent, here, files)
        self._count_unchanged(sum(claims), size)

    def _count_unchanged(self, count: int, size: int) -> None:
        self._unchanged += count
        self._deduplicated[0] += count
        self._deduplicated[1] += size
        if count > 0:
            self._progress.advance(count, size)

    def _settle_vouched(self, root_fd: int) -> None:
        """Read the files again whose blob turned out not to be there."""
        bad = self._presence.wait() if self._presence else frozenset()
        if not bad:
            return
        gone = [(path, file) for path, file in self._tree.files.items() if file.sha256 in bad]
        for path, file in gone:
            del self._tree.files[path]
            self._count_unchanged(-1, -file.size_bytes)
            parent, name = split(path)
            try:
                fd = open_stepwise(root_fd, parent)
            except OSError as exc:
                self._fail_entry(path, exc)
                continue
            try:
                self._submit(fd, parent, _NO_ROW, [name], file.size_bytes)
            finally:
                os.close(fd)

    def _read_again(
        self, root_fd: int, parent: bytes, expected: Identity, files: Sequence[_Unknown]
    ) -> None:
        """Read files of a directory that the walk has left behind."""
        try:
            fd = open_beneath(root_fd, parent, expected)
        except OSError as exc:
            for name, _ in files:
                self._fail_entry(join(parent, name), exc)
            return
        try:
            self._submit_all(fd, parent, _NO_ROW, files)
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
            fd = open_beneath(root_fd, parent, None)
        except OSError as exc:
            self._fail_entry(path, exc)
            return
        try:
            status = os.stat(name, dir_fd=fd, follow_symlinks=False)
        except OSError as exc:
            os.close(fd)
            self._fail_entry(path, exc)
            return
        try:
            # That it is the same inode makes up for not knowing the directory's.
            if identity(status) != inode:
                self._losses.fail(path, "vanished while it was read", vanished=True)
            elif stat.S_ISREG(status.st_mode):
                self._submit(fd, parent, _NO_ROW, [name], status.st_size)
            else:
                self._add_symlink(fd, path, name, status)
        finally:
            os.close(fd)


def _read_rules(dir_fd: int, name: bytes) -> bytes | None:
    flags = os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC
    try:
        fd = os.open(name, flags, dir_fd=dir_fd)
    except OSError:
        return None
    with open(fd, "rb") as file:
        return file.read() if stat.S_ISREG(os.fstat(fd).st_mode) else None
