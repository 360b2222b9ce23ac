"""Numbers and the like that programs give, as JSON holds them, and back.

JSON has no NaN and no infinity: they are stored as the texts "NaN", "Infinity" and "-Infinity" (as
pandas reads and writes them), which are floats again when castfs reads them. Numbers of numpy,
torch and others are known by what they can do, so none of them is imported.
"""

from __future__ import annotations

import math
import operator
from collections.abc import Callable, Mapping
from enum import Enum
from typing import Any

from castfs.catalog.words import show_word
from castfs.errors import UsageError

_FLOATS = {"NaN": math.nan, "Infinity": math.inf, "-Infinity": -math.inf}
#: JSON's whole numbers that every reader here takes. Others are stored as the text of their digits.
_INTEGERS = range(-(2**63), 2**64)
#: Far below what Python's stack allows a reader.
_DEPTH_MAX = 100
_HINT = "give numbers, text, and lists and dicts of them"


class _Odd(Exception):
    """Why a value cannot be stored."""


def to_stored(given: Mapping[str, Any], what: str) -> dict[str, Any]:
    """What JSON can hold of `given`, the same when it is read again. UsageError names the key."""
    return _each(given, what, lambda value: _plain(value, _refuse, 0))


def to_told(given: Mapping[Any, Any], what: str) -> dict[str, Any]:
    """The same for people to read: what else there is becomes text, sets lists in order."""
    return _each(given, what, lambda value: _plain(value, _tell, 0))


def from_stored(value: Any) -> Any:
    """With floats for the texts that stand for them."""
    match value:
        case str():
            return _FLOATS.get(value, value)
        case Mapping():
            return {key: from_stored(item) for key, item in value.items()}
        case list() | tuple():
            return [from_stored(item) for item in value]
    return value


def as_scalar(given: object) -> object:
    """The plain number or text that a value stands for, else the value."""
    try:
        return _scalar(given)
    except _Odd:
        return given


def _each(
    given: Mapping[Any, Any], what: str, convert: Callable[[object], object]
) -> dict[str, Any]:
    found: dict[str, Any] = {}
    for key, value in given.items():
        try:
            name = _key(key)
            if name in found:
                raise _Odd("another key is the same as text")
            found[name] = convert(value)
        except (_Odd, ValueError, RecursionError) as exc:
            shown = show_word(key) if isinstance(key, str) else "a key"
            raise UsageError(f"{shown} of {what} cannot be recorded: {exc}", hint=_HINT) from None
    return found


def _plain(value: object, other: Callable[[object], object], depth: int) -> object:
    if depth > _DEPTH_MAX:
        raise _Odd(f"it is nested deeper than {_DEPTH_MAX} levels")
    match value:
        case Mapping():
            items = {_key(key): _plain(item, other, depth + 1) for key, item in value.items()}
            if len(items) < len(value):
                raise _Odd("two of its keys are the same as text")
            return items
        case list() | tuple():
            return [_plain(item, other, depth + 1) for item in value]
        case Enum() if not isinstance(value, str):
            return _plain(value.value, other, depth + 1)
    try:
        return _scalar(value)
    except _Odd:
        if isinstance(array := _call(value, "tolist"), list):
            return _plain(array, other, depth + 1)
        return _plain(other(value), other, depth + 1)


def _scalar(value: object) -> object:
    match value:
        case None | bool():
            return value
        case str():
            return _text(str.__str__(value))  # of an Enum's member the text, not its name
        case int():
            # Beyond 4,300 digits it is a ValueError.
            return number if (number := int(value)) in _INTEGERS else str(number)
        case float():
            return _number(float(value))
    item = _call(value, "item")
    if isinstance(item, (bool, int, float, str)):
        return _scalar(item)
    if hasattr(type(value), "__index__") or hasattr(type(value), "__float__"):
        conversions: tuple[Callable[[Any], object], ...] = (operator.index, float)
        for convert in conversions:
            try:
                return _scalar(convert(value))
            except Exception:  # whatever somebody's own class raises
                continue
    raise _Odd(f"it is of type {show_word(type(value).__name__)}")


def _call(value: object, name: str) -> object:
    """What a method without arguments gives: of an array, of a tensor. None if there is none."""
    try:
        return getattr(value, name)()
    except Exception:  # whatever somebody's own class raises: of arrays with more than one, `item`
        return None


def _number(value: float) -> float | str:
    if math.isfinite(value):
        return value
    return "NaN" if math.isnan(value) else "Infinity" if value > 0 else "-Infinity"


def _key(key: object) -> str:
    if isinstance(key, bool) or not isinstance(key, (str, int)):
        raise _Odd(f"a key is of type {show_word(type(key).__name__)}")
    return _text(str.__str__(key)) if isinstance(key, str) else str(int(key))


def _text(text: str) -> str:
    try:
        text.encode()
    except UnicodeEncodeError:
        raise _Odd("it is not valid UTF-8") from None
    return text


def _refuse(value: object) -> object:
    raise _Odd(f"it is of type {show_word(type(value).__name__)}")


def _tell(value: object) -> object:
    if isinstance(value, (set, frozenset)):
        return sorted(value, key=repr)  # it has no order, and the next run is to say the same
    return str(value).encode(errors="backslashreplace").decode()
