"""Which snapshot a word means.

A word that begins like a path (`./`, `/`), ends in `.json`, or has a `/` and names a file that
there is, is a manifest file. Else it is a name (`NAME`, `NAME:latest`, `NAME:v3`, `NAME:ALIAS`,
`NAME@<prefix of an id>`; see `castfs.catalog.words`), or a prefix of at least seven hex digits of a
snapshot's or manifest's id. There is no fallback after a match, and two readings are an error that
lists both.
"""

from __future__ import annotations

import contextlib
import os
import re
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from castfs.catalog import Catalog, Place, reading
from castfs.catalog.words import PREFIX, PREFIX_MIN, Word, looks_like_path, parse_word, show_word
from castfs.digest import Digest
from castfs.errors import AmbiguousError, CastfsError, NotFoundError
from castfs.manifest import read_manifest_file
from castfs.paths import display, shown
from castfs.store import Depot, Record

#: Candidates that an error message lists; the error's own list has all.
_LISTED = 10


@dataclass(frozen=True, slots=True)
class Named:
    """What a word means in a store: a manifest, and the newest record of it that was meant."""

    manifest_id: Digest
    record: Record | None


def is_file_name(word: str) -> bool:
    if looks_like_path(word):
        return True
    # A directory is no manifest file, and may well have given a snapshot its name.
    return "/" in word and os.path.lexists(word) and not os.path.isdir(word)


def describe_record(record: Record) -> str:
    """One line: names and sources may come from an imported manifest, which a stranger wrote."""
    name = f" {version_word(record)}" if record.name else ""
    return shown(f"{record.id} {record.created_at[:19]}Z{name} {record.source}".encode())


def version_word(record: Record) -> str:
    """`NAME:v3`, or the name of a snapshot without a version, or its id."""
    if record.name is None:
        return record.id
    return record.name if record.version is None else f"{record.name}:v{record.version}"


def made_by(record: Record) -> str:
    """Its user and host, or the host alone."""
    return f"{record.user}@{record.host}" if record.user else record.host


def find_records(
    catalog: Catalog, word: str, place: Place = "live", *, newest_of_name: bool = True
) -> list[Record]:
    """Those records that `word` can mean, newest first. A name alone means the newest of it, or
    all."""
    parsed = parse_word(word)
    found = _find_named(catalog, parsed, place, newest_of_name) if parsed else []
    if PREFIX.fullmatch(word):
        found += catalog.find_prefix(word, place)
    unique = {record.id: record for record in found}
    return sorted(unique.values(), key=lambda record: record.id, reverse=True)


def _find_named(catalog: Catalog, word: Word, place: Place, newest_of_name: bool) -> list[Record]:
    if word.id_prefix is not None:
        return [
            record
            for record in catalog.iter_records(place, name=word.name)
            if record.id.startswith(word.id_prefix) or record.manifest.startswith(word.id_prefix)
        ]
    version = word.version
    if word.alias is not None:
        known = catalog.name(word.name)
        version = known.aliases.get(word.alias) if known else None
    if version is not None:
        return catalog.find_version(word.name, version, place)
    if word.alias is not None:
        return []
    if not newest_of_name and not word.latest:
        return list(catalog.iter_records(place, name=word.name))
    # What is in the store is meant before what is in the trash.
    for each in ("live", "trash") if place == "all" else (place,):
        latest = catalog.latest(word.name, each)
        if latest is not None:
            return [latest]
    return []


def resolve(depot: Depot, word: str) -> Named:
    """The one manifest that `word` means. NotFoundError, AmbiguousError.

    DamageError if a record that cannot be read might be what is meant.
    """
    with reading(depot) as catalog:
        records = find_records(catalog, word)
        candidates = [describe_record(record) for record in records]
        manifests = {record.manifest for record in records}
        if PREFIX.fullmatch(word):
            # A manifest that no record names can still be looked at until it is collected.
            for manifest_id in depot.iter_manifest_ids():
                if manifest_id.startswith(word) and manifest_id not in manifests:
                    manifests.add(manifest_id)
                    candidates.append(f"manifest {manifest_id}")
        _check_certain(catalog, word, "live", bool(manifests))
        if not manifests:
            raise _not_found(catalog, word, "live")
    if len(manifests) > 1:
        raise _ambiguous(word, candidates)
    return Named(Digest(manifests.pop()), records[0] if records else None)


