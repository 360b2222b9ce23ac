"""Verbs that put something into a store: ingest, import of a manifest."""

from __future__ import annotations

import contextlib
import functools
import itertools
import os
import socket
import stat
import time
from collections.abc import Iterator, Mapping
from pathlib import Path

from castfs import atomic, settings
from castfs.digest import Digest
from castfs.errors import BlobError, DamageError, SourceError, TargetError
from castfs.ingest import PresenceCheck, ScanOptions, StatCache, scan
from castfs.manifest import Manifest, encode_manifest, is_stored_whole, read_manifest_file
from castfs.paths import display, escape
from castfs.progress import SILENT, Progress
from castfs.repository.lookup import load_beside
from castfs.repository.naming import check_name, check_text
from castfs.repository.results import ImportResult, IngestResult
from castfs.store import BlobDir, Depot, Record, WriteSession
from castfs.store.reading import damaged, open_blob
from castfs.store.records import Skipped, format_time, new_record_id

#: Newest records among which the last snapshot of the same source is looked for.
_PARENT_SEARCH = 256


def ingest(
    depot: Depot,
    source: Path,
    *,
    options: ScanOptions | None,
    output: Path | None,
    name: str | None,
    tags: tuple[str, ...],
    metadata: Mapping[str, str],
    message: str | None,
    progress: Progress,
) -> IngestResult:
    started = time.monotonic()
    options = options or ScanOptions()
    if name is not None:
        check_name(name)
    check_text(*tags, *metadata, *metadata.values())
    if message is not None:
        check_text(message)
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
        record = Record(
            id=new_record_id(),
            manifest=manifest.id,
            created_at=format_time(time.time()),
            host=socket.gethostname(),
            source=label,
            file_count=len(manifest.tree.files),
            total_size_bytes=manifest.tree.total_size_bytes,
            name=name,
            tags=tuple(dict.fromkeys(tags)),
            metadata=dict(metadata),
            message=message,
            skipped=tuple(Skipped(escape(entry.path), entry.reason) for entry in result.skipped),
        )
        progress.phase("writing to disk", total=result.added_count)
        wanted = {file.sha256 for file in manifest.tree.files.values()}
        session.commit_blobs(progress.advance, wanted=wanted)
        new_manifest = _publish(session, manifest, record)
    if output is not None:
        write_copy(output, manifest)
    return IngestResult(
        id=record.id,
        manifest_id=manifest.id,
        fingerprint=manifest.fingerprint,
        store=depot.path,
        source=label,
        file_count=record.file_count,
        dir_count=len(manifest.tree.dirs),
        symlink_count=len(manifest.tree.symlinks),
        total_size_bytes=record.total_size_bytes,
        new_manifest=new_manifest,
        added_count=result.added_count,
        added_bytes=result.added_bytes,
        deduplicated_count=result.deduplicated_count,
        deduplicated_bytes=result.deduplicated_bytes,
        unchanged_count=result.unchanged_count,
        ignored=result.ignored,
        skipped=result.skipped,
        seconds=time.monotonic() - started,
    )


def _publish(session: WriteSession, manifest: Manifest, record: Record) -> bool:
    is_sound = functools.partial(is_stored_whole, manifest)
    return session.publish(manifest.id, encode_manifest(manifest), record, is_sound=is_sound)


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
    for record in itertools.islice(depot.iter_records(damaged=[]), _PARENT_SEARCH):
        if record.source == source and record.host == host:
            pinned = session.pin_parent(record.id, Digest(record.manifest))
            break
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
    shown, real = display(os.fsencode(output)), Path(os.path.realpath(output))
    if output.is_dir():
        raise TargetError(f"{shown} is a directory", hint="name a file")
    if not output.parent.is_dir():
        raise TargetError(
            f"there is no directory {display(os.fsencode(output.parent))} for {shown}",
            hint="create it first (mkdir -p)",
        )
    if real.is_relative_to(os.path.realpath(depot.path)):
        raise TargetError(f"{shown} lies in the store {depot.path}", hint="name another file")


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
        record = Record(
            id=new_record_id(),
            manifest=manifest.id,
            created_at=format_time(time.time()),
            host=socket.gethostname(),
            source=manifest.source_path,
            file_count=len(manifest.tree.files),
            total_size_bytes=manifest.tree.total_size_bytes,
            message=f"imported from {display(os.fsencode(path))}",
        )
        new = _publish(session, manifest, record)
    return ImportResult(
        id=record.id,
        manifest_id=manifest.id,
        new_manifest=new,
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
