"""What an older archive holds, said without its layout: the importer knows nothing else.

Paths inside a version are bytes, as everywhere; sources are paths on disk, below the archive's
root. Nothing here has been read: contents are listed when they are asked for.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from contextlib import AbstractContextManager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Protocol

from castfs.digest import Digest

#: What names a version, run or output in the older archive, whatever it is called here.
Key = tuple[str, ...]


@dataclass(frozen=True, slots=True)
class Damage:
    """Something that could not be taken: where it lies below the archive's root, and why."""

    path: bytes
    reason: str


@dataclass(frozen=True, slots=True)
class Renamed:
    """A name (or alias, or version number) that could not be kept."""

    older: str
    name: str
    reason: str


@dataclass(frozen=True, slots=True)
class OlderFile:
    """A regular file. `expected` None: the archive has no digest of it. Mode and time None: those
    of `source`."""

    path: bytes
    source: Path
    expected: Digest | None = None
    size: int | None = None
    mode: int | None = None
    mtime_ns: int | None = None


class Readable(Protocol):
    def read(self, size: int, /) -> bytes:
        """At most `size` bytes, none at the end. Refused."""


class Opener(Protocol):
    def __call__(self) -> AbstractContextManager[Readable]:
        """Refused."""


@dataclass(frozen=True, slots=True)
class OlderStream:
    """A file that lies in another file. Only what was read to its end was sound."""

    path: bytes
    size: int
    mode: int
    mtime_ns: int
    open: Opener
    #: Where it lies, for messages.
    where: bytes


@dataclass(frozen=True, slots=True)
class OlderSymlink:
    """A symbolic link. Its target is data: it may be absolute, or lead out, and is not followed."""

    path: bytes
    target: bytes
    mtime_ns: int
    where: bytes


@dataclass(frozen=True, slots=True)
class OlderDirectory:
    """A directory of which the archive knows more than that files lie in it; b"" is the root."""

    path: bytes
    mode: int
    mtime_ns: int
    where: bytes


@dataclass(frozen=True, slots=True)
class OlderReference:
    """Data that the archive only points at."""

    uri: str
    checksum: str | None = None
    size: int | None = None
    name: str | None = None
    metadata: Mapping[str, Any] = field(default_factory=dict)


Item = OlderFile | OlderStream | OlderSymlink | OlderDirectory | OlderReference


class Contents(Protocol):
    """The tree of one version."""

    @property
    def identity(self) -> str:
        """64 hex digits that say what it holds, known without reading the files. Refused."""

    def iter_items(self, damage: list[Damage]) -> Iterator[Item]:
        """Each path once. What cannot be taken goes to `damage`; Refused if nothing can."""

    def has_links(self) -> bool:
        """Are there symlinks, or directories with nothing in them? Refused."""

    def check(self, digests: Mapping[bytes, str]) -> str | None:
        """Why the files that were read, by path, are not what the archive says they are."""


@dataclass(frozen=True, slots=True, kw_only=True)
class OlderVersion:
    """One version of one thing.

    `number` is None where the older system had no numbers: versions of a name come in the order of
    their time. `created_at` is in seconds since the epoch.
    """

    key: Key
    name: str
    older_name: str
    type: str
    contents: Contents
    #: Where its description lies, for messages.
    where: bytes
    number: int | None = None
    tags: tuple[str, ...] = ()
    metadata: Mapping[str, Any] = field(default_factory=dict)
    #: What the older system knew besides, kept with the origin.
    details: Mapping[str, Any] = field(default_factory=dict)
    description: str | None = None
    aliases: tuple[str, ...] = ()
    created_at: float | None = None
    run: str | None = None
    source: str | None = None
    deleted: bool = False


@dataclass(frozen=True, slots=True, kw_only=True)
class OlderRun:
    """A run. `created` and `used` are keys of versions, which may lack in the archive."""

    id: str
    project: str
    name: str
    #: Its directory.
    where: bytes
    created_at: float | None = None
    ended_at: float | None = None
    status: str | None = None
    host: str | None = None
    alias: str | None = None
    summary: Mapping[str, Any] = field(default_factory=dict)
    created: tuple[Key, ...] = ()
    used: tuple[Key, ...] = ()
    deleted: bool = False
