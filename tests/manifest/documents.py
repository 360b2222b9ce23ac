"""Manifest files as plain JSON documents, made and signed without castfs: the oracle of the tests.

Only `json`, `hashlib` and `sorted` are used here, so that a mistake of the codec is not repeated.
"""

from __future__ import annotations

import copy
import hashlib
import json
import re
from typing import Any

Document = dict[str, Any]

#: "[]" nested deeper than any C stack would like; also a value no rule allows.
ESCAPE = "\u241b"
HEADER_KEYS = (
    "created_at",
    "file_count",
    "fingerprint",
    "format",
    "id",
    "source_path",
    "total_size_bytes",
    "version",
)
TREE_KEYS = ("dirs", "files", "root", "symlinks")


def sha256(data: bytes) -> str:
    return hashlib.sha256(data).hexdigest()


def to_json(value: object) -> bytes:
    """UTF-8, no white space, keys in the order they stand in."""
    return json.dumps(value, ensure_ascii=False, separators=(",", ":")).encode("utf-8")


def raw_name(key: str) -> bytes:
    """The bytes that a path in a manifest stands for (docs/FORMAT.md, "Names are bytes")."""
    parts = re.split(f"{ESCAPE}([0-9a-f]{{2}})", key)
    return b"".join(
        bytes([int(part, 16)]) if index % 2 else part.encode() for index, part in enumerate(parts)
    )


def tree_part(document: Document) -> bytes:
    return to_json({key: document[key] for key in TREE_KEYS})


def fingerprint(files: dict[str, Document]) -> str:
    named = sorted((raw_name(key), entry["sha256"].encode()) for key, entry in files.items())
    return sha256(b"".join(name + b"\0" + digest + b"\0" for name, digest in named))


def encode(document: Document) -> bytes:
    """The file of a document as it is, right or wrong."""
    return to_json(document) + b"\n"


def sign(document: Document) -> Document:
    """The document with whatever can be computed from its tree made right again.

    So each hostile document is wrong in one way only, and reaches the check that is meant.
    """
    signed = copy.deepcopy(document)
    files = signed["files"] if isinstance(signed.get("files"), dict) else {}
    entries = [entry for entry in files.values() if isinstance(entry, dict)]
    sizes = [entry.get("size_bytes") for entry in entries]
    if all(isinstance(size, int) for size in sizes):
        signed["total_size_bytes"] = sum(size for size in sizes if isinstance(size, int))
    signed["file_count"] = len(files)
    if all(isinstance(entry.get("sha256"), str) for entry in entries) and len(entries) == len(
        files
    ):
        signed["fingerprint"] = fingerprint(files)
    if all(key in signed for key in TREE_KEYS):
        signed["id"] = sha256(tree_part(signed))
    return signed


def file(content: bytes = b"", **fields: Any) -> Document:
    entry = {
        "mode": 0o644,
        "mtime_ns": 1_700_000_000_123_456_789,
        "sha256": sha256(content),
        "size_bytes": len(content),
        **fields,
    }
    return dict(sorted(entry.items()))


def directory(**fields: Any) -> Document:
    return dict(sorted({"mode": 0o755, "mtime_ns": 1_600_000_000_000_000_000, **fields}.items()))


def symlink(target: str, **fields: Any) -> Document:
    return dict(sorted({"mtime_ns": -1, "target": target, **fields}.items()))


def make_document(
    *,
    dirs: dict[str, Document] | None = None,
    files: dict[str, Document] | None = None,
    symlinks: dict[str, Document] | None = None,
    root: Document | None = None,
) -> Document:
    """A signed document, its entries in the order that the format wants."""
    document = {
        "created_at": 1_700_000_000.5,
        "file_count": 0,
        "fingerprint": "",
        "format": "castfs-manifest",
        "id": "",
        "source_path": "/data/run",
        "total_size_bytes": 0,
        "version": 1,
        "dirs": dict(sorted((dirs or {}).items())),
        "files": dict(sorted((files or {}).items())),
        "root": root or directory(),
        "symlinks": dict(sorted((symlinks or {}).items())),
    }
    return sign(document)


def sample() -> Document:
    """A document with one of everything."""
    linked = file(b"twice", hardlink="d/linked")
    link = symlink("d/ü", hardlink="a-link")
    return make_document(
        dirs={
            "d": directory(xattrs={"user.a": "AA==", "user.b": ""}),
            "d/e": directory(mode=0o1777),
        },
        files={
            "empty": file(),
            "d/linked": linked,
            "d/linked too": linked,
            "d/e/f": file(b"abc", mode=0o4755, mtime_ns=-5, uid=0, gid=1000),
            f"{ESCAPE}ff": file(b"abc", mtime_ns=-(2**63)),
        },
        symlinks={"a-link": link, "d/b-link": link, "dangling": symlink("../../nowhere")},
        root=directory(uid=4_294_967_294, gid=0),
    )