def pick_record(catalog: Catalog, word: str, place: Place = "live") -> Record:
    """The one record that `word` means: for verbs that change records.

    A manifest file means the record of its tree. What means several is refused, and a name does if
    several have it: nobody says "remove `run`" and means one of ten. NotFoundError, AmbiguousError.
    """
    found = match_records(catalog, word, place, newest_of_name=False)
    if len(found) > 1:
        raise _ambiguous(word, [describe_record(record) for record in found])
    return found[0]


def match_records(
    catalog: Catalog, word: str, place: Place = "live", *, newest_of_name: bool = True
) -> list[Record]:
    """All records that `word` means, at least one. NotFoundError; DamageError if one of those that
    are damaged might be meant, too."""
    if is_file_name(word):
        manifest_id = read_manifest_file(Path(word)).id
        found = [r for r in catalog.find_prefix(manifest_id, place) if r.manifest == manifest_id]
    else:
        found = find_records(catalog, word, place, newest_of_name=newest_of_name)
    _check_certain(catalog, word, place, bool(found))
    if not found:
        raise _not_found(catalog, word, place)
    return found


def _check_certain(catalog: Catalog, word: str, place: Place, found: bool) -> None:
    """An id or a version says what it means; a newer record of a name may be among the damaged."""
    parsed = parse_word(word)
    is_exact = PREFIX.fullmatch(word) or (parsed and (parsed.version or parsed.alias))
    if found and (is_file_name(word) or is_exact):
        return
    if damages := catalog.damaged_records(place):
        raise damages[0]


def _not_found(catalog: Catalog, word: str, place: Place) -> NotFoundError:
    return NotFoundError(
        f"no snapshot {show_word(word)} in {'the trash of ' if place == 'trash' else ''}"
        + display(os.fsencode(catalog.depot.path)),
        hint=_hint(catalog, word, place),
    )


def _hint(catalog: Catalog, word: str, place: Place) -> str:
    if re.fullmatch(f"[0-9a-f]{{1,{PREFIX_MIN - 1}}}", word):
        return f"an id needs {PREFIX_MIN} digits at least"
    if place == "trash":
        return "see `castfs list --deleted`"
    if place == "live" and _is_in_trash(catalog, word):
        return "it is in the trash already; see `castfs list --deleted`"
    parsed = parse_word(word)
    if parsed and parsed.alias and (known := catalog.name(parsed.name)):
        aliases = ", ".join(sorted(known.aliases)) or "none"
        return f"the aliases of {show_word(parsed.name)} are: {aliases}"
    if parsed and catalog.has_name(parsed.name, "live"):
        return f"see `castfs versions {show_word(parsed.name)}`"
    return "see `castfs list`" + (", and there is no such file" if "/" in word else "")


def _is_in_trash(catalog: Catalog, word: str) -> bool:
    # If it is not there either, the first error says all.
    with contextlib.suppress(CastfsError):
        return bool(match_records(catalog, word, "trash"))
    return False


def _ambiguous(word: str, candidates: Sequence[str]) -> AmbiguousError:
    more = f"; and {len(candidates) - _LISTED} more" if len(candidates) > _LISTED else ""
    return AmbiguousError(
        f"{show_word(word)} can mean {len(candidates)} snapshots: "
        + "; ".join(candidates[:_LISTED])
        + more,
        candidates,
        hint="give more digits, or NAME:latest for a name",
    )


def check_one_reading(depot: Depot, word: str) -> None:
    """AmbiguousError for a file that is called like something in the store."""
    if looks_like_path(word):
        return
    with reading(depot) as catalog:
        records = find_records(catalog, word)
    if records:
        raise _ambiguous(word, [f"file ./{word}", *map(describe_record, records)])
