"""What there is under which name: artifacts, their versions, what happened, and searching it."""

from __future__ import annotations

import os
import unicodedata
from collections.abc import Collection, Iterator, Sequence

from castfs.catalog import Catalog, NameFile, reading
from castfs.catalog.words import check_name, show_word
from castfs.errors import NotFoundError, UsageError
from castfs.paths import display
from castfs.repository.naming import made_by, version_word
from castfs.repository.results import (
    Aliases,
    AliasEvent,
    ArtifactInfo,
    LogEntry,
    Standing,
    VersionInfo,
)
from castfs.repository.selecting import Selection, json_text
from castfs.store import Depot, Record
from castfs.store.records import format_time


def iter_artifacts(depot: Depot, selection: Selection) -> Iterator[ArtifactInfo]:
    """By name, those whose latest version is selected. DamageError after the readable ones."""
    with reading(depot) as catalog:
        catalog.let_go()
        for name, count in catalog.count_by_name():
            latest = catalog.latest(name) if selection.matches_name(name) else None
            if latest is not None and selection.matches(latest):
                yield _artifact(catalog, latest, count)
        if damages := catalog.damages("live"):
            raise damages[0]


def _artifact(catalog: Catalog, latest: Record, count: int) -> ArtifactInfo:
    assert latest.name is not None
    known = catalog.find_name(latest.name)
    return ArtifactInfo(
        name=latest.name,
        type=latest.type,
        version_count=count,
        latest=latest.version,
        size_bytes=latest.total_size_bytes,
        file_count=latest.file_count,
        updated_at=latest.created_at,
        tags=latest.tags,
        aliases=dict(sorted(known.aliases.items())) if known else {},
    )


def iter_versions(depot: Depot, name: str) -> Iterator[VersionInfo]:
    """In their order, also those in the trash. NotFoundError; DamageError after the readable
    ones."""
    name = check_name(name)
    with reading(depot) as catalog:
        deleted = {record.id for record in catalog.iter_records("trash", name=name)}
        records = list(catalog.iter_records("all", name=name))
        damages = catalog.damages("all")
        if not records and not damages:
            raise _no_such_name(catalog, name)
        records.sort(key=lambda record: (record.version or 0, record.id))
        versions = [_version(catalog, record, record.id in deleted) for record in records]
    yield from versions
    if damages:
        raise damages[0]


def _version(catalog: Catalog, record: Record, is_deleted: bool) -> VersionInfo:
    deleted_ns = catalog.deleted_ns(record.id) if is_deleted else None
    return VersionInfo(
        status="deleted" if is_deleted else "ready",
        deleted_at=None if deleted_ns is None else format_time(deleted_ns / 1e9),
        aliases=_aliases_of(catalog, record),
        record=record,
    )


def _no_such_name(catalog: Catalog, name: str) -> NotFoundError:
    known = catalog.find_name(name)
    store = display(os.fsencode(catalog.depot.path))
    if known is None:
        return NotFoundError(
            f"nothing is called {show_word(name)} in {store}", hint="see `castfs list --artifacts`"
        )
    return NotFoundError(
        f"no version of {show_word(name)} is left in {store}; the last was v{known.last_version}",
        hint=f"see `castfs log {show_word(name)}`",
    )


def find_standing(depot: Depot, record: Record) -> Standing:
    with reading(depot) as catalog:
        named_by: list[str] = []
        if record.name is not None and record.version is not None:
            links = catalog.links_to(record.name, record.version)
            ids = dict.fromkeys(record_id for record_id, _ in links)
            named_by = [version_word(each) for each in map(catalog.get, ids) if each is not None]
        return Standing(
            aliases=_aliases_of(catalog, record),
            used_by=tuple(catalog.users_of(record.id)),
            named_by=tuple(named_by),
            damages=tuple(catalog.damages_about(record)),
        )


def _aliases_of(catalog: Catalog, record: Record) -> tuple[str, ...]:
    if record.name is None or record.version is None:
        return ()
    return tuple(catalog.aliases_of(record.name, record.version))


