"""The shapes in which older archives keep the tree of a version, each as `Contents`."""

from __future__ import annotations

import contextlib
import hashlib
import io
import json
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, field
from typing import Any

import msgspec

from castfs.digest import Digest, digest_bytes
from castfs.errors import ManifestError
from castfs.manifest import Manifest, parse_manifest
from castfs.older.description import (
    Damage,
    Item,
    OlderDirectory,
    OlderFile,
    OlderReference,
    OlderStream,
    OlderSymlink,
    Readable,
)
from castfs.older.documents import MANIFEST_MAX
from castfs.older.guarded import MISSING, WRONG_KIND, Refused, SourceTree, join
from castfs.paths import split

#: Levels of a directory that is taken as it lies there.
_DEPTH_MAX = 256
#: What Runicorn puts into a rolling directory when it is whole.
COMPLETE = b".complete"


class OnlyFiles:
    """Base of contents without symlinks and directories of their own."""

    def has_links(self) -> bool:
        return False


class Unchecked(OnlyFiles):
    """Base of contents whose files are all verified one by one."""

    def check(self, digests: Mapping[bytes, str]) -> str | None:
        return None


def has_leaf(directories: Iterable[bytes], others: Iterable[bytes]) -> bool:
    """Is nothing in one of the directories, other than the root?"""
    below = set(directories)
    return bool(below - {b""} - {split(path)[0] for paths in (below, others) for path in paths})


class _Probe(msgspec.Struct):
    #: Runicorn's manifests have none.
    format: str | None = None


@dataclass(frozen=True)
class BlobPlaces:
    """Where blobs lie: directories with shards (`ab/<digest>`) or without."""

    tree: SourceTree
    sharded: tuple[bytes, ...] = ()
    flat: tuple[bytes, ...] = ()

    def find(self, digest: str) -> bytes:
        """Where a blob is; the first place that it could be in, if it is in none."""
        name = digest.encode()
        places = [join(place, name[:2], name) for place in self.sharded]
        places += [join(place, name) for place in self.flat]
        for place in places:
            with contextlib.suppress(Refused):
                if self.tree.look(place) is not None:
                    return place
        return places[0]


class ManifestContents(Unchecked):
    """A directory that a manifest describes."""

    def __init__(
        self, tree: SourceTree, path: bytes, blobs: BlobPlaces, fingerprint: str | None = None
    ) -> None:
        """`fingerprint`: what is said of it elsewhere, as by its file's name."""
        self._tree, self._path, self._blobs = tree, path, blobs
        self._fingerprint = fingerprint

    def _read(self) -> bytes:
        return self._tree.read(self._path, MANIFEST_MAX)

    @property
    def identity(self) -> str:
        return digest_bytes(self._read())

    def load(self) -> Manifest:
        """Refused, with what is wrong with it."""
        return self._parse(self._read())

    def _parse(self, raw: bytes) -> Manifest:
        try:
            manifest = parse_manifest(raw)
        except ManifestError as exc:
            raise Refused(exc.message) from exc
        if self._fingerprint not in (None, manifest.fingerprint):
            raise Refused(f"its fingerprint is not {self._fingerprint}")
        return manifest

    def has_links(self) -> bool:
        raw = self._read()
        if not _is_own(raw):
            return False
        tree = self._parse(raw).tree
        return bool(tree.symlinks) or has_leaf(tree.dirs, tree.files)

    def iter_items(self, damage: list[Damage]) -> Iterator[Item]:
        raw = self._read()
        tree = self._parse(raw).tree
        if _is_own(raw):
            # Of Runicorn's, directories are made up.
            for directory, entry in ((b"", tree.root), *tree.dirs.items()):
                yield OlderDirectory(directory, entry.mode, entry.mtime_ns, self._path)
        for link, symlink in tree.symlinks.items():
            yield OlderSymlink(link, symlink.raw_target, symlink.mtime_ns, self._path)
        for path, file in tree.files.items():
            yield OlderFile(
                path,
                self._tree.path_of(self._blobs.find(file.sha256)),
                expected=file.digest,
                size=file.size_bytes,
                mode=file.mode,
                mtime_ns=file.mtime_ns,
            )


def _is_own(raw: bytes) -> bool:
    """Is it castfs's own format, which castfs.compat.runicorn writes? It has modes and times."""
    try:
        return msgspec.json.decode(raw, type=_Probe).format is not None
    except (msgspec.DecodeError, RecursionError, UnicodeDecodeError):
        return False


