"""Which snapshot a word means.

A word with a `/` or ending in `.json` is a manifest file. Else it is a name (`NAME`, `NAME:latest`,
`NAME:v3`, `NAME@<prefix of an id>`), or a prefix of at least seven hex digits of a snapshot's or
manifest's id. There is no fallback after a match, and two readings are an error that lists both.
"""

from __future__ import annotations

import os
import re
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from castfs.digest import Digest
from castfs.errors import AmbiguousError, DamageError, NotFoundError, UsageError
from castfs.manifest import read_manifest_file
from castfs.paths import display, shown
from castfs.store import Depot, Record

#: Fewer digits than git's default abbreviation say too little.
PREFIX_MIN = 7

_PREFIX = re.compile(f"[0-9a-f]{{{PREFIX_MIN},64}}")
_SELECTOR = re.compile("[0-9a-f]{1,64}")
#: Candidates that an error message lists; the error's own list has all.
_LISTED = 10


@dataclass(frozen=True, slots=True)
class Named:
    """What a word means in a store: a manifest, and the newest record of it that was meant."""

    manifest_id: Digest
    record: Record | None


def is_file_name(word: str) -> bool:
    return "/" in word or word.endswith(".json")


def check_name(name: str) -> str:
    """UsageError unless `name` can be given to a snapshot so that it is found again by it."""
    check_text(name)
    shown_name = _show(name)
    if not name.isprintable() or not name.strip() or name.startswith("-"):
        raise UsageError(f"{shown_name} is not a name", hint="use letters, digits, `-`, `_`, `.`")
    if re.search("[/:@]", name) or name.endswith(".json"):
        raise UsageError(f"the name {shown_name} has a `/`, `:` or `@`, or ends in .json")
    if _PREFIX.fullmatch(name):
        raise UsageError(f"the name {shown_name} looks like an id")
    return name


def check_text(*words: object) -> None:
    """UsageError unless all are text that a record can hold."""
    for word in words:
        if not isinstance(word, str):
            raise UsageError(f"{word!r} is not text", hint="names, tags and metadata are strings")
        try:
            word.encode()
        except UnicodeEncodeError:
            raise UsageError(f"{_show(word)} is not valid UTF-8") from None


def describe_record(record: Record) -> str:
    """One line: names and sources may come from an imported manifest, which a stranger wrote."""
    name = f" {record.name}" if record.name else ""
    return shown(f"{record.id} {record.created_at[:19]}Z{name} {record.source}".encode())


def find_records(
    records: Sequence[Record], word: str, *, newest_of_name: bool = True
) -> list[Record]:
    """Those of a store's `records` (newest first) that `word` can mean, in the same order. A name
    alone means the newest of it, or all."""
    if newest_of_name or not any(record.name == word for record in records):
        named = {record.id for record in _find_by_name(records, word)}
    else:
        named = {record.id for record in records if record.name == word}
    is_prefix = _PREFIX.fullmatch(word) is not None
    return [r for r in records if r.id in named or (is_prefix and _has_prefix(r, word))]


def _has_prefix(record: Record, prefix: str) -> bool:
    return record.id.startswith(prefix) or record.manifest.startswith(prefix)


def _find_by_name(records: Sequence[Record], word: str) -> list[Record]:
    name, separator, selector = word.partition("@")
    if separator:
        # Any length will do: the name has narrowed it down.
        good = _SELECTOR.fullmatch(selector) is not None
        return [r for r in records if good and r.name == name and _has_prefix(r, selector)]
    name, separator, selector = word.partition(":")
    of_name = [r for r in records if r.name == name]
    if not separator or selector == "latest":
        return of_name[:1]
    return [r for r in of_name if r.version is not None and f"v{r.version}" == selector]


def resolve(depot: Depot, word: str) -> Named:
    """The one manifest that `word` means. NotFoundError, AmbiguousError.

    DamageError if a record that cannot be read might be what is meant.
    """
    damaged: list[DamageError] = []
    records = find_records(list(depot.iter_records(damaged)), word)
    candidates = [describe_record(record) for record in records]
    manifests = {record.manifest for record in records}
    if _PREFIX.fullmatch(word):
        # A manifest that no record names can still be looked at until it is collected.
        for manifest_id in depot.iter_manifest_ids():
            if manifest_id.startswith(word) and manifest_id not in manifests:
                manifests.add(manifest_id)
                candidates.append(f"manifest {manifest_id}")
    _check_certain(word, bool(manifests), damaged)
    if not manifests:
        raise _not_found(depot, word)
    if len(manifests) > 1:
        raise _ambiguous(word, candidates)
    return Named(Digest(manifests.pop()), records[0] if records else None)


def pick_record(
    depot: Depot,
    records: Sequence[Record],
    damaged: Sequence[DamageError],
    word: str,
    *,
    in_trash: bool = False,
) -> Record:
    """The one of `records` that `word` means: for verbs that change records.

    A manifest file means the record of its tree. What means several is refused, and a name does if
    several have it: nobody says "remove `run`" and means one of ten. NotFoundError, AmbiguousError.
    """
    found = match_records(depot, records, damaged, word, newest_of_name=False, in_trash=in_trash)
    if len(found) > 1:
        raise _ambiguous(word, [describe_record(record) for record in found])
    return found[0]


def match_records(
    depot: Depot,
    records: Sequence[Record],
    damaged: Sequence[DamageError],
    word: str,
    *,
    newest_of_name: bool = True,
    in_trash: bool = False,
) -> list[Record]:
    """All of `records` that `word` means, at least one. NotFoundError; DamageError if one of those
    that are `damaged` might be meant, too. `in_trash`: that is where they are, for the wording."""
    if is_file_name(word):
        manifest_id = read_manifest_file(Path(word)).id
        found = [record for record in records if record.manifest == manifest_id]
    else:
        found = find_records(records, word, newest_of_name=newest_of_name)
    _check_certain(word, bool(found), damaged)
    if not found:
        raise _not_found(depot, word, in_trash=in_trash)
    return found


def _check_certain(word: str, found: bool, damaged: Sequence[DamageError]) -> None:
    """An id says what it means; a newer record of a name may be among the damaged ones."""
    if damaged and not (found and (is_file_name(word) or _PREFIX.fullmatch(word))):
        raise damaged[0]


def _not_found(depot: Depot, word: str, *, in_trash: bool = False) -> NotFoundError:
    short = re.fullmatch(f"[0-9a-f]{{1,{PREFIX_MIN - 1}}}", word)
    listing = "castfs list --deleted" if in_trash else "castfs list"
    return NotFoundError(
        f"no snapshot {_show(word)} in {'the trash of ' if in_trash else ''}"
        + display(os.fsencode(depot.path)),
        hint=f"an id needs {PREFIX_MIN} digits at least" if short else f"see `{listing}`",
    )


def _ambiguous(word: str, candidates: list[str]) -> AmbiguousError:
    more = f"; and {len(candidates) - _LISTED} more" if len(candidates) > _LISTED else ""
    return AmbiguousError(
        f"{_show(word)} can mean {len(candidates)} snapshots: "
        + "; ".join(candidates[:_LISTED])
        + more,
        candidates,
        hint="give more digits, or NAME:latest for a name",
    )


def _show(word: str) -> str:
    return shown(word.encode(errors="backslashreplace"))
