"""Any tree comes back as it was; any damage is an error and never another tree."""

from __future__ import annotations

import json
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from castfs.errors import ManifestError
from castfs.manifest import (
    Manifest,
    Tree,
    compute_id,
    decode_manifest,
    encode_manifest,
    is_stored_whole,
    make_manifest,
    order_canonically,
    parse_manifest,
)
from castfs.paths import ESCAPE, check_name, display, escape, parse_relpath, shown, unescape
from tests.manifest import documents
from tests.manifest.strategies import AWKWARD, manifests, trees


def encode(manifest: Manifest) -> bytes:
    return b"".join(encode_manifest(manifest))


@given(manifests())
def test_manifest_comes_back(manifest: Manifest) -> None:
    raw = encode(manifest)
    assert decode_manifest(raw) == manifest
    assert parse_manifest(raw) == manifest
    assert encode(decode_manifest(raw)) == raw
    assert is_stored_whole(manifest, iter([raw]))


@given(manifests())
def test_json_and_hashlib_agree(manifest: Manifest) -> None:
    raw = encode(manifest)
    document = json.loads(raw)
    assert documents.encode(document) == raw or not is_plain_float(document["created_at"])
    assert documents.sha256(documents.tree_part(document)) == manifest.id
    assert documents.fingerprint(document["files"]) == manifest.fingerprint
    assert {documents.raw_name(key) for key in document["files"]} == set(manifest.tree.files)
    assert {documents.raw_name(key) for key in document["dirs"]} == set(manifest.tree.dirs)
    for key, entry in document["symlinks"].items():
        link = manifest.tree.symlinks[parse_relpath(documents.raw_name(key))]
        assert documents.raw_name(entry["target"]) == link.raw_target


def is_plain_float(value: float) -> bool:
    """json and msgspec write exponents differently."""
    return value == 0 or 1e-4 < abs(value) < 1e15


@given(trees(), st.randoms(use_true_random=False))
def test_order_of_insertion_does_not_matter(tree: Tree, random: Any) -> None:
    def shuffled(mapping: Any) -> Any:
        paths = list(mapping)
        random.shuffle(paths)
        return order_canonically({path: mapping[path] for path in paths})

    again = Tree(
        root=tree.root,
        dirs=shuffled(tree.dirs),
        files=shuffled(tree.files),
        symlinks=shuffled(tree.symlinks),
    )
    assert compute_id(again) == compute_id(tree)
    keys = [escape(path).encode() for path in again.files]
    assert keys == sorted(keys)


@given(trees(), trees())
def test_two_trees_share_an_id_only_if_equal(first: Tree, second: Tree) -> None:
    assert (compute_id(first) == compute_id(second)) == (first == second)


@given(trees())
def test_where_and_when_do_not_change_the_id(tree: Tree) -> None:
    here = make_manifest(tree, created_at=1.0, source_path="/here")
    there = make_manifest(tree, created_at=2.0, source_path="/there")
    assert (here.id, here.fingerprint) == (there.id, there.fingerprint)
    assert encode(here) != encode(there)
    assert is_stored_whole(here, iter([encode(there)]))


def test_long_source_path_is_cut() -> None:
    """What is written can be read again, however deep the directory lay."""
    manifest = make_manifest(SAMPLE_TREE, created_at=1.0, source_path="/x" * 1_000_000)
    assert decode_manifest(encode(manifest)) == manifest
    assert manifest.source_path.startswith("/x/x/x")


# Damage -------------------------------------------------------------------------------------

SAMPLE = documents.encode(documents.sample())
SAMPLE_TREE = decode_manifest(SAMPLE).tree


def read(raw: bytes) -> Manifest | None:
    """The manifest, or None for the one error that is allowed; it is one short line."""
    try:
        return parse_manifest(raw)
    except ManifestError as exc:
        message = str(exc)
    assert message.isprintable()
    assert len(message) < 3000
    return None


def check_damaged(raw: bytes) -> None:
    manifest = read(raw)
    if manifest is not None and b'"format"' in raw:
        # The header's time and source are nobody's digest; the tree is what it was.
        assert manifest.tree == SAMPLE_TREE
        assert encode(manifest) == raw


