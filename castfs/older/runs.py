"""The runs of a Runicorn storage root: what each of them says of itself.

Since 0.6.0 a run lies in runs/<path>/<id>, before in <project>/<name>/runs/<id>. A directory is a
run if one of its own documents is in it.
"""

from __future__ import annotations

import contextlib
import re
import time
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

from castfs.older.description import Damage, Key, OlderRun
from castfs.older.documents import (
    get_list,
    get_number,
    get_object,
    get_text,
    get_time,
    read_object,
)
from castfs.older.guarded import WRONG_KIND, Refused, Seen, SourceTree, join
from castfs.older.naming import make_run_id

ASSETS = b"assets.json"
META = b"meta.json"
STATUS = b"status.json"
_MARKS = frozenset([META, STATUS, ASSETS])
#: What else lies at the top of a storage root.
_NO_RUNS = frozenset([b"archive", b"artifacts", b"index", b"node_modules"])
#: A path of a run has at most 200 characters.
_DEPTH_MAX = 110
#: Directories without a run in them that are looked through.
_DIRECTORIES_MAX = 100_000
#: Runicorn makes ids of the local time; that of here is assumed to be that of where it ran.
_ID_TIME = re.compile(r"(\d{8}_\d{6})_.*", re.ASCII)


@dataclass(frozen=True, slots=True)
class RunPlace:
    """A run that was found. `prefix` is `<project>/<name>`, or the path; it begins the names of
    what the run made."""

    where: bytes
    id: str
    project: str
    name: str
    created_at: float | None
    meta: dict[str, Any]
    status: dict[str, Any]
    files: frozenset[bytes]

    @property
    def prefix(self) -> str:
        return f"{self.project}/{self.name}" if self.name else self.project


def find_runs(tree: SourceTree, damage: list[Damage]) -> list[RunPlace]:
    """All of them, the oldest first."""
    places = [
        place for where in _iter_places(tree, damage) if (place := _read(tree, where, damage))
    ]
    return sorted(places, key=lambda place: (place.created_at or 0.0, place.id, place.where))


def _iter_places(tree: SourceTree, damage: list[Damage]) -> Iterator[tuple[bytes, list[Seen]]]:
    """(directory, what is in it but for directories) of each run."""
    pending = [b""]
    looked = 0
    while pending:
        where = pending.pop()
        try:
            entries = tree.list(where)
        except Refused as exc:
            damage.append(Damage(where, exc.reason))
            continue
        parts = where.split(b"/")
        files = [seen for seen in entries if seen.kind != "directory"]
        if b"runs" in parts[:-1] and any(seen.name in _MARKS for seen in files):
            yield where, files
            continue
        looked += 1
        if looked > _DIRECTORIES_MAX:
            damage.append(Damage(where, f"more than {_DIRECTORIES_MAX} directories without a run"))
            return
        for seen in entries:
            if where == b"" and (seen.name in _NO_RUNS or seen.name.startswith(b".")):
                continue
            if seen.kind == "directory" and len(parts) < _DEPTH_MAX:
                pending.append(join(where, seen.name))
            elif seen.kind == "symlink" and b"runs" in parts:
                damage.append(Damage(join(where, seen.name), WRONG_KIND["symlink"]))


def _read(
    tree: SourceTree, found: tuple[bytes, list[Seen]], damage: list[Damage]
) -> RunPlace | None:
    where, inside = found
    files = frozenset(seen.name for seen in inside)
    parent, _, leaf = where.rpartition(b"/")
    run_id = make_run_id(leaf.decode(errors="replace"))
    if run_id is None:
        damage.append(Damage(where, "it is named as no run can be"))
        return None
    meta = read_if_there(tree, where, META, files, damage)
    status = read_if_there(tree, where, STATUS, files, damage)
    project, name = _find_names(meta, parent.decode(errors="replace"))
    created_at = get_time(meta, "created_at") or get_time(status, "started_at")
    if created_at is None:
        created_at = _guess_start(run_id, inside)
    return RunPlace(where, run_id, project, name, created_at, meta, status, files)


def _guess_start(run_id: str, files: list[Seen]) -> float | None:
    """By its id, else by the oldest of its files; None if neither says anything."""
    guesses: dict[str, float] = {}
    if match := _ID_TIME.fullmatch(run_id):
        with contextlib.suppress(ValueError, OverflowError):
            guesses["id"] = time.mktime(time.strptime(match[1], "%Y%m%d_%H%M%S"))
    if times := [seen.mtime_ns / 10**9 for seen in files if seen.kind == "file"]:
        guesses["files"] = min(times)
    by_id = get_time(guesses, "id")
    return get_time(guesses, "files") if by_id is None else by_id


def _find_names(meta: dict[str, Any], parent: str) -> tuple[str, str]:
    """(project, name): as the run says, else by where it lies."""
    if project := get_text(meta, "project"):
        return project, get_text(meta, "name") or "default"
    path = get_text(meta, "path")
    if path is None:
        parts = parent.split("/")
        path = "/".join(parts[1:] if parts[0] == "runs" else parts[:-1])
    project, _, name = path.strip("/").rpartition("/")
    # A run at the root of everything has no path at all.
    return (project, name) if project else (name or "default", "")


def read_if_there(
    tree: SourceTree, where: bytes, name: bytes, files: frozenset[bytes], damage: list[Damage]
) -> dict[str, Any]:
    """A document of a run; an empty one if it lacks or is damaged."""
    if name not in files:
        return {}
    path = join(where, name)
    try:
        return read_object(tree, path)
    except Refused as exc:
        damage.append(Damage(path, exc.reason))
        return {}


def describe_run(
    tree: SourceTree,
    place: RunPlace,
    created: tuple[Key, ...],
    used: tuple[Key, ...],
    damage: list[Damage],
) -> OlderRun:
    summary = read_if_there(tree, place.where, b"summary.json", place.files, damage)
    return OlderRun(
        id=place.id,
        project=place.project,
        name=place.name,
        where=place.where,
        created_at=place.created_at,
        ended_at=get_time(place.status, "ended_at"),
        status=get_text(place.status, "status"),
        host=get_text(place.meta, "hostname"),
        alias=get_text(place.meta, "alias"),
        summary=get_object({"summary": summary}, "summary"),
        created=created,
        used=used,
        deleted=b".deleted" in place.files,
    )


def iter_named_artifacts(document: dict[str, Any]) -> Iterator[tuple[str, str, int]]:
    """(type, name, version) of each entry of artifacts_created.json and artifacts_used.json."""
    for entry in get_list(document, "artifacts"):
        if isinstance(entry, dict):
            type, name = get_text(entry, "type"), get_text(entry, "name")
            version = get_number(entry, "version")
            if type and name and version:
                yield type, name, version
