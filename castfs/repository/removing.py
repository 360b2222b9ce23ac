"""Verbs that take snapshots away, and back: rm, undelete, forget."""

from __future__ import annotations

import contextlib
import itertools
from collections.abc import Iterable, Iterator, Sequence

from castfs.errors import (
    AmbiguousError,
    BusyError,
    CastfsError,
    DamageError,
    NotFoundError,
    UsageError,
)
from castfs.repository.naming import match_records, pick_record
from castfs.repository.results import DeletedSnapshot, ForgetResult
from castfs.retention import Policy, apply_policy
from castfs.store import Depot, Record
from castfs.store.records import format_time
from castfs.store.trash import (
    delete_records,
    iter_trash,
    move_to_trash,
    take_back,
)


def remove(depot: Depot, words: Sequence[str]) -> list[Record]:
    """Move snapshots to the trash: all of them, or none if a word does not mean exactly one."""
    records = _pick_live(depot, words)
    move_to_trash(depot, [record.id for record in records])
    return records


def find_for_good(depot: Depot, words: Sequence[str]) -> list[Record]:
    """What `remove_for_good` would delete: snapshots, also ones that are in the trash."""
    damaged: list[DamageError] = []
    records = _all_records(depot, damaged)
    return _unique(pick_record(depot, records, damaged, word) for word in words)


def find_everywhere(depot: Depot, words: Sequence[str]) -> list[Record]:
    """All that the words mean to somebody who only reads; also what is in the trash."""
    damaged: list[DamageError] = []
    records = _all_records(depot, damaged)
    found = [match_records(depot, records, damaged, word) for word in words]
    return _unique(itertools.chain.from_iterable(found))


def remove_for_good(depot: Depot, records: Sequence[Record]) -> None:
    """BusyError names those that a reader holds; all others are gone then, too."""
    held = delete_records(depot, [record.id for record in records])
    if held:
        others = "; the others are deleted" if len(records) > len(held) else ""
        raise BusyError(
            f"in use by somebody who may not write the store: {', '.join(held)}{others}",
            hint="end that mount or restore and run the command again",
        )


def undelete(depot: Depot, words: Sequence[str]) -> list[Record]:
    """Take snapshots out of the trash: all of them, or none."""
    damaged: list[DamageError] = []
    trashed = {t.record.id: t for t in iter_trash(depot, damaged)}
    records = _newest_first(t.record for t in trashed.values())
    chosen = _unique(pick_record(depot, records, damaged, word, in_trash=True) for word in words)
    take_back(depot, [trashed[record.id].name for record in chosen])
    return chosen


def iter_deleted(depot: Depot, damaged: list[DamageError]) -> Iterator[DeletedSnapshot]:
    for trashed in iter_trash(depot, damaged):
        deleted_at = format_time(trashed.name.deleted_ns / 1e9)
        yield DeletedSnapshot(deleted_at=deleted_at, record=trashed.record)


def forget(
    depot: Depot, policy: Policy, records: Sequence[Record], *, dry_run: bool
) -> ForgetResult:
    """Divide `records` by `policy`, and move what it does not keep to the trash."""
    if policy.is_empty:
        raise UsageError(
            "the policy keeps nothing", hint="say what to keep, for example --keep-last 10"
        )
    groups = apply_policy(records, policy)
    for group in groups:
        if not group.kept:
            of = group.name if group.name is not None else f"{group.source} on {group.host}"
            raise UsageError(
                f"the policy keeps not one snapshot of {of}",
                hint="add --keep-last 1, or remove them with `castfs rm`",
            )
    removed = [record for group in groups for record in group.removed]
    if not dry_run:
        move_to_trash(depot, [record.id for record in removed])
    return ForgetResult(dry_run=dry_run, groups=tuple(groups))


def _pick_live(depot: Depot, words: Sequence[str]) -> list[Record]:
    damaged: list[DamageError] = []
    records = list(depot.iter_records(damaged))
    return _unique(_pick_one_live(depot, records, damaged, word) for word in words)


def _pick_one_live(
    depot: Depot, records: Sequence[Record], damaged: Sequence[DamageError], word: str
) -> Record:
    try:
        return pick_record(depot, records, damaged, word)
    except AmbiguousError:
        raise
    except NotFoundError as exc:
        # If it is not there either, the first error says all.
        with contextlib.suppress(CastfsError):
            match_records(depot, _trashed_records(depot, []), [], word)
            exc.hint = "it is in the trash already; see `castfs list --deleted`"
        raise


def _all_records(depot: Depot, damaged: list[DamageError]) -> list[Record]:
    """Newest first, those in the trash last: so a name alone is a live snapshot if it can be."""
    live = list(depot.iter_records(damaged))
    return _unique([*live, *_trashed_records(depot, damaged)])


def _trashed_records(depot: Depot, damaged: list[DamageError]) -> list[Record]:
    return _newest_first(trashed.record for trashed in iter_trash(depot, damaged))


def _newest_first(records: Iterable[Record]) -> list[Record]:
    """As names are resolved; the trash has the last deleted first."""
    return sorted(records, key=lambda record: record.id, reverse=True)


def _unique(records: Iterable[Record]) -> list[Record]:
    return list({record.id: record for record in records}.values())
