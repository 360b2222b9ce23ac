"""What a write session does in which order, and what it leaves where it cannot go on."""

from __future__ import annotations

import errno
import hashlib
import os
import re
import subprocess
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

import castfs
from castfs import syscalls
from castfs.digest import Digest
from castfs.errors import StoreError
from castfs.repository import Store
from castfs.store import Depot, Staging, WriteSession
from tests.store.checking import assert_idle, check_store, hash_blobs


def digest_of(data: bytes) -> Digest:
    return Digest(hashlib.sha256(data).hexdigest())


def blob_path(depot: Depot, data: bytes) -> Path:
    return depot.blobs.path / depot.blobs.name(digest_of(data))


# Order ---------------------------------------------------------------------------------------


class Trace:
    """The calls that matter for durability, in their order: (call, short name of the place)."""

    def __init__(self, store: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        self._store = os.path.realpath(store)
        self.calls: list[tuple[str, str]] = []
        for module, names in (
            (os, ["fsync", "rename", "replace", "mkdir", "link"]),
            (syscalls, ["syncfs"]),
        ):
            for name in names:
                self._wrap(monkeypatch, module, name)

    def _wrap(self, monkeypatch: pytest.MonkeyPatch, module: Any, name: str) -> None:
        original = getattr(module, name)

        def call(*args: Any, **kwargs: Any) -> Any:
            place = args[1] if name in ("rename", "replace", "link") else args[0]
            fd = kwargs.get("dst_dir_fd", kwargs.get("dir_fd"))
            self.calls.append((name, self._place(place, fd)))
            return original(*args, **kwargs)

        monkeypatch.setattr(module, name, call)

    def _place(self, place: Any, dir_fd: int | None) -> str:
        if isinstance(place, int):
            path = os.readlink(f"/proc/self/fd/{place}")
        else:
            start = os.readlink(f"/proc/self/fd/{dir_fd}") if dir_fd is not None else ""
            path = os.path.join(start, os.fspath(place))
        inside = os.path.relpath(path, self._store)
        inside = re.sub("staging/w-[0-9a-f]{16}", "session", inside)
        inside = re.sub("tmp-[0-9a-f]{16}", "TEMP", inside)
        inside = re.sub("[0-9a-f]{64}", "DIGEST", inside)
        inside = re.sub("/[0-9a-f]{2}(?=/|$)", "/XX", inside)
        return re.sub("[0-9a-f]{24}", "ID", inside)


PUBLISH = [
    ("mkdir", "manifests/XX"),
    ("fsync", "manifests"),
    ("fsync", "session/TEMP"),
    ("replace", "manifests/XX/DIGEST.json"),
    ("fsync", "manifests/XX"),
    ("fsync", "manifests"),
    ("fsync", "session/TEMP"),
    ("replace", "snapshots/ID.json"),
    ("fsync", "snapshots"),
]


def traced(store: Store, source: Path, monkeypatch: pytest.MonkeyPatch) -> list[tuple[str, str]]:
    trace = Trace(store.path, monkeypatch)
    store.ingest(source)
    monkeypatch.undo()
    # The probe and the staging come before everything that counts.
    start = next(i for i, call in enumerate(trace.calls) if call[0] in ("syncfs", "fsync"))
    return trace.calls[start:]


def test_the_order_of_syncs_and_renames(
    store: Store, source: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    calls = traced(store, source, monkeypatch)
    assert calls[0] == ("syncfs", ".")
    end = calls.index(("syncfs", "."), 1)
    renames = calls[1:end]
    assert set(renames) == {("mkdir", "blobs/XX"), ("rename", "blobs/XX/DIGEST")}
    assert renames.count(("rename", "blobs/XX/DIGEST")) == 4
    assert calls[end + 1 :] == PUBLISH


def test_everything_is_synced_also_when_nothing_is_new(
    store: Store, source: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """What was there may be another writer's rename of a moment ago: blobs, the manifest, and the
    directory that it is in."""
    store.ingest(source)
    calls = [call for call in traced(store, source, monkeypatch) if call[0] != "mkdir"]
    assert calls[:2] == [("syncfs", ".")] * 2
    assert calls[2:] == PUBLISH[4:]


@pytest.fixture
def each_alone(monkeypatch: pytest.MonkeyPatch) -> None:
    """A filesystem whose syncfs is not to be relied on."""
    monkeypatch.setattr(syscalls, "filesystem_magic", lambda fd: 0x6969)  # NFS


@pytest.mark.parametrize("reason", ["filesystem", "kernel"])
def test_where_syncfs_is_no_good_each_file_is_synced(
    store: Store, source: Path, monkeypatch: pytest.MonkeyPatch, reason: str
) -> None:
    if reason == "filesystem":
        monkeypatch.setattr(syscalls, "filesystem_magic", lambda fd: 0x6969)
    else:
        monkeypatch.setattr(syscalls, "kernel_version", lambda: (5, 7))
    calls = traced(store, source, monkeypatch)
    assert ("syncfs", ".") not in calls
    files = [call for call in calls if call[0] == "fsync" and call[1].startswith("session/")]
    assert len(files) == 4 + 2
    last_rename = max(i for i, call in enumerate(calls) if call == ("rename", "blobs/XX/DIGEST"))
    after = calls[last_rename + 1 :]
    shards = len(list((store.path / "blobs").iterdir()))
    assert after[: shards + 1] == [("fsync", "blobs/XX")] * shards + [("fsync", "blobs")]
    assert after[shards + 1 :] == PUBLISH
    check_store(store.path)


def test_each_alone_syncs_the_directories_of_what_was_there(
    store: Store, source: Path, each_alone: None, monkeypatch: pytest.MonkeyPatch
) -> None:
    store.ingest(source)
    trace = Trace(store.path, monkeypatch)
    store.ingest(source)
    shards = len(list((store.path / "blobs").iterdir()))
    assert trace.calls.count(("fsync", "blobs/XX")) == shards


# Commit --------------------------------------------------------------------------------------


def test_a_renamed_blob_is_young(depot: Depot) -> None:
    """A rename keeps the mtime; one that was staged hours ago must not look hours old."""
    with WriteSession(depot, purpose="test") as session:
        staged = session.stage_bytes(b"x")
        os.utime(depot.blobs.name(staged.digest), ns=(0, 0), dir_fd=session.staging.dir_fd)
        session.commit_blobs()
    assert blob_path(depot, b"x").stat().st_mtime_ns > 10**18


def test_a_claimed_blob_is_made_young(depot: Depot) -> None:
    with WriteSession(depot, purpose="test") as session:
        session.stage_bytes(b"x")
        session.commit_blobs()
    os.utime(blob_path(depot, b"x"), ns=(0, 0))
    with WriteSession(depot, purpose="test") as session:
        assert session.claim([(digest_of(b"x"), 1)]) == [True]
        assert session.claim([(digest_of(b"x"), 2), (digest_of(b"y"), 1)]) == [False, False]
        assert session.claim([]) == []
    assert blob_path(depot, b"x").stat().st_mtime_ns > 10**18


def test_many_claims_are_answered_in_order(depot: Depot) -> None:
    contents = [b"%d" % number for number in range(600)]
    with WriteSession(depot, purpose="test") as session:
        for data in contents[::2]:
            session.stage_bytes(data)
        session.commit_blobs()
        claims = session.claim([(digest_of(data), len(data)) for data in contents])
    assert claims == [number % 2 == 0 for number in range(600)]


def test_another_owners_blob_that_cannot_be_touched_is_replaced_by_an_own_copy(
    store: Store, source: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """In a group's store: touching is refused (EACCES), renaming over it is not."""
    store.ingest(source)
    old = blob_path(store.depot, b"a" * 100).stat().st_ino
    original = os.utime

    def utime(path: Any, *args: Any, **kwargs: Any) -> None:
        refused = kwargs.get("dir_fd") == store.depot.blobs.dir_fd
        refused |= str(path).endswith(".json")
        if refused:
            raise PermissionError(errno.EACCES, "Permission denied")
        original(path, *args, **kwargs)

    monkeypatch.setattr(os, "utime", utime)
    result = store.ingest(source)
    assert result.added_count == 4
    assert blob_path(store.depot, b"a" * 100).stat().st_ino != old
    check_store(store.path)


@pytest.mark.needs_root
def test_staging_and_blobs_on_two_filesystems_are_refused(
    store: Store, source: Path, tmp_path: Path
) -> None:
    blobs = store.path / "blobs"
    subprocess.run(["mount", "-t", "tmpfs", "tmpfs", blobs], check=True)
    try:
        with pytest.raises(StoreError, match="different filesystems"):
            castfs.open(store.path).ingest(source)
        assert list(blobs.iterdir()) == []
    finally:
        subprocess.run(["umount", "-l", blobs], check=True)
    assert_idle(store.path)


def test_a_blob_directory_that_somebody_else_made_a_moment_ago(
    depot: Depot, monkeypatch: pytest.MonkeyPatch
) -> None:
    (depot.blobs.path / digest_of(b"x")[:2]).mkdir()
    with WriteSession(depot, purpose="test") as session:
        session.stage_bytes(b"x")
        session.commit_blobs()
    assert set(hash_blobs(depot.path)) == {digest_of(b"x")}


def test_what_is_no_blob_is_not_committed(depot: Depot) -> None:
    """A part of a large file whose reader was interrupted."""
    with WriteSession(depot, purpose="test") as session:
        (session.staging.path / "part-1-0").write_bytes(b"half")
        session.stage_bytes(b"x")
        session.commit_blobs()
    assert set(hash_blobs(depot.path)) == {digest_of(b"x")}
    assert_idle(depot.path)


@pytest.mark.parametrize("missing", ["leases", "staging", "blobs"])
def test_a_store_that_lacks_a_directory(store: Store, source: Path, missing: str) -> None:
    (store.path / missing).rmdir()
    with pytest.raises((StoreError, OSError)):
        castfs.open(store.path).ingest(source)
    (store.path / missing).mkdir()
    assert_idle(store.path)
    assert castfs.open(store.path).ingest(source).file_count == 4


# Staging -------------------------------------------------------------------------------------


@pytest.fixture
def session(depot: Depot) -> Iterator[WriteSession]:
    with WriteSession(depot, purpose="test") as session:
        yield session


def stage(session: WriteSession, path: Path) -> Any:
    fd = os.open(path, os.O_RDONLY)
    try:
        return session.stage_file(fd)
    finally:
        os.close(fd)


@pytest.mark.parametrize("size", [0, 1, 1 << 20, (1 << 20) + 1, 5_000_000])
def test_staging_a_file(session: WriteSession, tmp_path: Path, size: int) -> None:
    data = os.urandom(size)
    (tmp_path / "file").write_bytes(data)
    first = stage(session, tmp_path / "file")
    assert (first.digest, first.size, first.new) == (digest_of(data), size, True)
    second = stage(session, tmp_path / "file")
    assert (second.digest, second.size, second.new) == (digest_of(data), size, False)
    names = [path.name for path in session.staging.path.rglob("*") if path.is_file()]
    assert names == [digest_of(data)]
    session.commit_blobs()
    assert not stage(session, tmp_path / "file").new
    assert blob_path(session.depot, data).read_bytes() == data


def test_a_staging_area_for_a_second_process(session: WriteSession) -> None:
    other = Staging.attach(session.params)
    data = b"from the other"
    assert other.stage_bytes(data, digest_of(data)).new
    assert not session.stage_bytes(data).new
    other.close()
    session.commit_blobs()
    assert other.depot.blobs.size(digest_of(data)) == len(data)


@pytest.mark.needs_root
def test_cloning_where_the_filesystem_can(tmp_path: Path) -> None:
    """btrfs: the blob shares its extents with the source."""
    image, disk = tmp_path / "image", tmp_path / "disk"
    disk.mkdir()
    subprocess.run(["truncate", "-s", "200M", image], check=True)
    subprocess.run(["mkfs.btrfs", "-q", image], check=True, timeout=60)
    subprocess.run(["mount", "-o", "loop", image, disk], check=True, timeout=60)
    try:
        (disk / "source").mkdir()
        data = os.urandom(3_000_000)
        (disk / "source" / "large").write_bytes(data)
        (disk / "source" / "small").write_bytes(b"small")
        subprocess.run(["sync", "-f", disk], check=True)
        store = castfs.open(disk / "store", create=True)
        store.ingest(disk / "source")
        blob = blob_path(store.depot, data)
        assert blob.stat().st_mode & 0o7777 == 0o444
        check_store(store.path)
        shared = [
            subprocess.run(
                ["filefrag", "-v", path], capture_output=True, check=True, text=True
            ).stdout
            for path in (blob, disk / "source" / "large")
        ]
        assert all("shared" in text for text in shared)
        physical = [re.findall(r"\d+\.\. +\d+: +(\d+)\.\.", text) for text in shared]
        assert physical[0] == physical[1] != []
        # Changing the source does not change the blob.
        with (disk / "source" / "large").open("r+b") as file:
            file.write(b"changed")
        assert blob.read_bytes() == data
        del store
    finally:
        subprocess.run(["umount", "-l", disk], check=True, timeout=60)
