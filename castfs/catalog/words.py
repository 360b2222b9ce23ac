"""What names and aliases may be, and what a word says: `NAME`, `NAME:v3`, `NAME:ALIAS`, `NAME@ID`.

Names are text in Unicode's normal form C; a `/` separates namespaces.
"""

from __future__ import annotations

import re
import unicodedata
from dataclasses import dataclass

from castfs.errors import UsageError
from castfs.paths import shown

#: Fewer digits than git's default abbreviation say too little.
PREFIX_MIN = 7
NAME_BYTES_MAX = 255
LATEST = "latest"

PREFIX = re.compile(f"[0-9a-f]{{{PREFIX_MIN},64}}")
_HEX = re.compile(f"[0-9a-fA-F]{{{PREFIX_MIN},}}")
_SELECTOR_ID = re.compile("[0-9a-f]{1,64}")
_VERSION = re.compile(r"v([1-9][0-9]{0,14})")
_LIKE_VERSION = re.compile(r"[vV][0-9]+")
_ALIAS = re.compile(r"[^\W_][\w.+-]*")
#: What begins a path and no name.
_PATH_STARTS = ("/", "./", "../", "~")


@dataclass(frozen=True, slots=True)
class Word:
    """A word as it can be read as a name. At most one of the last three is given; without any it is
    the name alone, and `latest` says whether that was asked for."""

    name: str
    latest: bool = False
    version: int | None = None
    alias: str | None = None
    id_prefix: str | None = None


def normalize_name(name: str) -> str:
    return unicodedata.normalize("NFC", name)


def check_name(name: str) -> str:
    """A name in its normal form. UsageError unless a snapshot can be found again by it."""
    check_text(name)
    said, name = show_word(name), normalize_name(name)
    if not name:
        raise UsageError("the name is empty", hint="give a word")
    if not name.isprintable() or name != name.strip() or name.startswith("-"):
        raise UsageError(
            f"{said} is not a name",
            hint="a name has no blanks around it and no `-` before it; all of it is visible",
        )
    if alone := re.search("[:@]", name):
        before = show_word(name[: alone.start()])
        raise UsageError(
            f"{said} has a `{alone[0]}`, which ends a name", hint=f"the name alone is {before}"
        )
    if name.endswith(".json"):
        raise UsageError(f"the name {said} is that of a manifest file", hint="use another ending")
    if name.startswith(_PATH_STARTS) or set(name.split("/")) & {"", ".", ".."}:
        raise UsageError(
            f"the name {said} has a part that is empty, `.` or `..`",
            hint="use it like a relative path: team/dataset",
        )
    if _HEX.fullmatch(name):
        raise UsageError(f"the name {said} looks like an id", hint="put a letter before it")
    if len(name.encode()) > NAME_BYTES_MAX:
        raise UsageError(f"the name {said} is longer than {NAME_BYTES_MAX} bytes")
    return name


def check_alias(alias: str) -> str:
    """An alias in its normal form. UsageError unless it can stand behind `NAME:`."""
    check_text(alias)
    said, alias = show_word(alias), normalize_name(alias)
    if alias.lower() == LATEST:
        raise UsageError(
            f"{said} cannot be set: it always is the highest version", hint="use another alias"
        )
    if _LIKE_VERSION.fullmatch(alias):
        raise UsageError(f"the alias {said} looks like a version", hint="use another alias")
    if not _ALIAS.fullmatch(alias) or len(alias.encode()) > NAME_BYTES_MAX:
        raise UsageError(f"{said} is not an alias", hint="use letters, digits, `-`, `_`, `.`, `+`")
    return alias


def check_text(*words: object) -> None:
    """UsageError unless all are text that a record can hold."""
    for word in words:
        if not isinstance(word, str):
            raise UsageError(f"{word!r} is not text", hint="names and tags are strings")
        try:
            word.encode()
        except UnicodeEncodeError:
            raise UsageError(f"{show_word(word)} is not valid UTF-8") from None


def parse_word(word: str) -> Word | None:
    """None for what no name can be."""
    if any("\ud800" <= letter <= "\udfff" for letter in word):
        return None
    word = normalize_name(word)
    name, separator, selector = word.partition("@")
    if separator:
        # Any length will do: the name has narrowed it down.
        return Word(name, id_prefix=selector) if _SELECTOR_ID.fullmatch(selector) else None
    name, separator, selector = word.partition(":")
    if not separator:
        return Word(name)
    if selector == LATEST:
        return Word(name, latest=True)
    if match := _VERSION.fullmatch(selector):
        return Word(name, version=int(match[1]))
    return Word(name, alias=selector) if _ALIAS.fullmatch(selector) else None


def looks_like_path(word: str) -> bool:
    """Is it one, and can be nothing else?"""
    return word.endswith(".json") or word.startswith(_PATH_STARTS)


def show_word(word: str) -> str:
    return shown(word.encode(errors="backslashreplace"))