BYTES = [0, 9, 32, 34, 44, 45, 48, 49, 57, 58, 91, 92, 93, 101, 123, 125, 127, 128, 0xC3, 0xFF]


@pytest.mark.parametrize("byte", BYTES)
def test_each_byte_changed(byte: int) -> None:
    for place in range(len(SAMPLE)):
        check_damaged(SAMPLE[:place] + bytes([byte]) + SAMPLE[place + 1 :])


def test_each_bit_changed() -> None:
    for place, byte in enumerate(SAMPLE):
        for bit in range(8):
            check_damaged(SAMPLE[:place] + bytes([byte ^ 1 << bit]) + SAMPLE[place + 1 :])


def test_each_byte_missing_or_doubled() -> None:
    for place in range(len(SAMPLE)):
        check_damaged(SAMPLE[:place] + SAMPLE[place + 1 :])
        check_damaged(SAMPLE[:place] + SAMPLE[place : place + 1] + SAMPLE[place:])


def test_each_truncation() -> None:
    for place in range(len(SAMPLE)):
        assert read(SAMPLE[:place]) is None
        assert read(SAMPLE[place + 1 :]) is None


@given(st.data())
def test_changed_bytes(data: st.DataObject) -> None:
    raw = bytearray(SAMPLE)
    for _ in range(data.draw(st.integers(1, 4))):
        raw[data.draw(st.integers(0, len(raw) - 1))] = data.draw(st.integers(0, 255))
    check_damaged(bytes(raw))


@given(st.integers(0, len(SAMPLE)), st.integers(0, len(SAMPLE)), st.binary(max_size=8))
def test_cut_doubled_and_inserted(start: int, end: int, inserted: bytes) -> None:
    start, end = sorted((start, end))
    check_damaged(SAMPLE[:start] + SAMPLE[end:])
    check_damaged(SAMPLE[:end] + SAMPLE[start:])
    check_damaged(SAMPLE[:start] + inserted + SAMPLE[start:])


@given(st.binary(max_size=200))
def test_noise(raw: bytes) -> None:
    assert read(raw) is None


JSON_VALUES = st.recursive(
    st.none()
    | st.booleans()
    | st.integers(-(2**70), 2**70)
    | st.floats()
    | st.text(max_size=9)
    | st.sampled_from(
        ["", ".", "..", "/", "a/b", "\0", ESCAPE, f"{ESCAPE}41", "0" * 64, "d", "a-link"]
    ),
    lambda inner: (
        st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=4), inner, max_size=3)
    ),
    max_leaves=6,
)


@st.composite
def mutated_documents(draw: st.DrawFn) -> documents.Document:
    """The sample with a few values replaced, removed, renamed, exchanged or copied elsewhere."""
    document = documents.sample()
    for _ in range(draw(st.integers(1, 3))):
        places = list(iter_places(document))
        holder, key = draw(st.sampled_from(places))
        other_holder, other_key = draw(st.sampled_from(places))
        if key not in holder or other_key not in other_holder:
            continue
        match draw(st.sampled_from(["replace", "remove", "rename", "exchange", "copy"])):
            case "replace":
                holder[key] = draw(JSON_VALUES)
            case "remove":
                del holder[key]
            case "rename":
                holder[draw(st.text(max_size=6) | st.sampled_from([other_key, f"d/{key}"]))] = (
                    holder.pop(key)
                )
            case "exchange":
                holder[key], other_holder[other_key] = other_holder[other_key], holder[key]
            case "copy":
                holder[key] = other_holder[other_key]
        try:
            document = json.loads(json.dumps(document))
        except (ValueError, RecursionError):  # it holds itself by now
            return documents.sample()
    return document


def iter_places(value: Any) -> Any:
    if isinstance(value, dict):
        for key, inner in value.items():
            yield value, key
            yield from iter_places(inner)


@given(mutated_documents())
def test_changed_documents(document: documents.Document) -> None:
    check_damaged(try_encode(document))


