"""Arbitrary trees come back as they were: lstat, readlink, contents, listings."""

from __future__ import annotations

import os
import shutil
import stat
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from castfs.mount import unmount
from tests.mount.conftest import Mounter

pytestmark = pytest.mark.mounted

NAMES = st.binary(min_size=1, max_size=255).map(
    lambda raw: raw.replace(b"/", b"_").replace(b"\0", b"0")
).filter(lambda name: name not in (b".", b".."))  # fmt: skip
MODES = st.integers(0, 0o7777)
#: From 1901, before which ext4 has none, to 2262, after which 64 bits of nanoseconds have none.
TIMES = st.integers(-(2**31) * 10**9, 2**63 - 1)
#: A piece, and how often it is repeated: examples stay short when they are shown.
CONTENTS = st.tuples(st.binary(max_size=20), st.integers(0, 50_000))
FILES = st.tuples(st.just("file"), CONTENTS)
TARGETS = st.binary(min_size=1, max_size=300).map(lambda raw: raw.replace(b"\0", b"0"))
LINKS = st.tuples(st.just("symlink"), TARGETS)
HARD_LINKS = st.tuples(st.just("hard link"), st.integers(0, 20))
CHILDREN = st.recursive(
    FILES | LINKS | HARD_LINKS,
    lambda inner: st.tuples(
        st.just("directory"), st.dictionaries(NAMES, st.tuples(inner, MODES, TIMES), max_size=6)
    ),
    max_leaves=20,
)
#: name → ((kind, content), mode, mtime_ns), where a directory's content is the same again.
Children = dict[bytes, tuple[tuple[str, Any], int, int]]
TREES = st.dictionaries(NAMES, st.tuples(CHILDREN, MODES, TIMES), max_size=8)


def build(directory: bytes, children: Children, files: list[bytes]) -> None:
    for name, ((kind, content), mode, mtime_ns) in children.items():
        path = directory + b"/" + name
        if kind == "hard link":
            if files:
                os.link(files[content % len(files)], path, follow_symlinks=False)
            continue
        if kind == "directory":
            os.mkdir(path)
            build(path, content, files)
        elif kind == "symlink":
            os.symlink(content, path)
            files.append(path)
        else:
            with open(path, "wb") as file:
                file.write(content[0] * content[1])
            files.append(path)
        if kind != "symlink":
            os.chmod(path, mode)
        os.utime(path, ns=(0, mtime_ns), follow_symlinks=False)


def describe(root: bytes) -> dict[bytes, tuple[object, ...]]:
    """Everything that must be equal, by path; hard links as the set of paths that they join."""
    seen: dict[bytes, tuple[object, ...]] = {}
    numbers: dict[bytes, int] = {}
    inodes: dict[int, set[bytes]] = {}
    pending = [b""]
    while pending:
        path = pending.pop()
        full = root + b"/" + path
        status = os.lstat(full)
        content: object = None
        if stat.S_ISDIR(status.st_mode):
            content = sorted(os.listdir(full))
            pending += [os.path.join(path, name) for name in os.listdir(full)]
        elif stat.S_ISLNK(status.st_mode):
            content = (os.readlink(full), status.st_size)
        else:
            with open(full, "rb") as file:
                content = (file.read(), status.st_size)
        inodes.setdefault(status.st_ino, set()).add(path)
        numbers[path] = status.st_ino
        seen[path] = (status.st_mode, status.st_mtime_ns, status.st_nlink, content)
    return {path: (*values, sorted(inodes[numbers[path]])) for path, values in seen.items()}


@settings(
    max_examples=15,
    # The mounter's directory is emptied by the test itself.
    suppress_health_check=[HealthCheck.function_scoped_fixture, HealthCheck.too_slow],
)
@given(tree=TREES, mode=MODES, mtime_ns=TIMES)
@pytest.mark.needs_root
def test_a_mounted_tree_is_its_source(
    mounter: Mounter, tree: Children, mode: int, mtime_ns: int
) -> None:
    try:
        build(os.fsencode(mounter.source), tree, [])
        mounter.source.chmod(mode)
        os.utime(mounter.source, ns=(0, mtime_ns))
        expected = describe(os.fsencode(mounter.source))
        mounter.start(mounter.take())
        try:
            assert describe(os.fsencode(mounter.mountpoint)) == expected
        finally:
            unmount(mounter.mountpoint)
    finally:
        shutil.rmtree(mounter.source)
        mounter.source.mkdir()
