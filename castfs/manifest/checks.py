"""What makes a decoded tree a possible directory: names, parents, conflicts, hard links.

Each check raises ManifestError with the entry's path. Written for a million entries: the usual one
costs a few dictionary look-ups, and the slow, exact functions run only to word an error.
"""

from __future__ import annotations

import base64
import binascii
from collections import Counter
from collections.abc import Mapping
from typing import TypeVar

from castfs.manifest.model import Entry, File, Symlink, Tree
from castfs.manifest.wording import bad_manifest
from castfs.paths import DEPTH_MAX, NAME_MAX, RelPath, parse_relpath, shown, unescape

#: PATH_MAX without its NUL: what readlink(2) can return.
TARGET_MAX = 4095
#: XATTR_SIZE_MAX of linux/limits.h.
XATTR_MAX = 65536

_HEX_DIGITS = b"0123456789abcdef"
_NO_NAMES = frozenset([b"", b".", b".."])

E = TypeVar("E", bound=Entry)


def decode_keys(mapping: dict[str, E]) -> dict[RelPath, E]:
    """The entries by their paths as bytes, in the order of the file, which must be that of the
    keys' bytes."""
    _check_order(mapping)
    try:
        return {RelPath(unescape(key)): entry for key, entry in mapping.items()}
    except ValueError as exc:
        raise bad_manifest(exc) from exc


def _check_order(mapping: dict[str, E]) -> None:
    # Code points sort as their UTF-8 does. Sorting what is sorted takes one comparison each.
    keys = list(mapping)
    for key, sorted_key in zip(keys, sorted(keys), strict=True):
        if key is not sorted_key:
            raise bad_manifest(f"{shown(key.encode())} is not where its key sorts")


def check_tree(tree: Tree) -> None:
    dirs = tree.dirs
    for kind in (dirs, tree.files, tree.symlinks):
        for path in kind:
            parent, slash, name = path.rpartition(b"/")
            if (
                (slash and parent not in dirs)
                or name in _NO_NAMES
                or len(name) > NAME_MAX
                or 0 in name
            ):
                _refuse_path(path)
    for path in dirs:
        if path.count(b"/") >= DEPTH_MAX:
            _refuse_path(path)
    _check_contents(tree.files)
    _check_conflicts(tree)
    _check_links(tree.files)
    _check_links(tree.symlinks)
    for path, link in tree.symlinks.items():
        _check_target(path, link)
    if tree.total_size_bytes > 2**63 - 1:
        raise bad_manifest("absurd total size")
    kinds: tuple[Mapping[RelPath, Entry], ...] = ({RelPath(b""): tree.root}, *_kinds(tree))
    for mapping in kinds:
        for path, entry in mapping.items():
            if entry.xattrs is not None:
                _check_xattrs(path, entry)


def _kinds(tree: Tree) -> tuple[Mapping[RelPath, Entry], ...]:
    return tree.dirs, tree.files, tree.symlinks


def _refuse_path(path: bytes) -> None:
    try:
        parse_relpath(path)
    except ValueError as exc:
        raise bad_manifest(exc) from exc
    raise bad_manifest(f"{shown(path)} has no directory entry for its parent")


def _check_contents(files: Mapping[RelPath, File]) -> None:
    """Every digest is lower-case hex (the decoder has seen to the length) and has one size."""
    if not _is_hex("".join([file.sha256 for file in files.values()])):
        path = next(path for path, file in files.items() if not _is_hex(file.sha256))
        raise bad_manifest(f"file {shown(path)}: sha256 is not 64 lower-case hex digits")
    sizes: dict[str, int] = {}
    size_of = sizes.setdefault
    for path, file in files.items():
        size = file.size_bytes
        if size_of(file.sha256, size) != size:
            raise bad_manifest(f"file {shown(path)}: another file of this sha256 has another size")


def _is_hex(text: str) -> bool:
    # Five times as fast as a regular expression over the digests of a million files.
    return not text.encode().translate(None, _HEX_DIGITS)


def _check_conflicts(tree: Tree) -> None:
    twice = (
        (tree.files.keys() & tree.dirs.keys())
        | (tree.symlinks.keys() & tree.dirs.keys())
        | (tree.symlinks.keys() & tree.files.keys())
    )
    if twice:
        raise bad_manifest(f"{shown(min(twice))} is of two kinds at once")


def _check_links(mapping: Mapping[RelPath, File] | Mapping[RelPath, Symlink]) -> None:
    """A group names its smallest member, has at least two, and all of them are the same inode."""
    members = Counter(entry.hardlink for entry in mapping.values() if entry.hardlink is not None)
    if not members:
        return
    for path, entry in mapping.items():
        if entry.hardlink is None:
            continue
        try:
            leader = RelPath(unescape(entry.hardlink))
        except ValueError as exc:
            raise bad_manifest(f"hard link {shown(path)}: {exc}") from exc
        first: File | Symlink | None = mapping.get(leader)
        if first is None or first.hardlink != entry.hardlink or path < leader:
            raise bad_manifest(
                f"hard link {shown(path)} names {shown(leader)}, "
                "which is not the first of its group"
            )
        if first != entry:
            raise bad_manifest(
                f"{shown(path)} and {shown(leader)} are one hard-linked file with two descriptions"
            )
        if members[entry.hardlink] < 2:
            raise bad_manifest(f"hard link {shown(path)} is alone in its group")


def _check_target(path: bytes, link: Symlink) -> None:
    try:
        target = link.raw_target
    except ValueError as exc:
        raise bad_manifest(f"symlink {shown(path)}: {exc}") from exc
    if not target or len(target) > TARGET_MAX or b"\0" in target:
        raise bad_manifest(f"symlink {shown(path)} has an impossible target")


def _check_xattrs(path: bytes, entry: Entry) -> None:
    where = shown(path) or "the root"
    assert entry.xattrs is not None
    if not entry.xattrs or list(entry.xattrs) != sorted(entry.xattrs):
        raise bad_manifest(f"{where}: extended attributes empty or unsorted")
    for name, value in entry.xattrs.items():
        try:
            raw_name = unescape(name)
            raw = binascii.a2b_base64(value.encode(), strict_mode=True)
        except ValueError as exc:
            raise bad_manifest(f"{where}: extended attribute {name[:80]!r}: {exc}") from exc
        if not 0 < len(raw_name) <= NAME_MAX or b"\0" in raw_name or len(raw) > XATTR_MAX:
            raise bad_manifest(f"{where}: impossible extended attribute {name[:80]!r}")
        # a2b_base64 ignores the last digit's unused bits: the same value in several spellings.
        if base64.b64encode(raw).decode() != value:
            raise bad_manifest(f"{where}: extended attribute {name[:80]!r}: not canonical base64")
