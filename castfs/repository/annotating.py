"""What is said of snapshots after they were taken: aliases, tags, metadata."""

from __future__ import annotations

from collections.abc import Callable, Collection, Mapping
from typing import Any

import msgspec

from castfs.catalog import Note, changing, reading
from castfs.catalog.files import new_event, note_path, read_note, write_note
from castfs.catalog.words import check_alias, check_name, check_text, normalize_name, show_word
from castfs.errors import NotFoundError, UsageError
from castfs.repository.naming import pick_record, version_word
from castfs.repository.publishing import check_metadata, move_alias, normalize_keys, save_name
from castfs.repository.results import AliasMove
from castfs.store import Depot, Record


def set_alias(depot: Depot, word: str, alias: str) -> AliasMove:
    """Let an alias mean the version that `word` means. NotFoundError, AmbiguousError,
    UsageError."""
    alias = check_alias(alias)
    with changing(depot) as change:
        record = pick_record(change, word)
        if record.name is None or record.version is None:
            raise UsageError(
                f"{show_word(version_word(record))} is no version of a name",
                hint="aliases belong to what was ingested with --name",
            )
        before = move_alias(change, record.name, alias, record.version)
    return AliasMove(name=record.name, alias=alias, before=before, version=record.version)


def remove_alias(depot: Depot, name: str, alias: str) -> AliasMove:
    """NotFoundError for one that there is not; DamageError."""
    name, alias = check_name(name), normalize_name(alias)
    with changing(depot) as change:
        known = change.name(name)
        if known is None or alias not in known.aliases:
            there = ", ".join(sorted(known.aliases)) if known and known.aliases else "none"
            raise NotFoundError(
                f"{show_word(name)} has no alias {show_word(alias)}",
                hint=f"its aliases are: {show_word(there)}",
            )
        before = known.aliases[alias]
        event = new_event("unalias", before, alias=alias, before=before)
        others = {each: version for each, version in known.aliases.items() if each != alias}
        history = (*known.history, event)
        save_name(change, msgspec.structs.replace(known, aliases=others, history=history))
    return AliasMove(name=name, alias=alias, before=before, version=None)


def add_tags(depot: Depot, word: str, tags: Collection[str]) -> Record:
    """Returns the record with its tags. NotFoundError, AmbiguousError, UsageError."""
    tags = check_tags(tags)
    return _annotate(
        depot, word, lambda record: (dict.fromkeys((*record.tags, *tags)), record.metadata)
    )


def remove_tags(depot: Depot, word: str, tags: Collection[str]) -> Record:
    """NotFoundError, also for a tag that it does not have."""
    tags = check_tags(tags)

    def without(record: Record) -> tuple[Collection[str], Mapping[str, Any]]:
        _check_there(record, "tag", tags, record.tags)
        return [tag for tag in record.tags if tag not in tags], record.metadata

    return _annotate(depot, word, without)


def check_tags(tags: Collection[str]) -> list[str]:
    """In their normal form. UsageError."""
    check_text(*tags)
    if not tags or not all(tags):
        raise UsageError("a tag is empty", hint="give a word")
    return list(map(normalize_name, tags))


def change_metadata(
    depot: Depot, word: str, values: Mapping[str, Any], *, unset: Collection[str] = ()
) -> Record:
    """Set what `values` says and take the keys of `unset` away; without either only look.
    NotFoundError, AmbiguousError, UsageError."""
    check_text(*values, *unset)
    check_metadata(values)
    values, unset = normalize_keys(values), list(map(normalize_name, unset))
    if both := values.keys() & set(unset):
        raise UsageError(f"{show_word(min(both))} is both set and unset", hint="say one of the two")

    if not values and not unset:
        with reading(depot) as catalog:
            return pick_record(catalog, word)

    def changed(record: Record) -> tuple[Collection[str], Mapping[str, Any]]:
        _check_there(record, "metadata", unset, record.metadata)
        left = {key: value for key, value in record.metadata.items() if key not in unset}
        return record.tags, {**left, **values}

    return _annotate(depot, word, changed)


def _check_there(record: Record, what: str, asked: Collection[str], there: Collection[str]) -> None:
    for each in asked:
        if each not in there:
            raise NotFoundError(
                f"{show_word(version_word(record))} has no {what} {show_word(each)}",
                hint=f"see `castfs show {show_word(version_word(record))}`",
            )


def _annotate(
    depot: Depot,
    word: str,
    edit: Callable[[Record], tuple[Collection[str], Mapping[str, Any]]],
) -> Record:
    with changing(depot) as change:
        record = pick_record(change, word)
        # DamageError: nobody knows what it has, and what the note says would be lost.
        note = read_note(note_path(depot, record.id)) or Note(id=record.id)
        tags, metadata = edit(record)
        edited = msgspec.structs.replace(record, tags=tuple(tags), metadata=dict(metadata))
        if edited != record:
            change.touch_note(record.id)
            write_note(
                depot, msgspec.structs.replace(note, tags=edited.tags, metadata=edited.metadata)
            )
    return edited
