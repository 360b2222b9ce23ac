"""What the collector reads of manifests, against the strict reader: the same digests, however the
file is cut into pieces, and an error for whatever is no whole manifest of that id."""

from __future__ import annotations

import json
from collections.abc import Iterator
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from castfs.errors import ManifestError
from castfs.manifest import (
    ID_WITHIN,
    Manifest,
    decode_manifest,
    encode_manifest,
    iter_references,
    peek_id,
)
from tests.manifest.documents import directory, encode, file, make_document, sample, sha256
from tests.manifest.strategies import manifests

TREE_START = b',"dirs":'


def cut(raw: bytes, size: int) -> Iterator[bytes]:
    """Pieces of `size` bytes; the first has the header, and ends right where the tree begins."""
    start = raw.index(TREE_START) + len(TREE_START)
    yield raw[:start]
    yield from (raw[at : at + size] for at in range(start, len(raw), size))


def found_in(manifest_id: str, pieces: Any) -> list[str]:
    found = [digest for some in iter_references(manifest_id, pieces) for digest in some]
    return [digest.decode() for digest in found]


def digests_of(manifest: Manifest) -> list[str]:
    return sorted(str(entry.sha256) for entry in manifest.tree.files.values())


@given(manifests(), st.integers(1, 300))
def test_they_are_those_of_the_strict_reader(manifest: Manifest, size: int) -> None:
    """Each once for each file: no attribute here has such a name."""
    raw = b"".join(encode_manifest(manifest))
    wanted = digests_of(decode_manifest(raw))
    assert sorted(found_in(manifest.id, [raw])) == wanted
    assert sorted(found_in(manifest.id, cut(raw, size))) == wanted
    assert peek_id(raw[:ID_WITHIN]) == manifest.id


def test_every_size_of_piece_and_every_place_to_cut() -> None:
    document = sample()
    raw = encode(document)
    wanted = sorted(entry["sha256"] for entry in document["files"].values())
    for size in range(1, len(raw)):
        assert sorted(found_in(document["id"], cut(raw, size))) == wanted
    start = raw.index(TREE_START) + len(TREE_START)
    for at in range(start, len(raw)):
        assert sorted(found_in(document["id"], [raw[:at], raw[at:]])) == wanted


def test_a_buffer_that_is_used_again() -> None:
    """As `iter_chunks` gives it: each piece is valid until the next is asked for."""
    document = sample()
    raw = encode(document)
    buffer = bytearray(len(raw))

    def pieces() -> Iterator[memoryview]:
        for piece in cut(raw, 97):
            buffer[: len(piece)] = piece
            yield memoryview(buffer)[: len(piece)]

    wanted = sorted(entry["sha256"] for entry in document["files"].values())
    assert sorted(found_in(document["id"], pieces())) == wanted


REFERENCE = ',"sha256":"' + "a" * 64 + '","size_bytes":1'


@pytest.mark.parametrize(
    "name",
    [REFERENCE, '","sha256":"' + "a" * 64 + '","size_bytes":', '\\","sha256":"', "\n", '"'],
)
def test_names_that_look_like_references_are_none(name: str) -> None:
    document = make_document(
        dirs={f"d{name}": directory()},
        files={f"f{name}": file(b"x")},
        symlinks={f"l{name}": {"mtime_ns": 1, "target": name}},
    )
    raw = encode(document)
    assert found_in(document["id"], [raw]) == [sha256(b"x")]
    assert found_in(document["id"], cut(raw, 7)) == [sha256(b"x")]


def test_attributes_that_look_like_references_add_to_them() -> None:
    """A digest that nobody has keeps nothing; what is there is found all the same."""
    attributes = {"m": "AA==", "sha256": "a" * 64, "size_bytes": "AA=="}
    document = make_document(files={"f": file(b"x", xattrs=attributes), "g": file(b"y")})
    raw = encode(document)
    decode_manifest(raw)
    for size in (1, 50, len(raw)):
        found = found_in(document["id"], cut(raw, size))
        assert {sha256(b"x"), sha256(b"y")} <= set(found)
        assert set(found) <= {sha256(b"x"), sha256(b"y"), "a" * 64}


# What is no manifest -------------------------------------------------------------------------


def assert_refused(manifest_id: str, raw: bytes) -> None:
    for pieces in ([raw], [raw[:600], raw[600:]] if len(raw) > 600 else [raw]):
        with pytest.raises(ManifestError):
            found_in(manifest_id, pieces)


def test_truncated_anywhere() -> None:
    document = sample()
    raw = encode(document)
    for end in range(len(raw)):
        assert_refused(document["id"], raw[:end])
    assert_refused(document["id"], raw + b"\n")
    assert_refused(document["id"], raw[:-1] + b" ")
    assert_refused(document["id"], b"")
    with pytest.raises(ManifestError):
        found_in(document["id"], [])


def test_a_bit_that_is_another_anywhere_in_the_tree_or_its_id() -> None:
    """What else the header says has no digest; of it only what must be so is looked at."""
    document = sample()
    raw = encode(document)
    start = raw.index(TREE_START)
    within_id = range(raw.index(b'"id":"') + 6, raw.index(b'"id":"') + 70)
    for at in [*within_id, *range(start, len(raw))]:
        for bit in (1, 0x80):
            damaged = bytearray(raw)
            damaged[at] ^= bit
            assert_refused(document["id"], bytes(damaged))


@given(manifests(max_size=4), st.data())
def test_no_damage_gives_other_digests(manifest: Manifest, data: st.DataObject) -> None:
    """Refused, or harmless: a time or a path of the header is another."""
    raw = bytearray(b"".join(encode_manifest(manifest)))
    at = data.draw(st.integers(0, len(raw) - 1))
    raw[at] ^= 1 << data.draw(st.integers(0, 7))
    try:
        found = found_in(manifest.id, cut(bytes(raw), 100) if TREE_START in raw else [bytes(raw)])
    except ManifestError:
        return
    assert sorted(found) == digests_of(manifest)


def test_another_manifest_under_that_name() -> None:
    document, other = sample(), make_document(files={"f": file(b"x")})
    assert_refused(document["id"], encode(other))
    # And one that only says that it is.
    assert_refused(document["id"], encode({**other, "id": document["id"]}))


def test_too_few_references_are_noticed() -> None:
    """The tree is what its id says, but the header has more files: somebody's mistake, or ours."""
    document = make_document(files={"f": file(b"x")})
    assert_refused(document["id"], encode({**document, "file_count": 2}))
    assert found_in(document["id"], [encode(document)]) == [sha256(b"x")]


@pytest.mark.parametrize("spoil", ["spaces", "order", "older", "array"])
def test_what_is_not_in_canonical_form(spoil: str) -> None:
    document = sample()
    raw = {
        "spaces": json.dumps(document).encode() + b"\n",
        "order": encode(dict(reversed(document.items()))),
        "older": encode({**document, "format": "other"}),
        "array": b"[]\n",
    }[spoil]
    assert_refused(document["id"], raw)


def test_peeking_at_the_id() -> None:
    document = sample()
    raw = encode({**document, "created_at": -1.2345678901234567e-300, "file_count": 2**62})
    assert peek_id(raw[:ID_WITHIN]) == document["id"]
    # It does not depend on what comes later, however long.
    assert peek_id(encode({**document, "source_path": "x" * 60000})[:ID_WITHIN]) == document["id"]
    for other in (b"", b"{", raw[:100], b'{"id":"' + b"a" * 64 + b'"}', b"\0" * 600):
        assert peek_id(other) is None
    assert peek_id(b" " * ID_WITHIN + raw) is None
