"""What a snapshot's tree is: paths with what each of them is, immutable.

The structs are the JSON objects of the manifest format (docs/FORMAT.md), so decoding makes no
second copy. Their fields stand in the order of their keys' bytes, as they do in the file.
"""

from __future__ import annotations

import base64
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Annotated, Final

import msgspec

from castfs.digest import Digest
from castfs.paths import RelPath, escape, unescape

FORMAT: Final = "castfs-manifest"
VERSION: Final = 1

#: Permission bits, set-id bits and the sticky bit.
Mode = Annotated[int, msgspec.Meta(ge=0, le=0o7777)]
#: Nanoseconds since the epoch; negative before 1970.
Nanoseconds = Annotated[int, msgspec.Meta(ge=-(2**63), le=2**63 - 1)]
#: off_t, so that a file of that size can be shown at all.
Size = Annotated[int, msgspec.Meta(ge=0, le=2**63 - 1)]
#: (uid_t)-1 means "no change" to chown(2) and is nobody's number.
OwnerId = Annotated[int, msgspec.Meta(ge=0, le=2**32 - 2)]
#: 64 hex digits. The decoder checks the length; `checks` the digits, in batches: a `pattern` here
#: would cost more than all the rest of decoding.
Sha256 = Annotated[str, msgspec.Meta(min_length=64, max_length=64)]
#: Escaped attribute name → base64 of the value.
Xattrs = dict[str, str]


class _Entry(
    msgspec.Struct,
    frozen=True,
    kw_only=True,
    omit_defaults=True,
    forbid_unknown_fields=True,
    gc=False,  # no field can make a cycle, and untracked structs keep a million entries cheap
):
    """Base of the three kinds."""

    def iter_xattrs(self) -> Iterator[tuple[bytes, bytes]]:
        """(name, value) of each extended attribute, ordered by name."""
        xattrs: Xattrs | None = getattr(self, "xattrs", None)
        for name, value in (xattrs or {}).items():
            yield unescape(name), base64.b64decode(value)


class File(_Entry, frozen=True, kw_only=True):
    """A regular file. `hardlink` names the smallest path of its group of hard links, escaped."""

    gid: OwnerId | None = None
    hardlink: str | None = None
    mode: Mode
    mtime_ns: Nanoseconds
    sha256: Sha256
    size_bytes: Size
    uid: OwnerId | None = None
    xattrs: Xattrs | None = None

    @property
    def digest(self) -> Digest:
        return Digest(self.sha256)


class Directory(_Entry, frozen=True, kw_only=True):
    gid: OwnerId | None = None
    mode: Mode
    mtime_ns: Nanoseconds
    uid: OwnerId | None = None
    xattrs: Xattrs | None = None


class Symlink(_Entry, frozen=True, kw_only=True):
    """A symbolic link. `target` is escaped; `raw_target` gives the bytes."""

    gid: OwnerId | None = None
    hardlink: str | None = None
    mtime_ns: Nanoseconds
    target: str
    uid: OwnerId | None = None
    xattrs: Xattrs | None = None

    @property
    def raw_target(self) -> bytes:
        return unescape(self.target)


Entry = File | Directory | Symlink


def encode_xattrs(raw: Mapping[bytes, bytes]) -> Xattrs | None:
    """The stored form of extended attributes; None where there are none."""
    if not raw:
        return None
    named = sorted((escape(name), value) for name, value in raw.items())
    return {name: base64.b64encode(value).decode() for name, value in named}


@dataclass(frozen=True, slots=True)
class Tree:
    """The part of a manifest that its id is the digest of.

    Each mapping is ordered by the bytes of its escaped keys. `dirs` has every directory below the
    root; the parent of every entry is the root or one of them.
    """

    root: Directory
    dirs: Mapping[RelPath, Directory]
    files: Mapping[RelPath, File]
    symlinks: Mapping[RelPath, Symlink]

    @property
    def total_size_bytes(self) -> int:
        """Sum of the files' sizes; a hard link counts each time."""
        return sum(file.size_bytes for file in self.files.values())

    def get(self, path: bytes) -> Entry | None:
        """The entry at `path`; b"" is the root."""
        if not path:
            return self.root
        key = RelPath(path)
        return self.files.get(key) or self.dirs.get(key) or self.symlinks.get(key)

    def iter_entries(self) -> Iterator[tuple[RelPath, Entry]]:
        """Every entry but the root, ordered by the bytes of its path; parents come first."""
        kinds: list[Mapping[RelPath, Entry]] = [self.dirs, self.files, self.symlinks]
        for path in sorted(path for kind in kinds for path in kind):
            entry = self.get(path)
            assert entry is not None
            yield path, entry

    @property
    def has_xattrs(self) -> bool:
        kinds = (self.dirs, self.files, self.symlinks)
        return self.root.xattrs is not None or any(
            entry.xattrs is not None for kind in kinds for entry in kind.values()
        )


@dataclass(frozen=True, slots=True)
class Manifest:
    """A tree with its id and where it was first seen.

    `created_at` is in seconds since the epoch. `source_path` is a description, never opened.
    """

    tree: Tree
    id: Digest
    fingerprint: Digest
    created_at: float
    source_path: str
