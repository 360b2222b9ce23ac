"""The end of everything that puts a tree into the store: its manifest, its version, its record."""

from __future__ import annotations

import dataclasses
import functools
import socket
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import msgspec

from castfs.catalog import Catalog, Change, NameFile, Note, changing, reading
from castfs.catalog.files import new_event, note_path, read_note, write_name, write_note
from castfs.catalog.words import check_alias, check_name, check_text, normalize_name, show_word
from castfs.digest import Digest
from castfs.errors import DamageError, StoreError, UsageError
from castfs.manifest import (
    Manifest,
    content_id,
    decode_stored,
    encode_manifest,
    is_stored_whole,
)
from castfs.paths import RelPath, unescape
from castfs.repository.recording import record_made_again
from castfs.store import Depot, Record, WriteSession
from castfs.store.records import (
    VERSION_MAX,
    Reference,
    Skipped,
    format_time,
    new_record_id,
    user_name,
)

#: Types that are the same wherever they lie: rules of git's have nothing to say about them.
TAKEN_WHOLE = ("dataset", "model")


@dataclass(frozen=True, slots=True, kw_only=True)
class Details:
    """What is said of a tree when it is recorded. `created_at` is in seconds since the epoch.

    `version` is for importers alone: everybody else gets the next one.
    """

    name: str | None = None
    type: str | None = None
    tags: Sequence[str] = ()
    metadata: Mapping[str, Any] = field(default_factory=dict)
    message: str | None = None
    aliases: Sequence[str] = ()
    run: str | None = None
    new_version: bool = False
    version: int | None = None
    created_at: float | None = None

    def checked(self) -> Details:
        """The same with names in their normal form. UsageError."""
        if isinstance(self.tags, str):
            raise UsageError("tags are a list of words", hint="give them as [tag]")
        check_text(*self.tags, *self.metadata)
        for text in (self.message, self.type, self.run):
            if text is not None:
                check_text(text)
        check_metadata(self.metadata)
        if self.name is None and (self.aliases or self.version or self.new_version):
            raise UsageError("aliases and versions belong to a name", hint="give a name, too")
        return Details(
            name=check_name(self.name) if self.name is not None else None,
            type=check_type(self.type) if self.type is not None else None,
            tags=tuple(dict.fromkeys(map(normalize_name, self.tags))),
            metadata=normalize_keys(self.metadata),
            message=self.message,
            aliases=tuple(dict.fromkeys(map(check_alias, self.aliases))),
            run=self.run,
            new_version=self.new_version,
            version=self.version,
            created_at=self.created_at,
        )


@dataclass(frozen=True, slots=True, kw_only=True)
class Published:
    """The record of a tree. `unchanged`: its name has had the same already, and this is that."""

    record: Record
    new_manifest: bool
    unchanged: bool


def check_type(word: str) -> str:
    """In small letters. UsageError."""
    check_text(word)
    word = word.lower()
    if not word.replace("-", "").replace("_", "").isalnum() or len(word) > 64:
        raise UsageError(
            f"{show_word(word)} is not a type", hint="model, dataset, config, code, custom, …"
        )
    return word


def normalize_keys(metadata: Mapping[str, Any]) -> dict[str, Any]:
    return {normalize_name(key): value for key, value in metadata.items()}


def check_metadata(metadata: Mapping[str, Any]) -> None:
    """UsageError for what JSON cannot hold."""
    try:
        encoded = msgspec.json.encode(metadata)
        if msgspec.json.decode(encoded) != _plain(metadata):
            raise TypeError("it would not be the same when it is read again")
    except (TypeError, ValueError, RecursionError, OverflowError) as exc:
        raise UsageError(
            f"the metadata cannot be recorded: {exc}", hint="give what JSON can hold"
        ) from None


def _plain(value: Any) -> Any:
    match value:
        case Mapping():
            return {key: _plain(item) for key, item in value.items()}
        case list() | tuple():
            return [_plain(item) for item in value]
    return value


def publish(
    session: WriteSession,
    manifest: Manifest,
    details: Details,
    *,
    source: str,
    skipped: Sequence[Skipped] = (),
    references: Sequence[Reference] = (),
) -> Published:
    """Record a tree whose blobs are committed. `details` is `checked`. UsageError, StoreError."""
    record = Record(
        id=new_record_id(),
        manifest=manifest.id,
        created_at=format_time(time.time() if details.created_at is None else details.created_at),
        host=socket.gethostname(),
        user=user_name(),
        source=source,
        file_count=len(manifest.tree.files) - len(references),
        total_size_bytes=_own_size(manifest, references),
        name=details.name,
        type=details.type,
        tags=tuple(details.tags),
        metadata=details.metadata,
        message=details.message,
        run=details.run,
        content=content_id(manifest.tree) if details.name is not None else None,
        references=tuple(references),
        skipped=tuple(skipped),
    )
    depot = session.depot
    if details.name is not None:
        # Looked at before the manifest is written: mostly nothing has to be. And before the catalog
        # is held: reading one takes a second for each million of entries.
        with reading(depot) as catalog:
            known, same = catalog.name(details.name), _find_same(catalog, record, details)
            check_same_type(catalog, known, details)
        if same is not None and same.manifest != manifest.id:
            if _is_readable(depot, same):
                with changing(depot) as change:
                    found = _find_same(change, record, details)
                    if found is not None and found.id == same.id:
                        found = _say_more(change, found, details)
                        return Published(record=found, new_manifest=False, unchanged=True)
            else:
                # Nobody can read what it was, and its files are here: in a version of their own.
                details = dataclasses.replace(details, new_version=True)
    is_sound = functools.partial(is_stored_whole, manifest)
    new = session.publish_manifest(manifest.id, encode_manifest(manifest), is_sound=is_sound)
    with changing(depot) as change:
        if details.name is not None:
            check_same_type(change, change.name(details.name), details)
            found = _find_same(change, record, details)
            if found is not None:
                found = _say_more(change, found, details)
                return Published(record=found, new_manifest=new, unchanged=True)
            record = _number(change, record, details)
        change.touch(record.id)
        session.publish_record(record)
        _set_aliases(change, record, details)
    return Published(record=record, new_manifest=new, unchanged=False)


