"""Verbs that put something into a store: ingest, import of a manifest."""

from __future__ import annotations

import contextlib
import dataclasses
import os
import socket
import stat
import time
from collections.abc import Iterator
from pathlib import Path

from castfs import atomic, settings
from castfs.catalog import reading
from castfs.digest import Digest
from castfs.errors import BlobError, DamageError, SourceError, TargetError
from castfs.ingest import PresenceCheck, ScanOptions, StatCache, scan
from castfs.manifest import Manifest, encode_manifest, read_manifest_file
from castfs.paths import display, escape
from castfs.progress import SILENT, Progress
from castfs.repository.lookup import load_beside, load_manifest
from castfs.repository.publishing import TAKEN_WHOLE, Details, check_same_type, publish
from castfs.repository.results import ImportResult, IngestResult
from castfs.repository.targets import refuse_inside
from castfs.store import BlobDir, Depot, WriteSession
from castfs.store.reading import damaged, open_blob
from castfs.store.records import Skipped


def ingest(
    depot: Depot,
    source: Path,
    *,
    options: ScanOptions | None,
    output: Path | None,
    details: Details,
    progress: Progress,
) -> IngestResult:
    started = time.monotonic()
    details = details.checked()
    options = options_for(_type_of(depot, details), options or ScanOptions())
    if output is not None:
        check_output(output, depot)
    label = escape(os.fsencode(os.path.abspath(source)))
    with (
        open_cache() as cache,
        WriteSession(
            depot, purpose=f"ingest {label}", check_existing=options.check_existing
        ) as session,
        contextlib.ExitStack() as stack,
    ):
        presence = stack.enter_context(_parent(depot, session, label, options))
        result = scan(
            source,
            session=session,
            cache=cache,
            options=options,
            readers=settings.threads(),
            presence=presence,
            keep_out=keep_out(depot, source),
            progress=progress,
        )
        manifest = result.manifest
        progress.phase("writing to disk", total=result.added_count)
        wanted = {file.sha256 for file in manifest.tree.files.values()}
        session.commit_blobs(progress.advance, wanted=wanted)
        published = publish(
            session,
            manifest,
            details,
            source=label,
            skipped=[Skipped(escape(entry.path), entry.reason) for entry in result.skipped],
        )
        record = published.record
    if output is not None:
        # Of what is unchanged, the one that is recorded: it lasts.
        recorded = Digest(record.manifest)
        write_copy(output, manifest if recorded == manifest.id else load_manifest(depot, recorded))
    return IngestResult(
        id=record.id,
        name=record.name,
        version=record.version,
        unchanged=published.unchanged,
        manifest_id=record.manifest,
        fingerprint=manifest.fingerprint,
        store=depot.path,
        source=label,
        file_count=len(manifest.tree.files),
        dir_count=len(manifest.tree.dirs),
        symlink_count=len(manifest.tree.symlinks),
        total_size_bytes=manifest.tree.total_size_bytes,
        new_manifest=published.new_manifest,
        added_count=result.added_count,
        added_bytes=result.added_bytes,
        deduplicated_count=result.deduplicated_count,
        deduplicated_bytes=result.deduplicated_bytes,
        unchanged_count=result.unchanged_count,
        ignored=result.ignored,
        skipped=result.skipped,
        seconds=time.monotonic() - started,
    )


def _type_of(depot: Depot, details: Details) -> str | None:
    """That of its name, where none is given. UsageError for another one: before hours of reading,
    not after them."""
    if details.name is None:
        return details.type
    with reading(depot) as catalog:
        known = catalog.name(details.name)
        check_same_type(catalog, known, details)
    return details.type or (known.type if known else None)


def options_for(kind: str | None, options: ScanOptions) -> ScanOptions:
    """Of a dataset or model nothing is left out by git's rules, unless they are asked for."""
    if kind in TAKEN_WHOLE and options.ignore.gitignore is None:
        ignore = dataclasses.replace(options.ignore, gitignore=False)
        return dataclasses.replace(options, ignore=ignore)
    return options


@contextlib.contextmanager
def open_cache() -> Iterator[StatCache]:
    cache = StatCache(settings.cache_dir() / "statcache.db")
    try:
        yield cache
    finally:
        cache.close()


