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
from typing import Any

from castfs.digest import parse_digest
from castfs.errors import ManifestError
from castfs.manifest.checks import check_tree
from castfs.manifest.codec import compute_fingerprint, make_manifest, order_canonically
from castfs.manifest.model import Directory, File, Manifest, Tree
from castfs.paths import display, parse_relpath, split


def _without_duplicates(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    result = dict(pairs)
    if len(result) != len(pairs):
        counts = Counter(key for key, _ in pairs)
        twice = counts.most_common(1)[0][0]
        raise ManifestError(f"bad manifest: the key {twice[:80]!r} stands twice in one object")
    return result


def _load(raw: bytes) -> dict[str, Any]:
    try:
        document = json.loads(raw, object_pairs_hook=_without_duplicates)
    except (ValueError, RecursionError) as exc:
        raise ManifestError(f"bad manifest: not JSON: {exc}") from exc
    if not isinstance(document, dict):
        raise ManifestError("bad manifest: not a JSON object")
    return document


def read_older(raw: bytes) -> Manifest:
    """The manifest as ours, with an id of its own. ManifestError names what is wrong."""
    document = _load(raw)
    files = document.get("files")
    if not isinstance(files, dict):
        raise ManifestError(
            "bad manifest: it has no `files` object", hint="is it a manifest at all?"
        )
    created_at = document.get("created_at", 0.0)
    if not isinstance(created_at, int | float) or not abs(created_at) < 2**33:
        raise ManifestError("bad manifest: created_at is not a time")
    mtime_ns = int(created_at * 1_000_000_000)
    entries = {}
    for name, value in files.items():
        path, file = _read_file(name, value, mtime_ns)
        entries[path] = file
    directory = Directory(mode=0o755, mtime_ns=mtime_ns)
    dirs = {parent: directory for path in entries for parent in _parents(path)}
    tree = Tree(
        root=directory,
        dirs=order_canonically(dirs),
        files=order_canonically(entries),
        symlinks={},
    )
    check_tree(tree)
    _check_claims(document, tree)
    return make_manifest(
        tree, created_at=float(created_at), source_path=str(document.get("source_path", ""))
    )


def _read_file(name: str, value: object, mtime_ns: int) -> tuple[bytes, File]:
    try:
        path = parse_relpath(name.encode())
    except (ValueError, UnicodeError) as exc:
        raise ManifestError(f"bad manifest: {exc}") from exc
    if not isinstance(value, dict):
        raise ManifestError(f"bad manifest: {display(path)} is not an object")
    size = value.get("size_bytes")
    if isinstance(size, bool) or not isinstance(size, int) or not 0 <= size < 2**63:
        raise ManifestError(f"bad manifest: {display(path)} has no possible size_bytes")
    try:
        digest = parse_digest(str(value.get("sha256")))
    except ValueError as exc:
        raise ManifestError(f"bad manifest: {display(path)}: {exc}") from exc
    return path, File(mode=0o644, mtime_ns=mtime_ns, sha256=digest, size_bytes=size)


def _parents(path: bytes) -> list[bytes]:
    parents = []
    while path := split(path)[0]:
        parents.append(path)
    return parents


def _check_claims(document: dict[str, Any], tree: Tree) -> None:
    """What the document says of itself must be true where it says it."""
    for key, actual in (
        ("fingerprint", compute_fingerprint(tree.files)),
        ("file_count", len(tree.files)),
        ("total_size_bytes", tree.total_size_bytes),
    ):
        claimed = document.get(key)
        if claimed is not None and claimed != actual:
            raise ManifestError(f"bad manifest: its {key} does not match its files")
