"""A store from outside: what lies in it, by json and sha256 alone; and how time passes for it."""

from __future__ import annotations

import functools
import hashlib
import json
import os
import re
from dataclasses import dataclass
from pathlib import Path

SECOND = 1_000_000_000


def digest_of(content: bytes) -> str:
    return hashlib.sha256(content).hexdigest()


@dataclass(frozen=True)
class Disk:
    """What lies in a store: records as id → manifest id, manifests and blobs with their bytes."""

    live: dict[str, str]
    trash: dict[str, str]
    manifests: dict[str, bytes]
    blobs: dict[str, bytes]


def read_disk(store: Path) -> Disk:
    live = {path.stem: _manifest_of(path) for path in (store / "snapshots").iterdir()}
    trash = {path.stem[13:]: _manifest_of(path) for path in (store / "trash").iterdir()}
    manifests = {path.stem: path.read_bytes() for path in (store / "manifests").glob("??/*")}
    blobs = {path.name: path.read_bytes() for path in (store / "blobs").glob("??/*")}
    return Disk(live, trash, manifests, blobs)


def _manifest_of(path: Path) -> str:
    return str(json.loads(path.read_bytes())["manifest"])


@functools.lru_cache(4096)
def files_of(manifest: bytes) -> dict[str, str]:
    """Path → digest of content."""
    return {path: file["sha256"] for path, file in json.loads(manifest)["files"].items()}


def describe(store: Path) -> dict[str, tuple[object, ...]]:
    """All that a dry run must not change. The collector's lock is touched to learn the time."""
    found: dict[str, tuple[object, ...]] = {}
    for path in store.rglob("*"):
        status = path.lstat()
        content = path.read_bytes() if path.is_file() else b""
        stamp = 0 if path.name == "gc.lock" else status.st_mtime_ns
        found[str(path)] = (status.st_ino, status.st_mode, status.st_nlink, stamp, content)
    return found


def age(store: Path, seconds: float, *, only_contents: bool = False) -> None:
    """Let everything in the store (or only blobs and manifests) have happened earlier."""
    shift = round(seconds * SECOND)
    seen = set()
    places = ("blobs", "manifests") if only_contents else ("",)
    for path in [path for place in places for path in (store / place).rglob("*")]:
        status = path.lstat()
        if path.is_dir() or status.st_ino in seen or path.parent == store:
            continue
        seen.add(status.st_ino)
        if path.suffix == ".lease":
            _age_lease(path, shift)
        os.utime(path, ns=(status.st_atime_ns, status.st_mtime_ns - shift))
        if path.parent.name == "trash":
            stamp, record_id = path.name.split("-")
            earlier = int(stamp, 16) - shift // 1_000_000
            path.rename(path.with_name(f"{earlier:012x}-{record_id}"))


def _age_lease(path: Path, shift: int) -> None:
    """Its header says when it began, always with as many digits."""
    with path.open("r+b") as file:
        found = re.search(rb'"stamp_ns":(\d+)', file.readline())
        if found is not None:
            file.seek(found.start(1))
            file.write(b"%d" % (int(found[1]) - shift))


class Clock:
    """The one that stamps files. It lags, and stands still for some milliseconds at a time."""

    def __init__(self, path: Path) -> None:
        self._path = path
        path.touch()

    def now_ns(self) -> int:
        os.utime(self._path)
        return self._path.stat().st_mtime_ns

    def tick(self) -> int:
        """Return once it shows something else, so that all that was stamped is older."""
        start = self.now_ns()
        while (now := self.now_ns()) == start:
            os.sched_yield()
        return now


def write_tree(directory: Path, tree: dict[str, bytes]) -> None:
    """Make `directory` hold just these files. What is in place stays untouched, and all has the
    same mtime, so that the same tree makes the same manifest."""
    directory.mkdir(exist_ok=True)
    for path in [path for path in directory.rglob("*") if path.is_file()]:
        if tree.get(str(path.relative_to(directory))) != path.read_bytes():
            path.unlink()
    for name, content in tree.items():
        path = directory / name
        path.parent.mkdir(exist_ok=True)
        if not path.exists():
            path.write_bytes(content)
            os.utime(path, ns=(SECOND, SECOND))
    for path in [path for path in directory.iterdir() if path.is_dir()]:
        if any(path.iterdir()):
            os.utime(path, ns=(SECOND, SECOND))
        else:
            path.rmdir()
    os.utime(directory, ns=(SECOND, SECOND))
