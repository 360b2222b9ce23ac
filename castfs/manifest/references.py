"""What a stored manifest refers to, read without decoding it: the collector reads all of them.

A file of the store is known by its digest. So its bytes are hashed while they pass, and the digests
in them are found by their key: in canonical form `,"sha256":"…","size_bytes":` stands for each file
and nowhere else. (Inside a string the quotes would be escaped. Extended attributes could have these
names, which adds a digest that nobody has.)
"""

from __future__ import annotations

import hashlib
import re
from collections.abc import Iterable, Iterator

from castfs.manifest.codec import split_header
from castfs.manifest.wording import bad_manifest

_REFERENCE = re.compile(rb',"sha256":"([0-9a-f]{64})","size_bytes":')
#: One byte less than a reference: what of a piece may belong to one that ends in the next.
_CARRY = len(b',"sha256":"","size_bytes":') + 64 - 1

_ID = re.compile(rb'"format":"castfs-manifest","id":"([0-9a-f]{64})",')
#: The header's fixed-width keys up to the id take less than that.
ID_WITHIN = 512


def peek_id(start: bytes) -> str | None:
    """The id that the first ID_WITHIN bytes of a stored manifest claim."""
    match = _ID.search(start[:ID_WITHIN])
    return match[1].decode() if match else None


def iter_references(
    manifest_id: str, pieces: Iterable[bytes | memoryview]
) -> Iterator[list[bytes]]:
    """The digests (64 hex digits) that a stored manifest needs, some at a time and with
    repetitions, from the pieces of its file; the first piece holds the header.

    ManifestError, after all others, if the file is not that manifest, whole.
    """
    pieces = iter(pieces)
    last = bytes(next(pieces, b""))
    header, start = split_header(last)
    state = hashlib.sha256(b"{")
    last = last[start:]
    carry = b""
    count = 0
    for piece in pieces:
        state.update(last)
        found = _REFERENCE.findall(carry + last)
        count += len(found)
        yield found
        carry = (carry + last)[-_CARRY:]
        last = bytes(piece)
    state.update(last[:-1])
    found = _REFERENCE.findall(carry + last)
    yield found
    if last[-1:] != b"\n" or header.id != manifest_id or state.hexdigest() != manifest_id:
        raise bad_manifest(f"its tree is not the one that its id {manifest_id} names")
    if count + len(found) < header.file_count:
        raise bad_manifest(f"it refers to {count + len(found)} contents, not {header.file_count}")
