"""Which snapshot a word means.

A word with a `/` or ending in `.json` is a manifest file. Else it is a name (`NAME`, `NAME:latest`,
`NAME@<manifest id prefix>`), or a prefix of at least seven hex digits of a snapshot's or manifest's
id. There is no fallback after a match, and two readings are an error that lists both.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from castfs.digest import Digest
from castfs.errors import AmbiguousError, NotFoundError
from castfs.store import Depot, Record

#: Fewer digits than git's default abbreviation say too little.
PREFIX_MIN = 7

_PREFIX = re.compile(f"[0-9a-f]{{{PREFIX_MIN},64}}")


@dataclass(frozen=True, slots=True)
class Named:
    """What a word means in a store: a manifest, and the record if one was meant."""

    manifest_id: Digest
    record: Record | None


def is_file_name(word: str) -> bool:
    return "/" in word or word.endswith(".json")


def describe_record(record: Record) -> str:
    name = f" {record.name}" if record.name else ""
    return f"{record.id} {record.created_at[:19]}{name} {record.source}"


def find_records(depot: Depot, word: str) -> list[Record]:
    """Every record that `word` can mean, newest first."""
    if _PREFIX.fullmatch(word):
        return [
            r for r in depot.iter_records() if r.id.startswith(word) or r.manifest.startswith(word)
        ]
    name, separator, selector = word.partition("@")
    if separator:
        return [
            r for r in depot.iter_records() if r.name == name and r.manifest.startswith(selector)
        ]
    name, separator, selector = word.partition(":")
    records = [r for r in depot.iter_records() if r.name == name]
    if not separator or selector == "latest":
        return records[:1]
    return [r for r in records if r.version is not None and f"v{r.version}" == selector]


def resolve(depot: Depot, word: str) -> Named:
    """The one manifest that `word` means. NotFoundError, AmbiguousError."""
    records = find_records(depot, word)
    manifests = {record.manifest for record in records}
    if _PREFIX.fullmatch(word):
        # A manifest that no record names can still be looked at until it is collected.
        manifests |= {m for m in depot.iter_manifest_ids() if m.startswith(word)}
        records += [r for r in depot.iter_records() if r.name == word]
        manifests |= {record.manifest for record in records}
    if not manifests:
        raise NotFoundError(f"no snapshot {word} in {depot.path}", hint="see `castfs list`")
    if len(manifests) > 1:
        _refuse(word, [describe_record(r) for r in records] or sorted(manifests))
    record = records[0] if len(records) == 1 or _same_name(records, word) else None
    return Named(Digest(manifests.pop()), record or (records[0] if records else None))


def _same_name(records: Sequence[Record], word: str) -> bool:
    return all(record.name == word for record in records)


def resolve_record(depot: Depot, word: str) -> Record:
    """The one record that `word` means: for verbs that change records."""
    records = find_records(depot, word)
    if not records:
        raise NotFoundError(f"no snapshot {word} in {depot.path}", hint="see `castfs list`")
    if len(records) > 1:
        _refuse(word, [describe_record(record) for record in records])
    return records[0]


def _refuse(word: str, candidates: list[str]) -> None:
    raise AmbiguousError(
        f"{word} can mean {len(candidates)} snapshots: " + "; ".join(candidates[:10]),
        candidates,
        hint="give more digits",
    )


def manifest_file(word: str) -> Path | None:
    return Path(word) if is_file_name(word) else None
