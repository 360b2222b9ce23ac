"""What a program gives to a run or an artifact, looked at before anything is done with it."""

from __future__ import annotations

import operator
import os
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

from castfs.catalog.words import check_text, show_word
from castfs.errors import UsageError
from castfs.runs.values import as_scalar, to_stored


def as_path(given: object, what: str) -> Path:
    """UsageError for what no path can be. Relative ones stay so; empty ones are refused: to Python
    they are the current directory, to whoever has an unset variable something else."""
    try:
        path = os.fsdecode(given)  # type: ignore[arg-type]  # TypeError for what is neither
        if not path or b"\0" in os.fsencode(path):
            raise ValueError
    except (TypeError, ValueError):  # UnicodeEncodeError is one: half of a surrogate pair
        raise UsageError(f"{what} is no path: {_shown(given)}", hint="give a path") from None
    return Path(path)


def as_paths(given: object, what: str) -> tuple[Path, ...]:
    """One, or several."""
    return tuple(as_path(each, what) for each in _several(given, what))


def as_text(given: object, what: str) -> str:
    if not isinstance(given, str):
        raise UsageError(f"{what} is no text: {_shown(given)}", hint="give a string")
    check_text(given)
    return given


def as_texts(given: object, what: str) -> tuple[str, ...]:
    """One, or several."""
    return tuple(as_text(each, what) for each in _several(given, what))


def as_patterns(given: object, what: str) -> tuple[str, ...]:
    """One, or several, as in .gitignore: text, and whatever bytes a file's name has."""
    found = _several(given, what)
    for each in found:
        try:
            if not isinstance(each, str) or b"\0" in os.fsencode(each):
                raise ValueError
        except ValueError:
            raise UsageError(
                f"{what} has no pattern: {_shown(each)}", hint="give strings, as in .gitignore"
            ) from None
    return tuple(map(str, found))


def as_metadata(given: object, what: str) -> dict[str, Any]:
    """A mapping from text to numbers and the like, as they are stored (`castfs.runs.values`)."""
    if not isinstance(given, Mapping):
        raise UsageError(f"{what} is no mapping: {_shown(given)}", hint="give a dict")
    check_text(*given)
    return to_stored(given, what)


def as_step(given: object) -> int:
    """A whole number, of whatever type: 3, 3.0, a tensor with 3 in it."""
    number = as_scalar(given)
    if isinstance(number, float) and number.is_integer():
        number = int(number)
    return as_number(number, "the step")


def as_number(given: object, what: str) -> int:
    """A whole number that JSON can hold, of numpy's kind, too."""
    try:
        number = operator.index(given)  # type: ignore[arg-type]  # TypeError for anything else
        if not -(2**63) <= number < 2**63:
            raise ValueError
    except (TypeError, ValueError):
        raise UsageError(
            f"{what} is no number of at most 63 bits: {_shown(given)}", hint="give a whole number"
        ) from None
    return number


def _several(given: object, what: str) -> tuple[object, ...]:
    """One that stands for itself is no sequence of letters."""
    if isinstance(given, (str, bytes, os.PathLike)):
        return (given,)
    if isinstance(given, Iterable):
        return tuple(given)
    raise UsageError(f"{what} is no list: {_shown(given)}", hint="give a list")


def _shown(given: object) -> str:
    try:
        return show_word(repr(given))
    except Exception:  # somebody's own __repr__, which is no reason to fail in another way
        return f"a {type(given).__name__}"
