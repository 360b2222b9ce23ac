"""Which kinds of archive a directory is, told from what lies in it."""

from __future__ import annotations

import contextlib
import os
import re
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Final, Literal, get_args

from castfs.errors import NotFoundError, SourceError, UsageError
from castfs.older.description import Damage
from castfs.older.guarded import WRONG_KIND, Refused, SourceTree, join
from castfs.paths import display

#: `runicorn` is whatever of the two systems a storage root holds.
Format = Literal["runicorn", "runicorn-assets", "runicorn-artifacts", "blobs", "manifest"]
FORMATS: Final[tuple[Format, ...]] = get_args(Format)

SHARD = re.compile(rb"[0-9a-f]{2}")
BLOB = re.compile(rb"[0-9a-f]{64}")
VERSION = re.compile(rb"v([1-9][0-9]{0,14})")
#: Entries of a directory that are looked at to tell what it is.
_PROBED = 64


@dataclass(frozen=True, slots=True)
class Layout:
    """Where what lies below the root; None where it does not."""

    #: The directory with `blobs`, `manifests` and `outputs`.
    archive: bytes | None = None
    #: The directory with `<type>/<name>/v1`.
    artifacts: bytes | None = None
    #: Is the root a storage root, with runs in it?
    runs: bool = False
    #: A directory of blobs alone.
    blobs: bytes | None = None

    @property
    def format(self) -> Format | None:
        if self.blobs is not None:
            return "blobs"
        if self.artifacts is not None and self.archive is not None:
            return "runicorn"
        if self.artifacts is not None:
            return "runicorn-artifacts"
        return "runicorn-assets" if self.archive is not None or self.runs else None


def find_layout(tree: SourceTree, format: Format | None, damage: list[Damage]) -> Layout:
    """NotFoundError if the root is no archive, or none of that `format`."""
    try:
        layout = _detect(tree, damage)
    except Refused as exc:
        shown = display(os.fsencode(tree.root))
        raise NotFoundError(f"cannot look into {shown}: {exc.reason}") from exc
    if format == "blobs":
        layout = Layout(blobs=layout.blobs if layout.blobs is not None else _blob_directory(tree))
    elif format == "runicorn-assets":
        layout = replace(layout, artifacts=None, blobs=None)
    elif format == "runicorn-artifacts":
        # Its runs say which versions they made and used.
        layout = replace(layout, archive=None, blobs=None)
        if layout.artifacts is None:
            layout = Layout()
    elif format == "runicorn":
        layout = replace(layout, blobs=None)
    if layout.format is None:
        wanted = f"no archive of format {format}" if format else "no archive that is known"
        raise NotFoundError(
            f"{display(os.fsencode(tree.root))} is {wanted}"
            + (f" ({damage[0].reason}: {display(damage[0].path)})" if damage else ""),
            hint="give the directory with `archive`, `artifacts` or `runs` in it, a directory of "
            "blobs, or a manifest file",
        )
    return layout


def only_blobs(tree: SourceTree, layout: Layout) -> bytes | None:
    """The directory of blobs, if there is nothing else that could be taken."""
    if layout.archive is None:
        return layout.blobs
    others = (join(layout.archive, name) for name in (b"manifests", b"outputs"))
    if layout.artifacts is not None or layout.runs or any(map(tree.is_directory, others)):
        return None
    return join(layout.archive, b"blobs")


def check_format(format: str | None, path: Path) -> Format | None:
    """UsageError unless `format` is one, and one that `path` can have."""
    known = next((each for each in FORMATS if each == format), None)
    if known is None and format is not None:
        raise UsageError(f"there is no format {format}", hint=f"known are {', '.join(FORMATS)}")
    if path.is_dir() and format == "manifest":
        raise UsageError(f"{display(os.fsencode(path))} is a directory, not a manifest file")
    if path.is_file() and format not in (None, "manifest"):
        raise UsageError(f"{display(os.fsencode(path))} is a file, not an archive")
    return known


def _detect(tree: SourceTree, damage: list[Damage]) -> Layout:
    if tree.look(b"castfs.json") is not None:
        raise SourceError(
            f"{display(os.fsencode(tree.root))} is a store of castfs itself",
            hint="name it with --store instead",
        )
    for name in (b"archive", b"artifacts", b"runs"):
        seen = tree.look(name)
        if seen is not None and seen.kind == "symlink":
            damage.append(Damage(name, WRONG_KIND["symlink"]))
    archive = next((where for where in (b"archive", b"") if _is_archive(tree, where)), None)
    artifacts = next((at for at in (b"artifacts", b"") if _is_artifacts(tree, at)), None)
    if artifacts == b"" and archive == b"":
        artifacts = None
    runs = archive != b"" and artifacts != b"" and _has_runs(tree)
    if archive is None and artifacts is None and not runs:
        return Layout(blobs=_blob_directory(tree))
    return Layout(archive, artifacts, runs)


def _is_archive(tree: SourceTree, where: bytes) -> bool:
    inner = (b"blobs", b"manifests", join(b"outputs", b"rolling"))
    return any(tree.is_directory(join(where, name)) for name in inner)


def _is_artifacts(tree: SourceTree, where: bytes) -> bool:
    if tree.is_directory(join(where, b".dedup")):
        return True
    for kind in _directories(tree, where):
        for name in _directories(tree, kind):
            for inner in _names(tree, name):
                if VERSION.fullmatch(inner) or inner == b"versions.json":
                    return True
    return False


def _has_runs(tree: SourceTree) -> bool:
    """A directory `runs`, at the top or as <project>/<name>/runs."""
    if tree.is_directory(b"runs"):
        return True
    for project in _directories(tree, b""):
        for name in _directories(tree, project):
            if tree.is_directory(join(name, b"runs")):
                return True
    return False


def _blob_directory(tree: SourceTree) -> bytes | None:
    """The root itself, if blobs lie in it, with or without shards."""
    names = _names(tree, b"", limit=None)
    if any(BLOB.fullmatch(name) for name in names):
        return b""
    for shard in filter(SHARD.fullmatch, names):
        if any(BLOB.fullmatch(name) for name in _names(tree, shard)):
            return b""
    return None


def _names(tree: SourceTree, where: bytes, limit: int | None = _PROBED) -> list[bytes]:
    with contextlib.suppress(Refused):
        return [seen.name for seen in tree.list(where)[:limit]]
    return []


def _directories(tree: SourceTree, where: bytes) -> list[bytes]:
    with contextlib.suppress(Refused):
        entries = [seen for seen in tree.list(where) if not seen.name.startswith(b".")]
        return [join(where, seen.name) for seen in entries if seen.kind == "directory"][:_PROBED]
    return []
