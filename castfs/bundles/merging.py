"""What a bundle says of names and versions, and what this store says of them: what becomes of both.

What is here stays. History is that of this store; of what happened in others it has what nobody
here can have seen: what became of versions that never came, and of aliases before they did.
"""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass, field

import msgspec

from castfs.bundles.checks import LIFE, believed_last
from castfs.catalog import Catalog, Change, Event, NameFile, Note, RunFile
from castfs.catalog.files import new_event, note_path, read_note
from castfs.catalog.words import show_word
from castfs.errors import UsageError
from castfs.repository.naming import version_word
from castfs.repository.publishing import save_name
from castfs.store import Record

#: Where something happened of which the bundle does not say where.
_SOMEWHERE = "0" * 32


@dataclass
class Brought:
    """All of a bundle but its trees and contents."""

    names: list[NameFile] = field(default_factory=list)
    runs: list[RunFile] = field(default_factory=list)
    notes: list[Note] = field(default_factory=list)
    records: list[Record] = field(default_factory=list)


@dataclass(frozen=True, slots=True, kw_only=True)
class Merged:
    """What became of the tags and metadata of a version that was here: tags and keys that it got,
    and keys whose values here are others, and stay."""

    version: str
    tags: tuple[str, ...]
    metadata: tuple[str, ...]
    kept: tuple[str, ...]


@dataclass
class Plan:
    """The versions of a bundle: what is new here, what is here, what is in the trash here, and what
    was deleted here for good, whose numbers nothing gets again."""

    added: list[Record] = field(default_factory=list)
    there: list[Record] = field(default_factory=list)
    trashed: list[Record] = field(default_factory=list)
    deleted: list[Record] = field(default_factory=list)


def make_plan(catalog: Catalog, records: Sequence[Record]) -> Plan:
    """UsageError for what contradicts what is here."""
    plan = Plan()
    known: dict[str, NameFile | None] = {}
    deleted: dict[str, frozenset[int]] = {}
    for record in records:
        assert record.name is not None
        assert record.version is not None
        if record.name not in known:
            name = known[record.name] = catalog.name(record.name)
            deleted[record.name] = name.deleted_versions() if name else frozenset()
        if catalog.get(record.id) is not None:
            is_away = catalog.deleted_ns(record.id) is not None
            (plan.trashed if is_away else plan.there).append(record)
        elif catalog.find_version(record.name, record.version, "all"):
            raise UsageError(
                f"{show_word(version_word(record))} is another one in this store",
                hint="import into a new store (--store), and restore what you need from there",
            )
        elif record.version in deleted[record.name]:
            plan.deleted.append(record)
        else:
            _check_type(record, known[record.name])
            plan.added.append(record)
    return plan


def _check_type(record: Record, known: NameFile | None) -> None:
    if known and known.type and record.type and known.type != record.type:
        raise UsageError(
            f"{show_word(known.name)} is a {known.type} in this store, not a {record.type}",
            hint="import into a new store (--store)",
        )


def merge_notes(
    catalog: Catalog, brought: Brought, plan: Plan
) -> tuple[dict[str, Note], list[Merged]]:
    """By record: the notes to write. And what they change, or do not. DamageError for a note that
    cannot be read."""
    notes: dict[str, Note] = {}
    told = {note.id: note for note in brought.notes}
    notes |= {record.id: told[record.id] for record in plan.added if record.id in told}
    found: list[Merged] = []
    for record in plan.there:
        ours, theirs = catalog.get(record.id), told.get(record.id, record)
        if ours is None or (ours.tags, ours.metadata) == (theirs.tags, theirs.metadata):
            continue
        tags = [tag for tag in theirs.tags if tag not in ours.tags]
        keys = [key for key in theirs.metadata if key not in ours.metadata]
        others = [key for key in ours.metadata if _differs(key, ours.metadata, theirs.metadata)]
        if tags or keys:
            note = read_note(note_path(catalog.depot, record.id)) or Note(id=record.id)
            more = {key: theirs.metadata[key] for key in keys}
            notes[record.id] = msgspec.structs.replace(
                note, tags=(*ours.tags, *tags), metadata={**ours.metadata, **more}
            )
        if tags or keys or others:
            found.append(
                Merged(
                    version=version_word(record),
                    tags=tuple(tags),
                    metadata=tuple(keys),
                    kept=tuple(others),
                )
            )
    return notes, found


def _differs(key: str, ours: Mapping[str, object], theirs: Mapping[str, object]) -> bool:
    return key in theirs and theirs[key] != ours[key]


def save_numbers(change: Change, brought: Brought, plan: Plan) -> None:
    """Before the records are there, as always."""
    last: dict[str, int] = {}
    for record in plan.added:
        name, version = record.name or "", record.version or 0
        last[name] = max(last.get(name, 0), version)
    for each in brought.names:
        last[each.name] = max(last.get(each.name, 0), believed_last(each, plan.added))
    types = {name.name: name.type for name in brought.names}
    for word, version in last.items():
        known = change.name(word) or NameFile(name=word)
        after = msgspec.structs.replace(
            known,
            type=known.type or types.get(word),
            last_version=max(version, known.last_version),
        )
        if after != known:
            save_name(change, after)


def save_names(change: Change, brought: Brought, plan: Plan) -> tuple[list[str], list[str]]:
    """(aliases that were set, aliases that mean something else here, and stay)"""
    was_set: list[str] = []
    kept: list[str] = []
    live = {(record.name, record.version) for record in (*plan.added, *plan.there)}
    for name in brought.names:
        known = change.name(name.name) or NameFile(name=name.name)
        new = {
            alias: version
            for alias, version in name.aliases.items()
            if alias not in known.aliases and (name.name, version) in live
        }
        was_set += [f"{name.name}:{alias}" for alias in new]
        kept += [
            f"{name.name}:{alias}"
            for alias, version in name.aliases.items()
            if known.aliases.get(alias, version) != version
        ]
        aliases = {**new, **known.aliases}
        added = {record.version for record in plan.added if record.name == name.name}
        history = _merge_history(change, known, name, new, added)
        if (aliases, history) != (known.aliases, known.history):
            save_name(change, msgspec.structs.replace(known, aliases=aliases, history=history))
    return was_set, kept


def _merge_history(
    change: Change,
    known: NameFile,
    theirs: NameFile,
    new_aliases: Mapping[str, int],
    added: Collection[int | None],
) -> tuple[Event, ...]:
    """Of an alias that was never here its past comes along; one that was is set now."""
    told_here = known.aliases.keys() | {event.alias for event in known.history}

    def is_there(version: int) -> bool:
        return version in added or bool(change.find_version(known.name, version, "all"))

    def is_wanted(event: Event) -> bool:
        if event.kind in LIFE:
            return not is_there(event.version)
        if event.alias in told_here:
            return False
        return event.alias in new_aliases or event.alias not in theirs.aliases

    before = [
        event
        for event in known.history
        # What became of it elsewhere is of no matter where it is.
        if not (event.store is not None and event.kind in LIFE and is_there(event.version))
    ]
    localized = (_seen_from(change.depot.marker.id, event) for event in theirs.history)
    more = [event for event in localized if event not in before and is_wanted(event)]
    # They read as one story, whatever the clocks said.
    after = sorted((*before, *more), key=lambda event: event.at) if more else before
    said = {event.alias for event in more}
    after += [
        new_event("alias", version, alias=alias)
        for alias, version in new_aliases.items()
        if alias not in said
    ]
    return tuple(after)


def _seen_from(store_id: str, event: Event) -> Event:
    where = event.store or _SOMEWHERE
    return msgspec.structs.replace(event, store=None if where == store_id else where)
