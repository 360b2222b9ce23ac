"""The store as its users see it: every verb of the picture, composed from the rooms below."""

from __future__ import annotations

import logging
import os
from collections.abc import Collection, Iterator, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from castfs import settings
from castfs.catalog import reading
from castfs.errors import BusyError
from castfs.progress import SILENT, Progress
from castfs.repository import naming
from castfs.repository.lookup import load_manifest_file, resolve_snapshot
from castfs.repository.selecting import Selection, select
from castfs.repository.snapshot import Snapshot
from castfs.store import Depot, Record, ensure_depot, open_depot

if TYPE_CHECKING:
    from castfs.diff import DiffResult
    from castfs.gc import GcOptions, GcResult
    from castfs.ingest.options import ScanOptions
    from castfs.mount import MountOptions, MountStatus
    from castfs.repository.graph import Graph
    from castfs.repository.lineage import Direction
    from castfs.repository.results import (
        Aliases,
        AliasMove,
        ArtifactInfo,
        DeletedSnapshot,
        ForgetResult,
        Found,
        ImportResult,
        IngestResult,
        LogEntry,
        ReferenceResult,
        StoreStats,
        VersionInfo,
    )
    from castfs.retention import Policy
    from castfs.verify import VerifyOptions, VerifyResult

log = logging.getLogger("castfs.repository")


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
        since: float | None = None,
        metadata: Mapping[str, Any] | None = None,
    ) -> Iterator[Record]:
        """The records, newest first; only those of `source` (a directory, as it was recorded or as
        it is found from here), of `name` (a name or a pattern), of `type`, with all of `tags`, made
        `since` (seconds since the epoch), with these values in their `metadata`.
        DamageError after the readable ones, if any cannot be read."""
        selection = Selection(
            source=source, name=name, type=type, tags=tags, since=since, metadata=metadata or {}
        )
        with reading(self._depot) as catalog:
            catalog.let_go()
            yield from select(catalog, selection)
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

    def iter_artifacts(
        self,
        *,
        name: str | None = None,
        type: str | None = None,
        tags: Collection[str] = (),
        since: float | None = None,
        metadata: Mapping[str, Any] | None = None,
    ) -> Iterator[ArtifactInfo]:
        """The names, in their order; what is asked for (as of `iter_snapshots`) is asked of their
        latest versions. DamageError after the readable ones."""
        from castfs.repository.artifacts import iter_artifacts

        selection = Selection(name=name, type=type, tags=tags, since=since, metadata=metadata or {})
        return iter_artifacts(self._depot, selection)

    def iter_versions(self, name: str) -> Iterator[VersionInfo]:
        """The versions of a name in their order, also those in the trash. NotFoundError;
        DamageError after the readable ones."""
        from castfs.repository.artifacts import iter_versions

        return iter_versions(self._depot, name)

    def aliases(self, name: str) -> Aliases:
        """The aliases of a name and their history. NotFoundError, DamageError."""
        from castfs.repository.artifacts import find_aliases

        return find_aliases(self._depot, name)

    def log(self, name: str | None = None) -> Iterator[LogEntry]:
        """What happened to a name, or to everything, newest first. NotFoundError; DamageError after
        what is readable."""
        from castfs.repository.artifacts import iter_log

        return iter_log(self._depot, name)

    def search(self, *words: str) -> Iterator[Record]:
        """Snapshots in whose name, type, tags, metadata, message or source all `words` are found,
        newest first. DamageError after the readable ones."""
        from castfs.repository.artifacts import iter_matches

        return iter_matches(self._depot, words)

    def lineage(
        self, word: str, direction: Direction = "both", *, depth: int | None = None
    ) -> Graph:
        """The versions and runs that a snapshot (or the run of that id) came from (`up`), and those
        that came from it (`down`); `depth` counts edges. NotFoundError, AmbiguousError;
        DamageError if a file that belongs to it may be unreadable."""
        from castfs.repository.lineage import build_lineage

        with reading(self._depot) as catalog:
            if damages := catalog.damages():
                raise damages[0]
            return build_lineage(catalog, word, direction, depth=depth)

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

    def add_reference(
        self,
        name: str,
        uri: str,
        *,
        checksum: str | None = None,
        size: int | None = None,
        type: str | None = None,
        tags: Sequence[str] = (),
        metadata: Mapping[str, Any] | None = None,
        message: str | None = None,
        aliases: Sequence[str] = (),
        new_version: bool = False,
    ) -> ReferenceResult:
        """Make a version of `name` that says where something is which is too large to take.

        `checksum` is `sha256:` and 64 hex digits (of another algorithm, it is only recorded);
        `size` in bytes. UsageError, StoreError.
        """
        from castfs.repository.publishing import Details
        from castfs.repository.referencing import add_reference

        return add_reference(
            self._depot,
            uri,
            checksum=checksum,
            size=size,
            details=Details(
                name=name,
                type=type,
                tags=(tags,) if isinstance(tags, str) else tuple(tags),
                metadata=metadata or {},
                message=message,
                aliases=(aliases,) if isinstance(aliases, str) else tuple(aliases),
                new_version=new_version,
            ),
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

    # Saying more of what is there ------------------------------------------------------------

    def set_alias(self, word: str, alias: str) -> AliasMove:
        """Let `NAME:alias` mean the version that `word` means: one rename, and its name remembers
        what it meant. NotFoundError, AmbiguousError, UsageError."""
        from castfs.repository.annotating import set_alias

        return set_alias(self._depot, word, alias)

    def remove_alias(self, name: str, alias: str) -> AliasMove:
        """NotFoundError for one that there is not."""
        from castfs.repository.annotating import remove_alias

        return remove_alias(self._depot, name, alias)

    def tag(self, word: str, *tags: str) -> Record:
        """Add tags to the one snapshot that `word` means. NotFoundError, AmbiguousError."""
        from castfs.repository.annotating import add_tags

        return add_tags(self._depot, word, tags)

    def untag(self, word: str, *tags: str) -> Record:
        """Take tags away. NotFoundError, also for one that it does not have; AmbiguousError."""
        from castfs.repository.annotating import remove_tags

        return remove_tags(self._depot, word, tags)

    def set_metadata(
        self, word: str, metadata: Mapping[str, Any], *, unset: Collection[str] = ()
    ) -> Record:
        """Set these values of the one snapshot that `word` means, and take the keys of `unset`
        away. NotFoundError, AmbiguousError, UsageError."""
        from castfs.repository.annotating import change_metadata

        return change_metadata(self._depot, word, metadata, unset=unset)

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
        since: float | None = None,
        metadata: Mapping[str, Any] | None = None,
    ) -> Iterator[DeletedSnapshot]:
        """What is in the trash, the last deleted first; otherwise as `iter_snapshots`."""
        from castfs.repository.removing import iter_deleted

        selection = Selection(
            source=source, name=name, type=type, tags=tags, since=since, metadata=metadata or {}
        )
        with reading(self._depot) as catalog:
            catalog.let_go()
            yield from (each for each in iter_deleted(catalog) if selection.matches(each.record))
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
            lambda catalog: select(catalog, Selection(source=source, name=name)),
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
        from castfs.gc.plan import GcOptions
        from castfs.repository.removing import forget_expired, read_expiring

        options = options or GcOptions()
        # What is deleted says nothing any more.
        known = read_expiring(self._depot, options.trash_age_seconds)
        try:
            result = collect(self._depot, options, progress=progress)
        except BaseException:  # it may be interrupted after that
            forget_expired(self._depot, known, collected=False)
            raise
        try:
            forget_expired(self._depot, known, collected=True)
        except BusyError as exc:  # what is collected is collected; the next one says it
            log.warning("%s", exc)
        return result

    def verify(
        self,
        *words: str,
        options: VerifyOptions | None = None,
        progress: Progress = SILENT,
    ) -> VerifyResult:
        """Check the store, or only the snapshots that are named; of what they refer to, what is a
        file here. Damage is a result, not an error.

        NotFoundError; SourceError or UsageError for a place to repair from; StoreError."""
        from castfs.repository.verifying import verify

        return verify(self._depot, words, options, progress=progress)

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