@dataclass(frozen=True)
class SingleFile(Unchecked):
    """One file, by its digest or, where there is none, by what `stamp` says of it."""

    tree: SourceTree
    path: bytes
    source: bytes
    expected: Digest | None
    stamp: str = ""
    #: Blobs have the mode and time of whoever stored that content first.
    mode: int | None = None
    mtime_ns: int | None = None

    @property
    def identity(self) -> str:
        return self.expected or digest_bytes(self.stamp.encode(errors="replace"))

    def iter_items(self, damage: list[Damage]) -> Iterator[Item]:
        yield OlderFile(
            self.path,
            self.tree.path_of(self.source),
            expected=self.expected,
            mode=self.mode,
            mtime_ns=self.mtime_ns,
        )


@dataclass(frozen=True)
class PlainDirectory(OnlyFiles):
    """A directory that was copied as it was, with a fingerprint over all of it, or none."""

    tree: SourceTree
    path: bytes
    fingerprint: Digest | None
    leave_out: bytes | None = None

    @property
    def identity(self) -> str:
        if self.fingerprint:
            return self.fingerprint
        state = hashlib.sha256()
        for item in self.iter_items([]):
            assert isinstance(item, OlderFile)
            state.update(b"%s\0%d\0%d\0" % (item.path, item.size or 0, item.mtime_ns or 0))
        return state.hexdigest()

    def iter_items(self, damage: list[Damage]) -> Iterator[Item]:
        for path, seen in walk(self.tree, self.path, damage):
            if path == self.leave_out:
                continue
            source = self.tree.path_of(join(self.path, path))
            yield OlderFile(path, source, size=seen.size, mode=seen.mode, mtime_ns=seen.mtime_ns)

    def check(self, digests: Mapping[bytes, str]) -> str | None:
        if self.fingerprint is None:
            return None
        state = hashlib.sha256()
        # By text, as their writer sorts.
        entries = sorted((path.decode(errors="replace"), path) for path in digests)
        for _, path in entries:
            state.update(b"%s\0%s\0" % (path, digests[path].encode()))
        if state.hexdigest() == self.fingerprint:
            return None
        return f"its files are not those of its fingerprint {self.fingerprint}"


def walk(tree: SourceTree, top: bytes, damage: list[Damage]) -> Iterator[tuple[bytes, Any]]:
    """(path below `top`, Seen) of every regular file. What is no file goes to `damage`. Refused if
    `top` cannot be listed."""
    pending = [(b"", tree.list(top))]
    while pending:
        parent, entries = pending.pop()
        for seen in entries:
            path = join(parent, seen.name)
            where = join(top, path)
            if seen.kind == "file":
                yield path, seen
            elif seen.kind != "directory":
                damage.append(Damage(where, WRONG_KIND[seen.kind]))
            elif path.count(b"/") >= _DEPTH_MAX:
                damage.append(Damage(where, f"it lies deeper than {_DEPTH_MAX} levels"))
            else:
                try:
                    pending.append((path, tree.list(where)))
                except Refused as exc:
                    damage.append(Damage(where, exc.reason))


@dataclass(frozen=True)
class MadeFile(Unchecked):
    """A file that the archive has as part of a document."""

    path: bytes
    data: bytes
    where: bytes
    mtime_ns: int = 0

    @property
    def identity(self) -> str:
        return digest_bytes(self.data)

    def iter_items(self, damage: list[Damage]) -> Iterator[Item]:
        yield OlderStream(self.path, len(self.data), 0o644, self.mtime_ns, self._open, self.where)

    def _open(self) -> contextlib.AbstractContextManager[Readable]:
        return contextlib.closing(io.BytesIO(self.data))


@dataclass(frozen=True)
class OnlyReference(Unchecked):
    """Data that was not saved, but named."""

    reference: OlderReference
    facts: Mapping[str, Any] = field(default_factory=dict)

    @property
    def identity(self) -> str:
        said = [self.reference.uri, self.reference.size, self.facts]
        return digest_bytes(json.dumps(said, sort_keys=True).encode())

    def iter_items(self, damage: list[Damage]) -> Iterator[Item]:
        yield self.reference


@dataclass(frozen=True)
class LooseBlobs(Unchecked):
    """Blobs that nothing names, each as a file named by its digest."""

    tree: SourceTree
    #: digest → where it lies
    blobs: Mapping[Digest, bytes]

    @property
    def identity(self) -> str:
        return digest_bytes("".join(sorted(self.blobs)).encode())

    def iter_items(self, damage: list[Damage]) -> Iterator[Item]:
        for digest, source in sorted(self.blobs.items()):
            path = f"{digest[:2]}/{digest}".encode()
            yield OlderFile(path, self.tree.path_of(source), expected=digest, mode=0o644)


class Lost(Unchecked):
    """Something that a document names and the archive lacks."""

    def __init__(self, reason: str = MISSING) -> None:
        self._reason = reason

    @property
    def identity(self) -> str:
        raise Refused(self._reason)

    def iter_items(self, damage: list[Damage]) -> Iterator[Item]:
        raise Refused(self._reason)
        yield
