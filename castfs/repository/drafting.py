"""A tree put together from files and directories that lie anywhere, inside one write session."""

from __future__ import annotations

import json
import os
import re
import time
from collections.abc import Mapping
from pathlib import Path
from types import TracebackType
from typing import Any, Self

import msgspec

from castfs import settings
from castfs.digest import Digest
from castfs.errors import BlobError, SourceError, UsageError
from castfs.ingest import ScanOptions, scan
from castfs.ingest.reading import Unreadable, take_file
from castfs.ingest.sink import StoreSink
from castfs.manifest import (
    Directory,
    Entry,
    File,
    Symlink,
    Tree,
    make_manifest,
    order_canonically,
)
from castfs.paths import display, escape, parse_relpath, split, unescape
from castfs.progress import SILENT, Progress
from castfs.repository.publishing import Details, Published, publish
from castfs.repository.taking import keep_out, open_cache
from castfs.store import Depot, WriteSession
from castfs.store.records import Reference, Skipped

_NO_FILE_NAME = re.compile(r"[^\w.+-]+")


class Draft:
    """A context manager. Leaving it without `commit` keeps nothing.

    Paths are relative, and each is given once (UsageError), unless it `keeps_first`; directories
    that lead to them are made.
    """

    def __init__(self, depot: Depot, purpose: str, *, keeps_first: bool = False) -> None:
        self._depot = depot
        self._keeps_first = keeps_first
        #: Paths that were given again.
        self.repeated: list[bytes] = []
        self._session = WriteSession(depot, purpose=purpose)
        self._root: Directory | None = None
        #: Was one added for its own sake?
        self._has_own_dirs = False
        self._dirs: dict[bytes, Directory] = {}
        self._files: dict[bytes, File] = {}
        self._symlinks: dict[bytes, Symlink] = {}
        self._references: list[Reference] = []
        #: Last part of a name → the number that the next of them is tried with.
        self._reference_counts: dict[str, int] = {}
        self._skipped: list[Skipped] = []

    def __enter__(self) -> Self:
        self._session.__enter__()
        self._sink = StoreSink(self._session.staging)
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        exc: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self._session.__exit__(kind, exc, trace)

    @property
    def staging(self) -> Path:
        """A directory of the store's own medium, which goes when the draft is left."""
        return self._session.staging.path

    def add_file(
        self,
        path: bytes,
        source: Path,
        *,
        expected: Digest | None = None,
        mode: int | None = None,
        mtime_ns: int | None = None,
    ) -> File:
        """BlobError if the content is not `expected`; SourceError if it cannot be read. Mode and
        time default to the source's."""
        self._session.beat()
        shown = display(os.fsencode(source))
        try:
            directory = os.open(source.parent, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
        except OSError as exc:
            raise SourceError(f"cannot read {shown}: {exc.strerror}") from exc
        try:
            # An OSError is the store's: a full disk makes no file unreadable.
            taken = take_file(directory, os.fsencode(source.name), self._sink, xattrs=False)
        except Unreadable as exc:
            raise SourceError(f"{shown}: {exc.reason}") from exc
        finally:
            os.close(directory)
        if expected is not None and taken.sha256 != expected:
            raise BlobError(
                f"{display(path)} has other content than its digest says",
                digest=expected,
                hint="get it from another copy",
            )
        file = File(
            mode=taken.st_mode & 0o7777 if mode is None else mode,
            mtime_ns=taken.st_mtime_ns if mtime_ns is None else mtime_ns,
            sha256=taken.sha256,
            size_bytes=taken.st_size,
        )
        self._place(path, file)
        return file

    def add_dir(
        self, prefix: bytes, source: Path, options: ScanOptions, *, progress: Progress = SILENT
    ) -> int:
        """All of a directory, below `prefix` (b"" is the root). Returns the number of its files.
        SourceError, UnreadableError, LimitError."""
        with open_cache() as cache:
            result = scan(
                source,
                session=self._session,
                cache=cache,
                options=options,
                readers=settings.threads(),
                keep_out=keep_out(self._depot, source),
                progress=progress,
            )
        tree = result.manifest.tree
        lead = prefix + b"/" if prefix else b""
        for path, entry in tree.iter_entries():
            self._place(lead + path, _moved(entry, lead))
        if prefix and prefix not in self._dirs:
            self._place(prefix, tree.root)
        # Somebody named it, whatever is in it.
        self._has_own_dirs = True
        self._skipped += [
            Skipped(escape(lead + entry.path), entry.reason) for entry in result.skipped
        ]
        return len(tree.files)

    def add_symlink(self, path: bytes, target: bytes, *, mtime_ns: int = 0) -> None:
        self._place(path, Symlink(mtime_ns=mtime_ns, target=escape(target)))

    def add_directory(self, path: bytes, *, mode: int, mtime_ns: int) -> None:
        """A directory as it is to be, with or without anything in it; b"" is the root."""
        made = Directory(mode=mode, mtime_ns=mtime_ns)
        if not path:
            self._root = made
            return
        if path in self._dirs and not self._keeps_first:
            raise UsageError(f"{display(path)} was added before", hint="give it another name")
        self._place(path, made)
        self._has_own_dirs = True

    def add_bytes(self, path: bytes, data: bytes, *, mode: int = 0o644, mtime_ns: int = 0) -> File:
        self._session.beat()
        staged = self._sink.take_bytes(data)
        file = File(mode=mode, mtime_ns=mtime_ns, sha256=staged.digest, size_bytes=staged.size)
        self._place(path, file)
        return file

    def add_reference(
        self,
        uri: str,
        *,
        checksum: str | None = None,
        size: int | None = None,
        name: str | None = None,
        metadata: Mapping[str, Any] | None = None,
    ) -> None:
        """Something that is not copied. A small file of the tree says what it is."""
        said = {"uri": uri, "checksum": checksum, "size_bytes": size, "metadata": metadata or {}}
        said_name = (name or uri.rstrip("/").rpartition("/")[2]) or "data"
        leaf = _NO_FILE_NAME.sub("-", said_name).encode()[:200].decode(errors="ignore")
        path = f"{leaf}.reference"
        count = self._reference_counts.get(leaf, 2)
        while path.encode() in self._files:
            path, count = f"{leaf}-{count}.reference", count + 1
        self._reference_counts[leaf] = count
        text = json.dumps({key: value for key, value in said.items() if value}, indent=2) + "\n"
        self.add_bytes(path.encode(), text.encode())
        self._references.append(
            Reference(
                uri=uri, path=path, checksum=checksum, size_bytes=size, metadata=metadata or {}
            )
        )

    def _place(self, path: bytes, entry: Entry) -> None:
        try:
            parse_relpath(path)
        except ValueError as exc:
            raise UsageError(f"not a path in an artifact: {exc}") from None
        if path in self._files or path in self._symlinks:
            if self._keeps_first:
                self.repeated.append(path)
                return
            raise UsageError(f"{display(path)} was added before", hint="give it another name")
        match entry:
            case Directory():
                self._dirs.setdefault(path, entry)
            case File():
                self._files[path] = entry
            case Symlink():
                self._symlinks[path] = entry

    def commit(self, details: Details, *, source: str = "") -> Published:
        """Record it all as a snapshot. UsageError if there is nothing, or a file in the place of a
        directory; StoreError."""
        details = details.checked()
        created_at = time.time() if details.created_at is None else details.created_at
        made = Directory(mode=0o755, mtime_ns=int(created_at * 1_000_000_000))
        self._complete(made)
        tree = Tree(
            root=self._root or made,
            dirs=order_canonically(self._dirs),
            files=order_canonically(self._files),
            symlinks=order_canonically(self._symlinks),
        )
        manifest = make_manifest(tree, created_at=created_at, source_path=source)
        self._session.commit_blobs(wanted={file.sha256 for file in self._files.values()})
        return publish(
            self._session,
            manifest,
            details,
            source=source,
            skipped=self._skipped,
            references=self._references,
        )

    def _complete(self, made: Directory) -> None:
        """The directories that lead to what is there."""
        if not self._files and not self._symlinks and not self._has_own_dirs:
            raise UsageError("there is nothing in it", hint="add a file or a reference first")
        for path in self._dirs.keys() & (self._files.keys() | self._symlinks.keys()):
            raise UsageError(
                f"{display(path)} is a file and a directory", hint="give one of them another name"
            )
        for path in [*self._files, *self._symlinks, *self._dirs]:
            parent = split(path)[0]
            while parent:
                if parent in self._files or parent in self._symlinks:
                    raise UsageError(
                        f"{display(parent)} is a file, and {display(path)} lies in it",
                        hint="give one of them another name",
                    )
                if parent in self._dirs:
                    break
                self._dirs[parent] = made
                parent = split(parent)[0]


def _moved(entry: Entry, lead: bytes) -> Entry:
    """Hard links name a path of the tree."""
    group = getattr(entry, "hardlink", None)
    if not lead or group is None:
        return entry
    return msgspec.structs.replace(entry, hardlink=escape(lead + unescape(group)))
