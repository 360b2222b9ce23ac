"""What is known of a run, put together from the catalog and its directory."""

from __future__ import annotations

import contextlib
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from castfs.catalog import RunFile, reading
from castfs.catalog.files import runs_dir
from castfs.catalog.words import show_word
from castfs.errors import CastfsError, NotFoundError
from castfs.repository.lineage import iter_made, use_word
from castfs.repository.naming import version_word
from castfs.runs.summaries import SUMMARY, read_summary
from castfs.store import Depot


@dataclass(frozen=True, slots=True, kw_only=True)
class MadeRecord:
    """A snapshot that a run made: its id, `NAME:v3` (or the id), and its type."""

    id: str
    word: str
    type: str | None
    deleted: bool


@dataclass(frozen=True, slots=True, kw_only=True)
class RunDescription:
    """`used` are words for snapshots; `path` is `project/name`, empty where it has neither."""

    run: RunFile
    path: str
    run_dir: Path
    summary: Mapping[str, Any]
    used: tuple[str, ...]
    made: tuple[MadeRecord, ...]


def describe_run(depot: Depot, run_id: str) -> RunDescription:
    """NotFoundError, DamageError."""
    with reading(depot) as catalog:
        run = catalog.run(run_id)
        if run is None:
            raise NotFoundError(f"no run {show_word(run_id)}", hint="see `castfs runs`")
        used = []
        for use in run.uses:
            record = catalog.get(use.id)
            used.append(version_word(record) if record else f"{use_word(use)} (missing)")
        made = [
            MadeRecord(
                id=record.id,
                word=version_word(record),
                type=record.type,
                deleted=catalog.deleted_ns(record.id) is not None,
            )
            for record in iter_made(catalog, run)
        ]
    place = runs_dir(depot) / run_id
    return RunDescription(
        run=run,
        path="/".join(filter(None, (run.project, run.name))),
        run_dir=place,
        summary=_read_summary(place / SUMMARY),
        used=tuple(used),
        made=tuple(made),
    )


def _read_summary(path: Path) -> dict[str, Any]:
    """What cannot be read says nothing: the file belongs to the run."""
    with contextlib.suppress(CastfsError):
        return read_summary(path)
    return {}
