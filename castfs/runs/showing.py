"""What is known of a run, put together from the catalog and its directory."""

from __future__ import annotations

import contextlib
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from castfs.catalog import Catalog, MadeAgain, reading
from castfs.catalog.files import runs_dir
from castfs.errors import CastfsError
from castfs.repository.lineage import iter_made, use_word
from castfs.repository.naming import version_word
from castfs.runs.finding import match_run, run_path_of
from castfs.runs.liveness import ShownRun, as_shown
from castfs.runs.summaries import SUMMARY, read_summary
from castfs.runs.values import to_stored
from castfs.store import Depot, Record


@dataclass(frozen=True, slots=True, kw_only=True)
class MadeRecord:
    """A snapshot that a run made: its id, `NAME:v3` (or the id), and its type. One that `was_there`
    others had made before; what this run said of it is in `metadata` and `message`."""

    id: str
    word: str
    type: str | None
    deleted: bool
    was_there: bool = False
    metadata: Mapping[str, Any] | None = None
    message: str | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class RunDescription:
    """`run` has the status that it has by now, `lost` perhaps. `used` are words for snapshots;
    `path` is `project/name`, empty where it has neither. `summary` is as it is stored."""

    run: ShownRun
    path: str
    run_dir: Path
    summary: Mapping[str, Any]
    used: tuple[str, ...]
    made: tuple[MadeRecord, ...]


def describe_run(depot: Depot, word: str) -> RunDescription:
    """NotFoundError, AmbiguousError, DamageError."""
    with reading(depot) as catalog:
        run = match_run(catalog, word)
        used = []
        for use in run.uses:
            record = catalog.get(use.id)
            used.append(version_word(record) if record else f"{use_word(use)} (missing)")
        again = {each.id: each for each in run.made_again}
        made = [
            _describe_made(catalog, record, again.get(record.id))
            for record in iter_made(catalog, run)
        ]
    place = runs_dir(depot) / run.id
    return RunDescription(
        run=as_shown(depot, run),
        path=run_path_of(run),
        run_dir=place,
        summary=_read_summary(place / SUMMARY),
        used=tuple(used),
        made=tuple(made),
    )


def _describe_made(catalog: Catalog, record: Record, again: MadeAgain | None) -> MadeRecord:
    return MadeRecord(
        id=record.id,
        word=version_word(record),
        type=record.type,
        deleted=catalog.deleted_ns(record.id) is not None,
        was_there=again is not None,
        metadata=again.metadata if again else None,
        message=again.message if again else None,
    )


def _read_summary(path: Path) -> dict[str, Any]:
    """What cannot be read says nothing: the file belongs to the run."""
    with contextlib.suppress(CastfsError):
        return to_stored(read_summary(path), "the summary")
    return {}
