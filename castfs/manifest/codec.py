"""Manifests as bytes: the canonical form, the strict reader, ids and fingerprints.

A manifest file is one JSON object and a newline. Its first keys describe (`created_at` …
`version`); the last four, `dirs`, `files`, `root` and `symlinks`, are the tree, and `{` + that
slice without the newline are the bytes whose SHA-256 is the id. Everything is encoded by one
function, and the reader requires that encoding what it decoded gives the same bytes again: that
catches duplicate keys (JSON parsers take the last one), unsorted keys, white space and second
spellings of a string.
"""

from __future__ import annotations

import hashlib
import itertools
from collections.abc import Iterable, Iterator, Mapping
from typing import Annotated, Final, Literal, TypeVar

import msgspec

from castfs.digest import Digest
from castfs.errors import ManifestError
from castfs.manifest.checks import check_tree, decode_keys
from castfs.manifest.explaining import explain_failure
from castfs.manifest.model import (
    FORMAT,
    VERSION,
    Directory,
    Entry,
    File,
    Manifest,
    Sha256,
    Size,
    Symlink,
    Tree,
)
from castfs.manifest.wording import bad_manifest
from castfs.paths import ESCAPE, RelPath, escape

#: Entries that are encoded at a time: the encoding of a million entries is never held whole.
_BATCH = 4096

#: Seconds before and after the epoch, 272 years: every library takes such times.
CREATED_AT_LIMIT: Final = 2**33
#: Characters: more than three for each byte of PATH_MAX, which is what escaping makes at most.
SOURCE_PATH_MAX: Final = 1 << 16

_Seconds = Annotated[float, msgspec.Meta(gt=-CREATED_AT_LIMIT, lt=CREATED_AT_LIMIT)]
_SourcePath = Annotated[str, msgspec.Meta(max_length=SOURCE_PATH_MAX)]

_encoder = msgspec.json.Encoder()
E = TypeVar("E", bound=Entry)


class Header(msgspec.Struct, forbid_unknown_fields=True, kw_only=True):
    """The keys that describe, in their order."""

    created_at: _Seconds
    file_count: Size
    fingerprint: Sha256
    format: Literal["castfs-manifest"]
    id: Sha256
    source_path: _SourcePath
    total_size_bytes: Size
    version: Literal[1]


class _Wire(Header, kw_only=True):
    dirs: dict[str, Directory]
    files: dict[str, File]
    root: Directory
    symlinks: dict[str, Symlink]


class _Blob(msgspec.Struct, gc=False):
    sha256: Sha256
    size_bytes: Size


class _BlobsOnly(msgspec.Struct):
    files: dict[str, _Blob]


_TREE_START: Final = b',"dirs":'

_wire_decoder = msgspec.json.Decoder(_Wire)
_blobs_decoder = msgspec.json.Decoder(_BlobsOnly)


def _encode_mapping(mapping: Mapping[RelPath, E]) -> Iterator[bytes]:
    separator = b"{"
    items = iter(mapping.items())
    while batch := {escape(path): entry for path, entry in itertools.islice(items, _BATCH)}:
        yield separator + _encoder.encode(batch)[1:-1]
        separator = b","
    yield b"}" if separator == b"," else b"{}"


def encode_tree(tree: Tree) -> Iterator[bytes]:
    """The canonical bytes of the tree part, a piece at a time: what the id is the digest of."""
    yield b'{"dirs":'
    yield from _encode_mapping(tree.dirs)
    yield b',"files":'
    yield from _encode_mapping(tree.files)
    yield b',"root":'
    yield _encoder.encode(tree.root)
    yield b',"symlinks":'
    yield from _encode_mapping(tree.symlinks)
    yield b"}"


def encode_manifest(manifest: Manifest) -> Iterator[bytes]:
    """The bytes of a manifest file, a piece at a time."""
    tree = manifest.tree
    header = Header(
        created_at=manifest.created_at,
        file_count=len(tree.files),
        fingerprint=manifest.fingerprint,
        format=FORMAT,
        id=manifest.id,
        source_path=manifest.source_path,
        total_size_bytes=tree.total_size_bytes,
        version=VERSION,
    )
    yield _encoder.encode(header)[:-1]
    pieces = encode_tree(tree)
    yield b"," + next(pieces)[1:]
    yield from pieces
    yield b"\n"


def is_stored_whole(manifest: Manifest, pieces: Iterable[bytes | memoryview]) -> bool:
    """Are `pieces` a file of `manifest`, or of another time and place with the same tree?"""
    ours = b"".join(itertools.islice(encode_manifest(manifest), 1)) + b"}"
    return is_file_of(msgspec.json.decode(ours, type=Header), pieces)


def is_file_of(wanted: Header, pieces: Iterable[bytes | memoryview]) -> bool:
    """The same of a manifest that only its header is known of.

    The tree part is hashed, not decoded. The header, which has no digest, is compared.
    """
    pieces = iter(pieces)
    first = bytes(next(pieces, b""))
    try:
        theirs, start = split_header(first)
    except ManifestError:
        return False
    theirs.created_at, theirs.source_path = wanted.created_at, wanted.source_path
    state = hashlib.sha256(b"{")
    last = first[start:]
    for piece in pieces:
        state.update(last)
        last = bytes(piece)
    state.update(last[:-1])
    return theirs == wanted and last[-1:] == b"\n" and state.hexdigest() == wanted.id


