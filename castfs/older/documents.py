"""The JSON documents of older archives, read as what a stranger wrote.

Python's own writer made them, so NaN and Infinity occur; they become text, because JSON has no such
numbers. Whatever else a record cannot hold (lone surrogates, endless integers) becomes text too.
"""

from __future__ import annotations

import json
import math
from collections.abc import Iterable, Mapping
from typing import Any

from castfs.digest import Digest, parse_digest
from castfs.older.guarded import Refused, SourceTree

#: Bytes. A version of 200,000 files has a manifest of about 40 MB; all other documents are small.
MANIFEST_MAX = 1 << 30
DOCUMENT_MAX = 64 << 20
#: Levels of lists and objects in what is kept of a document. Encoders give up at about 1,000.
DEPTH_MAX = 64
#: Characters of a text that describes.
TEXT_MAX = 1 << 16
#: Seconds around the epoch, as in manifests.
_TIME_LIMIT = 2**33
_INTEGERS = range(-(1 << 63), 1 << 64)


def parse_object(raw: bytes) -> dict[str, Any]:
    """A JSON object. Refused says what else it is."""
    try:
        document = json.loads(raw.decode())
    except RecursionError as exc:
        raise Refused("it is nested too deeply") from exc
    except ValueError as exc:
        raise Refused(f"it is not JSON: {exc}") from exc
    if not isinstance(document, dict):
        raise Refused("it is not a JSON object")
    return document


def read_object(tree: SourceTree, path: bytes, limit: int = DOCUMENT_MAX) -> dict[str, Any]:
    return parse_object(tree.read(path, limit))


def clean(value: Any, depth: int = DEPTH_MAX) -> Any:
    """`value` as any JSON writer takes it. Refused if it is too deep."""
    if isinstance(value, str):
        return clean_text(value)
    if isinstance(value, bool) or value is None:
        return value
    if isinstance(value, int):
        return value if value in _INTEGERS else str(value)
    if isinstance(value, float):
        return value if math.isfinite(value) else json.dumps(value)
    if depth == 0:
        raise Refused(f"it is nested deeper than {DEPTH_MAX} levels")
    if isinstance(value, Mapping):
        return {clean_text(str(key)): clean(inner, depth - 1) for key, inner in value.items()}
    if isinstance(value, Iterable):
        return [clean(inner, depth - 1) for inner in value]
    return clean_text(str(value))


def clean_text(text: str) -> str:
    return text.encode(errors="backslashreplace").decode()


def get_object(document: Mapping[str, Any], key: str) -> dict[str, Any]:
    """The object under `key`; an empty one if it is anything else, or too deep to be kept."""
    value = document.get(key)
    if not isinstance(value, dict):
        return {}
    try:
        kept: dict[str, Any] = clean(value)
    except Refused:
        return {"unreadable": f"nested deeper than {DEPTH_MAX} levels"}
    return kept


def get_list(document: Mapping[str, Any], key: str) -> list[Any]:
    value = document.get(key)
    return value if isinstance(value, list) else []


def get_text(document: Mapping[str, Any], key: str) -> str | None:
    """The text under `key`, None if it is empty or anything else."""
    value = document.get(key)
    return clean_text(value[:TEXT_MAX]) or None if isinstance(value, str) else None


def get_number(document: Mapping[str, Any], key: str) -> int | None:
    value = document.get(key)
    return value if type(value) is int and 0 <= value < 2**63 else None


def get_time(document: Mapping[str, Any], key: str) -> float | None:
    """Seconds since the epoch."""
    value = document.get(key)
    if isinstance(value, bool) or not isinstance(value, int | float):
        return None
    return float(value) if abs(value) < _TIME_LIMIT else None


def to_nanoseconds(seconds: float) -> int:
    """Exact: a product with 1e9 is off by up to 128 ns, and the way back gives another time."""
    numerator, denominator = seconds.as_integer_ratio()
    return (numerator * 10**9 + denominator // 2) // denominator


def get_texts(document: Mapping[str, Any], key: str) -> tuple[str, ...]:
    """The texts in the list under `key`, each once."""
    texts = [clean_text(text) for text in get_list(document, key) if isinstance(text, str)]
    return tuple(dict.fromkeys(filter(None, texts)))


def get_digest(document: Mapping[str, Any], key: str) -> Digest | None:
    """The digest under `key`, with or without `sha256:` before it."""
    value = document.get(key)
    if not isinstance(value, str):
        return None
    try:
        return parse_digest(value.removeprefix("sha256:"))
    except ValueError:
        return None
