"""Taking runs away, with what only they needed."""

from __future__ import annotations

import contextlib
import shutil
from collections.abc import Collection, Iterable, Iterator, Sequence
from dataclasses import dataclass

from castfs import atomic
from castfs.catalog import Catalog, Change, RunFile, changing, reading
from castfs.catalog.files import run_path, runs_dir
from castfs.catalog.words import show_word
from castfs.errors import BusyError
from castfs.repository.naming import version_word
from castfs.repository.removing import move_records, users
from castfs.runs.claiming import is_claimed, release_dir
from castfs.runs.finding import match_run
from castfs.runs.liveness import ALIVE, ShownRun, as_shown
from castfs.store import Depot, Record


@dataclass(frozen=True, slots=True, kw_only=True)
class KeptRecord:
    """A snapshot that a run made, and who else needs it."""

    record: Record
    reasons: tuple[str, ...]


@dataclass(frozen=True, slots=True, kw_only=True)
class RunRemoval:
    """What goes with runs (to the trash) and what stays; with `dry_run` nothing was touched."""

    dry_run: bool
    runs: tuple[ShownRun, ...]
    removed: tuple[Record, ...]
    kept: tuple[KeptRecord, ...]


def remove_run(
    depot: Depot, run_id: str, *, dry_run: bool = False, force: bool = False
) -> RunRemoval:
    """`remove_runs` of one."""
    return remove_runs(depot, [run_id], dry_run=dry_run, force=force)


def remove_runs(
    depot: Depot, words: Sequence[str], *, dry_run: bool = False, force: bool = False
) -> RunRemoval:
    """Move to the trash what runs made and nobody else needs: no alias, no other run, no version
    that stays and names it. Their logs and directories are deleted. All of them, or none.

    BusyError for one that is running, unless it is forced (a dry run says `running` of it);
    NotFoundError, AmbiguousError, StoreError; DamageError if something cannot be read.
    """
    with (reading if dry_run else changing)(depot) as catalog:
        matched = {run.id: run for run in (match_run(catalog, word) for word in words)}
        runs = [as_shown(depot, run) for run in matched.values()]
        if not force and not dry_run:
            _refuse_running(runs)
        removed, kept = _divide(catalog, matched)
        if isinstance(catalog, Change):
            move_records(catalog, removed)
            for run in runs:
                _remove(catalog, run)
    return RunRemoval(dry_run=dry_run, runs=tuple(runs), removed=tuple(removed), kept=tuple(kept))


def _refuse_running(runs: Iterable[ShownRun]) -> None:
    for run in runs:
        if run.status == "running":
            raise BusyError(
                f"run {show_word(run.id)} is running"
                + (f" on {show_word(run.host)}" if run.host else ""),
                hint="end it first, or give --force (in Python, force=True)",
            )


def _divide(catalog: Catalog, runs: dict[str, RunFile]) -> tuple[list[Record], list[KeptRecord]]:
    """What goes, and what stays with all that it names."""
    if damages := catalog.damages("live"):
        raise damages[0]  # it may be a run's: without that, nobody could remove it with the run
    made = {
        record.id: record for run in runs.values() for record in _iter_of_run(catalog, run, runs)
    }
    reasons = {record.id: _reasons(catalog, record, runs) for record in made.values()}
    going = {record_id for record_id, found in reasons.items() if not found}
    while True:
        named = {each: list(_iter_naming(catalog, made[each], going)) for each in going}
        staying = {each for each, found in named.items() if found}
        if not staying:
            break
        # Looked at again: what they name stays with them.
        going -= staying
    for record in made.values():
        if record.id not in going:
            reasons[record.id] += _iter_naming(catalog, record, going)
    ordered = sorted(made.values(), key=lambda record: record.id, reverse=True)
    return (
        [record for record in ordered if record.id in going],
        [
            KeptRecord(record=record, reasons=tuple(reasons[record.id]))
            for record in ordered
            if record.id not in going
        ],
    )


def _reasons(catalog: Catalog, record: Record, runs: Collection[str]) -> list[str]:
    """Aliases and other runs."""
    own = {f"run {run_id}" for run_id in runs}
    reasons = [who for who in users(catalog, record) if who not in own]
    return reasons + [
        f"run {maker}, which made it, too"
        for maker in catalog.makers_of(record)
        if maker not in runs and f"run {maker}" not in reasons and catalog.run(maker)
    ]


def _iter_naming(catalog: Catalog, record: Record, going: Collection[str]) -> Iterator[str]:
    """Versions that stay, and whose metadata name a snapshot."""
    if record.name is None or record.version is None:
        return
    for record_id, _ in catalog.links_to(record.name, record.version):
        naming = catalog.get(record_id)
        is_there = naming is not None and catalog.deleted_ns(record_id) is None
        if is_there and naming is not None and record_id not in {*going, record.id}:
            yield version_word(naming)


def _iter_of_run(catalog: Catalog, run: RunFile, runs: Collection[str]) -> Iterator[Record]:
    """What it made, and what it was given that runs had made which are gone: they left it for it.
    What somebody ingested is no run's."""
    yield from catalog.iter_records(run=run.id)
    again = {each.id for each in run.made_again}
    for record_id in (*again, *(use.id for use in run.uses)):
        record = catalog.get(record_id)
        if record is None or catalog.deleted_ns(record_id) is not None or record.run is None:
            continue
        makers = [maker for maker in catalog.makers_of(record) if maker not in runs]
        if record_id in again or not any(map(catalog.run, makers)):
            yield record


def _remove(change: Change, run: RunFile) -> None:
    place = runs_dir(change.depot) / run.id
    if place.is_symlink():
        if is_claimed(change.depot, place, run.id):
            with contextlib.suppress(OSError):
                (place / ALIVE).unlink()
        release_dir(change.depot, place, run.id)
        place.unlink()  # the directory is the user's own
    else:
        shutil.rmtree(place, ignore_errors=True)
    change.touch_run(run.id)
    with contextlib.suppress(FileNotFoundError):
        run_path(change.depot, run.id).unlink()
    atomic.fsync_dir(runs_dir(change.depot))
