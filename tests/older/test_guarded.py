"""Reading a directory that somebody else changes meanwhile, or has filled with traps."""

from __future__ import annotations

import errno
import os
import subprocess
from pathlib import Path

import pytest

from castfs.errors import BusyError, NotFoundError
from castfs.older.documents import clean, parse_object, to_nanoseconds
from castfs.older.guarded import Refused, SourceTree


@pytest.fixture
def root(tmp_path: Path) -> Path:
    directory = tmp_path / "root/a/b"
    directory.mkdir(parents=True)
    (directory / "f").write_bytes(b"content")
    (tmp_path / "secret").mkdir()
    (tmp_path / "secret/f").write_bytes(b"secret")
    return tmp_path / "root"


def test_what_is_held_is_what_was_opened(root: Path) -> None:
    """A directory that becomes a symlink afterwards leads nowhere else."""
    with SourceTree(root) as tree, tree.held(root / "a/b/f") as path:
        (root / "a/b").rename(root / "a/moved")
        (root / "a/b").symlink_to(root.parent / "secret")
        assert (root / "a/b/f").read_bytes() == b"secret"
        assert path.read_bytes() == b"content"


@pytest.mark.parametrize("where", ["a", "a/b", "a/b/f"])
def test_symlinks_are_refused_at_each_level(root: Path, where: str) -> None:
    (root / where).rename(root / "moved")
    (root / where).symlink_to(root / "moved")
    with SourceTree(root) as tree:
        for read in (lambda: tree.read(b"a/b/f", 100), lambda: tree.open(b"a/b/f")):
            with pytest.raises(Refused, match="symbolic link"):
                read()
        with pytest.raises(Refused, match="symbolic link"), tree.held(root / "a/b/f"):
            pass


def test_what_is_missing(root: Path) -> None:
    with SourceTree(root) as tree:
        assert tree.look(b"a/x") is None
        assert tree.look(b"x/y/z") is None
        assert tree.look(b"x/" * 2000 + b"f") is None
        with pytest.raises(Refused, match="a file, not a directory"):
            tree.look(b"a/b/f/below")
        for path in (b"a/x", b"x/y", b"a/b/f/below"):
            with pytest.raises(Refused) as caught:
                tree.open(path)
            assert caught.value.missing == (b"f" not in path)


def test_limits(root: Path) -> None:
    with SourceTree(root) as tree:
        assert tree.read(b"a/b/f", 7) == b"content"
        with pytest.raises(Refused, match="longer than 6"):
            tree.read(b"a/b/f", 6)
        with pytest.raises(Refused, match="directory"):
            tree.read(b"a/b", 100)


def test_no_descriptor_is_left(root: Path) -> None:
    for number in range(50):
        (root / f"d{number}").mkdir()
        (root / f"d{number}/f").write_bytes(b"1")
    before = sorted(os.listdir("/proc/self/fd"))
    with SourceTree(root) as tree:
        for number in range(50):
            assert tree.read(b"d%d/f" % number, 10) == b"1"
            with tree.held(root / f"d{number}/f") as path:
                assert path.read_bytes() == b"1"
            with pytest.raises(Refused):
                tree.open(b"d%d/missing" % number)
        assert len(os.listdir("/proc/self/fd")) < len(before) + 25
    assert sorted(os.listdir("/proc/self/fd")) == before


def test_exhaustion_is_nobodys_damage(root: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    with SourceTree(root) as tree:

        def refuse(*_: object, **__: object) -> int:
            raise OSError(errno.EMFILE, os.strerror(errno.EMFILE))

        monkeypatch.setattr(os, "open", refuse)
        with pytest.raises(OSError, match="Too many open files"):
            tree.open(b"a")


def test_root_is_missing(tmp_path: Path) -> None:
    with pytest.raises(NotFoundError):
        SourceTree(tmp_path / "nothing")


@pytest.mark.parametrize(
    "raw", [b"", b"[]", b"1", b"{", b"[" * 10**6, b'{"a":' * 10**5, b"\xff{}", b"null"]
)
def test_no_object(raw: bytes) -> None:
    with pytest.raises(Refused):
        parse_object(raw)


def test_what_json_cannot_hold() -> None:
    raw = b'{"a": NaN, "b": [Infinity, 1e999], "c": "\\ud800", "d": 1%s}' % (b"0" * 30)
    document = parse_object(raw)
    assert clean(document) == {
        "a": "NaN", "b": ["Infinity", "Infinity"], "c": "\\ud800", "d": "1" + "0" * 30
    }  # fmt: skip
    deep: object = 1
    for _ in range(65):
        deep = [deep]
    with pytest.raises(Refused, match="deeper"):
        clean(deep)


@pytest.mark.parametrize("seconds", [1795289712.5167556, 0.1, -1.5, 0.0, 8e9])
def test_times_come_back(seconds: float) -> None:
    assert to_nanoseconds(seconds) / 10**9 == pytest.approx(seconds, abs=1e-9)
    assert to_nanoseconds(1795289712.5167556) / 10**9 == 1795289712.5167556


def test_deep(root: Path) -> None:
    before = Path.cwd()
    os.chdir(root)
    for _ in range(1500):
        os.mkdir("d")
        os.chdir("d")
    Path("f").write_bytes(b"deep")
    os.chdir(before)
    try:
        with SourceTree(root) as tree:
            assert tree.read(b"d/" * 1500 + b"f", 10) == b"deep"
            assert tree.read(b"a/b/f", 10) == b"content"
            assert tree.look(b"d/" * 1499 + b"x") is None
    finally:
        # Python removes trees by recursion.
        subprocess.run(["rm", "-rf", root / "d"], check=True, timeout=60)


@pytest.mark.parametrize("path", [b"..", b"a/../..", b"../root/a", b"a/b/../f", b"a\0b", b"a\0/b"])
def test_no_way_out(root: Path, path: bytes) -> None:
    with SourceTree(root) as tree:
        for read in (tree.open, tree.look, tree.list):
            with pytest.raises(Refused, match="leads elsewhere"):
                read(path)
        assert not tree.is_directory(path)


def test_one_at_a_time(root: Path) -> None:
    with SourceTree(root) as first, SourceTree(root) as second:
        first.lock()
        with pytest.raises(BusyError, match="another process"):
            second.lock()
        first.close()
        second.lock()
