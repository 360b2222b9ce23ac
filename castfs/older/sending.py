"""Snapshots of a store, said so that they can be exported for an older system."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator, Sequence
from datetime import datetime
from pathlib import Path

from castfs.catalog import Catalog, RunFile, reading
from castfs.catalog.files import runs_dir
from castfs.digest import Digest
from castfs.errors import CastfsError
from castfs.manifest import Tree
from castfs.older.destination import IMPORTED
from castfs.older.exporting import (
    ExportLayout,
    ExportReport,
    ExportRun,
    ExportVersion,
    TreeSource,
    export_runicorn,
)
from castfs.progress import SILENT, Progress
from castfs.repository.lookup import load_manifest
from castfs.repository.targets import refuse_inside
from castfs.runs.summaries import SUMMARY, read_summary
from castfs.store import Depot, Record, pin_manifest


def export_records(
    depot: Depot,
    records: Sequence[Record],
    target: Path,
    *,
    layout: ExportLayout,
    progress: Progress = SILENT,
) -> ExportReport:
    """Write snapshots as what Runicorn restores, with the runs that made and used them.

    UsageError, TargetError, DamageError; NotFoundError if one is removed meanwhile.
    """
    refuse_inside(target, depot, hint="name another directory")
    with reading(depot) as catalog:
        versions = [_describe(catalog, record) for record in records]
        runs = _find_runs(catalog, records)
    return export_runicorn(
        versions, depot.blobs, target, layout=layout, runs=runs, progress=progress
    )


def _describe(catalog: Catalog, record: Record) -> ExportVersion:
    number = record.version if record.version is not None else 1
    if record.name is not None:
        catalog.name(
            record.name
        )  # DamageError: its aliases would be missing, and nobody would know
    aliases = catalog.aliases_of(record.name, number) if record.name is not None else []
    return ExportVersion(
        tree=_source(catalog.depot, record),
        name=record.name,
        type=record.type,
        version=number,
        tags=record.tags,
        metadata=record.metadata,
        description=record.message,
        aliases=aliases,
        references=record.references,
        created_at=_seconds(record.created_at),
        run=record.run,
        source=record.source,
        deleted=catalog.deleted_ns(record.id) is not None,
    )


def _source(depot: Depot, record: Record) -> TreeSource:
    @contextlib.contextmanager
    def open_tree() -> Iterator[Tree]:
        manifest_id = Digest(record.manifest)
        with pin_manifest(depot, manifest_id, purpose="export"):
            yield load_manifest(depot, manifest_id).tree

    return open_tree


def _find_runs(catalog: Catalog, records: Sequence[Record]) -> list[ExportRun]:
    """The runs that made or used one of `records`; of what they used, what is exported."""
    by_id = {record.id: record for record in records}
    run_ids: set[str] = set()
    for record in records:
        run_ids.update(catalog.makers_of(record), catalog.users_of(record.id))
    runs = (catalog.run(run_id) for run_id in sorted(run_ids))
    return [_describe_run(catalog.depot, run, by_id) for run in runs if run is not None]


def _describe_run(depot: Depot, run: RunFile, by_id: dict[str, Record]) -> ExportRun:
    directory = runs_dir(depot) / run.id
    summary = {key: value for key, value in run.metadata.items() if key != IMPORTED}
    with contextlib.suppress(CastfsError):
        summary |= read_summary(directory / SUMMARY)
    used = [by_id[use.id] for use in run.uses if use.id in by_id]
    return ExportRun(
        id=run.id,
        project=run.project or "default",
        name=run.name or "default",
        created_at=_seconds(run.created_at),
        ended_at=_seconds(run.finished_at) if run.finished_at is not None else None,
        status=run.status,
        host=run.host,
        summary=summary,
        directory=directory,
        uses=[
            (record.name, record.version)
            for record in used
            if record.name is not None and record.version is not None
        ],
    )


def _seconds(text: str) -> float:
    """Of RFC 3339; the epoch for what somebody else wrote there."""
    try:
        return datetime.fromisoformat(text).timestamp()
    except ValueError:
        return 0.0
