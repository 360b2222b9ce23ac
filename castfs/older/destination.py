"""Where imported versions go, as narrow as the importer needs it."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from contextlib import AbstractContextManager
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Protocol

from castfs.digest import Digest
from castfs.manifest import File
from castfs.older.description import OlderRun
from castfs.older.run_files import RunFiles

#: The key of a record's metadata that says what it was before.
IMPORTED = "imported"


@dataclass(frozen=True, slots=True)
class Known:
    """A version in the store that was imported: its record's id, what it is called, and what its
    metadata say of where it is from."""

    id: str
    name: str
    version: int
    origin: Mapping[str, Any]


@dataclass(frozen=True, slots=True, kw_only=True)
class Wanted:
    """What to record of a tree. `version` None: the next number. `created_at` is in seconds;
    `source` is escaped."""

    name: str
    type: str
    version: int | None
    tags: Sequence[str]
    metadata: Mapping[str, Any]
    message: str | None
    aliases: Sequence[str]
    run: str | None
    source: str
    created_at: float | None
    deleted: bool


class Writing(Protocol):
    """A tree that is put together. Nothing is kept of one that is left without `commit`."""

    def add_file(
        self,
        path: bytes,
        source: Path,
        *,
        expected: Digest | None,
        mode: int | None,
        mtime_ns: int | None,
    ) -> File:
        """BlobError if the content is not `expected`; SourceError if it cannot be read."""

    def add_bytes(self, path: bytes, data: bytes, *, mode: int, mtime_ns: int) -> File: ...

    @property
    def spool_dir(self) -> Path:
        """Where large files may lie until they are added: on the destination's own medium."""

    def add_symlink(self, path: bytes, target: bytes, *, mtime_ns: int) -> None: ...

    def add_directory(self, path: bytes, *, mode: int, mtime_ns: int) -> None:
        """b"" is the root. Others that lead to what is added need not be."""

    def add_reference(
        self,
        uri: str,
        *,
        checksum: str | None,
        size: int | None,
        name: str | None,
        metadata: Mapping[str, Any],
    ) -> None:
        """UsageError if it cannot be recorded."""

    def commit(self, wanted: Wanted) -> Known:
        """UsageError if it cannot be recorded."""


class Destination(Protocol):
    """A store, for importers."""

    def iter_known(self) -> Iterator[Known]:
        """Everything that was imported before, also what was deleted since."""

    def type_of(self, name: str) -> str | None:
        """The type of a name that there is."""

    def has_version(self, name: str, version: int) -> bool:
        """Is the number used, or was it?"""

    def write(self, purpose: str) -> AbstractContextManager[Writing]: ...

    def complete(self, known: Known, wanted: Wanted) -> None:
        """Do what was left undone if an import died between a record and its aliases."""

    def write_run(self, run: OlderRun, uses: Sequence[Known]) -> bool:
        """Record a run. False if it is there as it is."""

    def write_run_files(self, run: OlderRun, files: RunFiles) -> bool:
        """Keep what a run that was recorded has written of itself. False if it is there."""
