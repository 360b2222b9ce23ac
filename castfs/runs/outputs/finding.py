"""The walk over the output directories: what there is, and how it looks now."""

from __future__ import annotations

import hashlib
import os
import stat
from collections.abc import Collection, Iterator
from dataclasses import dataclass

from castfs.ingest.beneath import Identity, identity, open_beneath
from castfs.paths import escape, join
from castfs.runs.outputs.patterns import Patterns, is_log
from castfs.runs.outputs.report import Failed, Kind

#: An output directory is one that the user names, so it may be a symlink.
_FLAGS = os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC | os.O_NONBLOCK

#: What counts in a directory that is taken whole. Symlinks are not followed there either.
_CONTENTS = (stat.S_IFREG, stat.S_IFLNK)


@dataclass(frozen=True, slots=True)
class Found:
    """`stamp` is equal if nothing that is looked at has changed; `mtime_ns` is the newest of it."""

    key: str
    path: bytes
    kind: Kind
    stamp: str
    mtime_ns: int
    size_bytes: int
    is_log: bool
    is_empty: bool = False


@dataclass(frozen=True, slots=True)
class KeptOut:
    """What is never an output: directories, and the scanner's own files in a directory."""

    dirs: Collection[Identity]
    state_dir: Identity | None
    state_name: bytes

    def holds_file(self, directory: Identity, name: bytes) -> bool:
        """The temporary files of castfs.atomic are the scanner's own, too."""
        return directory == self.state_dir and (
            name == self.state_name or (name.startswith(b"tmp-") and len(name) == 20)
        )


@dataclass(slots=True)
class _Entry:
    name: bytes
    status: os.stat_result | OSError


def find_outputs(
    directory: bytes, shown_as: bytes, patterns: Patterns, kept_out: KeptOut
) -> Iterator[Found | Failed]:
    """Everything below `directory` that is an output. `shown_as` stands for it in keys.

    A directory that is not there holds nothing: the program will make it.
    """
    try:
        root_fd = os.open(directory, _FLAGS)
    except FileNotFoundError:
        return
    except OSError as exc:
        yield _failed(shown_as or directory, exc)
        return
    try:
        if identity(os.fstat(root_fd)) not in kept_out.dirs:
            yield from _Walk(root_fd, directory, shown_as, patterns, kept_out).run()
    finally:
        os.close(root_fd)


class _Walk:
    def __init__(
        self, root_fd: int, directory: bytes, shown_as: bytes, patterns: Patterns, kept: KeptOut
    ) -> None:
        self._root_fd = root_fd
        self._directory = directory
        self._shown_as = shown_as
        self._patterns = patterns
        self._kept_out = kept

    def run(self) -> Iterator[Found | Failed]:
        pending: list[tuple[bytes, Identity | None]] = [(b"", None)]
        while pending:
            path, expected = pending.pop()
            try:
                here, entries = self._list(path, expected)
            except OSError as exc:
                yield self._fail(path, exc)
                continue
            subdirs = []
            for entry in entries:
                child = join(path, entry.name)
                if isinstance(entry.status, OSError):
                    if self._patterns.takes_file(child):
                        yield self._fail(child, entry.status)
                elif stat.S_ISREG(entry.status.st_mode):
                    if self._patterns.takes_file(child) and not self._kept_out.holds_file(
                        here, entry.name
                    ):
                        yield self._file(child, entry.name, entry.status)
                elif stat.S_ISDIR(entry.status.st_mode):
                    if identity(entry.status) in self._kept_out.dirs:
                        continue
                    if self._patterns.takes_dir(child):
                        yield self._dir(child, identity(entry.status))
                    else:
                        subdirs.append((bytes(child), identity(entry.status)))
            pending += reversed(subdirs)

    def _list(self, path: bytes, expected: Identity | None) -> tuple[Identity, list[_Entry]]:
        """The entries in the order of their names, each looked at."""
        fd = open_beneath(self._root_fd, path, expected)
        try:
            entries = []
            with os.scandir(fd) as listing:
                for entry in listing:
                    status: os.stat_result | OSError
                    try:
                        status = entry.stat(follow_symlinks=False)
                    except OSError as exc:
                        status = exc
                    entries.append(_Entry(os.fsencode(entry.name), status))
            return identity(os.fstat(fd)), sorted(entries, key=lambda entry: entry.name)
        finally:
            os.close(fd)

    def _file(self, path: bytes, name: bytes, status: os.stat_result) -> Found:
        return Found(
            key=self._key(path),
            path=join(self._directory, path),
            kind="file",
            stamp=_stamp(status),
            mtime_ns=status.st_mtime_ns,
            size_bytes=status.st_size,
            is_log=is_log(name),
        )

    def _dir(self, top: bytes, expected: Identity) -> Found | Failed:
        """A directory that is one output, judged by all that is in it.

        The mtimes of its subdirectories make it young, but not another one: a temporary file that
        came and went leaves it as it was.
        """
        count = size = 0
        mtimes = []
        summary = hashlib.sha256()
        pending = [(top, expected)]
        while pending:
            path, expected = pending.pop()
            try:
                here, entries = self._list(path, expected)
            except OSError as exc:
                return self._fail(path, exc)
            for entry in entries:
                child, status = bytes(join(path, entry.name)), entry.status
                if isinstance(status, OSError):
                    return self._fail(child, status)
                kind = stat.S_IFMT(status.st_mode)
                if kind == stat.S_IFDIR and identity(status) not in self._kept_out.dirs:
                    pending.append((child, identity(status)))
                    summary.update(b"%s\0d\0" % child)
                elif kind in _CONTENTS and not self._kept_out.holds_file(here, entry.name):
                    count, size = count + (kind == stat.S_IFREG), size + status.st_size
                    stamp = _stamp(status).encode()
                    summary.update(b"%s\0%o %s\0" % (child, kind, stamp))
                else:
                    continue
                mtimes.append(status.st_mtime_ns)
        return Found(
            key=self._key(top),
            path=join(self._directory, top),
            kind="dir",
            stamp=f"dir {count} {size} {summary.hexdigest()}",
            mtime_ns=max(mtimes, default=0),
            size_bytes=size,
            is_log=False,
            is_empty=count == 0,
        )

    def _key(self, path: bytes) -> str:
        return escape(join(self._shown_as, path)) if path else escape(self._shown_as)

    def _fail(self, path: bytes, exc: OSError) -> Failed:
        return _failed(join(self._shown_as, path) if path else self._shown_as, exc)


def stamp_of(path: bytes) -> str:
    """The stamp of a file as it is now; "" if it is none any more. OSError."""
    status = os.lstat(path)
    return _stamp(status) if stat.S_ISREG(status.st_mode) else ""


def _stamp(status: os.stat_result) -> str:
    return f"file {status.st_size} {status.st_mtime_ns}"


def _failed(shown_as: bytes, exc: OSError) -> Failed:
    return Failed(key=escape(shown_as) or ".", reason=exc.strerror or str(exc))
