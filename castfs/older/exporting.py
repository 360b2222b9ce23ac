"""What Runicorn's own packages restore, written from trees and blobs.

`assets` is the layout of 0.6.0 to 0.7.2: each tree a manifest beside blobs, for their
`restore_from_manifest`. `artifacts` is that of 0.5.3: versions with aliases, metadata, references
and soft deletion, for its `use_artifact` and `download`.

Their formats know regular files with UTF-8 names. What else a tree has is left out and listed.
"""

from __future__ import annotations

import hashlib
import os
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final, Literal, get_args

from castfs import syscalls
from castfs.errors import TargetError, UsageError
from castfs.older.export_artifacts import make_directory_name, write_artifacts
from castfs.older.export_writing import (
    ExportRun,
    ExportVersion,
    ExportWriter,
    Loss,
    TreeSource,
    write_json,
)
from castfs.older.run_sending import write_run_documents
from castfs.paths import display
from castfs.progress import SILENT, Progress
from castfs.store import BlobDir

__all__ = [
    "LAYOUTS",
    "ExportLayout",
    "ExportReport",
    "ExportRun",
    "ExportVersion",
    "Loss",
    "TreeSource",
    "export_runicorn",
]

ExportLayout = Literal["assets", "artifacts"]
LAYOUTS: Final[tuple[ExportLayout, ...]] = get_args(ExportLayout)

#: Their categories; any other directory is one to their reader, too.
_CATEGORIES = {"dataset": "datasets", "model": "pretrained", "code": "code"}


@dataclass(frozen=True, slots=True, kw_only=True)
class ExportReport:
    """`written` are the manifests, or the versions' directories, below `target`."""

    target: Path
    layout: ExportLayout
    written: tuple[Path, ...]
    file_count: int
    size_bytes: int
    losses: tuple[Loss, ...]


def export_runicorn(
    versions: Iterable[ExportVersion],
    blobs: BlobDir,
    target: Path,
    *,
    layout: ExportLayout,
    runs: Iterable[ExportRun] = (),
    progress: Progress = SILENT,
) -> ExportReport:
    """Write a storage root at `target`, or into one. UsageError, TargetError; BlobError before
    anything stands under its name that is not what it says."""
    if layout not in LAYOUTS:
        raise UsageError(f"there is no layout {layout}", hint=f"known are {', '.join(LAYOUTS)}")
    progress.phase("exporting")
    try:
        target.mkdir(parents=True, exist_ok=True)
        writer = ExportWriter(blobs, target, progress)
        if layout == "assets":
            written = [_write_assets(writer, version) for version in versions]
            for run in runs:
                _write_run(target, run)
        else:
            written = write_artifacts(writer, list(versions), list(runs))
        _sync(target)
    except OSError as exc:
        raise TargetError(
            f"cannot write {display(os.fsencode(target))}: {exc.strerror}",
            hint="name a directory that you may write to",
        ) from exc
    return ExportReport(
        target=target,
        layout=layout,
        written=tuple(written),
        file_count=writer.file_count,
        size_bytes=writer.size_bytes,
        losses=tuple(dict.fromkeys(writer.losses)),
    )


def _write_run(target: Path, run: ExportRun) -> None:
    parts = [part for word in (run.project, run.name) for part in word.split("/") if part]
    path = [make_directory_name(part) for part in parts] or ["default"]
    directory = target.joinpath("runs", *path, make_directory_name(run.id))
    write_run_documents(directory, run, {"path": "/".join(path)})


def _sync(target: Path) -> None:
    fd = os.open(target, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    try:
        syscalls.syncfs(fd)
    finally:
        os.close(fd)


def _write_assets(writer: ExportWriter, version: ExportVersion) -> Path:
    archive = writer.target / "archive"
    entries: dict[str, dict[str, Any]] = {}
    for path, text, file in writer.files_of(version):
        place = archive / "blobs" / file.sha256[:2] / file.sha256
        writer.write_blob(path, file, place)
        entries[text] = {"sha256": file.sha256, "size_bytes": file.size_bytes}
    label = version.name or "the tree"
    references = version.reference_paths()
    writer.losses += [Loss(label, each, "an external reference") for each in references]
    state = hashlib.sha256()
    for text in sorted(entries):
        state.update(b"%s\0%s\0" % (text.encode(), entries[text]["sha256"].encode()))
    fingerprint = state.hexdigest()
    category = _CATEGORIES.get(version.type or "", "outputs")
    place = archive / "manifests" / category / fingerprint[:2] / f"{fingerprint}.json"
    if not place.exists():  # as theirs: the first of equal trees stays
        write_json(
            place,
            {
                "created_at": version.created_at,
                "source_path": version.source,
                "fingerprint": fingerprint,
                "total_size_bytes": sum(entry["size_bytes"] for entry in entries.values()),
                "file_count": len(entries),
                "files": entries,
            },
        )
    return place
