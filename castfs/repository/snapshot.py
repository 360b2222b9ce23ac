"""One snapshot, ready to be read."""

from __future__ import annotations

import contextlib
import functools
import os
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, BinaryIO, TypeVar

from castfs.digest import Digest
from castfs.errors import NotFoundError
from castfs.manifest import Entry, File, Manifest, encode_manifest
from castfs.paths import RelPath, display, normalize
from castfs.progress import SILENT, Progress
from castfs.repository.targets import refuse_inside
from castfs.store import BlobDir, Depot, Record, pin_foreign, pin_manifest
from castfs.store.reading import open_blob

if TYPE_CHECKING:
    from castfs.archive import ArchiveResult, Format
    from castfs.restore import IfExists, RestoreResult
    from castfs.tree import IndexedEntries, ListedEntry

T = TypeVar("T")


@dataclass(frozen=True, repr=False)
class Snapshot:
    """A tree with the place where its blobs lie.

    `record` is None for a manifest that no record of the store names, `depot` for an archive of an
    older system (it has blobs, but no protocol that keeps them). `file` is the manifest file that
    was named, if one was.
    """

    manifest_id: Digest
    #: Reads the manifest.
    load: Callable[[], Manifest]
    blobs: BlobDir
    depot: Depot | None
    record: Record | None
    file: Path | None = None

    def __repr__(self) -> str:
        return f"<castfs.Snapshot {self.id}>"

    @functools.cached_property
    def manifest(self) -> Manifest:
        """What the tree holds, read when it is first asked for. DamageError, NotFoundError."""
        return self.load()

    @property
    def id(self) -> str:
        """The record's id, or the manifest's where there is no record."""
        return self.record.id if self.record else self.manifest_id

    @functools.cached_property
    def _indexed(self) -> IndexedEntries | None:
        """The index that a mount of this user has left, if there is one: opening it takes
        milliseconds, where a manifest takes seconds for a million entries."""
        if self.depot is None or self.file is not None:
            return None
        if not self.depot.manifest_path(self.manifest_id).is_file():
            return None  # reading it says what is wrong
        from castfs.repository.indexed import find_entries

        return find_entries(self.depot, self.manifest_id)

    def _ask_index(self, question: Callable[[IndexedEntries], T]) -> tuple[T] | None:
        """An answer, or None where there is no index or it does not say; then the manifest does."""
        if "manifest" in self.__dict__ or self._indexed is None:
            return None
        from castfs.tree import NotIndexedError

        with contextlib.suppress(NotIndexedError):
            return (question(self._indexed),)
        return None

    def iter_entries(self) -> Iterator[tuple[RelPath, Entry]]:
        """Every entry but the root, ordered by the bytes of its path."""
        return self.manifest.tree.iter_entries()

    def get(self, path: str | bytes) -> Entry:
        """The entry at `path` ("" is the root). NotFoundError."""
        raw = normalize(path)
        answer = self._ask_index(lambda index: index.get(raw))
        entry = answer[0] if answer else self.manifest.tree.get(raw)
        if entry is None:
            raise self._not_found(raw)
        return entry

    def _not_found(self, path: bytes) -> NotFoundError:
        return NotFoundError(f"{display(path)} is not in snapshot {self.id}")

    def list(
        self, path: str | bytes = "", *, recursive: bool = False, hardlinks: bool = True
    ) -> Sequence[ListedEntry]:
        """The entries of directory `path`, or with all below them, ordered by their paths' bytes;
        what is no directory, alone. NotFoundError.

        Without `hardlinks` files that have some may be without the name of their group.
        """
        from castfs.repository.listing import list_tree

        raw = normalize(path)
        answer = None
        # All of a large tree is read faster from its manifest.
        if not recursive and not hardlinks:
            answer = self._ask_index(lambda index: index.list(raw))
        found = answer[0] if answer else list_tree(self.manifest.tree, raw, recursive=recursive)
        if found is None:
            raise self._not_found(raw)
        return found

    def open(self, path: str | bytes) -> BinaryIO:
        """A file of the snapshot, to be read inside `pinned`. NotFoundError, BlobError."""
        raw = os.fsencode(path)
        entry = self.get(path)
        if not isinstance(entry, File):
            raise NotFoundError(f"{display(raw)} is not a regular file")
        return open(open_blob(self.blobs, raw, entry.digest, entry.size_bytes), "rb")

    @contextlib.contextmanager
    def pinned(self, purpose: str) -> Iterator[bool]:
        """Keep the snapshot whole against a collector. Yields whether that is possible."""
        if self.depot is None:
            yield False
        elif self.file is None or self.depot.manifest_path(self.manifest_id).exists():
            record_id = self.record.id if self.record else None
            with pin_manifest(
                self.depot, self.manifest_id, purpose=purpose, record_id=record_id
            ) as pin:
                yield pin.protected
        else:
            chunks = list(encode_manifest(self.manifest))
            with pin_foreign(self.depot, chunks, purpose=purpose) as pin:
                yield pin.protected

    def restore(
        self,
        target: str | os.PathLike[str],
        paths: Sequence[str | bytes] = (),
        *,
        if_exists: IfExists = "fail",
        owner: bool = False,
        progress: Progress = SILENT,
    ) -> RestoreResult:
        """Recreate the tree, or the entries `paths` with all below them, in directory `target`.

        Nothing is ever written outside it. `if_exists` says what happens to files that are there;
        files that the snapshot does not have stay. Every blob is hashed while it is copied.
        """
        from castfs import settings
        from castfs.restore import restore_tree

        if self.depot is not None:
            refuse_inside(Path(target), self.depot, hint="restore to a directory of your own")
        chosen = [
            os.fsencode(path) for path in ([paths] if isinstance(paths, str | bytes) else paths)
        ]
        with self.pinned("restore"):
            answer, wanted = None, {normalize(path) for path in chosen}
            if wanted and b"" not in wanted:
                answer = self._ask_index(lambda index: index.subtree(wanted))
            return restore_tree(
                answer[0] if answer else self.manifest.tree,
                self.blobs,
                Path(target),
                paths=chosen,
                if_exists=if_exists,
                owner=owner,
                threads=settings.threads(),
                progress=progress,
            )

    def export(
        self,
        file: str | os.PathLike[str] | BinaryIO,
        *,
        format: Format | None = None,
        replace: bool = False,
        progress: Progress = SILENT,
    ) -> ArchiveResult:
        """Write the tree as an archive: tar, tar.zst or zip, by `format` or the file's suffix.

        The same tree gives the same bytes. A path is written whole or not at all.
        """
        from castfs.archive import export_archive, format_for, write_archive

        if self.depot is not None and isinstance(file, str | os.PathLike):
            refuse_inside(Path(file), self.depot)
        with self.pinned("export"):
            tree = self.manifest.tree
            if isinstance(file, str | os.PathLike):
                path = Path(file)
                chosen = format or format_for(path.name)
                return export_archive(
                    tree, self.blobs, path, format=chosen, replace=replace, progress=progress
                )
            return write_archive(tree, self.blobs, file, format=format or "tar", progress=progress)
