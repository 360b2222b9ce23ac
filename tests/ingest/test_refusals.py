"""What an ingest must not record, nor lose, nor mistake for something else."""

from __future__ import annotations

import errno
import hashlib
import os
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

import castfs
from castfs import atomic
from castfs.digest import ReadError
from castfs.errors import SourceError, StoreError, UnreadableError, UsageError
from castfs.ingest import ScanOptions, reading
from castfs.repository import Store
from castfs.store import WriteSession
from tests.ingest.taking import Ingest, Take
from tests.store.checking import assert_idle, check_store, hash_blobs, read_records

#: Beyond 2262: no manifest holds it.
FAR = 11_000_000_000


@pytest.mark.semantics("I34")
def test_a_name_that_no_manifest_can_hold(
    source: Path, ingest: Ingest, take: Take, monkeypatch: pytest.MonkeyPatch
) -> None:
    """FAT, SMB and FUSE have them."""
    monkeypatch.setattr("castfs.ingest.walk.NAME_MAX", 20)
    (source / ("n" * 20)).write_bytes(b"x")
    (source / ("d" * 21)).mkdir()
    with pytest.raises(UnreadableError, match="longer than 20 bytes"):
        ingest()
    taken = take(skip_unreadable=True)
    assert set(taken.manifest.tree.files) == {b"n" * 20}
    assert taken.record is not None
    assert [entry.path for entry in taken.record.skipped] == ["d" * 21]


@pytest.mark.parametrize("skip_unreadable", [False, True])
def test_a_single_file_that_cannot_be_taken(
    source: Path, store: Store, skip_unreadable: bool
) -> None:
    """Without it there is nothing to record."""
    path = source / "file"
    path.write_bytes(b"x")
    os.utime(path, (FAR, FAR))
    with pytest.raises(SourceError, match="1677 to 2262"):
        store.ingest(path, options=ScanOptions(skip_unreadable=skip_unreadable))
    assert read_records(store.path) == []
    assert_idle(store.path)


@pytest.mark.parametrize("size", [10, reading.SMALL + 10])
def test_attempts_at_a_changing_file_are_not_stored(
    source: Path, store: Store, ingest: Ingest, monkeypatch: pytest.MonkeyPatch, size: int
) -> None:
    log = source / "log"
    log.write_bytes(os.urandom(size))
    (source / "kept").write_bytes(b"kept")
    original = reading._take_content

    def take(fd: int, *args: Any) -> Any:
        taken = original(fd, *args)
        if os.fstat(fd).st_ino == log.stat().st_ino:
            with log.open("ab") as file:
                file.write(b"more")
        return taken

    monkeypatch.setattr(reading, "_take_content", take)
    result = ingest(skip_unreadable=True)
    assert [(skip.path, result.added_count) for skip in result.skipped] == [(b"log", 1)]
    assert len(hash_blobs(store.path)) == 1


def test_a_part_of_a_file_that_fails_is_removed(
    source: Path, store: Store, ingest: Ingest, monkeypatch: pytest.MonkeyPatch
) -> None:
    """At once, not with the session: a commit must not have to write it to the disk."""
    (source / "large").write_bytes(os.urandom(reading.SMALL * 3))
    (source / "small").write_bytes(b"x")
    staged: list[str] = []
    commit = WriteSession.commit_blobs

    def fail(_fd: int) -> Iterator[memoryview]:
        raise ReadError(errno.EIO, os.strerror(errno.EIO))

    def look(self: WriteSession, *args: Any, **kwargs: Any) -> None:
        staged.extend(path.name for path in self.staging.path.rglob("*") if path.is_file())
        commit(self, *args, **kwargs)

    monkeypatch.setattr("castfs.store.staging.iter_chunks", fail)
    monkeypatch.setattr(WriteSession, "commit_blobs", look)
    result = ingest(skip_unreadable=True)
    assert [entry.path for entry in result.skipped] == [b"large"]
    assert staged == [hashlib.sha256(b"x").hexdigest()]


def test_an_error_of_the_source_is_not_the_stores(
    source: Path, ingest: Ingest, take: Take, monkeypatch: pytest.MonkeyPatch
) -> None:
    (source / "bad").write_bytes(b"bad")
    (source / "good").write_bytes(b"good")
    bad = (source / "bad").stat().st_ino
    original = os.fstat

    def fstat(fd: int) -> os.stat_result:
        status = original(fd)
        if status.st_ino == bad:
            raise OSError(errno.EIO, os.strerror(errno.EIO))
        return status

    monkeypatch.setattr(os, "fstat", fstat)
    with pytest.raises(UnreadableError, match="bad: Input/output error"):
        ingest()
    assert set(take(skip_unreadable=True).manifest.tree.files) == {b"good"}


@pytest.mark.parametrize("code", [errno.EMFILE, errno.ENFILE, errno.ENOMEM])
@pytest.mark.parametrize("what", ["file", "directory"])
def test_a_lack_of_descriptors_is_no_unreadable_file(
    source: Path,
    store: Store,
    ingest: Ingest,
    monkeypatch: pytest.MonkeyPatch,
    code: int,
    what: str,
) -> None:
    """With --skip-unreadable it would leave out whatever comes next."""
    (source / "directory").mkdir()
    (source / "directory" / "file").write_bytes(b"x")
    original = os.open

    def open_(path: Any, *args: Any, **kwargs: Any) -> int:
        if path == what.encode():
            raise OSError(code, os.strerror(code))
        return original(path, *args, **kwargs)

    monkeypatch.setattr(os, "open", open_)
    with pytest.raises((OSError, StoreError), match=os.strerror(code)):
        ingest(skip_unreadable=True)
    assert read_records(store.path) == []


