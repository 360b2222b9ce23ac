"""Manifests: what a directory tree was, as an immutable JSON document. docs/FORMAT.md owns it."""

from castfs.manifest.codec import (
    compute_fingerprint,
    compute_id,
    decode_manifest,
    digests_of,
    encode_manifest,
    make_manifest,
    order_canonically,
)
from castfs.manifest.model import Directory, Entry, File, Manifest, Symlink, Tree, encode_xattrs
from castfs.manifest.older import read_older
from castfs.manifest.parsing import parse_manifest

__all__ = [
    "Directory",
    "Entry",
    "File",
    "Manifest",
    "Symlink",
    "Tree",
    "compute_fingerprint",
    "compute_id",
    "decode_manifest",
    "digests_of",
    "encode_manifest",
    "encode_xattrs",
    "make_manifest",
    "order_canonically",
    "parse_manifest",
    "read_older",
]
