"""What the record of an imported version says of where it is from, under `imported`.

`entries` is "all" where the archive had symlinks or directories besides files, and they were taken.
Records of before have it not: castfs left those out then. So of a record without it, contents that
have symlinks or empty directories count as another content, and are taken once more, as a version
of its own that is whole. What had only files, or directories with files in them, is the same.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from castfs.older.description import Damage, Key, OlderVersion
from castfs.older.documents import clean
from castfs.older.filling import Missing
from castfs.paths import escape

SYSTEM = "runicorn"
#: Missing files, and other damage, that a record lists.
_LISTED = 1000

#: What a version is in the older archive, and what identifies its content there.
Identified = tuple[Key, str]


def make_origin(
    version: OlderVersion,
    identity: str,
    missing: Sequence[Missing],
    damage: Sequence[Damage],
    *,
    has_more_than_files: bool = False,
) -> dict[str, Any]:
    origin: dict[str, Any] = {
        "system": SYSTEM,
        "name": version.older_name,
        "key": list(version.key),
        "content": identity,
    }
    if has_more_than_files:
        origin["entries"] = "all"
    if version.number is not None:
        origin["version"] = version.number
    if version.details:
        origin["details"] = clean(version.details)
    if missing:
        origin["missing"] = [
            {"path": escape(each.path), "at": escape(each.where), "reason": each.reason}
            for each in missing[:_LISTED]
        ]
    if damage:
        origin["damage"] = [
            {"at": escape(each.path), "reason": each.reason} for each in damage[:_LISTED]
        ]
    return origin


def read_origin(origin: Mapping[str, Any]) -> Identified | None:
    key, content = origin.get("key"), origin.get("content")
    if not isinstance(key, list | tuple) or not isinstance(content, str):
        return None
    return tuple(map(str, key)), content


def was_only_files(origin: Mapping[str, Any]) -> bool:
    """Were symlinks and empty directories left out, if there were any?"""
    return origin.get("entries") != "all"


def list_losses(origin: Mapping[str, Any], list_name: str) -> list[dict[str, str]]:
    """What a record lists as missing or damaged; anybody may have edited it."""
    listed = origin.get(list_name)
    return [
        entry
        for entry in (listed if isinstance(listed, list) else [])
        if isinstance(entry, dict)
        and {"at", "reason"} <= entry.keys()
        and all(isinstance(value, str) for value in entry.values())
    ]
