"""The stat cache: what it saves, what it must never believe, and that it may be lost."""

from __future__ import annotations

import hashlib
import os
import sqlite3
import time
from collections.abc import Callable
from contextlib import closing
from pathlib import Path

import pytest

import castfs
from castfs import settings, syscalls
from castfs.repository import Store
from castfs.store import BlobDir
from tests.ingest.describing import describe_directory, describe_tree
from tests.ingest.taking import Ingest, ReadNames, Take
from tests.store.checking import check_store


def cache_path() -> Path:
    return settings.cache_dir() / "statcache.db"


@pytest.fixture
def tree(source: Path) -> Path:
    (source / "sub").mkdir()
    for name in ("a", "b", "sub/c"):
        (source / name).write_bytes(name.encode() * 10)
    return source


ALL = [b"a", b"b", b"c"]


@pytest.mark.semantics("I27")
def test_an_unchanged_tree_is_not_read(
    tree: Path, take: Take, ingest: Ingest, read_names: ReadNames, later: None
) -> None:
    first = ingest()
    assert (read_names.pop_all(), first.unchanged_count) == (ALL, 0)
    second = ingest()
    assert (read_names.pop_all(), second.unchanged_count) == ([], 3)
    assert (second.added_count, second.deduplicated_count) == (0, 3)
    assert second.deduplicated_bytes == second.total_size_bytes == 70
    assert second.manifest_id == first.manifest_id
    assert not second.new_manifest
    assert first.id != second.id
    assert describe_tree(take().manifest.tree) == describe_directory(tree)


@pytest.mark.semantics("I27")
def test_files_younger_than_two_seconds_are_not_trusted(
    tree: Path, ingest: Ingest, read_names: ReadNames
) -> None:
    """Within the clock's tick a file can change again without a trace."""
    ingest()
    read_names.clear()
    ingest()
    assert read_names.pop_all() == ALL


@pytest.mark.parametrize(("age_ns", "trusted"), [(1_999_000_000, False), (2_100_000_000, True)])
def test_the_two_seconds_count_from_before_the_reading(
    tree: Path,
    store: Store,
    read_names: ReadNames,
    monkeypatch: pytest.MonkeyPatch,
    age_ns: int,
    trusted: bool,
) -> None:
    """An ingest that lasts long does not make its first files old: the clock leaps ahead while they
    are read, and what was too young at the start is so still."""
    times = [path.stat().st_ctime_ns for path in tree.rglob("*") if path.is_file()]
    clock = [(max(times) if trusted else min(times)) + age_ns]
    monkeypatch.setattr(time, "time_ns", lambda: clock[0])
    original = BlobDir.size

    def size(self: BlobDir, digest: str) -> int | None:
        clock[0] += 3600 * 10**9
        return original(self, digest)

    monkeypatch.setattr(BlobDir, "size", size)
    store.ingest(tree)
    read_names.clear()
    store.ingest(tree)
    assert read_names.pop_all() == ([] if trusted else ALL)


@pytest.mark.semantics("I33")
@pytest.mark.parametrize(
    ("magic", "read"),
    [
        (0x65735546, ALL),  # FUSE
        (0x73717368, ALL),  # squashfs
        (0x4D44, ALL),  # FAT
        (0x794C7630, [b"b", b"c"]),  # overlay
        (0x6969, []),  # NFS
    ],
)
def test_only_filesystems_with_true_ctimes_are_believed(
    tree: Path,
    ingest: Ingest,
    read_names: ReadNames,
    monkeypatch: pytest.MonkeyPatch,
    later: None,
    magic: int,
    read: list[bytes],
) -> None:
    """Of another image in the same place all numbers may be the same."""
    os.utime(tree / "a", ns=(0, 10**18))
    for name in ("b", "sub/c"):
        path = tree / name
        while path.stat().st_mtime_ns != path.stat().st_ctime_ns:
            path.write_bytes(path.read_bytes())
    monkeypatch.setattr(syscalls, "filesystem_magic", lambda _: magic)
    ingest()
    read_names.clear()
    ingest()
    assert read_names.pop_all() == read


def test_a_file_from_the_future_is_not_trusted(
    tree: Path, ingest: Ingest, read_names: ReadNames, later: None
) -> None:
    os.utime(tree / "a", ns=(0, time.time_ns() + 10**12))
    ingest()
    read_names.clear()
    ingest()
    assert read_names.pop_all() == [b"a"]


def rewrite(path: Path) -> None:
    """Other bytes, the same size and mtime: only the ctime tells."""
    status = path.stat()
    with path.open("r+b") as file:
        file.write(b"X" * status.st_size)
    os.utime(path, ns=(status.st_atime_ns, status.st_mtime_ns))


