"""Verbs that take snapshots away, and back: rm, undelete, forget."""

from __future__ import annotations

import contextlib
import dataclasses
import time
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence

import msgspec

from castfs.catalog import Catalog, Change, Event, NameFile, Place, changing, reading
from castfs.catalog.files import EventKind, new_event, remove_note
from castfs.catalog.words import check_text, normalize_name, show_word
from castfs.errors import BusyError, DamageError, NotFoundError, StoreError, UsageError
from castfs.repository.naming import made_by, match_records, pick_record, version_word
from castfs.repository.publishing import save_name
from castfs.repository.results import DeletedSnapshot, ForgetResult
from castfs.retention import Group, Kept, Policy, apply_policy
from castfs.store import Depot, Record
from castfs.store.records import format_time
from castfs.store.trash import (
    TrashName,
    delete_records,
    list_trash,
    move_to_trash,
    read_trashed,
    take_back,
)

#: The collector's clock is that of the store's files.
_CLOCKS_APART_SECONDS = 3600


def remove(
    depot: Depot, words: Sequence[str], *, all_versions: bool = False, force: bool = False
) -> list[Record]:
    """Move snapshots to the trash: all of them, or none if a word does not mean exactly one.

    With `all_versions` the words are names, and all that each has is meant. BusyError for what an
    alias or a run needs, unless it is forced.
    """
    with changing(depot) as change:
        records = _chosen(change, words, "live", all_versions=all_versions)
        if not force:
            refuse_used(change, records)
        move_records(change, records)
    return records


def move_records(change: Change, records: Sequence[Record]) -> None:
    """Into the trash, and say so in the histories of their names."""
    change.touch_moved(*(record.id for record in records))
    move_to_trash(change.depot, [record.id for record in records])
    _tell_names(change, records, "remove")


def find_for_good(
    depot: Depot, words: Sequence[str], *, all_versions: bool = False
) -> list[Record]:
    """What `remove_for_good` would delete: snapshots, also ones that are in the trash."""
    with reading(depot) as catalog:
        return _chosen(catalog, words, "all", all_versions=all_versions)


def find_everywhere(depot: Depot, words: Sequence[str]) -> list[Record]:
    """All that the words mean to somebody who only reads; also what is in the trash."""
    with reading(depot) as catalog:
        return _unique(record for word in words for record in match_records(catalog, word, "all"))


def remove_for_good(depot: Depot, records: Sequence[Record], *, force: bool = False) -> None:
    """BusyError names those that a reader holds; all others are gone then, too. BusyError, with
    nothing deleted, for what an alias or a run needs, unless it is forced."""
    with changing(depot) as change:
        if not force:
            refuse_used(change, records)
        held = delete_for_good(change, records)
    if held:
        others = "; the others are deleted" if len(records) > len(held) else ""
        raise BusyError(
            f"in use by somebody who may not write the store: {', '.join(held)}{others}",
            hint="end that mount or restore and run the command again",
        )


def delete_for_good(change: Change, records: Sequence[Record]) -> list[str]:
    """Returns the ids of those that readers hold."""
    _remember_numbers(change, records)
    # Before: once a version is gone, nobody can say again that it is to go.
    before = _take_aliases(change, records)
    change.touch_moved(*(record.id for record in records))
    held = delete_records(change.depot, [record.id for record in records])
    gone = [record for record in records if record.id not in held]
    if held:
        for known in before:
            save_name(change, known)
        _take_aliases(change, gone)
    for record in gone:
        remove_note(change.depot, record.id)
    _tell_names(change, gone, "delete")
    return held


def undelete(depot: Depot, words: Sequence[str], *, all_versions: bool = False) -> list[Record]:
    """Take snapshots out of the trash: all of them, or none."""
    with changing(depot) as change:
        chosen = _chosen(change, words, "trash", all_versions=all_versions)
        change.touch_moved(*(record.id for record in chosen))
        names = [TrashName(each.id, change.deleted_ns(each.id) or 0) for each in chosen]
        take_back(depot, names)
        _tell_names(change, chosen, "undelete")
    return chosen


