"""Names and relative paths inside a tree: bytes, '/'-separated, checked where they are made.

A file name on Linux is any bytes but NUL and '/', at most 255 of them. JSON holds text only, so
names that are not UTF-8 are escaped; the escape is injective and reversible.
"""

from __future__ import annotations

import os
import re
from typing import NewType

#: A checked path relative to a snapshot's root, e.g. b"sub/file"; b"" is the root itself.
RelPath = NewType("RelPath", bytes)

#: Longest name of one entry: NAME_MAX of Linux's own filesystems. FAT, NTFS, SMB and FUSE allow
#: more.
NAME_MAX = 255
#: Deepest tree that is accepted. Linux has no limit of its own; a path of 1 MiB is 500,000 levels,
#: which is a bomb and not a directory that somebody made.
DEPTH_MAX = 20_000

#: SYMBOL FOR ESCAPE. Rare in file names, and itself escaped, so every text has one reading.
ESCAPE = "\u241b"
#: Bytes at each end of a long name that an error message shows.
_SHOWN_ENDS = 150
_ESCAPED = re.compile(ESCAPE + "(..)?")
_HEX_PAIR = re.compile("[0-9a-f]{2}")
_SURROGATE = re.compile("[\udc80-\udcff]")


def escape(raw: bytes) -> str:
    """`raw` as text that any JSON writer takes: UTF-8, each other byte as ␛ and two hex digits."""
    try:
        text = raw.decode()
    except UnicodeDecodeError:
        text = raw.decode(errors="surrogateescape")
    else:
        if ESCAPE not in text:
            return text
    text = text.replace(ESCAPE, "".join(f"{ESCAPE}{byte:02x}" for byte in ESCAPE.encode()))
    return _SURROGATE.sub(lambda match: f"{ESCAPE}{ord(match[0]) - 0xDC00:02x}", text)


def unescape(text: str) -> bytes:
    """The inverse of `escape`; ValueError for a text that `escape` never makes."""
    if ESCAPE not in text:
        return text.encode()

    def restore(match: re.Match[str]) -> str:
        pair = match[1]
        if pair is None or not _HEX_PAIR.fullmatch(pair):
            raise ValueError(f"bad escape in {text[:80]!r}")
        return chr(0xDC00 + int(pair, 16)) if int(pair, 16) >= 0x80 else "\x00"

    raw = _ESCAPED.sub(restore, text).encode(errors="surrogateescape")
    if escape(raw) != text:
        raise ValueError(f"name is not escaped the canonical way: {text[:80]!r}")
    return raw


def check_name(name: bytes) -> bytes:
    """One component; ValueError unless it can be an entry of a directory."""
    if not name or name in (b".", b".."):
        raise ValueError(f"not a name: '{shown(name)}'")
    if b"/" in name or b"\0" in name:
        raise ValueError(f"name holds a slash or NUL: '{shown(name)}'")
    if len(name) > NAME_MAX:
        raise ValueError(f"name longer than {NAME_MAX} bytes: {shown(name)}")
    return name


def parse_relpath(raw: bytes) -> RelPath:
    """A path below the root; ValueError for absolute, `..`, `.`, empty components, NUL."""
    if raw.startswith(b"/"):
        raise ValueError(f"absolute path: {shown(raw)}")
    parts = raw.split(b"/")
    if len(parts) > DEPTH_MAX:
        raise ValueError(f"deeper than {DEPTH_MAX} levels: {shown(raw)}")
    for part in parts:
        try:
            check_name(part)
        except ValueError as exc:
            raise ValueError(f"{exc} in '{shown(raw)}'" if len(parts) > 1 else str(exc)) from None
    return RelPath(raw)


def normalize(path: str | bytes) -> bytes:
    """A path in a snapshot as somebody types it: `/a//./b/` is a/b, and `.` the root."""
    return b"/".join(part for part in os.fsencode(path).split(b"/") if part not in (b"", b"."))


def join(parent: bytes, name: bytes) -> RelPath:
    """`name` in directory `parent`, where b"" is the root."""
    return RelPath(parent + b"/" + name if parent else name)


def split(path: bytes) -> tuple[bytes, bytes]:
    """(parent, name); the parent of a top-level entry is b""."""
    parent, _, name = path.rpartition(b"/")
    return parent, name


def display(raw: bytes) -> str:
    """`raw` for a terminal or a log: one line, no control characters, never fails."""
    text = raw.decode(errors="backslashreplace")
    if text.isprintable():
        return text
    return "".join(c if c.isprintable() else c.encode("unicode_escape").decode() for c in text)


def shown(raw: bytes) -> str:
    """`raw` for an error message: as `display`, without the middle of what is long.

    Only what is shown is looked at: a hostile name may have a hundred megabytes.
    """
    if len(raw) <= 2 * _SHOWN_ENDS:
        return display(raw)
    return f"{display(raw[:_SHOWN_ENDS])}…{display(raw[-_SHOWN_ENDS:])}"