def replace(path: Path) -> None:
    """Another inode with the same size and mtime."""
    status = path.stat()
    other = path.with_name("other")
    other.write_bytes(b"Y" * status.st_size)
    os.utime(other, ns=(status.st_atime_ns, status.st_mtime_ns))
    other.replace(path)


def swap(path: Path) -> None:
    """The names of two files of the same size and mtime change places."""
    other = path.with_name("b")
    for each in (path, other):
        os.utime(each, ns=(7, 7))
    path.rename(path.with_name("x"))
    other.rename(path)
    path.with_name("x").rename(other)


def touch(path: Path) -> None:
    os.utime(path, ns=(8, 8))


def change_mode(path: Path) -> None:
    path.chmod(0o601)


def set_attribute(path: Path) -> None:
    os.setxattr(path, "user.a", b"1")


@pytest.mark.semantics("I27")
@pytest.mark.parametrize("change", [rewrite, replace, swap, touch, change_mode, set_attribute])
def test_what_changed_is_read(
    tree: Path, take: Take, read_names: ReadNames, later: None, change: Callable[[Path], None]
) -> None:
    take(xattrs=True)
    read_names.clear()
    change(tree / "a")
    snapshot = take(xattrs=True)
    assert b"a" in read_names
    assert b"c" not in read_names
    assert describe_tree(snapshot.manifest.tree) == describe_directory(tree)
    for name in ("a", "b"):
        with snapshot.open(name) as file:
            assert file.read() == (tree / name).read_bytes()
    read_names.clear()
    take(xattrs=True)
    assert read_names.pop_all() == []


def blob_of(store: Store, content: bytes) -> Path:
    digest = hashlib.sha256(content).hexdigest()
    return store.path / "blobs" / digest[:2] / digest


@pytest.mark.parametrize("readers", [False, True])
def test_a_blob_that_is_missing_is_read_though_cached(
    tree: Path,
    store: Store,
    ingest: Ingest,
    later: None,
    readers: bool,
    request: pytest.FixtureRequest,
) -> None:
    ingest()
    blob_of(store, b"a" * 10).unlink()
    blob_of(store, b"sub/c" * 10).unlink()
    if readers:
        request.getfixturevalue("with_readers")
    result = ingest()
    assert (result.added_count, result.unchanged_count, result.file_count) == (2, 1, 3)
    check_store(store.path)


@pytest.mark.parametrize("damage", ["short", "long", "empty", "directory"])
def test_a_blob_of_the_wrong_size_is_healed(
    tree: Path, store: Store, ingest: Ingest, later: None, damage: str
) -> None:
    ingest()
    blob = blob_of(store, b"a" * 10)
    blob.unlink()
    if damage == "directory":
        blob.symlink_to("nowhere")
    else:
        blob.write_bytes({"short": b"a", "long": b"a" * 11, "empty": b""}[damage])
    result = ingest()
    assert (result.added_count, result.unchanged_count) == (1, 2)
    check_store(store.path)


@pytest.mark.parametrize("size", [50, 3 << 20])
@pytest.mark.parametrize("cached", [False, True])
def test_check_existing_heals_damage_of_the_same_size(
    source: Path,
    store: Store,
    ingest: Ingest,
    size: int,
    cached: bool,
    request: pytest.FixtureRequest,
) -> None:
    if cached:
        request.getfixturevalue("later")
    (source / "file").write_bytes(b"." * size)
    ingest()
    blob = blob_of(store, b"." * size)
    blob.chmod(0o644)
    blob.write_bytes(b"!" * size)
    ingest()
    assert blob.read_bytes() == b"!" * size  # as documented: a plain ingest compares sizes
    result = ingest(check_existing=True)
    assert (result.added_count, result.unchanged_count) == (1, 0)
    check_store(store.path)
    assert blob.stat().st_mode & 0o7777 == 0o444
    assert ingest(check_existing=True).added_count == 0


def test_a_healed_blob_is_another_inode(source: Path, store: Store, ingest: Ingest) -> None:
    """Never written in place: a reader of the old one is not disturbed."""
    (source / "file").write_bytes(b"." * 100)
    ingest()
    blob = blob_of(store, b"." * 100)
    blob.chmod(0o644)
    blob.write_bytes(b"short")
    with blob.open("rb") as reader:
        ingest()
        assert reader.read() == b"short"


@pytest.mark.semantics("I27")
def test_rehash_reads_all_and_keeps_the_cache(
    tree: Path, ingest: Ingest, read_names: ReadNames, later: None
) -> None:
    ingest()
    read_names.clear()
    assert ingest(rehash=True).unchanged_count == 0
    assert read_names.pop_all() == ALL
    ingest()
    assert read_names.pop_all() == []


