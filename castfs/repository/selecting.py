"""Which snapshots a question is about: by source, name, type, tags, age and metadata."""

from __future__ import annotations

import fnmatch
import os
from collections.abc import Collection, Iterator, Mapping
from dataclasses import dataclass, field
from datetime import datetime
from typing import Any

import msgspec

from castfs.catalog import Catalog
from castfs.catalog.words import normalize_name
from castfs.paths import escape
from castfs.repository.publishing import normalize_keys
from castfs.store import Record

#: An id has the time of its machine's clock, `created_at` perhaps another one's.
_CLOCKS_APART_SECONDS = 86_400


@dataclass(frozen=True, slots=True, kw_only=True)
class Selection:
    """What a snapshot must be to be meant; what is None or empty asks nothing.

    `source` is a directory, as it was recorded or as it is found from here; `name` a name or a
    pattern (fnmatch); `since` in seconds since the epoch; `metadata` has values, or their texts.
    """

    source: str | None = None
    name: str | None = None
    type: str | None = None
    tags: Collection[str] = ()
    since: float | None = None
    metadata: Mapping[str, Any] = field(default_factory=dict)

    def matches(self, record: Record) -> bool:
        sources = as_sources(self.source)
        return bool(
            (not sources or record.source in sources)
            and self.matches_name(record.name or "")
            and (self.type is None or record.type == self.type.lower())
            and set(map(normalize_name, self.tags)) <= set(record.tags)
            and (self.since is None or _seconds(record.created_at) >= self.since)
            and all(
                key in record.metadata and _is_value(record.metadata[key], value)
                for key, value in normalize_keys(self.metadata).items()
            )
        )

    def matches_name(self, name: str) -> bool:
        if self.name is None:
            return True
        wanted = normalize_name(self.name)
        return name == wanted or (is_pattern(wanted) and fnmatch.fnmatchcase(name, wanted))


def select(catalog: Catalog, selection: Selection) -> Iterator[Record]:
    """Those in the store, newest first."""
    name = selection.name
    # What the database can tell needs not be read.
    exact = normalize_name(name) if name is not None and not is_pattern(name) else None
    since = None
    if selection.since is not None:
        milliseconds = int(max(0.0, selection.since - _CLOCKS_APART_SECONDS) * 1000)
        since = f"{milliseconds:012x}"
    records = catalog.iter_records(
        name=exact,
        type=selection.type.lower() if selection.type is not None else None,
        sources=as_sources(selection.source),
        tags=list(map(normalize_name, selection.tags)),
        since=since,
    )
    return filter(selection.matches, records)


def is_pattern(name: str) -> bool:
    return any(sign in name for sign in "*?[")


def as_sources(source: str | None) -> list[str]:
    if source is None:
        return []
    given = (source, os.path.abspath(source), os.path.realpath(source))
    return sorted({escape(os.fsencode(path)) for path in given})


def _seconds(created_at: str) -> float:
    """0 for a record of somebody's who wrote no date."""
    try:
        return datetime.fromisoformat(created_at).timestamp()
    except (ValueError, OverflowError, OSError):
        return 0.0


def _is_value(value: Any, wanted: Any) -> bool:
    """`5` means the number and the text. (In Python True is 1.)"""
    if isinstance(value, bool) == isinstance(wanted, bool) and value == wanted:
        return True
    return json_text(value) == json_text(wanted)


def json_text(value: Any) -> str:
    """A value of metadata in one line: text as it is, all else as JSON."""
    return value if isinstance(value, str) else msgspec.json.encode(value).decode()
