"""`--json`: results as they are, in one document.

Frozen dataclasses and msgspec structs become objects with their fields' names. What is bytes (names
of files) is escaped as in manifests: UTF-8 as it is, every other byte as ␛ and two hex digits.
"""

from __future__ import annotations

import dataclasses
import os
from collections.abc import Iterable, Mapping
from enum import Enum
from pathlib import PurePath
from typing import Any

import msgspec

from castfs.cli import output
from castfs.paths import escape


def print_document(value: object) -> None:
    output.write(encode_document(value) + b"\n")


def encode_document(value: object) -> bytes:
    return msgspec.json.format(msgspec.json.encode(plain(value)), indent=1)


def plain(value: object) -> Any:
    """`value` made of what JSON has."""
    match value:
        case None | bool() | int() | float():
            return value
        case Enum():
            return plain(value.value)
        case str():
            return value if _is_text(value) else escape(os.fsencode(value))
        case bytes():
            return escape(value)
        case PurePath():
            return escape(os.fsencode(value))
        case Mapping():
            return {plain(key): plain(item) for key, item in value.items()}
        case Iterable():
            return [plain(item) for item in value]
    return {name: plain(getattr(value, name)) for name in _field_names(value)}


def _is_text(text: str) -> bool:
    try:
        text.encode()
    except UnicodeEncodeError:
        return False
    return True


def _field_names(value: object) -> Iterable[str]:
    if isinstance(value, msgspec.Struct):
        return value.__struct_fields__
    if dataclasses.is_dataclass(value):
        return (field.name for field in dataclasses.fields(value))
    raise TypeError(f"no JSON for {type(value).__name__}")
