"""Manifest files of any format, told apart by their `format` key."""

from __future__ import annotations

import msgspec

from castfs.errors import ManifestError
from castfs.manifest.codec import decode_manifest
from castfs.manifest.model import Manifest
from castfs.manifest.older import read_older


class _Probe(msgspec.Struct):
    format: object = None


def parse_manifest(raw: bytes) -> Manifest:
    """The manifest in `raw`, of this format or Runicorn's. ManifestError says what is wrong."""
    try:
        claimed = msgspec.json.decode(raw, type=_Probe).format
    except (msgspec.DecodeError, RecursionError, UnicodeDecodeError) as exc:
        raise ManifestError(f"bad manifest: {exc}") from exc
    return read_older(raw) if claimed is None else decode_manifest(raw)
