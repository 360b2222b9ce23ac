"""Manifest files of any format, told apart by their `format` key."""

from __future__ import annotations

import os
from pathlib import Path

import msgspec

from castfs.errors import ManifestError, NotFoundError
from castfs.manifest.codec import decode_manifest
from castfs.manifest.model import Manifest
from castfs.manifest.older import read_older
from castfs.manifest.wording import bad_manifest
from castfs.paths import display
from castfs.regular import read_regular

_NULL = msgspec.Raw(b"null")


class _Probe(msgspec.Struct):
    # Not decoded: a hundred megabytes of brackets would become gigabytes of lists.
    format: msgspec.Raw = _NULL


def read_manifest_file(path: Path) -> Manifest:
    """A manifest of any format. NotFoundError; ManifestError names the file."""
    raw = read_manifest_bytes(path)
    try:
        return parse_manifest(raw)
    except ManifestError as exc:
        shown = display(os.fsencode(path))
        raise ManifestError(f"{shown}: {exc.message}", hint=exc.hint) from exc


def read_manifest_bytes(path: Path) -> bytes:
    """What a file holds that should be a manifest. NotFoundError, ManifestError."""
    shown = display(os.fsencode(path))
    try:
        raw = read_regular(path)
    except FileNotFoundError as exc:
        raise NotFoundError(f"no manifest file {shown}", hint="see `castfs list`") from exc
    except OSError as exc:
        raise NotFoundError(f"cannot read {shown}: {exc.strerror}", hint="check the path") from exc
    if raw is None:
        raise ManifestError(f"{shown} is not a regular file")
    return raw


def parse_manifest(raw: bytes) -> Manifest:
    """The manifest in `raw`, of this format or Runicorn's. ManifestError says what is wrong."""
    try:
        claimed = bytes(msgspec.json.decode(raw, type=_Probe).format)
    except (msgspec.DecodeError, RecursionError, UnicodeDecodeError) as exc:
        raise bad_manifest(exc) from exc
    return read_older(raw) if claimed == b"null" else decode_manifest(raw)
