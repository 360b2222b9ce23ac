"""Manifest files of any format, told apart by their `format` key."""

from __future__ import annotations

import msgspec

from castfs.manifest.codec import decode_manifest
from castfs.manifest.model import Manifest
from castfs.manifest.older import read_older
from castfs.manifest.wording import bad_manifest

_NULL = msgspec.Raw(b"null")


class _Probe(msgspec.Struct):
    # Not decoded: a hundred megabytes of brackets would become gigabytes of lists.
    format: msgspec.Raw = _NULL


def parse_manifest(raw: bytes) -> Manifest:
    """The manifest in `raw`, of this format or Runicorn's. ManifestError says what is wrong."""
    try:
        claimed = bytes(msgspec.json.decode(raw, type=_Probe).format)
    except (msgspec.DecodeError, RecursionError, UnicodeDecodeError) as exc:
        raise bad_manifest(exc) from exc
    return read_older(raw) if claimed == b"null" else decode_manifest(raw)
