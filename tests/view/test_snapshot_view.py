"""A snapshot as a filesystem, without one."""

from __future__ import annotations

import errno
import itertools

import pytest

from castfs.manifest import Symlink, encode_xattrs
from castfs.tree import Presentation, compile_tree
from castfs.view import SnapshotView
from tests.tree.test_compiler import make_file, make_tree

NAMES = [b"%03d" % number for number in range(300)]


@pytest.fixture
def view() -> SnapshotView:
    entries = {b"many/" + name: make_file(name) for name in NAMES}
    tree = make_tree(
        {
            **entries,
            b"link": Symlink(mtime_ns=0, target="many"),
            b"file": make_file(b"x" * 600, xattrs=encode_xattrs({b"user.a": b"1", b"user.b": b""})),
        }
    )
    return SnapshotView(compile_tree(tree, Presentation()))


def ino_of(view: SnapshotView, name: bytes, directory: int = 1) -> int:
    found = view.lookup(directory, name)
    assert found is not None
    return found.ino


def test_lookup(view: SnapshotView) -> None:
    many = ino_of(view, b"many")
    found = view.lookup(many, b"007")
    assert found is not None
    assert found == view.attributes(found.ino)
    assert view.lookup(many, b"300") is None
    assert view.lookup(1, b"007") is None


def test_dots(view: SnapshotView) -> None:
    many, file = ino_of(view, b"many"), ino_of(view, b"file")
    assert ino_of(view, b".", many) == many
    assert ino_of(view, b"..", many) == 1
    assert ino_of(view, b"..", 1) == 1
    assert ino_of(view, b".", file) == file


@pytest.mark.parametrize("ino", [0, 100_000, 2**63])
def test_no_such_inode(view: SnapshotView, ino: int) -> None:
    for ask in (
        lambda: view.attributes(ino),
        lambda: view.lookup(ino, b"x"),
        lambda: view.lookup(ino, b"."),
        lambda: view.check_directory(ino),
        lambda: view.check_file(ino),
        lambda: view.readlink(ino),
        lambda: view.xattr(ino, b"x"),
        lambda: view.xattr_names(ino),
    ):
        with pytest.raises(OSError, match="Stale file handle") as caught:
            ask()
        assert caught.value.errno == errno.ESTALE


def test_the_wrong_kind(view: SnapshotView) -> None:
    file, link, many = (ino_of(view, name) for name in (b"file", b"link", b"many"))
    with pytest.raises(NotADirectoryError):
        view.lookup(file, b"x")
    with pytest.raises(NotADirectoryError):
        view.lookup(file, b"..")
    with pytest.raises(NotADirectoryError):
        view.check_directory(link)
    with pytest.raises(IsADirectoryError):
        view.check_file(many)
    with pytest.raises(OSError, match="Too many levels"):
        view.check_file(link)
    with pytest.raises(OSError, match="Invalid argument"):
        view.readlink(file)
    assert view.readlink(link) == b"many"
    view.check_file(file)


def test_listing(view: SnapshotView) -> None:
    many = ino_of(view, b"many")
    entries = list(view.iter_directory(many, 0))
    assert [entry.name for entry in entries] == [b".", b"..", *NAMES]
    assert [entry.attributes.ino for entry in entries[:2]] == [many, 1]
    for entry in entries[2:]:
        assert entry.attributes == view.lookup(many, entry.name)


def test_any_offset_may_be_asked_again(view: SnapshotView) -> None:
    many = ino_of(view, b"many")
    entries = list(view.iter_directory(many, 0))
    offsets = [entry.next_offset for entry in entries]
    assert offsets == sorted(set(offsets))
    for position in reversed(range(len(entries))):
        rest = list(view.iter_directory(many, offsets[position]))
        assert rest == entries[position + 1 :]


def test_a_page_costs_what_it_shows(view: SnapshotView, monkeypatch: pytest.MonkeyPatch) -> None:
    many = ino_of(view, b"many")
    asked: list[int] = []
    original = type(view.index).attributes

    def counted(index: object, ino: int) -> object:
        asked.append(ino)
        return original(view.index, ino)

    monkeypatch.setattr(type(view.index), "attributes", counted)
    start = next(e.next_offset for e in view.iter_directory(many, 0) if e.name == NAMES[197])
    asked.clear()
    page = list(itertools.islice(view.iter_directory(many, start), 10))
    assert [entry.name for entry in page] == NAMES[198:208]
    assert len(asked) == 10


def test_totals(view: SnapshotView) -> None:
    totals = view.totals
    assert (totals.block_size, totals.name_max) == (512, 255)
    assert totals.blocks == 300 + 2 + 1  # small files, the large one, the symlink
    assert totals.inodes == 300 + 4


def test_xattrs(view: SnapshotView) -> None:
    file = ino_of(view, b"file")
    assert view.has_xattrs
    assert view.xattr_names(file) == (b"user.a", b"user.b")
    assert view.xattr(file, b"user.a") == b"1"
    assert view.xattr(file, b"user.b") == b""
    assert view.xattr_names(1) == ()
    with pytest.raises(OSError, match="No data available"):
        view.xattr(file, b"user.c")
    without = SnapshotView(compile_tree(make_tree({b"x": make_file()}), Presentation()))
    assert not without.has_xattrs
