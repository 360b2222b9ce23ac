"""A store as an importer's destination."""

from __future__ import annotations

import contextlib
import time
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import msgspec

from castfs.catalog import Change, RunFile, Use, changing, reading
from castfs.catalog.files import RunStatus, runs_dir, write_run
from castfs.digest import Digest
from castfs.manifest import File
from castfs.older.description import OlderRun
from castfs.older.destination import IMPORTED, Known, Wanted
from castfs.older.documents import clean
from castfs.older.naming import make_name
from castfs.older.run_files import RunFiles
from castfs.older.run_keeping import keep_run_files
from castfs.repository.drafting import Draft
from castfs.repository.publishing import Details, move_alias
from castfs.repository.removing import move_records
from castfs.store import Depot, Record
from castfs.store.failures import store_errors
from castfs.store.records import format_time

_STATUSES: dict[str, RunStatus] = {"finished": "finished", "running": "running"}


class DepotDestination:
    """See `castfs.older.destination.Destination`."""

    def __init__(self, depot: Depot) -> None:
        self._depot = depot

    def iter_known(self) -> Iterator[Known]:
        with reading(self._depot) as catalog:
            for record in catalog.iter_records("all"):
                if (known := _as_known(record)) is not None:
                    yield known

    def type_of(self, name: str) -> str | None:
        with reading(self._depot) as catalog:
            found = catalog.name(name)
        return found.type if found is not None else None

    def has_version(self, name: str, version: int) -> bool:
        with reading(self._depot) as catalog:
            if catalog.find_version(name, version, "all"):
                return True
            found = catalog.name(name)
        # A number that was used once here and deleted for good is not given again.
        return found is not None and version in found.deleted_versions()

    @contextlib.contextmanager
    def write(self, purpose: str) -> Iterator[DepotWriting]:
        with Draft(self._depot, purpose) as draft:
            yield DepotWriting(self._depot, draft)

    def complete(self, known: Known, wanted: Wanted) -> None:
        with reading(self._depot) as catalog:
            found = catalog.name(known.name)
        told = found.history if found is not None else ()
        # What was said once may have been taken back since.
        aliases = {event.alias for event in told if event.kind in ("alias", "unalias")}
        missing = [alias for alias in wanted.aliases if alias not in aliases]
        moved = any(event.version == known.version and not event.alias for event in told)
        if not missing and (moved or not wanted.deleted):
            return
        with changing(self._depot) as change:
            for alias in missing:
                move_alias(change, known.name, alias, known.version)
            if wanted.deleted and not moved:
                _delete(change, known.id)

    def write_run(self, run: OlderRun, uses: Sequence[Known]) -> bool:
        with changing(self._depot) as change:
            before = change.run(run.id)
            if before is not None and (before.metadata.get(IMPORTED) is None):
                return False  # a run of castfs itself, which knows better
            created_at = format_time(time.time() if run.created_at is None else run.created_at)
            if run.created_at is None and before is not None:
                created_at = before.created_at
            after = _make_run(run, uses, created_at)
            if before is not None:
                # What it was given once it was given, whatever the archive has lost since.
                ids = {use.id for use in before.uses}
                new = (use for use in after.uses if use.id not in ids)
                after = msgspec.structs.replace(
                    after, uses=(*before.uses, *new), made_again=before.made_again
                )
            if before == after:
                return False
            change.touch_run(run.id)
            write_run(self._depot, after)
            change.update()
        return True

    def write_run_files(self, run: OlderRun, files: RunFiles) -> bool:
        with reading(self._depot) as catalog:
            known = catalog.run(run.id)
        if known is None or known.metadata.get(IMPORTED) is None:
            return False  # a run of castfs itself, or one that was removed this moment
        with store_errors(self._depot.path):
            return keep_run_files(self._depot, runs_dir(self._depot) / run.id, files)


class DepotWriting:
    """See `castfs.older.destination.Writing`."""

    def __init__(self, depot: Depot, draft: Draft) -> None:
        self._depot, self._draft = depot, draft

    def add_file(
        self,
        path: bytes,
        source: Path,
        *,
        expected: Digest | None,
        mode: int | None,
        mtime_ns: int | None,
    ) -> File:
        return self._draft.add_file(path, source, expected=expected, mode=mode, mtime_ns=mtime_ns)

    def add_bytes(self, path: bytes, data: bytes, *, mode: int, mtime_ns: int) -> File:
        return self._draft.add_bytes(path, data, mode=mode, mtime_ns=mtime_ns)

    @property
    def spool_dir(self) -> Path:
        return self._draft.staging

    def add_symlink(self, path: bytes, target: bytes, *, mtime_ns: int) -> None:
        self._draft.add_symlink(path, target, mtime_ns=mtime_ns)

    def add_directory(self, path: bytes, *, mode: int, mtime_ns: int) -> None:
        self._draft.add_directory(path, mode=mode, mtime_ns=mtime_ns)

    def add_reference(
        self,
        uri: str,
        *,
        checksum: str | None,
        size: int | None,
        name: str | None,
        metadata: Mapping[str, Any],
    ) -> None:
        self._draft.add_reference(uri, checksum=checksum, size=size, name=name, metadata=metadata)

    def commit(self, wanted: Wanted) -> Known:
        details = Details(
            name=wanted.name,
            type=wanted.type,
            version=wanted.version,
            tags=wanted.tags,
            metadata=wanted.metadata,
            message=wanted.message,
            aliases=wanted.aliases,
            run=wanted.run,
            created_at=wanted.created_at,
            # One for each of theirs, also where two are equal.
            new_version=True,
        )
        record = self._draft.commit(details, source=wanted.source).record
        if wanted.deleted:
            with changing(self._depot) as change:
                _delete(change, record.id)
        assert record.version is not None
        return Known(record.id, wanted.name, record.version, wanted.metadata[IMPORTED])


def _as_known(record: Record) -> Known | None:
    origin = record.metadata.get(IMPORTED)
    if record.name is None or record.version is None or not isinstance(origin, dict):
        return None
    return Known(record.id, record.name, record.version, origin)


def _delete(change: Change, record_id: str) -> None:
    record = change.get(record_id)
    if record is not None and change.deleted_ns(record_id) is None:
        move_records(change, [record])


def _make_run(run: OlderRun, uses: Sequence[Known], created_at: str) -> RunFile:
    origin: dict[str, Any] = {"status": run.status, "alias": run.alias, "deleted": run.deleted}
    metadata = {**run.summary, IMPORTED: {key: value for key, value in origin.items() if value}}
    # Whoever lost the document of a run did not make it fail.
    status = _STATUSES.get(run.status or "finished", "failed")
    is_over = status != "running"
    return RunFile(
        id=run.id,
        project=make_name(run.project, "runs"),
        name=make_name(run.name, "run") if run.name else None,
        created_at=created_at,
        finished_at=format_time(run.ended_at) if run.ended_at is not None and is_over else None,
        status=status,
        host=run.host or "",
        metadata=clean(metadata),
        uses=tuple(
            Use(id=used.id, at=created_at, name=used.name, version=used.version) for used in uses
        ),
    )