def iter_deleted(catalog: Catalog) -> Iterator[DeletedSnapshot]:
    for deleted_ns, record in catalog.iter_deleted():
        yield DeletedSnapshot(deleted_at=format_time(deleted_ns / 1e9), record=record)


def forget(
    depot: Depot,
    policy: Policy,
    choose: Callable[[Catalog], Iterable[Record]],
    *,
    dry_run: bool,
) -> ForgetResult:
    """Divide what `choose` gives by `policy`, and move what it does not keep to the trash. What an
    alias or a run needs is kept."""
    if policy.is_empty:
        raise UsageError(
            "the policy keeps nothing", hint="say what to keep, for example --keep-last 10"
        )
    with (reading if dry_run else changing)(depot) as catalog:
        groups = [_spare_used(catalog, each) for each in apply_policy(choose(catalog), policy)]
        if damages := catalog.damages("live"):
            raise damages[0]
        for group in groups:
            if not group.kept:
                of = group.name if group.name is not None else f"{group.source} on {group.host}"
                raise UsageError(
                    f"the policy keeps not one snapshot of {of}",
                    hint="add --keep-last 1, or remove them with `castfs rm`",
                )
        if isinstance(catalog, Change):
            move_records(catalog, [record for group in groups for record in group.removed])
    return ForgetResult(dry_run=dry_run, groups=tuple(groups))


def read_expiring(depot: Depot, trash_age_seconds: float) -> dict[str, Record]:
    """What a collector that is about to run may delete from the trash, by id. From the files: one
    that refuses to run changes nothing."""
    latest = time.time() - trash_age_seconds + _CLOCKS_APART_SECONDS
    found: dict[str, Record] = {}
    with contextlib.suppress(DamageError):  # the collector says it better
        for name in list_trash(depot):
            if name.deleted_ns / 1e9 <= latest:
                with contextlib.suppress(DamageError, FileNotFoundError):
                    found[name.record_id] = read_trashed(depot, name)
    return found


def forget_expired(depot: Depot, known: Mapping[str, Record], *, collected: bool) -> None:
    """Of these a collector has deleted some from the trash, perhaps. Had it refused to begin,
    nothing is changed here either."""
    left = {name.record_id for name in list_trash(depot)}
    gone = [
        record
        for record_id, record in known.items()
        if record_id not in left and not depot.record_path(record_id).exists()
    ]
    if not gone and not collected:
        return
    with changing(depot) as change:
        # From time to time; and another collector may have been killed before it came to here.
        change.distrust()
        change.touch_moved(*(record.id for record in gone))
        _remember_numbers(change, gone)
        _take_aliases(change, gone)
        _tell_names(change, gone, "delete")
        for record in gone:
            remove_note(depot, record.id)
        _forget_lost(change)


def _forget_lost(change: Change) -> None:
    """Aliases and notes of what nobody can bring back: a collector, or somebody who removed it, was
    killed before it could say so."""
    if change.damaged_records("all"):
        return  # it may be one of them
    for name, aliases in change.lost_aliases().items():
        if known := change.name(name):
            save_name(change, _without_aliases(known, aliases))
    for record_id in change.lost_notes():
        change.touch_note(record_id)
        remove_note(change.depot, record_id)


def _without_aliases(known: NameFile, lost: Mapping[str, int]) -> NameFile:
    aliases = {alias: each for alias, each in known.aliases.items() if alias not in lost}
    events = [new_event("unalias", each, alias=alias, before=each) for alias, each in lost.items()]
    return msgspec.structs.replace(known, aliases=aliases, history=(*known.history, *events))


def _spare_used(catalog: Catalog, group: Group) -> Group:
    kept, removed = list(group.kept), []
    for record in group.removed:
        if reasons := users(catalog, record):
            kept.append(Kept(record=record, reasons=tuple(reasons)))
        else:
            removed.append(record)
    if len(removed) == len(group.removed):
        return group
    kept.sort(key=lambda each: each.record.id, reverse=True)
    return dataclasses.replace(group, kept=tuple(kept), removed=tuple(removed))