def find_aliases(depot: Depot, name: str) -> Aliases:
    """NotFoundError, DamageError."""
    name = check_name(name)
    with reading(depot) as catalog:
        known, latest = catalog.name(name), catalog.latest(name)
        if known is None and latest is None:
            if damages := catalog.damaged_records("live"):
                raise damages[0]
            raise _no_such_name(catalog, name)
    known = known or NameFile(name=name)
    return Aliases(
        name=name,
        latest=latest.version if latest else None,
        aliases=dict(sorted(known.aliases.items())),
        history=tuple(
            AliasEvent(
                at=event.at,
                alias=event.alias or "",
                before=event.before,
                version=event.version if event.kind == "alias" else None,
                by=event.by,
            )
            for event in reversed(known.history)
            if event.kind in ("alias", "unalias")
        ),
    )


def iter_log(depot: Depot, name: str | None = None) -> Iterator[LogEntry]:
    """What happened, newest first: to one name, or to all and what has none. NotFoundError;
    DamageError after what is readable."""
    name = None if name is None else check_name(name)
    with reading(depot) as catalog:
        entries = [_taken(record) for record in catalog.iter_records("all", name=name)]
        known = catalog.iter_names() if name is None else filter(None, [catalog.find_name(name)])
        there = {(entry.name, entry.version) for entry in entries}
        entries += [entry for each in known for entry in _history(each, there)]
        if name is None:
            entries += [
                _nameless_removal(deleted_ns, record)
                for deleted_ns, record in catalog.iter_deleted()
                if record.name is None or record.version is None
            ]
        damages = catalog.damages("all")
        if name is not None and not entries and not damages:
            raise _no_such_name(catalog, name)
    yield from sorted(entries, key=lambda entry: entry.at, reverse=True)
    if damages:
        raise damages[0]


def _taken(record: Record) -> LogEntry:
    return LogEntry(
        at=record.created_at,
        kind="snapshot" if record.version is None else "version",
        name=record.name,
        version=record.version,
        id=record.id,
        alias=None,
        before=None,
        run=record.run,
        message=record.message,
        by=made_by(record),
    )


def _history(
    name: NameFile, there: Collection[tuple[str | None, int | None]]
) -> Iterator[LogEntry]:
    for event in reversed(name.history):
        if event.kind == "version" and (name.name, event.version) in there:
            continue  # it came back, out of a bundle perhaps, and speaks for itself
        yield LogEntry(
            at=event.at,
            kind=event.kind,
            name=name.name,
            version=event.version,
            id=None,
            alias=event.alias,
            before=event.before,
            run=event.run,
            message=event.message,
            by=event.by,
        )


def _nameless_removal(deleted_ns: int, record: Record) -> LogEntry:
    return LogEntry(
        at=format_time(deleted_ns / 1e9),
        kind="remove",
        name=record.name,
        version=None,
        id=record.id,
        alias=None,
        before=None,
        run=None,
        message=None,
        by="",
    )


def iter_matches(depot: Depot, words: Sequence[str]) -> Iterator[Record]:
    """Snapshots that all words are found in, newest first: in name, aliases, type, tags, metadata,
    message or source, capitals or not. DamageError after the readable ones."""
    wanted = [_folded(word) for word in words]
    if not wanted or not all(wanted):
        raise UsageError("a word to search for is empty", hint="say what to look for")
    with reading(depot) as catalog:
        catalog.let_go()
        aliases = catalog.aliases()
        for record in catalog.iter_records():
            called = aliases.get((record.name or "", record.version or 0), ())
            text = _folded("\n".join((*_said(record), *called)))
            if all(word in text for word in wanted):
                yield record
        if damages := catalog.damages("live"):
            raise damages[0]


def _said(record: Record) -> Iterator[str]:
    """Lines: no word is found across two of them."""
    name, version = record.name, record.version
    yield f"{name}:v{version}" if name is not None and version is not None else name or ""
    yield from (record.type or "", record.message or "", record.source, *record.tags)
    for key, value in record.metadata.items():
        yield f"{key}={json_text(value)}"


def _folded(text: str) -> str:
    return unicodedata.normalize("NFC", text).casefold()
