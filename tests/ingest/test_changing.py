"""A tree that changes while it is read."""

from __future__ import annotations

import hashlib
import os
from collections.abc import Callable
from pathlib import Path

import pytest

from castfs.errors import SourceError, UnreadableError
from castfs.ingest import beneath, walk
from castfs.ingest.reading import SMALL
from castfs.ingest.sink import StoreSink
from castfs.repository import Store
from castfs.store import StagedFile
from tests.ingest.describing import describe_directory, describe_tree
from tests.ingest.taking import Ingest, Take, before_reading
from tests.store.checking import assert_idle, check_store, hash_blobs

SIZES = pytest.mark.parametrize("size", [10, SMALL + 10], ids=["small", "large"])


def after_reading(monkeypatch: pytest.MonkeyPatch, act: Callable[[int], object]) -> None:
    """`act(n)` when content was read for the n-th time, before the file is looked at again."""
    count = 0

    def wrap(name: str) -> None:
        original = getattr(StoreSink, name)

        def take(self: StoreSink, given: object) -> StagedFile:
            nonlocal count
            staged: StagedFile = original(self, given)
            count += 1
            act(count)
            return staged

        monkeypatch.setattr(StoreSink, name, take)

    wrap("take_bytes")
    wrap("take_file")


def append(path: Path) -> None:
    with path.open("ab") as file:
        file.write(b"+")


def overwrite(path: Path) -> None:
    with path.open("r+b") as file:
        file.write(b"X")


def append_unseen(path: Path) -> None:
    """The size and mtime are as before; only the ctime tells."""
    before = path.stat()
    overwrite(path)
    os.utime(path, ns=(before.st_atime_ns, before.st_mtime_ns))


CHANGES = pytest.mark.parametrize("change", [append, overwrite, append_unseen])


@pytest.mark.semantics("I24")
@SIZES
@CHANGES
def test_a_file_that_changes_once_is_read_again(
    source: Path,
    store: Store,
    take: Take,
    monkeypatch: pytest.MonkeyPatch,
    size: int,
    change: Callable[[Path], None],
) -> None:
    path = source / "file"
    path.write_bytes(b"." * size)
    os.utime(path, ns=(0, 0))  # so that the change shows, whatever the clock's tick
    counts: list[int] = []

    def act(count: int) -> None:
        counts.append(count)
        if count == 1:
            change(path)

    after_reading(monkeypatch, act)
    snapshot = take()
    assert counts == [1, 2]
    assert describe_tree(snapshot.manifest.tree) == describe_directory(source)
    check_store(store.path)


@pytest.mark.semantics("I24")
@SIZES
def test_a_file_that_always_changes_is_reported(
    source: Path, store: Store, ingest: Ingest, monkeypatch: pytest.MonkeyPatch, size: int
) -> None:
    path = source / "log"
    path.write_bytes(b"." * size)
    (source / "other").write_bytes(b"x")
    counts: list[int] = []

    def act(count: int) -> None:
        counts.append(count)
        append(path)

    after_reading(monkeypatch, act)
    with pytest.raises(UnreadableError, match="changed while it was read") as caught:
        ingest()
    assert [entry for entry, _ in caught.value.entries] == [b"log"]
    assert len(counts) <= 4
    assert (hash_blobs(store.path), list(store.iter_snapshots())) == ({}, [])
    assert_idle(store.path)
    result = ingest(skip_unreadable=True)
    assert [entry.path for entry in result.skipped] == [b"log"]
    assert result.file_count == 1
    check_store(store.path)


