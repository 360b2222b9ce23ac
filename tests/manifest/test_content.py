"""When two trees hold the same, whatever their times."""

from __future__ import annotations

from typing import Any

import pytest

from castfs.manifest import Directory, File, Symlink, Tree, content_id, order_canonically
from castfs.paths import RelPath


def tree(**changes: Any) -> Tree:
    """A tree with one entry of each kind, some of it changed."""
    said: dict[str, Any] = {
        "root": 0o755, "dir": 0o700, "file": 0o644, "sha": "a" * 64, "target": "x",
        "names": (b"d", b"d/f", b"l"), "mtime": 1, "uid": None, "xattrs": None, "links": False,
    } | changes  # fmt: skip
    directory, name, link = map(RelPath, said["names"])
    rest = {"mtime_ns": said["mtime"], "uid": said["uid"], "xattrs": said["xattrs"]}
    file = File(mode=said["file"], sha256=said["sha"], size_bytes=1, **rest)
    return Tree(
        root=Directory(mode=said["root"], **rest),
        dirs=order_canonically({directory: Directory(mode=said["dir"], **rest)}),
        files=order_canonically({name: file}),
        symlinks=order_canonically({link: Symlink(target=said["target"], **rest)}),
    )


@pytest.mark.parametrize(
    "changes", [{"mtime": 2}, {"uid": 1000}, {"xattrs": {"user.a": "eA=="}}], ids=str
)
def test_the_same(changes: dict[str, Any]) -> None:
    assert content_id(tree(**changes)) == content_id(tree())


@pytest.mark.parametrize(
    "changes",
    [
        {"root": 0o700}, {"dir": 0o755}, {"file": 0o755}, {"sha": "b" * 64}, {"target": "y"},
        {"names": (b"d", b"d/g", b"l")}, {"names": (b"e", b"e/f", b"l")},
        {"names": (b"d", b"d/f", b"m")}, {"names": (b"d", b"f", b"l")},
        {"names": (b"d", b"d/f", b"d/l")},
    ],
    ids=str,
)  # fmt: skip
def test_another(changes: dict[str, Any]) -> None:
    assert content_id(tree(**changes)) != content_id(tree())


def test_no_two_spellings() -> None:
    """What stands between parts cannot be part of one."""
    first = tree(names=(b"d", b"d/f", b"l"), target="x\ny")
    second = tree(names=(b"d", b"d/f", b"l x\ny"), target="")
    assert content_id(first) != content_id(second)
