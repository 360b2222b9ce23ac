"""Files that were written once: they must read the same for ever, and be written the same again.

What they hold is checked here against `json`, `hashlib` and their own bytes, not against the codec.
"""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from castfs.manifest import (
    blob_sizes,
    compute_fingerprint,
    compute_id,
    decode_manifest,
    encode_manifest,
    is_stored_whole,
    parse_manifest,
)
from tests.manifest.documents import HEADER_KEYS, TREE_KEYS, encode, fingerprint, sha256
from tests.manifest.listing import describe

GOLDEN = Path(__file__).parent / "golden"
RAW = (GOLDEN / "one_of_each.json").read_bytes()
ID = "74f8d442d7f9b8ba03bae60328e41b571d2a6e039711df1e836f2d729d120fcd"
FINGERPRINT = "b848ea64267462d27dc529c8ee352d994edcce0f24f56675d6e38515a0fa96b8"


def test_id_is_the_digest_of_a_slice_of_the_file() -> None:
    # docs/FORMAT.md: `{` followed by the file's bytes from "dirs" to the last `}`.
    tree_part = b"{" + RAW[RAW.index(b'"dirs":') : RAW.rindex(b"}") + 1]
    assert sha256(tree_part) == ID
    assert json.loads(RAW)["id"] == ID
    assert set(json.loads(tree_part)) == set(TREE_KEYS)


def test_fingerprint_by_json_and_hashlib() -> None:
    document = json.loads(RAW)
    assert fingerprint(document["files"]) == document["fingerprint"] == FINGERPRINT


def test_file_is_canonical_by_json() -> None:
    document = json.loads(RAW)
    assert list(document) == [*HEADER_KEYS, *TREE_KEYS]
    # Sorting by code points is sorting by the bytes of UTF-8.
    ordered = {key: document[key] for key in [*HEADER_KEYS, *TREE_KEYS]}
    ordered |= {key: sort_keys(document[key]) for key in TREE_KEYS}
    assert encode(ordered) == RAW


def sort_keys(value: object) -> object:
    if not isinstance(value, dict):
        return value
    return {key: sort_keys(value[key]) for key in sorted(value, key=lambda key: key.encode())}


def test_decoded() -> None:
    manifest = decode_manifest(RAW)
    assert describe(manifest) == (GOLDEN / "one_of_each.txt").read_text(encoding="utf-8")
    assert (manifest.id, manifest.fingerprint) == (ID, FINGERPRINT)
    assert parse_manifest(RAW) == manifest


def test_encoded_again() -> None:
    manifest = decode_manifest(RAW)
    assert b"".join(encode_manifest(manifest)) == RAW
    assert compute_id(manifest.tree) == ID
    assert compute_fingerprint(manifest.tree.files) == FINGERPRINT


def test_blob_sizes() -> None:
    files = json.loads(RAW)["files"].values()
    assert blob_sizes(RAW) == {entry["sha256"]: entry["size_bytes"] for entry in files}


def test_totals() -> None:
    document = json.loads(RAW)
    tree = decode_manifest(RAW).tree
    sizes = [entry["size_bytes"] for entry in document["files"].values()]
    assert tree.total_size_bytes == sum(sizes) == document["total_size_bytes"]
    assert len(tree.files) == len(sizes) == document["file_count"]


@pytest.mark.parametrize("size", [1 << 10, 1 << 20])
def test_stored_file_is_recognised(size: int) -> None:
    manifest = decode_manifest(RAW)
    assert is_stored_whole(manifest, [RAW[i : i + size] for i in range(0, len(RAW), size)])
    for raw in (RAW[:-1], RAW[: len(RAW) // 2], b"", RAW.replace(b"dangling", b"dingling")):
        assert not is_stored_whole(manifest, [raw[i : i + size] for i in range(0, len(raw), size)])


def test_runicorn_manifest() -> None:
    raw = (GOLDEN / "runicorn.json").read_bytes()
    manifest = parse_manifest(raw)
    assert describe(manifest) == (GOLDEN / "runicorn.txt").read_text(encoding="utf-8")
    document = json.loads(raw)
    assert manifest.fingerprint == document["fingerprint"] == fingerprint(document["files"])
    assert list(manifest.tree.files) == sorted(key.encode() for key in document["files"])
