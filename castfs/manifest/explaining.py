"""Why a manifest cannot be decoded, in words. Runs only after a failure, and may take its time."""

from __future__ import annotations

import msgspec

from castfs.manifest.model import FORMAT, VERSION, Directory, Entry, File, Symlink
from castfs.paths import shown

_FAILURES = (msgspec.DecodeError, RecursionError, UnicodeDecodeError)


class _Claim(msgspec.Struct):
    format: msgspec.Raw = msgspec.Raw()
    version: msgspec.Raw = msgspec.Raw()


class _Outline(msgspec.Struct):
    dirs: dict[str, msgspec.Raw] = {}
    files: dict[str, msgspec.Raw] = {}
    symlinks: dict[str, msgspec.Raw] = {}


def explain_failure(raw: bytes) -> str | None:
    """Another format or version, or which entry is wrong; None if it is something else."""
    try:
        return _find_other_format(raw) or _find_bad_entry(raw)
    except _FAILURES:
        return None


def _find_other_format(raw: bytes) -> str | None:
    claim = msgspec.json.decode(raw, type=_Claim)
    claimed = bytes(claim.format), bytes(claim.version)
    if claimed == (b'"%s"' % FORMAT.encode(), b"%d" % VERSION):
        return None
    name, version = (shown(word) or "missing" for word in claimed)
    return f"its format is {name}, version {version}; this castfs reads {FORMAT}, version {VERSION}"


def _find_bad_entry(raw: bytes) -> str | None:
    outline = msgspec.json.decode(raw, type=_Outline)
    kinds: tuple[tuple[dict[str, msgspec.Raw], type[Entry]], ...] = (
        (outline.dirs, Directory),
        (outline.files, File),
        (outline.symlinks, Symlink),
    )
    for mapping, kind in kinds:
        for key, value in mapping.items():
            try:
                msgspec.json.decode(value, type=kind)
            except _FAILURES as exc:
                return f"{kind.__name__.lower()} {shown(key.encode())}: {exc}"
    return None
