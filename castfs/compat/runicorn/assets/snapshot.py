"""A workspace as it is now: as a zip file, or as a snapshot of a run."""

from __future__ import annotations

import os
import re
import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any, overload

from castfs import atomic, settings
from castfs.archive import export_archive
from castfs.compat.runicorn import runs
from castfs.compat.runicorn.assets.failures import TooLargeError, WrongKindError
from castfs.compat.runicorn.assets.ignore import default_excludes, workspace_options
from castfs.compat.runicorn.assets.layout import is_run_dir
from castfs.compat.runicorn.assets.runassets import note_snapshot
from castfs.compat.runicorn.assets.writing import BlobWriter
from castfs.errors import LimitError
from castfs.ingest import ScanOptions, scan
from castfs.paths import display
from castfs.repository.taking import open_cache
from castfs.store import BlobDir, find_depot_above

#: 500 MiB.
MAX_TOTAL_BYTES = 500 * 1024 * 1024
MAX_FILES = 200_000
_RUN_ID = re.compile(r"\d{8}_\d{6}_[0-9a-f]{6}")
_RUN_WORDS = {"run_id", "workspace_root", "include_patterns", "exclude_patterns"}


@overload
def snapshot_workspace(
    root: Path,
    out_zip: Path,
    *,
    ignore_file: str = ".rnignore",
    extra_excludes: list[str] | None = None,
    max_total_bytes: int = MAX_TOTAL_BYTES,
    max_files: int = MAX_FILES,
    force_snapshot: bool = False,
) -> dict[str, Any]: ...
@overload
def snapshot_workspace(
    run_id: str,
    workspace_root: str = ".",
    include_patterns: list[str] | None = None,
    exclude_patterns: list[str] | None = None,
) -> dict[str, Any]: ...
def snapshot_workspace(*args: Any, **kwargs: Any) -> dict[str, Any]:
    """A workspace without what `.gitignore`, `.rnignore` and `extra_excludes` leave out.

    With `root` and `out_zip` as a zip file. The result has `workspace_root`, `archive_path`,
    `format` ("zip"), `file_count` (symlinks among them) and `total_bytes`. ValueError if there are
    more than `max_files` or `max_total_bytes`, unless `force_snapshot`; nothing is written then.
    The zip is written whole or not at all, holds each file as it was at one moment, with modes,
    times and symlinks, and never itself or other runs. Nothing is written into the workspace.

    With `run_id` as a snapshot of that run; the result is its manifest, with `files`.
    """
    if _means_run(args, kwargs):
        return _snapshot_run(*args, **kwargs)
    return _snapshot_zip(*args, **kwargs)


def _means_run(args: tuple[Any, ...], kwargs: dict[str, Any]) -> bool:
    if _RUN_WORDS & kwargs.keys():
        return True
    if not args or not isinstance(args[0], str) or {"root", "out_zip"} & kwargs.keys():
        return False
    return len(args) != 2 or _RUN_ID.fullmatch(args[0]) is not None


def _snapshot_run(
    run_id: str,
    workspace_root: str = ".",
    include_patterns: list[str] | None = None,
    exclude_patterns: list[str] | None = None,
) -> dict[str, Any]:
    root = Path(workspace_root)
    run = runs.find_run(run_id)
    manifest = run.snapshot_workspace(
        root,
        include=tuple(include_patterns or ()),
        exclude=(*default_excludes(root), *(exclude_patterns or ())),
    )
    note_snapshot(run.run_dir, manifest, store=run.store.path)
    return manifest


def _snapshot_zip(
    root: Path,
    out_zip: Path,
    *,
    ignore_file: str = ".rnignore",
    extra_excludes: list[str] | None = None,
    max_total_bytes: int = MAX_TOTAL_BYTES,
    max_files: int = MAX_FILES,
    force_snapshot: bool = False,
) -> dict[str, Any]:
    root = Path(os.path.realpath(root))
    out_zip = Path(os.path.realpath(out_zip))
    if not root.is_dir():
        raise WrongKindError(f"{display(os.fsencode(root))} is not a directory", hint="check it")
    out_zip.parent.mkdir(parents=True, exist_ok=True)
    # A file could change between being hashed and being packed, so each is read once.
    with tempfile.TemporaryDirectory(prefix=".castfs-", dir=out_zip.parent) as held:
        options = ScanOptions(
            ignore=workspace_options(
                root,
                ignore_file=ignore_file,
                extra_excludes=extra_excludes,
                left_out=[Path(held), *_own_places(out_zip)],
            ),
            rehash=True,
            max_bytes=None if force_snapshot else max_total_bytes,
            max_files=None if force_snapshot else max_files,
        )
        with BlobWriter(Path(held), durable=False) as writer, open_cache() as cache:
            try:
                result = scan(
                    root, session=writer.as_session(), cache=cache, options=options, readers=1
                )
            except LimitError as exc:
                kind = "too many files" if "files" in exc.message else "total bytes exceeded"
                raise TooLargeError(
                    f"code snapshot too large: {kind}; {exc.message}",
                    hint="leave more out with .rnignore, or give force_snapshot=True",
                ) from exc
        tree = result.manifest.tree
        blobs = BlobDir(Path(held))
        try:
            export_archive(tree, blobs, out_zip, format="zip", replace=True)
        finally:
            blobs.close()
    atomic.fsync_dir(out_zip.parent)
    return {
        "workspace_root": str(root),
        "archive_path": str(out_zip),
        "format": "zip",
        "file_count": len(tree.files) + len(tree.symlinks),
        "total_bytes": tree.total_size_bytes,
    }


def _own_places(out_zip: Path) -> Iterator[Path]:
    """What this and other snapshots write, should it lie in the workspace."""
    yield out_zip
    yield settings.default_store()
    if (depot := find_depot_above(out_zip)) is not None:
        yield depot.path
    if not is_run_dir(out_zip.parent):
        return
    runs_dir = next((path for path in out_zip.parents if path.name == "runs"), out_zip.parent)
    yield runs_dir
    if (runs_dir.parent / "archive" / "blobs").is_dir():
        yield runs_dir.parent / "archive"
