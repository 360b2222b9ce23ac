"""Manifests: what a directory tree was, as an immutable JSON document. docs/FORMAT.md owns it."""

from castfs.manifest.codec import (
    blob_sizes,
    compute_fingerprint,
    compute_id,
    decode_manifest,
    encode_manifest,
    is_stored_whole,
    make_manifest,
    order_canonically,
)
from castfs.manifest.model import Directory, Entry, File, Manifest, Symlink, Tree, encode_xattrs
from castfs.manifest.older import read_older
from castfs.manifest.parsing import parse_manifest, read_manifest_file

__all__ = [
    "Directory",
    "Entry",
    "File",
    "Manifest",
    "Symlink",
    "Tree",
    "blob_sizes",
    "compute_fingerprint",
    "compute_id",
    "decode_manifest",
    "encode_manifest",
    "encode_xattrs",
    "is_stored_whole",
    "make_manifest",
    "order_canonically",
    "parse_manifest",
    "read_manifest_file",
    "read_older",
]
