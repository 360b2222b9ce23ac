"""Where things lie in a storage root, and what a run's `assets.json` says of them.

Whatever cannot be read is an error here, never passed over: what is deleted depends on it.
"""

from __future__ import annotations

import json
import os
import re
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from castfs.errors import DamageError, NotFoundError
from castfs.paths import display
from castfs.regular import read_regular

ASSETS = "assets.json"
#: One of them is in each run's directory; the last is castfs's own.
_RUN_FILES = ("meta.json", "status.json", ASSETS, "run.json")
#: Directories of a storage root that hold no project.
_NO_PROJECTS = {"runs", "webui", "archive", "index"}
_DIGEST = re.compile(r"[0-9a-f]{64}")
_LISTS = {"datasets": "dataset", "pretrained": "pretrained", "outputs": "output"}
_DELETING = re.compile(r"\.(.+)\.deleting")


def is_run_dir(path: Path) -> bool:
    return any((path / name).exists() for name in _RUN_FILES)


@dataclass(frozen=True)
class RunDir:
    """`path` has `run_id` as its name, unless its deletion was begun."""

    path: Path
    run_id: str


def iter_run_dirs(storage_root: Path) -> Iterator[RunDir]:
    """Every run: runs/<path…>/<id>, the recycle bin among them, and <project>/<name>/runs/<id>.
    OSError. Symlinks to directories are followed, each directory once."""
    seen: set[tuple[int, int]] = set()
    if (storage_root / "runs").is_dir():
        yield from _below(storage_root / "runs", seen)
    for project in _subdirs(storage_root):
        if project.name in _NO_PROJECTS:
            continue
        for name in _subdirs(project):
            if (name / "runs").is_dir():
                yield from _below(name / "runs", seen)


def _below(directory: Path, seen: set[tuple[int, int]]) -> Iterator[RunDir]:
    status = directory.stat()
    if (status.st_dev, status.st_ino) in seen:
        return
    seen.add((status.st_dev, status.st_ino))
    for path in _subdirs(directory):
        if is_run_dir(path):
            deleting = _DELETING.fullmatch(path.name)
            yield RunDir(path, deleting[1] if deleting else path.name)
        else:
            yield from _below(path, seen)


def _subdirs(directory: Path) -> list[Path]:
    return sorted(path for path in directory.iterdir() if path.is_dir())


@dataclass(frozen=True)
class Asset:
    """An entry of an `assets.json`. `archive_path` is as recorded: absolute, perhaps of a place
    from which all was moved since."""

    role: str
    kind: str
    name: str
    fingerprint: str | None
    archive_path: str | None
    entry: dict[str, Any]

    @property
    def identity(self) -> tuple[str, str]:
        """Two runs have the same asset if this is the same."""
        place = self.entry.get("uri") or self.entry.get("path_or_uri")
        return self.kind, str(self.fingerprint or self.archive_path or place or self.name)

    @property
    def digest(self) -> str | None:
        """The blob that it is, if it is one."""
        if self.fingerprint and _DIGEST.fullmatch(self.fingerprint) and not self.is_manifest:
            return self.fingerprint
        name = Path(self.archive_path or "").name
        return name if _DIGEST.fullmatch(name) else None

    @property
    def is_manifest(self) -> bool:
        return bool(self.archive_path and self.archive_path.endswith(".json"))


def read_assets(path: Path) -> dict[str, Any]:
    """A run's `assets.json`. NotFoundError, DamageError."""
    shown = display(os.fsencode(path))
    try:
        raw = read_regular(path)
    except FileNotFoundError as exc:
        raise NotFoundError(f"no file {shown}", hint="name a run's assets.json") from exc
    except OSError as exc:
        raise DamageError(f"{shown} cannot be read: {exc.strerror}", hint="see to it") from exc
    try:
        document = json.loads((raw or b"").decode())
    except (ValueError, RecursionError) as exc:
        raise DamageError(f"{shown} is damaged: {exc}", hint="repair it, or move it away") from exc
    if not isinstance(document, dict):
        raise DamageError(f"{shown} is damaged: no JSON object", hint="repair it, or move it away")
    return document


def iter_assets(document: dict[str, Any]) -> Iterator[Asset]:
    """Every asset of the run; what has another form than documented is passed over."""
    for entry in snapshot_entries(document):
        yield _make_asset("code", "code_snapshot", "code_snapshot.zip", entry)
    for key, kind in _LISTS.items():
        for entry in _dicts(document.get(key)):
            yield _make_asset(kind, kind, str(entry.get("name") or entry.get("key") or ""), entry)


def _make_asset(role: str, kind: str, name: str, entry: dict[str, Any]) -> Asset:
    fingerprint = entry.get("fingerprint")
    if fingerprint is not None and not isinstance(fingerprint, str):
        fingerprint = json.dumps(fingerprint, sort_keys=True)
    place = entry.get("manifest_path") or entry.get("archive_path")
    return Asset(role, kind, name, fingerprint, place if isinstance(place, str) else None, entry)


def snapshot_entries(document: dict[str, Any]) -> list[dict[str, Any]]:
    """What `code` names, the newest last: `snapshots` if there are several, else `snapshot`."""
    code = document.get("code")
    if not isinstance(code, dict):
        return []
    several = _dicts(code.get("snapshots"))
    return several or _dicts([code.get("snapshot")])


def _dicts(value: object) -> list[dict[str, Any]]:
    entries = value if isinstance(value, list) else []
    return [entry for entry in entries if isinstance(entry, dict) and entry]


def digests_in(directory: Path) -> set[str]:
    """Whatever reads as a digest in the JSON files of a run: `assets.json`, and where programs note
    what `store_blob` gave them (summary.json). OSError."""
    found: set[str] = set()
    for path in directory.iterdir():
        if path.suffix == ".json" and not path.is_dir():
            raw = read_regular(path) or b""
            found.update(digest.decode() for digest in re.findall(rb"[0-9a-f]{64}", raw))
    return found


def find_in_archive(archive_root: Path, recorded: str) -> Path | None:
    """`recorded` as it lies in `archive_root`, wherever the archive was when it was written down;
    None if it lay in no archive. A hostile one leads anywhere."""
    parts = Path(recorded).parts
    if "archive" not in parts:
        return None
    start = len(parts) - parts[::-1].index("archive")
    return Path(os.path.normpath(archive_root.joinpath(*parts[start:])))
