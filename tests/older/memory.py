"""A destination that keeps everything in memory, so that tests see what an importer gave it."""

from __future__ import annotations

import contextlib
import hashlib
import itertools
import json
import os
import tempfile
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from castfs.digest import Digest
from castfs.errors import BlobError, UsageError
from castfs.manifest import File
from castfs.older.description import OlderRun
from castfs.older.destination import IMPORTED, Known, Wanted
from castfs.older.run_files import RunFiles


@dataclass
class Kept:
    """A version as it was given."""

    id: str
    wanted: Wanted
    version: int
    files: dict[str, bytes]
    modes: dict[str, int]
    mtimes: dict[str, int]
    references: list[dict[str, Any]]
    symlinks: dict[str, tuple[str, int]]
    #: mode and mtime
    directories: dict[str, tuple[int, int]]


@dataclass
class Draft:
    """Files of a version that is being written."""

    memory: Memory
    files: dict[str, bytes] = field(default_factory=dict)
    modes: dict[str, int] = field(default_factory=dict)
    mtimes: dict[str, int] = field(default_factory=dict)
    references: list[dict[str, Any]] = field(default_factory=list)
    symlinks: dict[str, tuple[str, int]] = field(default_factory=dict)
    directories: dict[str, tuple[int, int]] = field(default_factory=dict)

    def add_file(
        self,
        path: bytes,
        source: Path,
        *,
        expected: Digest | None,
        mode: int | None,
        mtime_ns: int | None,
    ) -> File:
        data = source.read_bytes()
        digest = hashlib.sha256(data).hexdigest()
        if expected is not None and digest != expected:
            raise BlobError("other content", digest=expected)
        status = source.stat()
        return self.add_bytes(
            path,
            data,
            mode=status.st_mode & 0o7777 if mode is None else mode,
            mtime_ns=status.st_mtime_ns if mtime_ns is None else mtime_ns,
        )

    def add_bytes(self, path: bytes, data: bytes, *, mode: int, mtime_ns: int) -> File:
        text = os.fsdecode(path)
        assert text not in self.files | self.symlinks
        self.files[text], self.modes[text], self.mtimes[text] = data, mode, mtime_ns
        digest = hashlib.sha256(data).hexdigest()
        return File(mode=mode, mtime_ns=mtime_ns, sha256=digest, size_bytes=len(data))

    @property
    def spool_dir(self) -> Path:
        return Path(tempfile.gettempdir())

    def add_symlink(self, path: bytes, target: bytes, *, mtime_ns: int) -> None:
        assert os.fsdecode(path) not in self.files | self.symlinks | self.directories
        self.symlinks[os.fsdecode(path)] = os.fsdecode(target), mtime_ns

    def add_directory(self, path: bytes, *, mode: int, mtime_ns: int) -> None:
        assert os.fsdecode(path) not in self.files | self.symlinks | self.directories
        self.directories[os.fsdecode(path)] = mode, mtime_ns

    def add_reference(
        self,
        uri: str,
        *,
        checksum: str | None,
        size: int | None,
        name: str | None,
        metadata: Mapping[str, Any],
    ) -> None:
        said = {"uri": uri, "checksum": checksum, "size": size, "metadata": dict(metadata)}
        self.references.append(said)

    def commit(self, wanted: Wanted) -> Known:
        return self.memory.keep(self, wanted)


@dataclass
class Memory:
    versions: list[Kept] = field(default_factory=list)
    runs: dict[str, tuple[OlderRun, tuple[Known, ...]]] = field(default_factory=dict)
    types: dict[str, str] = field(default_factory=dict)
    run_files: dict[str, dict[str, bytes]] = field(default_factory=dict)
    completed: int = 0
    #: Commits until the importer is killed.
    lives: int = 1_000_000

    def iter_known(self) -> Iterator[Known]:
        for kept in reversed(self.versions):
            # As it would come out of a record.
            origin = json.loads(json.dumps(kept.wanted.metadata[IMPORTED]))
            yield Known(kept.id, kept.wanted.name, kept.version, origin)

    def type_of(self, name: str) -> str | None:
        return self.types.get(name)

    def has_version(self, name: str, version: int) -> bool:
        return any((kept.wanted.name, kept.version) == (name, version) for kept in self.versions)

    @contextlib.contextmanager
    def write(self, purpose: str) -> Iterator[Draft]:
        assert purpose.startswith("import ")
        yield Draft(self)

    def keep(self, draft: Draft, wanted: Wanted) -> Known:
        if self.lives == 0:
            raise KeyboardInterrupt
        self.lives -= 1
        numbers = [kept.version for kept in self.versions if kept.wanted.name == wanted.name]
        number = wanted.version or max(numbers, default=0) + 1
        assert number not in numbers
        if not any((draft.files, draft.references, draft.symlinks, draft.directories)):
            raise UsageError("there is nothing in it")
        json.dumps(wanted.metadata, allow_nan=False).encode()
        kept = Kept(
            f"{len(self.versions):024x}",
            wanted,
            number,
            draft.files,
            draft.modes,
            draft.mtimes,
            draft.references,
            draft.symlinks,
            draft.directories,
        )
        self.versions.append(kept)
        self.types[wanted.name] = wanted.type
        return Known(kept.id, wanted.name, number, wanted.metadata[IMPORTED])

    def complete(self, known: Known, wanted: Wanted) -> None:
        self.completed += 1

    def write_run(self, run: OlderRun, uses: Sequence[Known]) -> bool:
        new = (run, tuple(uses))
        if self.runs.get(run.id) == new:
            return False
        self.runs[run.id] = new
        return True

    def write_run_files(self, run: OlderRun, files: RunFiles) -> bool:
        found = {}
        for path in files.iter_paths():
            with open(files.open(path), "rb") as file:
                found[os.fsdecode(path)] = file.read()
        is_new = self.run_files.get(run.id, {}) != found
        self.run_files[run.id] = found
        return is_new

    def find(self, name: str, version: int | None = None) -> Kept:
        """The version of that number, or the only one."""
        found = [
            kept
            for kept in self.versions
            if kept.wanted.name == name and version in (None, kept.version)
        ]
        assert len(found) == 1, (name, version, sorted({k.wanted.name for k in self.versions}))
        return found[0]

    def names(self) -> dict[str, int]:
        """Name → count of its versions."""
        grouped = itertools.groupby(sorted(kept.wanted.name for kept in self.versions))
        return {name: len(list(group)) for name, group in grouped}
