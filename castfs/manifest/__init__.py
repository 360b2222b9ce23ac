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
from castfs.manifest.older import is_older, read_older

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
    "is_older",
    "make_manifest",
    "order_canonically",
    "read_older",
]
