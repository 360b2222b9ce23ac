"""Arbitrary trees: restore, look at every entry with lstat, and find the tree again."""

from __future__ import annotations

import os
import shutil
import stat
from collections.abc import Mapping
from pathlib import Path

import msgspec
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from castfs.manifest import Directory, Entry, File, Symlink, Tree
from castfs.paths import escape
from castfs.restore import IfExists, restore_tree
from castfs.store import BlobDir
from tests.restore.building import directory, file, make_tree, symlink

names = (
    st.binary(min_size=1, max_size=6)
    .map(lambda raw: raw.replace(b"/", b"\\").replace(b"\0", b"\n"))
    .filter(lambda name: name not in (b".", b".."))
)
modes = st.integers(0, 0o7777)
#: What ext4 holds: 1901 to 2446. Its first second has no nanoseconds.
times = st.integers(-(2**31 - 1) * 10**9, 2**33 * 10**9)
contents = st.one_of(st.binary(max_size=40), st.integers(0, 3).map(lambda n: bytes(n << 19)))


@st.composite
def trees(draw: st.DrawFn) -> tuple[Tree, list[bytes]]:
    """A tree and the contents that it needs."""
    dirs: list[bytes] = [b""]
    entries: dict[bytes, Entry] = {}
    needed: list[bytes] = []
    for _ in range(draw(st.integers(0, 12))):
        parent = draw(st.sampled_from(dirs))
        name = draw(names)
        path = parent + b"/" + name if parent else name
        if path in entries:
            continue
        kind = draw(st.sampled_from("dfsl"))
        if kind == "d":
            entries[path] = directory(draw(modes), draw(times))
            dirs.append(path)
        elif kind == "f":
            needed.append(draw(contents))
            entries[path] = file(needed[-1], draw(modes), draw(times))
        elif kind == "s":
            target = draw(st.binary(min_size=1, max_size=20).filter(lambda raw: b"\0" not in raw))
            entries[path] = symlink(target, draw(times))
        else:
            _link(draw, entries, path)
    root = directory(draw(modes), draw(times))
    return make_tree(entries, root=root), needed


def _link(draw: st.DrawFn, entries: dict[bytes, Entry], path: bytes) -> None:
    """Make `path` a hard link of something; the group is named by its smallest path."""
    candidates = sorted(p for p, e in entries.items() if not isinstance(e, Directory))
    if not candidates:
        return
    first = entries[draw(st.sampled_from(candidates))]
    assert not isinstance(first, Directory)
    group = [path]
    for other, entry in entries.items():
        if entry is first or (
            isinstance(entry, File | Symlink)
            and entry.hardlink is not None
            and entry.hardlink == first.hardlink
        ):
            group.append(other)
    linked = msgspec.structs.replace(first, hardlink=escape(min(group)))
    for member in group:
        entries[member] = linked


def read_back(root: Path) -> dict[bytes, tuple[object, ...]]:
    """What is on disk, in the terms of the manifest. The inode stands for the hard-link group."""
    result: dict[bytes, tuple[object, ...]] = {}
    pending = [(os.fsencode(root), b"")]
    while pending:
        place, path = pending.pop()
        status = os.lstat(place)
        mode = stat.S_IMODE(status.st_mode)
        if stat.S_ISDIR(status.st_mode):
            result[path] = ("dir", mode, status.st_mtime_ns)
            for name in os.listdir(place):
                pending.append((place + b"/" + name, path + b"/" + name if path else name))
        elif stat.S_ISLNK(status.st_mode):
            result[path] = (status.st_ino, status.st_mtime_ns, os.readlink(place))
        else:
            data = Path(os.fsdecode(place)).read_bytes()
            result[path] = (status.st_ino, mode, status.st_mtime_ns, data)
    return result


def write_blobs(place: Path, by_digest: Mapping[str, bytes]) -> BlobDir:
    """Without a store's care for power cuts, which costs a third of a second for each example."""
    place.mkdir()
    for digest, data in by_digest.items():
        path = place / BlobDir.name(digest)
        path.parent.mkdir(exist_ok=True)
        path.write_bytes(data)
    return BlobDir(place)


POLICIES: tuple[IfExists, ...] = ("fail", "skip", "replace")


@settings(max_examples=150, suppress_health_check=[HealthCheck.too_slow])
@given(made=trees(), threads=st.sampled_from([1, 2]), policy=st.sampled_from(POLICIES))
@pytest.mark.needs_root
def test_a_restored_tree_is_the_tree(
    tmp_path_factory: pytest.TempPathFactory,
    made: tuple[Tree, list[bytes]],
    threads: int,
    policy: IfExists,
) -> None:
    tree, needed = made
    place = tmp_path_factory.mktemp("tree")
    by_digest = {file(data).sha256: data for data in needed}
    blobs = write_blobs(place / "blobs", by_digest)
    result = restore_tree(tree, blobs, place / "out", threads=threads, if_exists=policy)
    assert result.not_set == ()
    found = read_back(place / "out")
    assert found.pop(b"") == ("dir", tree.root.mode, tree.root.mtime_ns)
    groups: dict[str, set[object]] = {}
    alone: list[object] = []
    for path, entry in tree.iter_entries():
        shown = found.pop(path)
        if isinstance(entry, Directory):
            assert shown == ("dir", entry.mode, entry.mtime_ns)
            continue
        if isinstance(entry, File):
            assert shown[1:] == (entry.mode, entry.mtime_ns, by_digest[entry.sha256])
        else:
            assert shown[1:] == (entry.mtime_ns, entry.raw_target)
        if entry.hardlink is None:
            alone.append(shown[0])
        else:
            groups.setdefault(entry.hardlink, set()).add(shown[0])
    assert found == {}
    inodes = [inode for group in groups.values() for inode in group] + alone
    assert all(len(group) == 1 for group in groups.values())
    assert len(inodes) == len(set(inodes))
    blobs.close()
    shutil.rmtree(place)
