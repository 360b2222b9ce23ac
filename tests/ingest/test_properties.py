"""Arbitrary trees on disk: what lstat sees is what the manifest says, and what restore makes."""

from __future__ import annotations

import itertools
import os
import subprocess
from dataclasses import dataclass
from pathlib import Path

import pytest
from hypothesis import HealthCheck, example, given, settings
from hypothesis import strategies as st

import castfs
from castfs.ignore import IgnoreOptions
from castfs.ingest import ScanOptions
from castfs.manifest import decode_manifest, encode_manifest
from tests.ingest.describing import describe_directory, describe_tree
from tests.store.checking import check_store


@dataclass(frozen=True)
class File:
    content: bytes
    mode: int
    mtime_ns: int


@dataclass(frozen=True)
class Link:
    target: bytes
    mtime_ns: int


@dataclass(frozen=True)
class Hard:
    """Another name of the file or symlink that was made n-th, if there is one."""

    number: int


@dataclass(frozen=True)
class Dir:
    children: dict[bytes, Node]
    mode: int
    mtime_ns: int


Node = File | Link | Hard | Dir

_odd = st.binary(min_size=1, max_size=9).map(lambda raw: raw.replace(b"\0", b"\n"))
names = (
    (_odd | st.sampled_from([b"a", b"b", b"-", b"\xff", "\u241b".encode(), b"n" * 255, b"A"]))
    .map(lambda raw: raw.replace(b"/", b"|"))
    .filter(lambda raw: raw not in (b".", b".."))
)
modes = st.integers(0, 0o7777) | st.sampled_from([0o644, 0o755, 0o700, 0])
#: 1901 to 2262, and with whole seconds often.
mtimes = st.integers(-(2**31) * 10**9, 2**63 - 1) | st.integers(-1000, 10**9).map(
    lambda seconds: seconds * 10**9
)
files = st.builds(File, st.binary(max_size=40) | st.just(b"same"), modes, mtimes)
links = st.builds(Link, _odd, mtimes)
leaves = files | links | st.builds(Hard, st.integers(0, 3))


def directories(children: st.SearchStrategy[Node]) -> st.SearchStrategy[Dir]:
    return st.builds(Dir, st.dictionaries(names, children, max_size=5), modes, mtimes)


trees = directories(st.recursive(leaves, directories, max_leaves=15))


def build(path: bytes, tree: Dir) -> None:
    """Make `tree` at `path`, which does not exist."""
    made: list[bytes] = []

    def make(path: bytes, node: Node) -> None:
        match node:
            case Dir():
                os.mkdir(path)
                for name, child in node.children.items():
                    make(path + b"/" + name, child)
                os.chmod(path, node.mode)
            case File():
                with open(path, "wb") as file:
                    file.write(node.content)
                os.chmod(path, node.mode)
                made.append(path)
            case Link():
                os.symlink(node.target, path)
                made.append(path)
            case Hard() if node.number < len(made):
                os.link(made[node.number], path, follow_symlinks=False)
                return
            case Hard():
                return
        times[path] = node.mtime_ns

    times: dict[bytes, int] = {}
    make(path, tree)
    for path, mtime_ns in times.items():
        os.utime(path, ns=(mtime_ns, mtime_ns), follow_symlinks=False)


_number = itertools.count()


@pytest.mark.timeout(900)  # the larger profile has 500 examples, each of which waits for the disk
@settings(
    max_examples=settings().max_examples // 2,
    suppress_health_check=[HealthCheck.function_scoped_fixture],
)
@given(trees, st.booleans())
@example(Dir({b"a": File(b"", 0, 0), b"b": Hard(0), b"c": Dir({b"d": Hard(0)}, 0, 0)}, 0, 0), True)
@pytest.mark.needs_root
def test_ingest_and_restore(tmp_path: Path, tree: Dir, again: bool) -> None:
    place = tmp_path / f"{next(_number)}"
    place.mkdir()
    source = place / "source"
    build(os.fsencode(source), tree)
    described = describe_directory(source)
    store = castfs.open(tmp_path / "store", create=True)
    options = ScanOptions(ignore=IgnoreOptions(no_ignore=True))
    try:
        snapshot = store.resolve(store.ingest(source, options=options).id)
        manifest = snapshot.manifest
        assert describe_tree(manifest.tree) == described
        for path in manifest.tree.files:
            with snapshot.open(path) as file, open(os.fsencode(source) + b"/" + path, "rb") as own:
                assert file.read() == own.read()
        assert decode_manifest(b"".join(encode_manifest(manifest))) == manifest
        assert describe_directory(source) == described
        if again:
            assert store.ingest(source, options=options).manifest_id == manifest.id
        snapshot.restore(place / "restored")
        assert describe_directory(place / "restored") == described
    finally:
        subprocess.run(["rm", "-rf", place], check=True)


@pytest.mark.needs_root
def test_the_store_of_all_of_them_is_whole(tmp_path: Path) -> None:
    """A smaller walk through the same strategy with one check of everything at the end."""
    store = castfs.open(tmp_path / "store", create=True)

    @settings(max_examples=15)
    @given(trees)
    def take(tree: Dir) -> None:
        source = tmp_path / f"{next(_number)}"
        build(os.fsencode(source), tree)
        store.ingest(source, options=ScanOptions(ignore=IgnoreOptions(no_ignore=True)))

    take()
    assert len(check_store(store.path)) >= 2
    subprocess.run(["chmod", "-R", "u+rwx", tmp_path], check=True)
