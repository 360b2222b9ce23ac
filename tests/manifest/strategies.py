"""Trees as Hypothesis makes them: every name, time and mode that Linux allows."""

from __future__ import annotations

import hashlib
from typing import Any, TypeVar

from hypothesis import strategies as st

from castfs.manifest import (
    Directory,
    Entry,
    File,
    Manifest,
    Symlink,
    Tree,
    encode_xattrs,
    make_manifest,
    order_canonically,
)
from castfs.paths import ESCAPE, escape

E = TypeVar("E", bound=Entry)

#: Names that something might take for something else.
AWKWARD = [
    b"\xff", b"\xe2\x90", b"\xed\xa0\x80", b"\xff" * 255,  # not UTF-8
    ESCAPE.encode(), f"{ESCAPE}ff".encode(), f"{ESCAPE}e2{ESCAPE}90{ESCAPE}9b".encode(),
    b"\xc3\xbc", b"u\xcc\x88", "\u2028".encode(), "\U0001f9ca".encode(), b"n" * 255,
    b"new\nline", b'"', b"\\", b"\\u0041", b"\x01", b"\x1b[31m", b"\x7f", b" ", b"...",
    b".hidden", b"-rf", b"~", b"{", b"}", b",", b":", b"null",
]  # fmt: skip

names = (st.sampled_from(AWKWARD) | st.binary(min_size=1, max_size=12)).filter(
    lambda name: name not in (b".", b"..") and b"/" not in name and b"\0" not in name
)
modes = st.integers(0, 0o7777)
times = st.integers(-(2**63), 2**63 - 1)
owners = st.none() | st.integers(0, 2**32 - 2)
attributes = st.none() | st.dictionaries(
    st.binary(min_size=1, max_size=9).filter(lambda name: b"\0" not in name),
    st.binary(max_size=9),
    min_size=1,
    max_size=3,
).map(encode_xattrs)
targets = st.sampled_from([*AWKWARD, b"/etc/passwd", b"../../..", b"t" * 4095]) | st.binary(
    min_size=1, max_size=20
).filter(lambda target: b"\0" not in target)


def common() -> dict[str, Any]:
    return {"mtime_ns": times, "uid": owners, "gid": owners, "xattrs": attributes}


def make_file(size: int, content: int, **fields: Any) -> File:
    # Size and content together make the digest, so that a digest has one size.
    digest = hashlib.sha256(b"%d of %d" % (content, size)).hexdigest()
    return File(sha256=digest, size_bytes=size, **fields)


directories = st.builds(Directory, mode=modes, **common())
files = st.builds(make_file, st.integers(0, 2**40), st.integers(0, 3), mode=modes, **common())
symlinks = st.builds(Symlink, target=targets.map(escape), **common())


@st.composite
def trees(draw: st.DrawFn, max_size: int = 12) -> Tree:
    dirs: dict[bytes, Directory] = {}
    leaves: dict[bytes, File | Symlink] = {}
    for _ in range(draw(st.integers(0, max_size))):
        parent = draw(st.sampled_from([b"", *dirs]))
        name = draw(names)
        path = parent + b"/" + name if parent else name
        if path in dirs or path in leaves:
            continue
        entry = draw(directories | files | symlinks)
        if isinstance(entry, Directory):
            dirs[path] = entry
        else:
            leaves[path] = entry
    taken_files = {path: entry for path, entry in leaves.items() if isinstance(entry, File)}
    taken_links = {path: entry for path, entry in leaves.items() if isinstance(entry, Symlink)}
    return Tree(
        root=draw(directories),
        dirs=order_canonically(dirs),
        files=order_canonically(draw(linked(taken_files))),
        symlinks=order_canonically(draw(linked(taken_links))),
    )


@st.composite
def linked(draw: st.DrawFn, entries: dict[bytes, E]) -> dict[bytes, E]:
    """Some of the entries as names of the same inode."""
    entries = dict(entries)
    unlinked = sorted(entries)
    while len(unlinked) >= 2 and draw(st.booleans()):
        members = draw(st.sets(st.sampled_from(unlinked), min_size=2))
        unlinked = [path for path in unlinked if path not in members]
        leader = min(members)
        fields = {
            name: getattr(entries[leader], name) for name in entries[leader].__struct_fields__
        }
        joined = type(entries[leader])(**{**fields, "hardlink": escape(leader)})
        entries |= dict.fromkeys(members, joined)
    return entries


@st.composite
def manifests(draw: st.DrawFn, max_size: int = 12) -> Manifest:
    return make_manifest(
        draw(trees(max_size)),
        created_at=draw(st.floats(-1e9, 8e9)),
        source_path=draw(st.binary(max_size=20).map(escape)),
    )
