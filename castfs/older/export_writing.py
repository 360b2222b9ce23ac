"""What is exported, and the one way in which its files are written: whole, or not at all."""

from __future__ import annotations

import contextlib
import hashlib
import json
import os
import secrets
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import AbstractContextManager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from castfs.catalog.words import show_word
from castfs.digest import Digest, digest_fd
from castfs.errors import DamageError
from castfs.manifest import File, Tree
from castfs.paths import RelPath, unescape
from castfs.progress import Progress
from castfs.store import BlobDir
from castfs.store.reading import iter_blob
from castfs.store.records import Reference

#: Reads a tree when it is written, so that those of many versions are never held at once.
TreeSource = Callable[[], AbstractContextManager[Tree]]


@dataclass(frozen=True, slots=True, kw_only=True)
class ExportVersion:
    """A version to write. `name` may be None for the assets' layout, which has no names."""

    tree: Tree | TreeSource
    name: str | None = None
    type: str | None = None
    version: int = 1
    tags: Sequence[str] = ()
    metadata: Mapping[str, Any] = field(default_factory=dict)
    description: str | None = None
    aliases: Sequence[str] = ()
    references: Sequence[Reference] = ()
    created_at: float = 0.0
    run: str | None = None
    source: str = ""
    deleted: bool = False

    def reference_paths(self) -> list[bytes]:
        """The entries that stand for references. DamageError."""
        try:
            return [unescape(reference.path) for reference in self.references]
        except ValueError as exc:
            raise DamageError(
                f"{show_word(self.name or 'the tree')} has a reference whose path is none: {exc}",
                hint="export the other versions alone",
            ) from exc

    def opened(self) -> AbstractContextManager[Tree]:
        """The tree, whose blobs stay while it is open."""
        return contextlib.nullcontext(self.tree) if isinstance(self.tree, Tree) else self.tree()


@dataclass(frozen=True, slots=True, kw_only=True)
class ExportRun:
    """A run to write beside artifacts. `uses` are names and versions of what is exported, too."""

    id: str
    project: str
    name: str
    created_at: float
    ended_at: float | None = None
    status: str = "finished"
    host: str = ""
    summary: Mapping[str, Any] = field(default_factory=dict)
    uses: Sequence[tuple[str, int]] = ()
    #: Where its own files lie, if there are any (see `castfs.older.run_sending`).
    directory: Path | None = None


@dataclass(frozen=True, slots=True)
class Loss:
    """Something that the older format cannot hold: a path in a version, or the name itself."""

    name: str
    path: bytes
    reason: str


class ExportWriter:
    """Writes into one target, and keeps account."""

    def __init__(self, blobs: BlobDir, target: Path, progress: Progress) -> None:
        self.blobs, self.target, self.progress = blobs, target, progress
        self.losses: list[Loss] = []
        self.file_count = self.size_bytes = 0

    def files_of(self, version: ExportVersion) -> Iterator[tuple[RelPath, str, File]]:
        """(path, the same as text, file) of what the format can hold."""
        with version.opened() as tree:
            yield from self._iter_files(version, tree)

    def _iter_files(
        self, version: ExportVersion, tree: Tree
    ) -> Iterator[tuple[RelPath, str, File]]:
        label = version.name or "the tree"
        parents = {path.rpartition(b"/")[0] for path in (*tree.files, *tree.dirs, *tree.symlinks)}
        for path in tree.dirs:
            if path not in parents:
                self.losses.append(Loss(label, path, "an empty directory"))
        for path in tree.symlinks:
            self.losses.append(Loss(label, path, "a symbolic link"))
        described = set(version.reference_paths())
        for path, file in tree.files.items():
            if path in described:
                continue  # it stands for the reference
            try:
                text = path.decode()
            except UnicodeDecodeError:
                self.losses.append(Loss(label, path, "a name that is not UTF-8"))
                continue
            self.file_count += 1
            self.size_bytes += file.size_bytes
            self.progress.advance(1, file.size_bytes)
            yield path, text, file

    def write_blob(self, path: bytes, file: File, place: Path) -> None:
        """Make `place` the content of `file`; one that is there and sound stays."""
        if _is_sound(place, file.digest):
            return
        place.parent.mkdir(parents=True, exist_ok=True)
        with replacing(place) as temp:
            with open(temp, "xb") as out:
                for chunk in iter_blob(self.blobs, path, file.digest, file.size_bytes):
                    out.write(chunk)
            # Theirs has the mode and time of the file that brought the content first. The owner
            # may write, as in all their directories: else they could not delete it.
            os.chmod(temp, file.mode & 0o777 | 0o600)
            with contextlib.suppress(OverflowError):
                os.utime(temp, ns=(file.mtime_ns, file.mtime_ns))


def _is_sound(place: Path, digest: Digest) -> bool:
    try:
        fd = os.open(place, os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC)
    except OSError:
        return False
    try:
        return digest_fd(fd) == digest
    except OSError:
        return False
    finally:
        os.close(fd)


@contextlib.contextmanager
def replacing(place: Path) -> Iterator[Path]:
    """A path to write a file at, which then takes the place; nothing stays of one that failed."""
    temp = place.parent / f".castfs-{secrets.token_hex(8)}.tmp"
    try:
        yield temp
        temp.replace(place)
    except BaseException:
        temp.unlink(missing_ok=True)
        raise


def write_json(place: Path, document: Mapping[str, Any]) -> str:
    """Returns the text's digest."""
    text = json.dumps(document, ensure_ascii=False, indent=2).encode()
    place.parent.mkdir(parents=True, exist_ok=True)
    with replacing(place) as temp:
        temp.write_bytes(text)
    return hashlib.sha256(text).hexdigest()
