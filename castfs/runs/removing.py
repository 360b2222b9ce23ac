"""Taking a run away, with what only it needed."""

from __future__ import annotations

import contextlib
import shutil
from dataclasses import dataclass

from castfs.catalog import Catalog, Change, RunFile, changing, reading
from castfs.catalog.files import run_path, runs_dir
from castfs.catalog.words import show_word
from castfs.errors import NotFoundError
from castfs.repository.naming import version_word
from castfs.repository.removing import move_records, users
from castfs.store import Depot, Record


@dataclass(frozen=True, slots=True, kw_only=True)
class KeptRecord:
    """A snapshot that a run made, and who else needs it."""

    record: Record
    reasons: tuple[str, ...]


@dataclass(frozen=True, slots=True, kw_only=True)
class RunRemoval:
    """What goes with a run (to the trash) and what stays; with `dry_run` nothing was touched."""

    dry_run: bool
    run: RunFile
    removed: tuple[Record, ...]
    kept: tuple[KeptRecord, ...]


def remove_run(depot: Depot, run_id: str, *, dry_run: bool = False) -> RunRemoval:
    """Move to the trash what a run made and nobody else needs: no alias, no other run, no version
    that names it. Its log and directory are deleted. NotFoundError, StoreError."""
    with (reading if dry_run else changing)(depot) as catalog:
        run = catalog.run(run_id)
        if run is None:
            raise NotFoundError(f"no run {show_word(run_id)}", hint="see `castfs runs`")
        removed, kept = _divide(catalog, run)
        if isinstance(catalog, Change):
            _remove(catalog, run, removed)
    return RunRemoval(dry_run=dry_run, run=run, removed=tuple(removed), kept=tuple(kept))


def _divide(catalog: Catalog, run: RunFile) -> tuple[list[Record], list[KeptRecord]]:
    made = list(catalog.iter_records(run=run.id))
    own = {record.id for record in made}
    removed, kept = [], []
    for record in made:
        reasons = [who for who in users(catalog, record) if who != f"run {run.id}"]
        if record.name is not None and record.version is not None:
            for record_id, _ in catalog.links_to(record.name, record.version):
                naming = catalog.get(record_id)
                if record_id not in own and naming is not None:
                    reasons.append(version_word(naming))
        if reasons:
            kept.append(KeptRecord(record=record, reasons=tuple(reasons)))
        else:
            removed.append(record)
    return removed, kept


def _remove(change: Change, run: RunFile, removed: list[Record]) -> None:
    move_records(change, removed)
    place = runs_dir(change.depot) / run.id
    if place.is_symlink():
        place.unlink()  # the directory is the user's own
    else:
        shutil.rmtree(place, ignore_errors=True)
    change.touch_run(run.id)
    with contextlib.suppress(FileNotFoundError):
        run_path(change.depot, run.id).unlink()
