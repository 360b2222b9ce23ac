"""The files of one version into the store: each verified while it is read, or listed as missing."""

from __future__ import annotations

import tempfile
from dataclasses import dataclass, field
from pathlib import Path

from castfs.errors import BlobError, SourceError, UsageError
from castfs.manifest.checks import TARGET_MAX
from castfs.older.description import (
    Item,
    OlderDirectory,
    OlderFile,
    OlderReference,
    OlderStream,
    OlderSymlink,
)
from castfs.older.destination import Writing
from castfs.older.guarded import Refused, SourceTree
from castfs.older.occupancy import Occupancy
from castfs.paths import shown
from castfs.progress import Progress

#: Files in other files are unpacked in memory up to this size, else to a temporary file.
_IN_MEMORY = 32 << 20
_CHUNK = 1 << 20


@dataclass(frozen=True, slots=True)
class Missing:
    """A file of a version that could not be taken, and where it should have been."""

    path: bytes
    where: bytes
    reason: str


@dataclass
class Filling:
    """The tree of one version while it is read."""

    tree: SourceTree
    writing: Writing
    progress: Progress
    of: str
    digests: dict[bytes, str] = field(default_factory=dict)
    missing: list[Missing] = field(default_factory=list)
    references: int = 0
    #: Symlinks and directories, without the root.
    links: int = 0
    #: Did the archive have any of these, taken or not?
    has_more_than_files: bool = False
    size: int = 0
    taken: Occupancy = field(default_factory=Occupancy)

    def add(self, item: Item) -> None:
        if isinstance(item, OlderReference):
            self._add_reference(item)
            return
        if isinstance(item, OlderSymlink | OlderDirectory):
            self.has_more_than_files = True
            try:
                self._add_link(item)
            except Refused as exc:
                self._lack(item.path, item.where, exc.reason)
            return
        where = self.tree.relative(item.source) if isinstance(item, OlderFile) else item.where
        try:
            self.taken.take(item.path)
            added = self._add_file(item) if isinstance(item, OlderFile) else self._unpack(item)
        except Refused as exc:
            self._lack(item.path, where, exc.reason)
        except BlobError as exc:
            # Its message names the path through which the file was held.
            expected = f" {exc.digest}" if exc.digest else ""
            self._lack(item.path, where, f"its content is not that of its digest{expected}")
        except SourceError as exc:
            self._lack(item.path, where, exc.message)
        else:
            self.digests[item.path] = added[0]
            self.size += added[1]
            self.progress.advance(1, added[1])

    def _lack(self, path: bytes, where: bytes, reason: str) -> None:
        self.missing.append(Missing(path, where, f"{reason} ({shown(path)} of {self.of})"))

    def _add_file(self, item: OlderFile) -> tuple[str, int]:
        tree = self.tree
        check_size(tree, item)
        with tree.held(item.source) as source:
            file = self.writing.add_file(
                item.path,
                source,
                expected=item.expected,
                mode=item.mode,
                mtime_ns=item.mtime_ns,
            )
        return file.sha256, file.size_bytes

    def _unpack(self, item: OlderStream) -> tuple[str, int]:
        if item.size <= _IN_MEMORY:
            with item.open() as stream:
                data = b"".join(iter(lambda: stream.read(_CHUNK), b""))
            if len(data) != item.size:
                raise Refused(f"it unpacks to {len(data)} bytes instead of {item.size}")
            file = self.writing.add_bytes(item.path, data, mode=item.mode, mtime_ns=item.mtime_ns)
            return file.sha256, file.size_bytes
        directory = self.writing.spool_dir
        with tempfile.NamedTemporaryFile(prefix="castfs-import-", dir=directory) as spool:
            with item.open() as stream:
                while chunk := stream.read(_CHUNK):
                    spool.write(chunk)
            spool.flush()
            if spool.tell() != item.size:
                raise Refused(f"it unpacks to {spool.tell()} bytes instead of {item.size}")
            file = self.writing.add_file(
                item.path,
                Path(spool.name),
                expected=None,
                mode=item.mode,
                mtime_ns=item.mtime_ns,
            )
        return file.sha256, file.size_bytes

    def _add_link(self, item: OlderSymlink | OlderDirectory) -> None:
        if isinstance(item, OlderDirectory):
            if item.path:
                self.taken.take_directory(item.path)
            self.writing.add_directory(item.path, mode=item.mode, mtime_ns=item.mtime_ns)
        else:
            if not 0 < len(item.target) <= TARGET_MAX or b"\0" in item.target:
                raise Refused("it is a symlink with an impossible target")
            self.taken.take(item.path)
            self.writing.add_symlink(item.path, item.target, mtime_ns=item.mtime_ns)
        self.links += bool(item.path)

    def _add_reference(self, item: OlderReference) -> None:
        try:
            self.writing.add_reference(
                item.uri,
                checksum=item.checksum,
                size=item.size,
                name=item.name,
                metadata=item.metadata,
            )
        except UsageError as exc:
            self._lack(item.uri.encode(), b"", exc.message)
        else:
            self.references += 1


def check_size(tree: SourceTree, file: OlderFile) -> None:
    """Refused if it is not as long as the archive says; reading finds what is no file."""
    seen = tree.look(tree.relative(file.source))
    if file.size is None or seen is None or seen.kind != "file":
        return
    if seen.size != file.size:
        raise Refused(f"it has {seen.size} bytes instead of {file.size}")
