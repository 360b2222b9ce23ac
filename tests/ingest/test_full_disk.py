"""ENOSPC and read-only stores: one clear line, the old state, and a later try succeeds."""

from __future__ import annotations

import contextlib
import errno
import os
import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest

import castfs
from castfs import atomic
from castfs.errors import StoreError
from castfs.ingest import ScanOptions
from castfs.repository import Store
from castfs.store import Staging, WriteSession
from tests.store.checking import assert_idle, check_store, read_records


@pytest.fixture
def tree(source: Path) -> Path:
    (source / "sub").mkdir()
    for number in range(20):
        (source / "sub" / f"{number}").write_bytes(bytes([number]) * 10_000)
    (source / "file").write_bytes(b"x" * (1 << 20) + b"y")
    return source


@pytest.fixture
def full(small_disk: Path) -> Store:
    """A store on the small disk, with one snapshot in it."""
    store = castfs.open(small_disk / "store", create=True)
    (small_disk / "seed").mkdir()
    (small_disk / "seed" / "old").write_bytes(b"old")
    store.ingest(small_disk / "seed")
    return store


def fill(disk: Path, leave: int = 0) -> None:
    """Use all space but `leave` bytes."""
    with (disk / "filler").open("wb", buffering=0) as file:
        with contextlib.suppress(OSError):
            while True:
                file.write(bytes(65536))
        if leave:
            file.truncate(max(0, file.tell() - leave))


def assert_refused(store: Store, tree: Path, **options: object) -> None:
    records = read_records(store.path)
    with pytest.raises(StoreError, match="No space left") as caught:
        store.ingest(tree, options=ScanOptions(**options))  # type: ignore[arg-type]
    assert "free some space" in str(caught.value)
    assert "\n" not in str(caught.value)
    assert read_records(store.path) == records
    assert_idle(store.path)
    check_store(store.path)


def assert_succeeds(store: Store, tree: Path) -> None:
    """Once there is space."""
    (store.path.parent / "filler").unlink()
    result = store.ingest(tree)
    assert result.file_count == 21
    assert_idle(store.path)
    check_store(store.path)


@pytest.mark.parametrize("leave", [0, 4096, 65536, 150_000, 300_000, 1_200_000])
@pytest.mark.parametrize("skip_unreadable", [False, True])
@pytest.mark.needs_root
def test_while_staging(
    full: Store, small_disk: Path, tree: Path, leave: int, skip_unreadable: bool
) -> None:
    """Never mistaken for a file or directory that cannot be read."""
    fill(small_disk, leave)
    assert_refused(full, tree, skip_unreadable=skip_unreadable)
    assert_succeeds(full, tree)