def split_header(first: bytes) -> tuple[Header, int]:
    """What a file whose first bytes these are says of its tree, and where the tree's bytes begin
    (after the `{`, which is the header's). ManifestError."""
    end = first.find(_TREE_START)  # no text has it: JSON escapes the quotes inside
    try:
        header = msgspec.json.decode(first[: max(end, 0)] + b"}", type=Header)
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError) as exc:
        raise bad_manifest(exc) from exc
    if _encoder.encode(header)[:-1] != first[:end]:
        raise bad_manifest("its header is not in canonical form")
    return header, end + 1


def compute_id(tree: Tree) -> Digest:
    state = hashlib.sha256()
    for piece in encode_tree(tree):
        state.update(piece)
    return Digest(state.hexdigest())


def compute_fingerprint(files: Mapping[RelPath, File]) -> Digest:
    """SHA-256 over the sorted `path NUL sha256 NUL`: contents and names, as older systems do."""
    state = hashlib.sha256()
    paths = sorted(files)
    # Usually the order that they are in, and then no path need be looked up.
    items = iter(files.items() if paths == list(files) else [(p, files[p]) for p in paths])
    while batch := list(itertools.islice(items, _BATCH)):
        state.update(b"".join([b"%s\0%s\0" % (p, f.sha256.encode()) for p, f in batch]))
    return Digest(state.hexdigest())


def order_canonically(mapping: Mapping[bytes, E]) -> dict[RelPath, E]:
    """`mapping` in the order that the format wants: by the bytes of the escaped key."""
    paths = sorted(mapping)
    if _any_escaped(paths):
        paths.sort(key=lambda path: escape(path).encode())
    return {RelPath(path): mapping[path] for path in paths}


def _any_escaped(paths: list[bytes]) -> bool:
    """Escaping changes the order only where it changes a name, which is rare: look once at all."""
    try:
        return ESCAPE in b"/".join(paths).decode()
    except UnicodeDecodeError:
        return True


def make_manifest(tree: Tree, *, created_at: float, source_path: str) -> Manifest:
    """`source_path` is cut to what the format allows: it only describes."""
    return Manifest(
        tree=tree,
        id=compute_id(tree),
        fingerprint=compute_fingerprint(tree.files),
        created_at=created_at,
        source_path=source_path[:SOURCE_PATH_MAX],
    )


def decode_manifest(raw: bytes) -> Manifest:
    """Read a manifest file of this format, treating it as hostile.

    ManifestError names the entry that is wrong; nothing else is raised for any input.
    """
    try:
        wire = _wire_decoder.decode(raw)
    except (msgspec.DecodeError, RecursionError, UnicodeDecodeError) as exc:
        raise bad_manifest(explain_failure(raw) or exc) from exc
    tree = Tree(
        root=wire.root,
        dirs=decode_keys(wire.dirs),
        files=decode_keys(wire.files),
        symlinks=decode_keys(wire.symlinks),
    )
    check_tree(tree)
    manifest = Manifest(
        tree=tree,
        id=Digest(wire.id),
        fingerprint=Digest(wire.fingerprint),
        created_at=wire.created_at,
        source_path=wire.source_path,
    )
    _check_header(wire, tree)
    if _check_canonical(raw, encode_manifest(manifest)) != wire.id:
        raise bad_manifest(f"its tree is not the one that its id {wire.id} names")
    if compute_fingerprint(tree.files) != wire.fingerprint:
        raise bad_manifest("fingerprint does not match its files")
    return manifest


def decode_stored(raw: bytes, manifest_id: Digest) -> Manifest:
    """The manifest of that id, from its file in a store. ManifestError names it."""
    try:
        manifest = decode_manifest(raw)
    except ManifestError as exc:
        raise ManifestError(f"manifest {manifest_id}: {exc.message}", hint=exc.hint) from exc
    if manifest.id != manifest_id:
        raise ManifestError(
            f"manifest {manifest_id} holds another tree ({manifest.id})",
            hint="ingest the same tree again, or import its manifest",
        )
    return manifest


def _check_header(wire: _Wire, tree: Tree) -> None:
    if wire.file_count != len(tree.files):
        raise bad_manifest(f"file_count is {wire.file_count}, not {len(tree.files)}")
    total = tree.total_size_bytes
    if wire.total_size_bytes != total:
        raise bad_manifest(f"total_size_bytes is {wire.total_size_bytes}, the files have {total}")


def _check_canonical(raw: bytes, pieces: Iterator[bytes]) -> Digest:
    """Is `raw` what `encode_manifest` gives? Returns the id of its tree part, so that a million
    entries are encoded once only."""
    header = next(pieces)
    offset = 0
    for piece in itertools.chain([header], pieces):
        # Not a comparison of memoryviews, which goes byte by byte.
        if not raw.startswith(piece, offset):
            break
        offset += len(piece)
    else:
        if offset == len(raw):
            state = hashlib.sha256(b"{")
            state.update(memoryview(raw)[len(header) + 1 : -1])
            return Digest(state.hexdigest())
    raise bad_manifest(
        f"not in canonical form near byte {offset} (duplicate or unsorted key, "
        "white space, or another spelling)",
        hint="use the file as castfs wrote it, not reformatted",
    )


def blob_sizes(raw: bytes) -> dict[str, int]:
    """digest → size of the blobs that a stored manifest needs, without checking the rest of it."""
    try:
        wire = _blobs_decoder.decode(raw)
    except (msgspec.DecodeError, RecursionError, UnicodeDecodeError) as exc:
        raise bad_manifest(exc) from exc
    return {file.sha256: file.size_bytes for file in wire.files.values()}
