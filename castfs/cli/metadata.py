"""`key=value` of `--meta` and `castfs meta`: which values are numbers, and which are text."""

from __future__ import annotations

import math
import re
from collections.abc import Mapping, Sequence
from typing import Any

import msgspec

from castfs.errors import UsageError

_CONSTANTS = {"true": True, "false": False, "null": None}
#: JSON's numbers, but of those with an exponent only what people write so: 1e-4, 3e8, 1.5E+10. A
#: commit whose digits are 12345e6 is none.
_NUMBER = re.compile(r"-?(?:0|[1-9]\d*)(?:\.\d+(?:[eE][+-]?\d+)?)?|-?\d[eE]\d+|-?\d+[eE][+-]\d+")
_INTEGERS = range(-(2**63), 2**64)


def parse_metadata(pairs: Sequence[str]) -> dict[str, Any]:
    """UsageError for a key that is given twice."""
    metadata: dict[str, Any] = {}
    for pair in pairs:
        key, _, value = pair.partition("=")
        if key in metadata:
            raise UsageError(f"the key {key} is given twice", hint="give each key once")
        metadata[key] = parse_value(value)
    return metadata


def parse_value(text: str) -> Any:
    """JSON's true, false, null and numbers; all else is text."""
    if text in _CONSTANTS:
        return _CONSTANTS[text]
    if not _NUMBER.fullmatch(text):
        return text
    try:
        number = msgspec.json.decode(text.encode())
    except msgspec.DecodeError:
        return text
    is_kept = math.isfinite(number) if isinstance(number, float) else number in _INTEGERS
    return number if is_kept else text


def metadata_rows(metadata: Mapping[str, Any]) -> list[tuple[str, str]]:
    """For people: text as it is, the rest as JSON."""
    from castfs.repository.selecting import json_text

    return [(key, json_text(value)) for key, value in metadata.items()]