@pytest.mark.parametrize("skip_unreadable", [False, True])
@pytest.mark.needs_root
def test_for_a_moment_while_staging(
    full: Store, tree: Path, skip_unreadable: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    """One write fails half-way and the next would succeed: the session is lost all the same."""
    original = os.write
    failures = iter([4])

    def write(fd: int, data: bytes) -> int:
        if len(data) > 5000 and (count := next(failures, None)):
            original(fd, memoryview(data)[:count])
            raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
        return original(fd, data)

    monkeypatch.setattr("castfs.store.staging.os.write", write)
    assert_refused(full, tree, skip_unreadable=skip_unreadable)
    assert full.ingest(tree).file_count == 21
    check_store(full.path)


@pytest.mark.needs_root
def test_a_half_written_blob_never_has_a_blobs_name(
    full: Store, monkeypatch: pytest.MonkeyPatch
) -> None:
    with WriteSession(full.depot, purpose="test") as session:
        with monkeypatch.context() as patch:

            def write(fd: int, data: bytes) -> int:
                raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

            patch.setattr("castfs.store.staging.os.write", write)
            with pytest.raises(OSError, match="No space left"):
                session.stage_bytes(b"content")
        session.commit_blobs()
    check_store(full.path)


@pytest.mark.parametrize("number", [1, 2], ids=["manifest", "record"])
@pytest.mark.needs_root
def test_while_publishing(
    full: Store, small_disk: Path, tree: Path, number: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    original = atomic.write_temp
    calls = 0

    def write_temp(*args: object, **kwargs: object) -> Path:
        nonlocal calls
        calls += 1
        if calls == number:
            fill(small_disk)
        return original(*args, **kwargs)  # type: ignore[arg-type]

    monkeypatch.setattr(atomic, "write_temp", write_temp)
    assert_refused(full, tree)
    assert calls == number
    monkeypatch.undo()
    assert_succeeds(full, tree)


@pytest.mark.needs_root
def test_in_the_lease_at_the_start(full: Store, small_disk: Path, tree: Path) -> None:
    fill(small_disk)
    assert_refused(full, tree)
    assert_succeeds(full, tree)


@pytest.mark.parametrize("short", [False, True])
@pytest.mark.needs_root
def test_in_the_lease_later(
    full: Store, tree: Path, short: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Half a digest would shift all that follow: no session goes on after that."""
    full.ingest(tree)
    (tree / "new").write_bytes(b"new")
    logged = 0
    original = Staging.log

    def log(self: Staging, digests: object) -> None:
        nonlocal logged
        logged += 1
        with monkeypatch.context() as patch:

            def write(fd: int, data: bytes) -> int:
                if short:
                    return 16
                raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

            patch.setattr("castfs.store.staging.os.write", write)
            original(self, digests)  # type: ignore[arg-type]

    monkeypatch.setattr(Staging, "log", log)
    with pytest.raises(StoreError, match="No space left"):
        full.ingest(tree, options=ScanOptions(rehash=True))
    assert logged == 1
    monkeypatch.undo()
    assert len(read_records(full.path)) == 2
    assert_idle(full.path)


@pytest.mark.needs_root
def test_a_full_store_can_be_read(full: Store, small_disk: Path, tmp_path: Path) -> None:
    """There is no space for a reader's lease; the shared flock of the manifest protects it then."""
    [record] = full.iter_snapshots()
    fill(small_disk)
    snapshot = full.resolve(record.id)
    with snapshot.pinned("test") as protected:
        assert protected
        with snapshot.open("old") as file:
            assert file.read() == b"old"
    snapshot.restore(tmp_path / "restored")
    assert (tmp_path / "restored" / "old").read_bytes() == b"old"
    assert_idle(full.path)


@pytest.fixture
def read_only(store: Store, tree: Path) -> Iterator[Store]:
    """The store through a read-only bind mount."""
    store.ingest(tree)
    path = store.path.with_name("read-only")
    path.mkdir()
    subprocess.run(["mount", "--bind", store.path, path], check=True)
    try:
        subprocess.run(["mount", "-o", "remount,bind,ro", path], check=True)
        yield castfs.open(path)
    finally:
        subprocess.run(["umount", "-l", path], check=True, timeout=10)


@pytest.mark.needs_root
def test_a_read_only_store(read_only: Store, store: Store, tree: Path) -> None:
    with pytest.raises(StoreError, match="read-only"):
        read_only.ingest(tree)
    assert len(read_records(store.path)) == 1
    assert_idle(store.path)


@pytest.mark.parametrize("code", [errno.EIO, errno.EDQUOT, errno.ENOSPC])
@pytest.mark.parametrize("nth", [1, 2])
def test_a_sync_that_fails_is_not_tried_again(
    store: Store, tree: Path, code: int, nth: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A second syncfs would report success."""
    calls = 0

    def syncfs(fd: int) -> None:
        nonlocal calls
        calls += 1
        if calls == nth:
            raise OSError(code, os.strerror(code))

    monkeypatch.setattr("castfs.syscalls.syncfs", syncfs)
    with pytest.raises(StoreError):
        store.ingest(tree)
    assert calls == nth
    assert read_records(store.path) == []
    assert list(store.path.glob("manifests/??/*")) == []
    assert_idle(store.path)
    check_store(store.path)