@contextlib.contextmanager
def _parent(
    depot: Depot, session: WriteSession, source: str, options: ScanOptions
) -> Iterator[PresenceCheck | None]:
    """Most of a tree is usually in the last snapshot of it. Holding that one whole is cheaper than
    logging and touching each of its blobs. None where there is none."""
    host = socket.gethostname()
    pinned = None
    with reading(depot) as catalog:
        of_source = (r for r in catalog.iter_records(sources=[source]) if r.host == host)
        last = next(of_source, None)
    if last is not None:
        pinned = session.pin_parent(last.id, Digest(last.manifest))
    check = None
    if pinned is not None and not (options.rehash or options.check_existing):
        # A damaged manifest vouches for nothing, and this ingest may be what heals it.
        with contextlib.suppress(DamageError, OSError):
            check = PresenceCheck(depot.blobs, pinned, alone=settings.threads() == 1)
    with check or contextlib.nullcontext():
        yield check


def keep_out(depot: Depot, source: Path) -> tuple[int, int]:
    status = depot.path.stat()
    inside = Path(os.path.realpath(source))
    for directory in (inside, *inside.parents):
        with contextlib.suppress(OSError):
            if os.path.samestat(directory.stat(), status):
                raise SourceError(
                    f"{source} lies in the store {depot.path} itself",
                    hint="ingest the original, or use another store with --store",
                )
    return status.st_dev, status.st_ino


def check_output(output: Path, depot: Depot) -> None:
    """TargetError unless a manifest may be written there: known before an ingest, not after it."""
    shown = display(os.fsencode(output))
    if output.is_dir():
        raise TargetError(f"{shown} is a directory", hint="name a file")
    if not output.parent.is_dir():
        raise TargetError(
            f"there is no directory {display(os.fsencode(output.parent))} for {shown}",
            hint="create it first (mkdir -p)",
        )
    refuse_inside(output, depot)


def write_copy(output: Path, manifest: Manifest) -> None:
    """A manifest file outside the store, whole or not at all."""
    try:
        atomic.write_file(output, encode_manifest(manifest))
    except OSError as exc:
        raise TargetError(
            f"the snapshot is stored, but {display(os.fsencode(output))} cannot be written: "
            f"{exc.strerror}",
            hint=f"export it later: castfs show --manifest {manifest.id[:12]}",
        ) from exc


def import_manifest(depot: Depot, path: Path, *, progress: Progress = SILENT) -> ImportResult:
    """Record a manifest file. Blobs that the store lacks are copied from where the file lies."""
    manifest = read_manifest_file(path)
    origin = load_beside(path, manifest)
    wanted = {file.digest: (path, file.size_bytes) for path, file in manifest.tree.files.items()}
    added = added_bytes = 0
    with contextlib.ExitStack() as stack:
        if origin is not None:
            stack.enter_context(origin.pinned("import"))
        purpose = f"import {display(os.fsencode(path))}"
        session = stack.enter_context(WriteSession(depot, purpose=purpose))
        blobs = [(digest, size) for digest, (_, size) in wanted.items()]
        missing = [
            blob for blob, there in zip(blobs, session.claim(blobs), strict=True) if not there
        ]
        progress.phase("importing", total=len(missing))
        for digest, size in missing:
            # Another member's blob is there but cannot be touched: an own copy takes its place.
            own = depot.blobs.size(digest) == size
            if not own and (origin is None or origin.blobs.path == depot.blobs.path):
                raise BlobError(
                    f"{len(missing)} blobs of {display(os.fsencode(path))} are not in the store, "
                    f"the first is {digest}",
                    digest=digest,
                    hint="import it from beside its own blobs, or ingest the files again",
                )
            blobs_there = depot.blobs if own or origin is None else origin.blobs
            _copy_blob(session, blobs_there, wanted[digest][0], digest, size)
            added, added_bytes = added + 1, added_bytes + size
            progress.advance(1, size)
        session.commit_blobs()
        details = Details(message=f"imported from {display(os.fsencode(path))}")
        published = publish(session, manifest, details, source=manifest.source_path)
    return ImportResult(
        id=published.record.id,
        manifest_id=manifest.id,
        new_manifest=published.new_manifest,
        added_count=added,
        added_bytes=added_bytes,
    )


def _copy_blob(
    session: WriteSession, blobs: BlobDir, path: bytes, digest: Digest, size: int
) -> None:
    # Errors of the origin are worded here: those of the session are the store's.
    fd = open_blob(blobs, path, digest, size)
    try:
        if not stat.S_ISREG(os.fstat(fd).st_mode):
            raise damaged(path, digest)
        staged = session.stage_file(fd)
    finally:
        os.close(fd)
    if staged.digest != digest:
        raise BlobError(
            f"blob {digest} has other content than its name says",
            digest=digest,
            hint="nothing was imported; get the blob from another copy",
        )