def test_a_file_that_was_removed_is_forgotten(
    tree: Path, ingest: Ingest, take: Take, later: None
) -> None:
    ingest()
    (tree / "a").unlink()
    assert b"a" not in take().manifest.tree.files


def test_another_store_has_the_use_of_it_too(
    tree: Path, ingest: Ingest, tmp_path: Path, later: None
) -> None:
    first = ingest()
    other = castfs.open(tmp_path / "other", create=True)
    result = other.ingest(tree)
    assert (result.manifest_id, result.added_count) == (first.manifest_id, 3)
    assert other.ingest(tree).unchanged_count == 3
    check_store(other.path)


def test_a_failed_ingest_does_not_poison_the_cache(
    tree: Path, store: Store, ingest: Ingest, later: None
) -> None:
    os.mkfifo(tree / "fifo")
    with pytest.raises(castfs.CastfsError):
        ingest(max_files=2)
    ingest()
    check_store(store.path)


def corrupt(path: Path) -> None:
    path.write_bytes(b"not a database at all" * 100)


def damage_pages(path: Path) -> None:
    data = bytearray(path.read_bytes())
    data[100:] = os.urandom(len(data) - 100)
    path.write_bytes(data)


def of_another_version(path: Path) -> None:
    with closing(sqlite3.connect(path)) as connection:
        connection.execute("PRAGMA user_version = 77")
        connection.execute("DROP TABLE directory")


def truncated(path: Path) -> None:
    os.truncate(path, 1000)


def odd_rows(path: Path) -> None:
    with closing(sqlite3.connect(path)) as connection, connection:
        connection.execute("UPDATE directory SET files = 'text, and not a multiple of 64'")


def odd_rows_of_the_right_length(path: Path) -> None:
    with closing(sqlite3.connect(path)) as connection, connection:
        connection.execute("UPDATE directory SET files = ?", ("t" * 64,))


def rows_that_are_no_text(path: Path) -> None:
    with closing(sqlite3.connect(path)) as connection, connection:
        connection.execute("UPDATE directory SET files = CAST(files AS TEXT)")


@pytest.mark.parametrize(
    "harm",
    [
        corrupt, damage_pages, of_another_version, truncated, odd_rows,
        odd_rows_of_the_right_length, rows_that_are_no_text,
    ],
)  # fmt: skip
def test_a_damaged_cache_is_an_empty_one_and_made_anew(
    tree: Path, take: Take, ingest: Ingest, later: None, harm: Callable[[Path], None]
) -> None:
    ingest()
    harm(cache_path())
    for suffix in ("-wal", "-shm"):
        assert not cache_path().with_name(f"statcache.db{suffix}").exists()
    snapshot = take()
    assert describe_tree(snapshot.manifest.tree) == describe_directory(tree)
    ingest()
    assert ingest().unchanged_count == 3


@pytest.mark.parametrize("obstacle", ["directory", "file", "locked"])
def test_a_cache_that_cannot_be_used_is_no_error(
    tree: Path, ingest: Ingest, obstacle: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    if obstacle == "directory":
        cache_path().mkdir(parents=True)
    elif obstacle == "file":
        cache_path().parent.rmdir() if cache_path().parent.exists() else None
        cache_path().parent.parent.mkdir(parents=True, exist_ok=True)
        cache_path().parent.write_bytes(b"in the way")
    else:
        ingest()
        original = sqlite3.connect
        monkeypatch.setattr(sqlite3, "connect", lambda path, **_: original(path, timeout=0))
        with closing(original(cache_path())) as other:
            other.execute("PRAGMA locking_mode=EXCLUSIVE")
            other.execute("BEGIN EXCLUSIVE")
            assert ingest().file_count == 3
        assert cache_path().exists()
        return
    assert ingest().file_count == 3
    assert ingest().unchanged_count == 0


def test_the_cache_is_the_users_alone(tree: Path, ingest: Ingest) -> None:
    before = os.umask(0)
    try:
        ingest()
    finally:
        os.umask(before)
    assert cache_path().stat().st_mode & 0o077 == 0


@pytest.mark.needs_root
def test_devices_without_a_lasting_number_count_for_one_boot(
    small_disk: Path, store: Store, read_names: ReadNames, monkeypatch: pytest.MonkeyPatch,
    later: None,
) -> None:  # fmt: skip
    """tmpfs, btrfs, NFS, overlay: after a boot their number may be another filesystem's."""
    (small_disk / "file").write_bytes(b"x")
    assert os.major(small_disk.stat().st_dev) == 0
    store.ingest(small_disk)
    store.ingest(small_disk)
    assert read_names.pop_all() == [b"file"]
    monkeypatch.setattr(syscalls, "boot_id", lambda: "another boot")
    store.ingest(small_disk)
    assert read_names.pop_all() == [b"file"]