@given(mutated_documents(), st.booleans())
def test_changed_documents_that_are_signed_again(document: Any, ordered: bool) -> None:
    """Whoever wants to do harm can compute an id: each accepted tree is a possible one."""
    try:
        if ordered:
            for key in ("dirs", "files", "symlinks"):
                if isinstance(document.get(key), dict):
                    document[key] = dict(sorted(document[key].items()))
        raw = try_encode(documents.sign(document))
    except (TypeError, AttributeError, UnicodeEncodeError):
        return
    manifest = read(raw)
    if manifest is not None and b'"format"' in raw:
        assert encode(manifest) == raw
        check_possible(manifest.tree)


def try_encode(document: Any) -> bytes:
    try:
        return documents.encode(document)
    except UnicodeEncodeError:
        return json.dumps(document).encode()


def check_possible(tree: Tree) -> None:
    """Could a directory be like this? Written without the checks of castfs.manifest."""
    kinds: list[Any] = [tree.dirs, tree.files, tree.symlinks]
    paths = [path for kind in kinds for path in kind]
    assert len(paths) == len(set(paths))
    for path in paths:
        parts = path.split(b"/")
        assert all(part not in (b"", b".", b"..") for part in parts)
        assert all(len(part) <= 255 and b"\0" not in part for part in parts)
        assert len(parts) == 1 or b"/".join(parts[:-1]) in tree.dirs
    for entry in (tree.root, *(entry for kind in kinds for entry in kind.values())):
        assert -(2**63) <= entry.mtime_ns < 2**63
        assert 0 <= getattr(entry, "mode", 0) <= 0o7777
        assert entry.uid is None or 0 <= entry.uid < 2**32 - 1
    for file in tree.files.values():
        assert len(bytes.fromhex(file.sha256)) == 32
        assert 0 <= file.size_bytes < 2**63
    for link in tree.symlinks.values():
        assert 0 < len(link.raw_target) < 4096
        assert b"\0" not in link.raw_target
    for kind in kinds[1:]:
        leaders = {unescape(entry.hardlink) for entry in kind.values() if entry.hardlink}
        for leader in leaders:
            members = [p for p, e in kind.items() if e.hardlink and unescape(e.hardlink) == leader]
            assert len(members) > 1
            assert min(members) == leader
            assert all(kind[path] == kind[leader] for path in members)


# Names --------------------------------------------------------------------------------------

PIECES = st.lists(
    st.sampled_from([*AWKWARD, b"\xe2", b"\x90", b"\x9b", b"f", b"0", b"\x80"])
    | st.binary(max_size=4)
).map(b"".join)


@given(PIECES)
def test_escape_comes_back(raw: bytes) -> None:
    text = escape(raw)
    assert unescape(text) == raw
    assert documents.raw_name(text) == raw
    encoded = text.encode()  # no lone surrogates: any JSON writer takes it
    assert ESCAPE in text or encoded == raw


@given(PIECES, PIECES)
def test_escape_is_injective(first: bytes, second: bytes) -> None:
    assert (escape(first) == escape(second)) == (first == second)


@given(
    st.lists(st.sampled_from([ESCAPE, "e", "2", "9", "0", "b", "f", "F", "ü", "\n"])).map("".join)
)
def test_only_what_escape_makes_is_unescaped(text: str) -> None:
    try:
        raw = unescape(text)
    except ValueError:
        return
    assert escape(raw) == text


@given(PIECES)
def test_messages_are_one_line(raw: bytes) -> None:
    assert display(raw).isprintable() or not raw
    assert len(display(raw).splitlines()) <= 1
    long = raw * 1000
    assert shown(long).isprintable() or not raw
    assert len(shown(long)) < 4000


@given(PIECES)
def test_checked_paths(raw: bytes) -> None:
    def is_name(part: bytes) -> bool:
        return part not in (b"", b".", b"..") and b"\0" not in part and len(part) <= 255

    good = all(map(is_name, raw.split(b"/")))
    if good:
        assert parse_relpath(raw) == raw
        for part in raw.split(b"/"):
            assert check_name(part) == part
    else:
        with pytest.raises(ValueError, match=r"^[^\n]+$"):
            parse_relpath(raw)