def test_a_file_that_shrinks_while_it_is_read(
    source: Path, take: Take, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = source / "file"
    path.write_bytes(b"." * 100)
    original = os.read
    pending = [lambda: os.truncate(path, 40)]

    def read(fd: int, count: int) -> bytes:
        while pending:
            pending.pop()()
        return original(fd, count)

    monkeypatch.setattr("castfs.ingest.reading.os.read", read)
    assert take().get(b"file").size_bytes == 40  # type: ignore[union-attr]


def test_a_mode_that_changes_while_it_is_read(
    source: Path, take: Take, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = source / "file"
    path.write_bytes(b"x")
    after_reading(monkeypatch, lambda count: path.chmod(0o640) if count == 1 else None)
    assert take().get(b"file").mode == 0o640  # type: ignore[union-attr]


def replace_by_nothing(path: Path) -> None:
    path.unlink()


def replace_by_fifo(path: Path) -> None:
    path.unlink()
    os.mkfifo(path)


def replace_by_symlink(path: Path) -> None:
    path.unlink()
    path.symlink_to("/etc/passwd")


def replace_by_directory(path: Path) -> None:
    path.unlink()
    path.mkdir()


@pytest.mark.semantics("I25")
@pytest.mark.parametrize("readers", [False, True])
@pytest.mark.parametrize(
    ("change", "vanished"),
    [
        (replace_by_nothing, True),
        (replace_by_fifo, False),
        (replace_by_symlink, False),
        (replace_by_directory, False),
    ],
)
def test_a_file_that_is_replaced_before_it_is_read(
    source: Path,
    store: Store,
    ingest: Ingest,
    monkeypatch: pytest.MonkeyPatch,
    request: pytest.FixtureRequest,
    change: Callable[[Path], None],
    vanished: bool,
    readers: bool,
) -> None:
    if readers:
        request.getfixturevalue("with_readers")
    (source / "gone").write_bytes(b"x")
    (source / "kept").write_bytes(b"y")
    before_reading(monkeypatch, lambda: change(source / "gone"))
    if not vanished:
        with pytest.raises(UnreadableError) as caught:
            ingest()
        assert [path for path, _ in caught.value.entries] == [b"gone"]
        assert list(store.iter_snapshots()) == []
        return
    # It was not there at the end either: no reason to refuse the rest.
    result = ingest()
    assert [(entry.path, entry.reason) for entry in result.skipped] == [
        (b"gone", "vanished while it was read")
    ]
    assert result.file_count == 1


def before_opening(
    monkeypatch: pytest.MonkeyPatch, wanted: bytes, act: Callable[[], object]
) -> None:
    """`act` once, before the walk opens directory `wanted`."""
    original = beneath.open_beneath
    pending = [act]

    def open_beneath(root_fd: int, path: bytes, expected: tuple[int, int] | None) -> int:
        if path == wanted and pending:
            pending.pop()()
        return original(root_fd, path, expected)

    monkeypatch.setattr(walk, "open_beneath", open_beneath)


@pytest.fixture
def outside(tmp_path: Path) -> Path:
    path = tmp_path / "outside"
    (path / "sub").mkdir(parents=True)
    (path / "secret").write_bytes(b"secret")
    (path / "sub" / "secret").write_bytes(b"secret")
    (path / "sub" / "file").write_bytes(b"secret")
    return path


def make_nested(source: Path) -> None:
    (source / "dir" / "sub").mkdir(parents=True)
    (source / "dir" / "file").write_bytes(b"1")
    (source / "dir" / "sub" / "file").write_bytes(b"2")
    (source / "kept").write_bytes(b"3")


@pytest.mark.semantics("I25")
@pytest.mark.parametrize("wanted", [b"dir", b"dir/sub"])
@pytest.mark.parametrize("by", ["nothing", "symlink", "file", "directory"])
def test_a_directory_that_is_replaced_during_the_walk(
    source: Path,
    store: Store,
    take: Take,
    outside: Path,
    monkeypatch: pytest.MonkeyPatch,
    wanted: bytes,
    by: str,
) -> None:
    make_nested(source)

    def swap() -> None:
        (source / "dir").rename(outside.with_name("moved"))
        if by == "symlink":
            (source / "dir").symlink_to(outside)
        elif by == "file":
            (source / "dir").write_bytes(b"secret")
        elif by == "directory":
            (source / "dir" / "sub").mkdir(parents=True)
            (source / "dir" / "sub" / "secret").write_bytes(b"secret")

    before_opening(monkeypatch, wanted, swap)
    snapshot = take()
    assert set(snapshot.manifest.tree.files) - {b"dir/file"} == {b"kept"}
    assert [(e.path, e.reason) for e in snapshot.record.skipped] == [  # type: ignore[union-attr]
        (wanted.decode(), "vanished while it was read")
    ]
    for name in hash_blobs(store.path):
        blob = store.path / "blobs" / name[:2] / name
        assert blob.read_bytes() != b"secret"
    check_store(store.path)


def test_a_symlink_swapped_in_before_a_known_file_is_read_after_all(
    source: Path,
    store: Store,
    take: Take,
    outside: Path,
    monkeypatch: pytest.MonkeyPatch,
    later: None,
) -> None:
    """The cache knows the file, its blob is gone: it is opened anew when the walk is elsewhere."""
    make_nested(source)
    take()
    for name in hash_blobs(store.path):
        (store.path / "blobs" / name[:2] / name).unlink()
    original = store.depot.blobs.size
    pending = [lambda: (source / "dir").rename(outside.with_name("moved"))]

    def size(digest: str) -> int | None:
        while pending:
            pending.pop()()
            (source / "dir").symlink_to(outside)
        return original(digest)

    monkeypatch.setattr(store.depot.blobs, "size", size)
    snapshot = take()
    assert set(snapshot.manifest.tree.files) == {b"kept"}
    skipped = {entry.path for entry in snapshot.record.skipped}  # type: ignore[union-attr]
    assert skipped == {"dir/file", "dir/sub/file"}
    assert set(hash_blobs(store.path)) == {hashlib.sha256(b"3").hexdigest()}


def test_a_file_that_appears_during_the_walk_is_taken_or_not(
    source: Path, take: Take, monkeypatch: pytest.MonkeyPatch
) -> None:
    make_nested(source)
    before_opening(monkeypatch, b"dir", lambda: (source / "dir" / "new").write_bytes(b"n"))
    assert b"dir/new" in take().manifest.tree.files


def test_the_root_that_vanishes(
    source: Path, store: Store, ingest: Ingest, monkeypatch: pytest.MonkeyPatch
) -> None:
    make_nested(source)
    before_opening(monkeypatch, b"", lambda: source.rename(source.with_name("moved")))
    # It was opened before; what is read is what was meant.
    assert ingest().file_count == 3
    with pytest.raises(SourceError, match="No such file"):
        ingest()
    assert_idle(store.path)
