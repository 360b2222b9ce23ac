"""Taking a run away, with what only it needed."""

from __future__ import annotations

import contextlib
import shutil
from collections.abc import Iterator
from dataclasses import dataclass

from castfs import atomic
from castfs.catalog import Catalog, Change, RunFile, changing, reading
from castfs.catalog.files import run_path, runs_dir
from castfs.catalog.words import show_word
from castfs.errors import NotFoundError
from castfs.repository.naming import version_word
from castfs.repository.removing import move_records, users
from castfs.runs.claiming import release_dir
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
    that names it. Its log and directory are deleted. NotFoundError, StoreError; DamageError if
    something cannot be read, and then nothing is removed."""
    with (reading if dry_run else changing)(depot) as catalog:
        run = catalog.run(run_id)
        if run is None:
            raise NotFoundError(f"no run {show_word(run_id)}", hint="see `castfs runs`")
        removed, kept = _divide(catalog, run)
        if isinstance(catalog, Change):
            _remove(catalog, run, removed)
    return RunRemoval(dry_run=dry_run, run=run, removed=tuple(removed), kept=tuple(kept))


def _divide(catalog: Catalog, run: RunFile) -> tuple[list[Record], list[KeptRecord]]:
    if damages := catalog.damages("live"):
        raise damages[0]  # it may be the run's: without that, nobody could remove it with the run
    made = list(_iter_of_run(catalog, run))
    own = {record.id for record in made}
    removed, kept = [], []
    for record in made:
        reasons = [who for who in users(catalog, record) if who != f"run {run.id}"]
        reasons += [
            f"run {maker}, which made it, too"
            for maker in catalog.makers_of(record)
            if maker != run.id and f"run {maker}" not in reasons and catalog.run(maker)
        ]
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


def _iter_of_run(catalog: Catalog, run: RunFile) -> Iterator[Record]:
    """What it made, and what it was given that runs had made which are gone: they left it for it.
    What somebody ingested is no run's."""
    found = {record.id: record for record in catalog.iter_records(run=run.id)}
    again = {each.id for each in run.made_again}
    for record_id in (*again, *(use.id for use in run.uses)):
        record = catalog.get(record_id)
        if record is None or catalog.deleted_ns(record_id) is not None or record.run is None:
            continue
        if record_id in again or not any(map(catalog.run, catalog.makers_of(record))):
            found.setdefault(record_id, record)
    yield from sorted(found.values(), key=lambda record: record.id, reverse=True)


def _remove(change: Change, run: RunFile, removed: list[Record]) -> None:
    move_records(change, removed)
    place = runs_dir(change.depot) / run.id
    if place.is_symlink():
        release_dir(change.depot, place, run.id)
        place.unlink()  # the directory is the user's own
    else:
        shutil.rmtree(place, ignore_errors=True)
    change.touch_run(run.id)
    with contextlib.suppress(FileNotFoundError):
        run_path(change.depot, run.id).unlink()
    atomic.fsync_dir(runs_dir(change.depot))
