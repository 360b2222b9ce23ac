"""Manifests that Runicorn wrote: read, never written.

Its assets (0.6.0 to 0.7.2):

    {"created_at": float, "source_path": str, "fingerprint": hex, "total_size_bytes": int,
     "file_count": int, "files": {"sub/a.py": {"sha256": hex, "size_bytes": int}}}

and its artifacts (0.3.1 to 0.5.3), `artifacts/<type>/<name>/v2/manifest.json`:

    {"created_at": float, "files": [{"path": "sub/a.py", "size": int, "digest": "sha256:<hex>",
     "modified_at": float}], "references": [{"uri": str, …}], "total_files": int, …}

They know no modes, symlinks or directories, the first no times either. Those are made up the same
way each time: 0644 and 0755, the manifest's `created_at` as every other mtime, a directory for each
parent. References are no files, and stay out. Unknown keys are ignored, as their own readers do.
"""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Iterable, Iterator
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
    if not isinstance(files, dict | list):
        raise bad_manifest("it has no `files` object", hint="is it a manifest at all?")
    created_at = _read_created_at(document)
    source_path = _read_source_path(document)
    mtime_ns = int(created_at * 1_000_000_000)
    found = _iter_assets(files, mtime_ns) if isinstance(files, dict) else _iter_listed(files)
    entries: dict[bytes, File] = {}
    for path, file in found:
        if path in entries:
            raise bad_manifest(f"{shown(path)} stands in it twice")
        entries[path] = file
    if not files and document.get("references"):
        raise bad_manifest(
            "it has references and no files", hint="`castfs import` takes them from the archive"
        )
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


def _iter_assets(files: dict[str, Any], mtime_ns: int) -> Iterator[tuple[bytes, File]]:
    for name, value in files.items():
        path = _read_path(name)
        if not isinstance(value, dict):
            raise bad_manifest(f"{shown(path)} is not an object")
        yield path, _make_file(path, value.get("size_bytes"), value.get("sha256"), mtime_ns)


def _iter_listed(files: list[Any]) -> Iterator[tuple[bytes, File]]:
    for value in files:
        if not isinstance(value, dict) or not isinstance(name := value.get("path"), str):
            raise bad_manifest("it has a file without a path")
        path = _read_path(name)
        modified_at = value.get("modified_at", 0.0)
        if type(modified_at) not in (int, float) or not abs(modified_at) < CREATED_AT_LIMIT:
            raise bad_manifest(f"{shown(path)} has a modified_at that is no time")
        numerator, denominator = modified_at.as_integer_ratio()
        mtime_ns = (numerator * 10**9 + denominator // 2) // denominator
        digest = str(value.get("digest")).removeprefix("sha256:")
        yield path, _make_file(path, value.get("size"), digest, mtime_ns)


def _read_path(name: str) -> bytes:
    try:
        path = parse_relpath(name.encode())
    except UnicodeEncodeError as exc:
        raise bad_manifest(f"{name[:80]!r} is not UTF-8") from exc
    except ValueError as exc:
        raise bad_manifest(exc) from exc
    if len(path) > _PATH_MAX:
        raise bad_manifest(f"path longer than {_PATH_MAX} bytes: {shown(path)}")
    return path


def _make_file(path: bytes, size: object, digest: object, mtime_ns: int) -> File:
    if type(size) is not int or not 0 <= size < 2**63:
        raise bad_manifest(f"{shown(path)} has no possible size")
    try:
        sha256 = parse_digest(str(digest))
    except ValueError as exc:
        raise bad_manifest(f"{shown(path)}: {exc}") from exc
    return File(mode=0o644, mtime_ns=mtime_ns, sha256=sha256, size_bytes=size)


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
        ("total_files", len(tree.files)),
    ):
        claimed = document.get(key)
        # Types too: to Python 4.0 is 4 and true is 1.
        if claimed is not None and (type(claimed) is not type(actual) or claimed != actual):
            raise bad_manifest(f"its {key} does not match its files")