def users(catalog: Catalog, record: Record) -> list[str]:
    """What needs a snapshot: its aliases, and the runs that were given it. DamageError if that
    cannot be known."""
    found = []
    if damages := catalog.damages_about(record, notes=False):
        raise damages[0]
    if record.name is not None and record.version is not None:
        aliases = catalog.aliases_of(record.name, record.version)
        found += [f"alias {alias}" for alias in aliases]
    return found + [f"run {run_id}" for run_id in catalog.users_of(record.id)]


def refuse_used(catalog: Catalog, records: Sequence[Record]) -> None:
    for record in records:
        if found := users(catalog, record):
            more = f" and {len(found) - 3} more" if len(found) > 3 else ""
            raise BusyError(
                f"{show_word(version_word(record))} is used by {', '.join(found[:3])}{more}",
                hint="take the alias away or remove the run first, or give --force",
            )


def _by_name(records: Iterable[Record]) -> dict[str, list[Record]]:
    """Those that are versions."""
    of_name: dict[str, list[Record]] = {}
    for record in records:
        if record.name is not None and record.version is not None:
            of_name.setdefault(record.name, []).append(record)
    return of_name


def _version(record: Record) -> int:
    assert record.version is not None
    return record.version


def _made(record: Record) -> Event:
    return Event(
        at=record.created_at,
        kind="version",
        version=_version(record),
        by=made_by(record),
        run=record.run,
        message=record.message,
    )


def _remember_numbers(change: Change, records: Iterable[Record]) -> None:
    """That they were given, before the records that tell of them are gone."""
    for name, of_name in _by_name(records).items():
        known = change.name(name) or NameFile(name=name)
        last = max(map(_version, of_name))
        if known.last_version < last:
            save_name(change, msgspec.structs.replace(known, last_version=last))


def _take_aliases(change: Change, records: Iterable[Record]) -> list[NameFile]:
    """What nobody can bring back has no other name either. On a full disk, as `_tell_names`.
    Returns the names as they were."""
    before = []
    for name, of_name in _by_name(records).items():
        versions = set(map(_version, of_name))
        with contextlib.suppress(OSError, StoreError, DamageError):
            known = change.name(name)
            taken = {a: v for a, v in known.aliases.items() if v in versions} if known else {}
            if known and taken:
                save_name(change, _without_aliases(known, taken))
                before.append(known)
    return before


def _tell_names(change: Change, records: Iterable[Record], kind: EventKind) -> None:
    """In the order of the versions. On a full disk, which removing is there to help with, the
    history does without."""
    for name, of_name in _by_name(records).items():
        versions = list(map(_version, of_name))
        with contextlib.suppress(OSError, StoreError, DamageError):
            known = change.name(name) or NameFile(name=name, last_version=max(versions))
            events = [new_event(kind, version) for version in sorted(versions)]
            if kind == "delete":
                # Nothing else says any more that they were made.
                events = [*map(_made, sorted(of_name, key=_version)), *events]
            history = (*known.history, *events)
            save_name(change, msgspec.structs.replace(known, history=history))


def _chosen(
    catalog: Catalog, words: Sequence[str], place: Place, *, all_versions: bool
) -> list[Record]:
    if not all_versions:
        return _unique(pick_record(catalog, word, place) for word in words)
    found: list[Record] = []
    check_text(*words)
    for word in words:
        of_name = list(catalog.iter_records(place, name=normalize_name(word)))
        # One that cannot be read may be of that name, too.
        if damages := catalog.damaged_records(place):
            raise damages[0]
        if not of_name:
            raise NotFoundError(
                f"no snapshot is called {show_word(word)}", hint="see `castfs list`"
            )
        found += of_name
    return _unique(found)


def _unique(records: Iterable[Record]) -> list[Record]:
    return list({record.id: record for record in records}.values())