def _is_readable(depot: Depot, record: Record) -> bool:
    """And is it what its record says?"""
    try:
        digest = Digest(record.manifest)
        manifest = decode_stored(depot.read_manifest(digest), digest)
    except DamageError:
        return False
    return content_id(manifest.tree) == record.content


def _own_size(manifest: Manifest, references: Sequence[Reference]) -> int:
    """Without the entries that stand for something else."""
    files = manifest.tree.files
    entries = (files[RelPath(unescape(reference.path))] for reference in references)
    return manifest.tree.total_size_bytes - sum(file.size_bytes for file in entries)


def _find_same(catalog: Catalog, record: Record, details: Details) -> Record | None:
    """The latest version, if it is what `record` is."""
    if details.new_version or details.version is not None:
        return None
    name = details.name or ""
    latest = catalog.latest(name)
    if latest is None or latest.version is None or latest.content != record.content:
        return None
    if latest.references != record.references:
        return None
    if latest.version < catalog.last_version(name) and catalog.damaged_records("live"):
        return None  # the latest may be one that cannot be read
    return latest


def _say_more(change: Change, latest: Record, details: Details) -> Record:
    """What was said now of what is there already."""
    name = change.name(details.name or "")
    if name and name.type is None and details.type is not None:
        save_name(change, msgspec.structs.replace(name, type=details.type))
    # One that cannot be read is not written over.
    note = read_note(note_path(change.depot, latest.id))
    # What another run said of it stays; what this one says is in its own file.
    is_again = details.run is not None and details.run != latest.run
    said = msgspec.structs.replace(
        latest,
        type=latest.type or details.type,
        tags=tuple(dict.fromkeys((*latest.tags, *details.tags))),
        metadata={
            **latest.metadata,
            **details.metadata,
            **(latest.metadata if is_again else {}),
        },
    )
    if said != latest:
        change.touch_note(latest.id)
        note_type = said.type if latest.type is None else note.type if note else None
        write_note(
            change.depot,
            Note(id=latest.id, type=note_type, tags=said.tags, metadata=said.metadata),
        )
    if details.run is not None:
        record_made_again(
            change, details.run, said, metadata=details.metadata, message=details.message
        )
    _set_aliases(change, said, details)
    return said


def check_same_type(catalog: Catalog, name: NameFile | None, details: Details) -> None:
    """UsageError: all versions of a name are of one type."""
    if not name or not name.type or not details.type or name.type == details.type:
        return
    # One that has none may be of another: the first one failed, perhaps, when it had its number.
    if catalog.has_name(name.name) or catalog.damaged_records():
        raise UsageError(
            f"{show_word(name.name)} is a {name.type}, not a {details.type}",
            hint="use another name",
        )


def _number(change: Change, record: Record, details: Details) -> Record:
    """Numbers are used up before they are given: so they only grow, whatever is lost then."""
    assert details.name is not None
    known = change.name(details.name) or NameFile(name=details.name)
    last = change.last_version(details.name)
    version = last + 1 if details.version is None else details.version
    if version <= last and change.find_version(details.name, version, "all"):
        raise UsageError(
            f"there is a {show_word(details.name)}:v{version} already", hint="use another name"
        )
    if version > VERSION_MAX:
        raise UsageError(
            f"{show_word(details.name)} has had all numbers that there are", hint="use another name"
        )
    # It is of the same, or nothing is of that: see `check_same_type`.
    kind = details.type or known.type
    save_name(change, msgspec.structs.replace(known, type=kind, last_version=max(version, last)))
    return msgspec.structs.replace(record, version=version, type=kind)


def _set_aliases(change: Change, record: Record, details: Details) -> None:
    if not details.aliases or record.name is None or record.version is None:
        return
    try:
        move_aliases(change, record.name, details.aliases, record.version)
    except (OSError, StoreError, DamageError) as exc:
        version, alias = f"{record.name}:v{record.version}", details.aliases[0]
        raise StoreError(
            f"{show_word(version)} is recorded, but not its alias {show_word(alias)}: "
            f"{exc.strerror if isinstance(exc, OSError) else exc.message}",
            hint=f"set it later: castfs alias {show_word(version)} {show_word(alias)}",
        ) from exc


def move_alias(change: Change, name: str, alias: str, version: int) -> int | None:
    """Returns the version that the alias meant until now. One rename, so it always means one."""
    return move_aliases(change, name, [alias], version).get(alias)


def move_aliases(
    change: Change, name: str, aliases: Sequence[str], version: int
) -> Mapping[str, int]:
    """Returns what the aliases of the name meant until now."""
    known = change.name(name) or NameFile(name=name)
    moved = [alias for alias in aliases if known.aliases.get(alias) != version]
    if moved:
        events = [
            new_event("alias", version, alias=alias, before=known.aliases.get(alias))
            for alias in moved
        ]
        means = {**known.aliases, **dict.fromkeys(moved, version)}
        history = (*known.history, *events)
        save_name(change, msgspec.structs.replace(known, aliases=means, history=history))
    return known.aliases


def save_name(change: Change, name: NameFile) -> None:
    change.touch_name(name.name)
    write_name(change.depot, name)
    change.update_name(name.name)
