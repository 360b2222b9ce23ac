"""Getting back what a manifest, or a run's `assets.json`, names."""

from __future__ import annotations

import contextlib
import functools
import json
import os
from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any, TypeVar, overload

from castfs import settings
from castfs.archive import export_archive
from castfs.compat.runicorn.assets.blob_store import missing_blob
from castfs.compat.runicorn.assets.failures import (
    BadManifestError,
    NoFileError,
    NoManifestError,
    TargetExistsError,
)
from castfs.compat.runicorn.assets.runassets import is_assets_file, open_workspace
from castfs.errors import BlobError, ManifestError
from castfs.manifest import File, Manifest, Tree, parse_manifest, read_manifest_bytes
from castfs.paths import display
from castfs.repository.lookup import load_manifest_file
from castfs.restore import RestoreResult, restore_tree
from castfs.store import BlobDir
from castfs.store.reading import iter_blob

T = TypeVar("T")


def load_manifest(manifest_path: Path) -> dict[str, Any]:
    """The manifest as the JSON object that it is, with `files`; checked whole before it is given.
    FileNotFoundError; ValueError if it is damaged, or no manifest."""
    path = Path(manifest_path)
    _read(path)
    document: dict[str, Any] = json.loads(read_manifest_bytes(path))
    return document


def _read(path: Path) -> Manifest:
    try:
        status = path.stat()
    except (FileNotFoundError, NotADirectoryError):
        raise NoManifestError(f"no manifest file {display(os.fsencode(path))}") from None
    return _read_cached(
        os.path.realpath(path),
        status.st_ino,
        status.st_size,
        status.st_mtime_ns,
        status.st_ctime_ns,
    )


@functools.lru_cache(maxsize=2)
def _read_cached(path: str, *_: int) -> Manifest:
    """One file after the other is asked for by get_file_from_manifest: parsed once."""
    try:
        return parse_manifest(read_manifest_bytes(Path(path)))
    except ManifestError as exc:
        shown = display(os.fsencode(path))
        raise BadManifestError(f"{shown}: {exc.message}", hint=exc.hint) from exc


@overload
def restore_from_manifest(
    manifest_path: Path, blob_root: Path, target_dir: Path, *, overwrite: bool = False
) -> dict[str, Any]: ...
@overload
def restore_from_manifest(
    manifest_path: str, target_dir: str = ".", *, overwrite: bool = False
) -> None: ...
def restore_from_manifest(*args: Any, **kwargs: Any) -> dict[str, Any] | None:
    """Recreate what a manifest names in `target_dir`; nothing is ever written outside it.

    With `blob_root`: FileExistsError if the target is there, unless `overwrite`, which replaces
    files and leaves others alone. The result has `restored_count` (symlinks among them),
    `total_bytes` and `target_dir`. Blobs that are missing or damaged do not stop the rest: they are
    listed as `missing_blobs`, once for each file, beside `error`.

    Without it the blobs are looked for around `manifest_path`, which may be a run's `assets.json`:
    then the newest workspace snapshot that it names is restored. The target may be there; if one of
    the files is, nothing is written, unless `overwrite`. BlobError if anything is missing.
    """
    if "blob_root" in kwargs or len(args) + ("target_dir" in kwargs) > 2:
        return _restore_from(*args, **kwargs)
    _restore_in_place(*args, **kwargs)
    return None


def _restore_from(
    manifest_path: Path, blob_root: Path, target_dir: Path, *, overwrite: bool = False
) -> dict[str, Any]:
    path, target = Path(manifest_path), Path(target_dir)
    if not overwrite and os.path.lexists(target):
        raise TargetExistsError(
            f"Target directory already exists: {target}",
            hint="name another, or give overwrite=True",
        )
    with contextlib.ExitStack() as stack:
        if is_assets_file(path):
            target.parent.mkdir(parents=True, exist_ok=True)
            tree, blobs = stack.enter_context(open_workspace(path, target, Path(blob_root)))
        else:
            tree, blobs = _read(path).tree, _open(stack, blob_root)
        missing, result = _with_what_is_there(
            tree, blobs, functools.partial(_write, blobs, target, overwrite=overwrite)
        )
    return {
        "restored_count": result.file_count + result.symlink_count,
        "total_bytes": result.total_size_bytes,
        "target_dir": str(target),
        **_report(missing),
    }


