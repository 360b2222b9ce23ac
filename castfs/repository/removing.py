"""Verbs that take snapshots away, and back: rm, undelete, forget."""

from __future__ import annotations

import itertools
from collections.abc import Iterable, Iterator, Sequence

from castfs.errors import AmbiguousError, BusyError, DamageError, NotFoundError, UsageError
from castfs.repository.naming import find_records, match_records, pick_record
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
    records = [*depot.iter_records(damaged), *(t.record for t in iter_trash(depot, damaged))]
    return _unique(pick_record(depot, records, damaged, word) for word in words)


def find_everywhere(depot: Depot, words: Sequence[str]) -> list[Record]:
    """All that the words mean to somebody who only reads; also what is in the trash."""
    damaged: list[DamageError] = []
    records = [*depot.iter_records(damaged), *(t.record for t in iter_trash(depot, damaged))]
    found = [match_records(depot, records, damaged, word) for word in words]
    return _unique(itertools.chain.from_iterable(found))


def remove_for_good(depot: Depot, records: Sequence[Record]) -> None:
    """BusyError names those that a reader holds; all others are gone then, too."""
    wanted = {record.id for record in records}
    paths = [depot.record_path(record.id) for record in records]
    trashed = [t.name for t in iter_trash(depot, []) if t.record.id in wanted]
    held = delete_records(depot, [*paths, *(depot.trash_dir / str(name) for name in trashed)])
    if held:
        ids = ", ".join(path.stem.rpartition("-")[2] for path in held)
        raise BusyError(
            f"{ids} is being read by somebody who may not write the store, and stays",
            hint="end that mount or restore and run the command again",
        )


def undelete(depot: Depot, words: Sequence[str]) -> list[Record]:
    """Take snapshots out of the trash: all of them, or none."""
    damaged: list[DamageError] = []
    trashed = {t.record.id: t for t in iter_trash(depot, damaged)}
    records = [t.record for t in trashed.values()]
    try:
        chosen = _unique(pick_record(depot, records, damaged, word) for word in words)
    except AmbiguousError:
        raise
    except NotFoundError as exc:
        raise NotFoundError(f"{exc.message}'s trash", hint="see `castfs list --deleted`") from exc
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
    removed = [record for group in groups for record in group.removed]
    if not dry_run:
        move_to_trash(depot, [record.id for record in removed])
    return ForgetResult(dry_run=dry_run, groups=tuple(groups))


def _pick_live(depot: Depot, words: Sequence[str]) -> list[Record]:
    damaged: list[DamageError] = []
    records = list(depot.iter_records(damaged))
    try:
        return _unique(pick_record(depot, records, damaged, word) for word in words)
    except AmbiguousError:
        raise
    except NotFoundError as exc:
        trashed = [each.record for each in iter_trash(depot, [])]
        if any(find_records(trashed, word) and not find_records(records, word) for word in words):
            raise NotFoundError(
                exc.message, hint="it is in the trash already; see `castfs list --deleted`"
            ) from exc
        raise


def _unique(records: Iterable[Record]) -> list[Record]:
    return list({record.id: record for record in records}.values())
