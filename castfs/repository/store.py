"""The store as its users see it: every verb of the picture, composed from the rooms below."""

from __future__ import annotations

import fnmatch
import os
import re
from collections.abc import Callable, Collection, Iterator, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from castfs import settings
from castfs.catalog import Catalog, reading
from castfs.catalog.words import normalize_name
from castfs.paths import escape
from castfs.progress import SILENT, Progress
from castfs.repository import naming
from castfs.repository.lookup import load_manifest_file, resolve_snapshot
from castfs.repository.snapshot import Snapshot
from castfs.store import Depot, Record, ensure_depot, open_depot

if TYPE_CHECKING:
    from castfs.diff import DiffResult
    from castfs.gc import GcOptions, GcResult
    from castfs.ingest.options import ScanOptions
    from castfs.mount import MountOptions, MountStatus
    from castfs.repository.results import (
        DeletedSnapshot,
        ForgetResult,
        Found,
        ImportResult,
        IngestResult,
        StoreStats,
    )
    from castfs.retention import Policy
    from castfs.verify import VerifyOptions, VerifyResult


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
        self,
        *,
        source: str | None = None,
        name: str | None = None,
        type: str | None = None,
        tags: Collection[str] = (),
    ) -> Iterator[Record]:
        """The records, newest first; only those of `source` (a directory, as it was recorded or as
        it is found from here), of `name` (a name or a pattern), of `type`, with all of `tags`.
        DamageError after the readable ones, if any cannot be read."""
        with reading(self._depot) as catalog:
            yield from _select(catalog, source=source, name=name, type=type, tags=tags)
            if damages := catalog.damages("live"):
                raise damages[0]

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
        type: str | None = None,
        tags: Sequence[str] = (),
        metadata: Mapping[str, Any] | None = None,
        message: str | None = None,
        aliases: Sequence[str] = (),
        run: str | None = None,
        new_version: bool = False,
        progress: Progress = SILENT,
    ) -> IngestResult:
        """Take directory (or file) `source` into the store and record it as a snapshot.

        With a `name` it is the next version of that, unless its latest one is the same but for
        times and owners (and not `new_version`). `output` gets a copy of the manifest. SourceError,
        UnreadableError, LimitError, UsageError, StoreError; after any of them the store is as it
        was.
        """
        from castfs.repository.publishing import Details
        from castfs.repository.taking import ingest

        return ingest(
            self._depot,
            Path(source),
            options=options,
            output=Path(output) if output is not None else None,
            details=Details(
                name=name,
                type=type,
                tags=(tags,) if isinstance(tags, str) else tuple(tags),
                metadata=metadata or {},
                message=message,
                aliases=(aliases,) if isinstance(aliases, str) else tuple(aliases),
                run=run,
                new_version=new_version,
            ),
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

    # Removing and collecting ---------------------------------------------------------------

    def remove(self, *words: str, all_versions: bool = False, force: bool = False) -> list[Record]:
        """Move snapshots to the trash: all of them, or none; with `all_versions`, all that the
        names have. NotFoundError, AmbiguousError; BusyError for what an alias or a run needs,
        unless it is forced."""
        from castfs.repository.removing import remove

        return remove(self._depot, words, all_versions=all_versions, force=force)

    def remove_for_good(
        self, *words: str, all_versions: bool = False, force: bool = False
    ) -> list[Record]:
        """Delete snapshots, in the trash or not. Their contents go at the next collection.

        NotFoundError, AmbiguousError; BusyError for those that a reader holds which cannot say so
        in the store, or that an alias or a run needs."""
        from castfs.repository.removing import find_for_good, remove_for_good

        records = find_for_good(self._depot, words, all_versions=all_versions)
        remove_for_good(self._depot, records, force=force)
        return records

    def undelete(self, *words: str, all_versions: bool = False) -> list[Record]:
        """Take snapshots out of the trash: all of them, or none. NotFoundError, AmbiguousError."""
        from castfs.repository.removing import undelete

        return undelete(self._depot, words, all_versions=all_versions)

    def iter_deleted(
        self,
        *,
        source: str | None = None,
        name: str | None = None,
        type: str | None = None,
        tags: Collection[str] = (),
    ) -> Iterator[DeletedSnapshot]:
        """What is in the trash, the last deleted first; otherwise as `iter_snapshots`."""
        from castfs.repository.removing import iter_deleted

        is_wanted = _filter(source, name, type, tags)
        with reading(self._depot) as catalog:
            yield from (each for each in iter_deleted(catalog) if is_wanted(each.record))
            if damages := catalog.damages("trash"):
                raise damages[0]

    def plan_forget(
        self, policy: Policy, *, source: str | None = None, name: str | None = None
    ) -> ForgetResult:
        """What `forget` would do."""
        return self._forget(policy, source, name, dry_run=True)

    def forget(
        self, policy: Policy, *, source: str | None = None, name: str | None = None
    ) -> ForgetResult:
        """Move to the trash what `policy` does not keep of the snapshots that `iter_snapshots`
        would give. UsageError for one that keeps nothing at all, or nothing of a
        group; DamageError, with nothing moved, if a
        record cannot be read."""
        return self._forget(policy, source, name, dry_run=False)

    def _forget(
        self, policy: Policy, source: str | None, name: str | None, *, dry_run: bool
    ) -> ForgetResult:
        from castfs.repository.removing import forget

        return forget(
            self._depot,
            policy,
            lambda catalog: _select(catalog, source=source, name=name),
            dry_run=dry_run,
        )

    def plan_gc(self, options: GcOptions | None = None, *, progress: Progress = SILENT) -> GcResult:
        """What `gc` would delete now."""
        from castfs.gc import collect

        return collect(self._depot, options, dry_run=True, progress=progress)

    def gc(self, options: GcOptions | None = None, *, progress: Progress = SILENT) -> GcResult:
        """Delete the contents that nothing needs. BusyError, DamageError, StoreError: see
        `castfs.gc.collect`."""
        from castfs.gc import collect
        from castfs.repository.removing import forget_expired

        result = collect(self._depot, options, progress=progress)
        forget_expired(self._depot, result.expired)
        return result

    def verify(
        self,
        *words: str,
        options: VerifyOptions | None = None,
        progress: Progress = SILENT,
    ) -> VerifyResult:
        """Check the store, or only the snapshots that are named. Damage is a result, not an error.

        NotFoundError; SourceError or UsageError for a place to repair from; StoreError."""
        from castfs.repository.removing import find_everywhere
        from castfs.verify import verify_store

        chosen = {record.id for record in find_everywhere(self._depot, words)} if words else None
        return verify_store(self._depot, options, chosen=chosen, progress=progress)

    # Mounting -------------------------------------------------------------------------------

    def mount(
        self,
        word: str,
        mountpoint: str | os.PathLike[str],
        *,
        options: MountOptions | None = None,
        fast_lane: bool = True,
    ) -> MountStatus:
        """Show a snapshot at directory `mountpoint`, in the background. Returns once it answers.

        Without the fast lane pyfuse3 serves it alone: everything is the same, but slower.
        """
        from castfs.mount import start_mount
        from castfs.repository.mounting import mount_request

        snapshot = resolve_snapshot(self._depot, word, read=False)
        return start_mount(mount_request(snapshot, Path(mountpoint), options, fast_lane=fast_lane))


def _select(
    catalog: Catalog,
    *,
    source: str | None = None,
    name: str | None = None,
    type: str | None = None,
    tags: Collection[str] = (),
) -> Iterator[Record]:
    is_wanted = _filter(source, name, type, tags)
    # What the database can tell needs not be read.
    exact = normalize_name(name) if name is not None and not _is_pattern(name) else None
    records = catalog.iter_records(
        name=exact, type=type, sources=_as_sources(source), tags=list(tags)
    )
    return filter(is_wanted, records)


def _filter(
    source: str | None, name: str | None, type: str | None, tags: Collection[str]
) -> Callable[[Record], bool]:
    sources = _as_sources(source)
    pattern = None
    if name is not None:
        name = normalize_name(name)
        pattern = re.compile(fnmatch.translate(name) if _is_pattern(name) else re.escape(name))
    return lambda record: bool(
        (not sources or record.source in sources)
        and (pattern is None or pattern.fullmatch(record.name or ""))
        and (type is None or record.type == type)
        and set(tags) <= set(record.tags)
    )


def _is_pattern(name: str) -> bool:
    return any(sign in name for sign in "*?[")


def _as_sources(source: str | None) -> list[str]:
    if source is None:
        return []
    given = (source, os.path.abspath(source), os.path.realpath(source))
    return sorted({escape(os.fsencode(path)) for path in given})


def open_store(path: str | os.PathLike[str] | None = None, *, create: bool = False) -> Store:
    """The store at `path`, else the default one. NoStoreError unless it exists or `create`."""
    place = Path(path) if path is not None else settings.default_store()
    if not create:
        return Store(open_depot(place))
    depot, created = ensure_depot(place)
    return Store(depot, created=created)


def find_snapshot(
    word: str, *, store: str | os.PathLike[str] | None = None, read: bool = True
) -> Snapshot:
    """The snapshot that `word` names, where the store may have to be found first: in `store`, else
    in the store (or older archive) that a manifest file lies in, else in the default one.

    Without `read` a manifest of a store is left for later: mounting may do without."""
    if naming.is_file_name(word):
        given = open_store(store).depot if store is not None else None
        return load_manifest_file(Path(word), depot=given)
    return resolve_snapshot(open_store(store).depot, word, read=read)


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
