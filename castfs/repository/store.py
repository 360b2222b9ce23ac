"""The store as its users see it: every verb of the picture, composed from the rooms below."""

from __future__ import annotations

import os
from collections.abc import Collection, Iterator, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from castfs import settings
from castfs.errors import DamageError
from castfs.paths import escape
from castfs.progress import SILENT, Progress
from castfs.repository import naming
from castfs.repository.lookup import load_manifest_file, resolve_snapshot
from castfs.repository.snapshot import Snapshot
from castfs.store import Depot, Record, ensure_depot, open_depot

if TYPE_CHECKING:
    from castfs.diff import DiffResult
    from castfs.ingest.options import ScanOptions
    from castfs.mount import MountOptions, MountStatus
    from castfs.repository.results import Found, ImportResult, IngestResult, StoreStats


class Store:
    """An opened store. Safe to use from several threads and processes at once."""

    def __init__(self, depot: Depot, *, created: bool = False) -> None:
        self._depot = depot
        #: Whether opening made the store.
        self.created = created

    def __repr__(self) -> str:
        return f"<castfs.Store {str(self.path)!r}>"

    @property
    def path(self) -> Path:
        return self._depot.path

    @property
    def depot(self) -> Depot:
        """The rooms below, for verbs that are not methods here."""
        return self._depot

    # Looking things up ----------------------------------------------------------------------

    def iter_snapshots(
        self, *, source: str | None = None, name: str | None = None, tags: Collection[str] = ()
    ) -> Iterator[Record]:
        """The records, newest first; only those of `source` (a directory, as it was recorded or as
        it is found from here), of `name`, with all of `tags`. DamageError after the readable ones,
        if any cannot be read."""
        wanted = None
        if source is not None:
            given = (source, os.path.abspath(source), os.path.realpath(source))
            wanted = {escape(os.fsencode(path)) for path in given}
        damaged: list[DamageError] = []
        for record in self._depot.iter_records(damaged):
            if (
                (wanted is None or record.source in wanted)
                and (name is None or record.name == name)
                and set(tags) <= set(record.tags)
            ):
                yield record
        if damaged:
            raise damaged[0]

    def resolve(self, word: str) -> Snapshot:
        """The snapshot that `word` names: a manifest file, a name, or an id's prefix.

        NotFoundError, AmbiguousError, ManifestError.
        """
        return resolve_snapshot(self._depot, word)

    def find(self, what: str, *, snapshots: Sequence[str] = ()) -> Iterator[Found]:
        """Where a path pattern (fnmatch, against the whole path or the last name) or a content (64
        hex digits, or seven and more) is held, newest snapshot first."""
        from castfs.repository.search import find_in_snapshots

        return find_in_snapshots(self._depot, what, snapshots)

    def stats(self) -> StoreStats:
        from castfs.repository.search import compute_stats

        return compute_stats(self._depot)

    # Writing --------------------------------------------------------------------------------

    def ingest(
        self,
        source: str | os.PathLike[str],
        *,
        options: ScanOptions | None = None,
        output: str | os.PathLike[str] | None = None,
        name: str | None = None,
        tags: Sequence[str] = (),
        metadata: Mapping[str, str] | None = None,
        message: str | None = None,
        progress: Progress = SILENT,
    ) -> IngestResult:
        """Take directory (or file) `source` into the store and record it as a snapshot.

        `output` gets a copy of the manifest. SourceError, UnreadableError, LimitError, StoreError;
        after any of them the store is as it was.
        """
        from castfs.repository.taking import ingest

        return ingest(
            self._depot,
            Path(source),
            options=options,
            output=Path(output) if output is not None else None,
            name=name,
            tags=(tags,) if isinstance(tags, str) else tuple(tags),
            metadata=metadata or {},
            message=message,
            progress=progress,
        )

    def import_manifest(
        self, path: str | os.PathLike[str], *, progress: Progress = SILENT
    ) -> ImportResult:
        """Record a manifest file as a snapshot; blobs that only its own store has are copied in."""
        from castfs.repository.taking import import_manifest

        return import_manifest(self._depot, Path(path), progress=progress)

    def diff(
        self,
        before: str,
        after: str,
        *,
        ignore_mtime: bool = False,
        progress: Progress = SILENT,
    ) -> DiffResult:
        """What changed between two snapshots; either may be a directory, written with a `/`."""
        from castfs.repository.comparing import diff

        return diff(
            before,
            after,
            open_depot=lambda: self._depot,
            ignore_mtime=ignore_mtime,
            progress=progress,
        )

    # Mounting -------------------------------------------------------------------------------

    def mount(
        self,
        word: str,
        mountpoint: str | os.PathLike[str],
        *,
        options: MountOptions | None = None,
    ) -> MountStatus:
        """Show a snapshot at directory `mountpoint`, in the background. Returns once it answers."""
        from castfs.mount import start_mount
        from castfs.repository.mounting import mount_request

        return start_mount(mount_request(self.resolve(word), Path(mountpoint), options))


def open_store(path: str | os.PathLike[str] | None = None, *, create: bool = False) -> Store:
    """The store at `path`, else the default one. NoStoreError unless it exists or `create`."""
    place = Path(path) if path is not None else settings.default_store()
    if not create:
        return Store(open_depot(place))
    depot, created = ensure_depot(place)
    return Store(depot, created=created)


def find_snapshot(word: str, *, store: str | os.PathLike[str] | None = None) -> Snapshot:
    """The snapshot that `word` names, where the store may have to be found first: in `store`, else
    in the store (or older archive) that a manifest file lies in, else in the default one."""
    if naming.is_file_name(word):
        given = open_store(store).depot if store is not None else None
        return load_manifest_file(Path(word), depot=given)
    return open_store(store).resolve(word)


def compare(
    before: str,
    after: str,
    *,
    store: str | os.PathLike[str] | None = None,
    ignore_mtime: bool = False,
    progress: Progress = SILENT,
) -> DiffResult:
    """`Store.diff`, where a store is needed only if one of the words is looked up in it."""
    from castfs.repository.comparing import diff

    return diff(
        before,
        after,
        open_depot=lambda: open_store(store).depot,
        ignore_mtime=ignore_mtime,
        progress=progress,
    )