def test_one_attribute_that_is_not_given_out_takes_no_others_along(
    source: Path, take: Take, monkeypatch: pytest.MonkeyPatch
) -> None:
    (source / "file").write_bytes(b"x")
    for name in ("user.a", "user.b", "user.c"):
        os.setxattr(source / "file", name, b"value")
    original = os.getxattr

    def getxattr(path: Any, name: str, **kwargs: Any) -> bytes:
        if name == "user.b":
            raise OSError(errno.ENODATA, os.strerror(errno.ENODATA))
        return original(path, name, **kwargs)

    monkeypatch.setattr(os, "getxattr", getxattr)
    file = take(xattrs=True).get("file")
    assert [name for name, _ in file.iter_xattrs()] == [b"user.a", b"user.c"]


def test_a_record_that_may_not_last_is_taken_back(
    source: Path, store: Store, monkeypatch: pytest.MonkeyPatch
) -> None:
    (source / "file").write_bytes(b"x")
    original = atomic.fsync_dir

    def fsync_dir(path: Path) -> None:
        if path == store.path / "snapshots":
            raise OSError(errno.EIO, os.strerror(errno.EIO))
        original(path)

    with monkeypatch.context() as patch:
        patch.setattr(atomic, "fsync_dir", fsync_dir)
        with pytest.raises(StoreError, match="nothing was committed"):
            store.ingest(source)
    assert read_records(store.path) == []
    assert_idle(store.path)
    store.ingest(source)
    check_store(store.path)


def test_a_manifest_whose_header_is_damaged_is_healed(source: Path, store: Store) -> None:
    (source / "file").write_bytes(b"x")
    first = store.ingest(source)
    path = store.depot.manifest_path(first.manifest_id)
    raw = path.read_bytes()
    path.chmod(0o644)
    path.write_bytes(raw.replace(b'"created_at":', b'"created_at": ', 1))
    again = store.ingest(source)
    assert again.new_manifest or again.manifest_id == first.manifest_id
    assert store.resolve(again.id).manifest_id == first.manifest_id


@pytest.mark.parametrize(
    "labels",
    [
        {"metadata": {"lr": float("nan")}}, {"metadata": {"lr": {1}}}, {"metadata": {1: "a"}},
        {"tags": [1]}, {"message": b"x"},
        {"message": "\udcff"}, {"tags": ["\ud800"]}, {"name": 5},
    ],
    ids=str,
)  # fmt: skip
def test_labels_that_are_no_text(source: Path, store: Store, labels: dict[str, Any]) -> None:
    (source / "file").write_bytes(b"x")
    with pytest.raises(UsageError):
        store.ingest(source, **labels)
    assert (read_records(store.path), hash_blobs(store.path)) == ([], {})


@pytest.mark.parametrize(
    ("before", "after"),
    [
        ('"manifest": "', '"manifest": "a\\u0000b'),
        ('"manifest": "', '"manifest": "0'),
        ('"file_count": ', '"file_count": -'),
        ('"id": "', '"id": "0'),
        ('"id": "01', '"id": "10'),
    ],
)
def test_a_bad_record_stops_no_ingest(source: Path, store: Store, before: str, after: str) -> None:
    (source / "file").write_bytes(b"x")
    first = store.ingest(source)
    path = store.depot.record_path(first.id)
    text = path.read_text()
    assert before in text
    path.chmod(0o644)
    path.write_text(text.replace(before, after, 1))
    with pytest.raises(castfs.DamageError, match=first.id):
        list(store.iter_snapshots())
    again = store.ingest(source)
    assert store.resolve(again.id).manifest_id == first.manifest_id


def test_a_store_whose_name_is_no_text(source: Path, tmp_path: Path, with_readers: None) -> None:
    (source / "file").write_bytes(b"x")
    path = os.fsdecode(os.fsencode(tmp_path) + b"/st\xff")
    store = castfs.open(path, create=True)
    assert store.ingest(source).added_count == 1


def test_a_single_name_tag_or_path_is_one(source: Path, store: Store, tmp_path: Path) -> None:
    """A string is a sequence of strings, too."""
    (source / "LICENSE").write_bytes(b"x")
    result = store.ingest(source, tags="abc", output=str(tmp_path / "copy.json"))
    [record] = store.iter_snapshots(tags={"abc"})
    assert record.tags == ("abc",)
    assert list(store.iter_snapshots(tags={"a"})) == []
    snapshot = store.resolve(result.id)
    snapshot.restore(tmp_path / "old", "LICENSE")
    assert (tmp_path / "old" / "LICENSE").read_bytes() == b"x"
    assert len(repr(snapshot)) < 200
    assert result.id in repr(snapshot)


def test_importing_what_another_member_of_the_group_stored(source: Path, tmp_path: Path) -> None:
    """Its blobs are there, but only their owner may touch them: the member makes own copies."""
    (source / "file").write_bytes(b"content")
    store = castfs.open(tmp_path / "store", create=True)
    store.ingest(source, output=tmp_path / "copy.json")
    blobs = store.depot.blobs
    touched: list[str] = []

    def refuse(path: Any, *args: Any, **kwargs: Any) -> None:
        touched.append(os.fsdecode(path))
        if kwargs.get("dir_fd") == blobs.dir_fd:
            raise PermissionError(errno.EPERM, os.strerror(errno.EPERM))

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(os, "utime", refuse)
        result = store.import_manifest(tmp_path / "copy.json")
    assert touched
    assert result.added_count == 1
    check_store(store.path)
