"""Manifests that Runicorn's assets system wrote (0.6.0 to 0.7.2): read, never written.

    {"created_at": float, "source_path": str, "fingerprint": hex, "total_size_bytes": int,
     "file_count": int, "files": {"sub/a.py": {"sha256": hex, "size_bytes": int}}}

They know no modes, times, symlinks or directories. Those are made up the same way each time: 0644
and 0755, the manifest's `created_at` as every mtime, a directory for each parent. Unknown keys are
ignored, as their own reader does.
"""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Iterable
from typing import Any

from castfs.digest import parse_digest
from castfs.manifest.checks import check_tree
from castfs.manifest.codec import (
    CREATED_AT_LIMIT,
    SOURCE_PATH_MAX,
    compute_fingerprint,
    make_manifest,
    order_canonically,
)
from castfs.manifest.model import Directory, File, Manifest, Tree
from castfs.manifest.wording import bad_manifest
from castfs.paths import parse_relpath, shown, split

#: PATH_MAX without its NUL: Runicorn opens each file by its whole path.
_PATH_MAX = 4095
#: Bytes of all directories' paths, beyond four times the document. A path of 4 KiB can name 2,000
#: directories with 4 MB of paths, so a small document could ask for all the memory there is.
_DIRS_ALLOWANCE = 64 << 20


def _without_duplicates(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    result = dict(pairs)
    if len(result) != len(pairs):
        counts = Counter(key for key, _ in pairs)
        twice = counts.most_common(1)[0][0]
        raise bad_manifest(f"the key {twice[:80]!r} stands twice in one object")
    return result


def _load(raw: bytes) -> dict[str, Any]:
    try:
        # Decoded here: json takes UTF-16 too, and surrogates that are not UTF-8.
        document = json.loads(raw.decode(), object_pairs_hook=_without_duplicates)
    except RecursionError as exc:
        raise bad_manifest(exc) from exc
    except ValueError as exc:
        raise bad_manifest(f"not JSON: {exc}") from exc
    if not isinstance(document, dict):
        raise bad_manifest("not a JSON object")
    return document


def read_older(raw: bytes) -> Manifest:
    """The manifest as ours, with an id of its own. ManifestError names what is wrong."""
    document = _load(raw)
    files = document.get("files")
    if not isinstance(files, dict):
        raise bad_manifest("it has no `files` object", hint="is it a manifest at all?")
    created_at = _read_created_at(document)
    source_path = _read_source_path(document)
    mtime_ns = int(created_at * 1_000_000_000)
    entries = {}
    for name, value in files.items():
        path, file = _read_file(name, value, mtime_ns)
        entries[path] = file
    directory = Directory(mode=0o755, mtime_ns=mtime_ns)
    parents = _find_parents(entries, limit=_DIRS_ALLOWANCE + 4 * len(raw))
    dirs = dict.fromkeys(parents, directory)
    tree = Tree(
        root=directory,
        dirs=order_canonically(dirs),
        files=order_canonically(entries),
        symlinks={},
    )
    check_tree(tree)
    _check_claims(document, tree)
    return make_manifest(tree, created_at=created_at, source_path=source_path)


def _read_created_at(document: dict[str, Any]) -> float:
    value = document.get("created_at", 0.0)
    if type(value) not in (int, float) or not abs(value) < CREATED_AT_LIMIT:
        raise bad_manifest("created_at is not a time")
    return float(value)


def _read_source_path(document: dict[str, Any]) -> str:
    value = document.get("source_path", "")
    # A lone surrogate is text to json and cannot be written again.
    if not isinstance(value, str) or any("\ud800" <= char <= "\udfff" for char in value):
        raise bad_manifest("source_path is not text")
    if len(value) > SOURCE_PATH_MAX:
        raise bad_manifest(f"source_path is longer than {SOURCE_PATH_MAX} characters")
    return value


def _read_file(name: str, value: object, mtime_ns: int) -> tuple[bytes, File]:
    try:
        path = parse_relpath(name.encode())
    except UnicodeEncodeError as exc:
        raise bad_manifest(f"{name[:80]!r} is not UTF-8") from exc
    except ValueError as exc:
        raise bad_manifest(exc) from exc
    if len(path) > _PATH_MAX:
        raise bad_manifest(f"path longer than {_PATH_MAX} bytes: {shown(path)}")
    if not isinstance(value, dict):
        raise bad_manifest(f"{shown(path)} is not an object")
    size = value.get("size_bytes")
    if type(size) is not int or not 0 <= size < 2**63:
        raise bad_manifest(f"{shown(path)} has no possible size_bytes")
    try:
        digest = parse_digest(str(value.get("sha256")))
    except ValueError as exc:
        raise bad_manifest(f"{shown(path)}: {exc}") from exc
    return path, File(mode=0o644, mtime_ns=mtime_ns, sha256=digest, size_bytes=size)


def _find_parents(paths: Iterable[bytes], *, limit: int) -> set[bytes]:
    """Every directory on the way to `paths`, whose own paths have at most `limit` bytes in all."""
    parents: set[bytes] = set()
    for path in paths:
        parent = split(path)[0]
        while parent and parent not in parents:
            parents.add(parent)
            limit -= len(parent)
            parent = split(parent)[0]
        if limit < 0:
            raise bad_manifest(f"an absurd number of directories, {shown(path)} is one too many")
    return parents


def _check_claims(document: dict[str, Any], tree: Tree) -> None:
    """What the document says of itself must be true where it says it."""
    for key, actual in (
        ("fingerprint", compute_fingerprint(tree.files)),
        ("file_count", len(tree.files)),
        ("total_size_bytes", tree.total_size_bytes),
    ):
        claimed = document.get(key)
        # Types too: to Python 4.0 is 4 and true is 1.
        if claimed is not None and (type(claimed) is not type(actual) or claimed != actual):
            raise bad_manifest(f"its {key} does not match its files")
