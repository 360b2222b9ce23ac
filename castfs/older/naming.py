"""Names that castfs takes, made of names that older systems took.

A name that castfs takes is kept (in Unicode's normal form C). Else, in this order, and always with
the same result:

- `:`, `@` and what cannot be printed become `-`;
- white space around parts goes, empty parts go, a part `.` or `..` becomes `_` or `__`;
- `-` or `~` at the beginning becomes `_`; `.json` at the end becomes `-json`;
- a name that reads as seven or more hexadecimal digits gets `-` and its type behind it;
- one that is longer than 200 bytes is cut, and gets `-x` and eight digits of its SHA-256;
- nothing left: the type.
"""

from __future__ import annotations

import hashlib
import re
import unicodedata

from castfs.catalog.words import check_alias, check_name
from castfs.errors import UsageError
from castfs.older.documents import clean_text

#: Bytes; leaves room for what is put behind a name to tell it from another.
_NAME_BYTES = 200
_HEX = re.compile("[0-9a-fA-F]{7,}")
_TYPE = re.compile("[a-z][a-z0-9_-]{0,63}")
_RUN_ID = re.compile(r"[0-9A-Za-z][0-9A-Za-z_.-]{0,127}")
_MISPLACED = re.compile("[:@]")
_NO_ALIAS = re.compile(r"[^\w.+-]")

TYPES = ("model", "dataset", "config", "code", "custom")


def make_name(older: str, type: str) -> str:
    """A name for what was called `older`."""
    text = unicodedata.normalize("NFC", clean_text(older))
    try:
        if len(text.encode()) <= _NAME_BYTES:
            return check_name(text)
    except UsageError:
        pass
    text = _MISPLACED.sub("-", text)
    text = "".join(char if char.isprintable() else "-" for char in text)
    parts = (part.strip() for part in text.split("/"))
    name = "/".join("_" * len(part) if part in (".", "..") else part for part in parts if part)
    if name.startswith(("-", "~")):
        name = f"_{name[1:]}"
    if name.endswith(".json"):
        name = f"{name[:-5]}-json"
    if _HEX.fullmatch(name):
        name = f"{name}-{type}"
    return _shorten(name) or type


def _shorten(name: str) -> str:
    raw = name.encode()
    if len(raw) <= _NAME_BYTES:
        return name
    tail = f"-x{hashlib.sha256(raw).hexdigest()[:8]}"
    kept = raw[: _NAME_BYTES - len(tail)].decode(errors="ignore").rstrip("/ ")
    return kept + tail


def make_alias(older: str) -> str | None:
    """An alias for what was called `older`; None for `latest`, which castfs gives itself. What
    castfs does not take gets `older-` before it, and `-` for each character that it does not."""
    text = unicodedata.normalize("NFC", clean_text(older))
    if text == "latest":
        return None
    try:
        return check_alias(text)
    except UsageError:
        return f"older-{_NO_ALIAS.sub('-', text)[:64]}"


def make_type(older: str) -> str:
    """`model` for `ArtifactType.MODEL` too, which is how an omitted type was stored; `custom` for
    what is no word."""
    text = older.removeprefix("ArtifactType.")
    text = text.lower() if text != older else text
    return text if _TYPE.fullmatch(text) else "custom"


def make_run_id(older: str | None) -> str | None:
    """A run's id if it can be kept: it becomes a file's name. None if not."""
    if older is None or not _RUN_ID.fullmatch(older) or ".." in older:
        return None
    return older
