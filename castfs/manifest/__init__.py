"""Manifests: what a directory tree was, as an immutable JSON document. docs/FORMAT.md owns it."""

from castfs.manifest.codec import (
    Header,
    blob_sizes,
    compute_fingerprint,
    compute_id,
    decode_manifest,
    decode_stored,
    encode_manifest,
    is_file_of,
    is_stored_whole,
    make_manifest,
    order_canonically,
    split_header,
)
from castfs.manifest.content import content_id
from castfs.manifest.model import Directory, Entry, File, Manifest, Symlink, Tree, encode_xattrs
from castfs.manifest.older import read_older
from castfs.manifest.parsing import parse_manifest, read_manifest_bytes, read_manifest_file
from castfs.manifest.references import ID_WITHIN, iter_references, peek_id

__all__ = [
    "ID_WITHIN",
    "Directory",
    "Entry",
    "File",
    "Header",
    "Manifest",
    "Symlink",
    "Tree",
    "blob_sizes",
    "compute_fingerprint",
    "compute_id",
    "content_id",
    "decode_manifest",
    "decode_stored",
    "encode_manifest",
    "encode_xattrs",
    "is_file_of",
    "is_stored_whole",
    "iter_references",
    "make_manifest",
    "order_canonically",
    "parse_manifest",
    "peek_id",
    "read_manifest_bytes",
    "read_manifest_file",
    "read_older",
    "split_header",
]