def _restore_in_place(
    manifest_path: str, target_dir: str = ".", *, overwrite: bool = False
) -> None:
    path, target = Path(manifest_path), Path(target_dir)
    target.parent.mkdir(parents=True, exist_ok=True)
    if is_assets_file(path):
        with open_workspace(path, target, None) as (tree, blobs):
            _write(blobs, target, tree, overwrite=overwrite, again=False)
        return
    _read(path)
    snapshot = load_manifest_file(path, depot=None)
    snapshot.restore(target, if_exists="replace" if overwrite else "fail")


def _write(
    blobs: BlobDir, target: Path, tree: Tree, *, overwrite: bool, again: bool
) -> RestoreResult:
    target.parent.mkdir(parents=True, exist_ok=True)
    return restore_tree(
        tree,
        blobs,
        target,
        if_exists="replace" if overwrite or again else "fail",
        threads=settings.threads(),
    )


def export_manifest_to_zip(manifest_path: Path, blob_root: Path, zip_path: Path) -> dict[str, Any]:
    """Write what a manifest names as a zip file, whole or not at all, over one that is there.

    `exported_count` (symlinks among them), `total_bytes` and `zip_path`; `missing_blobs` and
    `error` as restore_from_manifest. FileNotFoundError: no such manifest.
    """
    target = Path(zip_path)
    tree = _read(Path(manifest_path)).tree
    target.parent.mkdir(parents=True, exist_ok=True)
    with contextlib.ExitStack() as stack:
        blobs = _open(stack, blob_root)
        missing, result = _with_what_is_there(
            tree,
            blobs,
            lambda tree, again: export_archive(tree, blobs, target, format="zip", replace=True),
        )
    return {
        "exported_count": result.file_count + result.symlink_count,
        "total_bytes": result.total_size_bytes,
        "zip_path": str(target),
        **_report(missing),
    }


def get_file_from_manifest(manifest_path: Path, blob_root: Path, rel_path: str) -> Path:
    """The blob of one file, verified. KeyError: the manifest has no such file. FileNotFoundError:
    no such manifest, or no such blob; BlobError if it is damaged."""
    tree = _read(Path(manifest_path)).tree
    entry = tree.get(os.fsencode(rel_path))
    if not isinstance(entry, File):
        raise NoFileError(
            f"File not found in manifest: {rel_path}", hint="load_manifest(…)['files'] has them all"
        )
    with contextlib.ExitStack() as stack:
        blobs = _open(stack, blob_root)
        if blobs.size(entry.digest) is None:
            raise missing_blob(entry.digest, blobs.path)
        for _ in iter_blob(blobs, os.fsencode(rel_path), entry.digest, entry.size_bytes):
            pass
        return blobs.path / blobs.name(entry.digest)


def _open(stack: contextlib.ExitStack, blob_root: Path) -> BlobDir:
    blobs = BlobDir(Path(blob_root))
    stack.callback(blobs.close)
    return blobs


def _with_what_is_there(tree: Tree, blobs: BlobDir, write: Callable[..., T]) -> tuple[list[str], T]:
    """Write as much of `tree` as has blobs. A first try looks at sizes, which are there at once; if
    a blob turns out to be damaged all are hashed, and what is left is written again."""
    sizes = {file.sha256: file.size_bytes for file in tree.files.values()}
    bad = {digest for digest, size in sizes.items() if blobs.size(digest) != size}
    try:
        return _affected(tree, bad), write(_without(tree, bad), again=False)
    except BlobError:
        bad |= set(_find_damaged(tree, blobs, bad))
        return _affected(tree, bad), write(_without(tree, bad), again=True)


def _find_damaged(tree: Tree, blobs: BlobDir, known: set[str]) -> Iterator[str]:
    looked_at = set(known)
    for path, file in tree.files.items():
        if file.sha256 in looked_at:
            continue
        looked_at.add(file.sha256)
        try:
            for _ in iter_blob(blobs, path, file.digest, file.size_bytes):
                pass
        except BlobError:
            yield file.sha256


def _affected(tree: Tree, bad: set[str]) -> list[str]:
    return [file.sha256 for file in tree.files.values() if file.sha256 in bad]


def _without(tree: Tree, bad: set[str]) -> Tree:
    if not bad:
        return tree
    return replace(tree, files={p: f for p, f in tree.files.items() if f.sha256 not in bad})


def _report(missing: list[str]) -> dict[str, Any]:
    if not missing:
        return {}
    return {"missing_blobs": missing, "error": f"Missing {len(missing)} blob(s)"}
