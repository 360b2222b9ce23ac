"""Contents of the last snapshot, which are looked at by another process during the walk."""

from __future__ import annotations

import os
import signal
from collections.abc import Callable
from pathlib import Path

import pytest

import castfs
from castfs.ingest import presence
from castfs.ingest.presence import PresenceCheck
from castfs.repository import Store
from tests.ingest.describing import describe_directory, describe_tree
from tests.ingest.taking import Ingest, ReadNames, Take
from tests.ingest.test_readers import children
from tests.store.checking import assert_idle, check_store

NAMES = [b"%d" % number for number in range(30)]


@pytest.fixture(params=["alone", "process"])
def asked(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> str:
    """Whether this process looks at the blobs itself."""
    monkeypatch.setenv("CASTFS_THREADS", "2")
    if request.param == "process":
        monkeypatch.setattr(presence, "_ALONE_BLOBS", 0)
    return str(request.param)


@pytest.fixture
def tree(source: Path, ingest: Ingest, later: None) -> Path:
    """Ingested once, and all of it in the stat cache."""
    (source / "sub").mkdir()
    for name in NAMES:
        (source / os.fsdecode(name)).write_bytes(name * 5)
        (source / "sub" / os.fsdecode(name)).write_bytes(b"in sub " + name)
    os.link(source / "0", source / "sub" / "linked")
    ingest()
    return source


def blobs(store: Store) -> list[Path]:
    return sorted(store.path.glob("blobs/??/*"))


def test_nothing_is_read_or_claimed(
    tree: Path, store: Store, ingest: Ingest, read_names: ReadNames, asked: str,
    monkeypatch: pytest.MonkeyPatch,
) -> None:  # fmt: skip
    started: list[PresenceCheck] = []
    original = PresenceCheck.wait

    def wait(self: PresenceCheck) -> frozenset[str]:
        started.append(self)
        return original(self)

    monkeypatch.setattr(PresenceCheck, "wait", wait)
    result = ingest()
    assert (result.unchanged_count, result.added_count) == (60, 0)
    assert result.deduplicated_count == 61  # with the second name of one
    assert read_names == []
    assert [check._process is not None for check in started] == [asked == "process"]
    assert children() == set()


@pytest.mark.parametrize("damage", ["missing", "short", "symlink"])
@pytest.mark.parametrize("count", [1, 60])
def test_what_is_not_there_after_all_is_read_again(
    tree: Path, store: Store, take: Take, asked: str, damage: str, count: int
) -> None:
    for path in blobs(store)[:count]:
        path.unlink()
        if damage == "short":
            path.write_bytes(b"")
        elif damage == "symlink":
            path.symlink_to("/etc/passwd")
    snapshot = take()
    assert describe_tree(snapshot.manifest.tree) == describe_directory(tree)
    check_store(store.path)


def test_a_missing_blob_whose_file_is_gone_too(
    tree: Path, store: Store, ingest: Ingest, asked: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """It vanished after the walk: skipped, and nothing refers to the missing blob."""
    for path in blobs(store):
        if path.read_bytes() == b"in sub 7":
            path.unlink()
    original = PresenceCheck.wait

    def wait(self: PresenceCheck) -> frozenset[str]:
        bad = original(self)
        (tree / "sub" / "7").unlink()
        return bad

    monkeypatch.setattr(PresenceCheck, "wait", wait)
    result = ingest()
    assert [entry.path for entry in result.skipped] == [b"sub/7"]
    assert result.file_count == 60
    assert (result.unchanged_count, result.deduplicated_count) == (59, 60)


def test_a_directory_swapped_for_a_symlink_is_not_followed(
    tree: Path, store: Store, ingest: Ingest, asked: str, monkeypatch: pytest.MonkeyPatch,
    tmp_path: Path,
) -> None:  # fmt: skip
    outside = tmp_path / "outside"
    outside.mkdir()
    for name in NAMES:
        (outside / os.fsdecode(name)).write_bytes(b"secret")
    for path in blobs(store):
        path.unlink()
    original = PresenceCheck.wait

    def wait(self: PresenceCheck) -> frozenset[str]:
        bad = original(self)
        (tree / "sub").rename(tmp_path / "moved")
        (tree / "sub").symlink_to(outside)
        return bad

    monkeypatch.setattr(PresenceCheck, "wait", wait)
    result = ingest()
    assert {entry.path for entry in result.skipped} == {b"sub/" + name for name in NAMES}
    assert b"secret" not in [path.read_bytes() for path in blobs(store)]


def flip_digest(raw: bytes) -> bytes:
    index = raw.index(b'"sha256":"') + 12
    return raw[:index] + (b"0" if raw[index : index + 1] != b"0" else b"1") + raw[index + 1 :]


def flip_size(raw: bytes) -> bytes:
    return raw.replace(b'"size_bytes":5', b'"size_bytes":6')


def cut(raw: bytes) -> bytes:
    return raw[: len(raw) // 2]


@pytest.mark.parametrize("damage", [flip_digest, flip_size, cut, lambda raw: b"", lambda raw: b"["])
def test_a_damaged_parent_vouches_for_nothing_wrong(
    tree: Path, store: Store, take: Take, asked: str, damage: Callable[[bytes], bytes]
) -> None:
    [path] = store.path.glob("manifests/??/*.json")
    raw = path.read_bytes()
    path.unlink()
    path.write_bytes(damage(raw))
    snapshot = take()
    assert describe_tree(snapshot.manifest.tree) == describe_directory(tree)
    check_store(store.path)


def test_a_helper_that_is_killed_is_done_without(
    tree: Path, store: Store, take: Take, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("CASTFS_THREADS", "2")
    monkeypatch.setattr(presence, "_ALONE_BLOBS", 0)
    blobs(store)[3].unlink()
    original = PresenceCheck.wait

    def wait(self: PresenceCheck) -> frozenset[str]:
        assert self._process is not None
        os.kill(self._process.pid, signal.SIGKILL)
        return original(self)

    monkeypatch.setattr(PresenceCheck, "wait", wait)
    assert describe_tree(take().manifest.tree) == describe_directory(tree)
    check_store(store.path)
    assert children() == set()


def test_a_failed_ingest_leaves_no_helper(
    tree: Path, store: Store, ingest: Ingest, asked: str
) -> None:
    with pytest.raises(castfs.CastfsError):
        ingest(max_files=3)
    assert children() == set()
    assert_idle(store.path)


def test_another_source_has_another_parent(
    tree: Path, store: Store, tmp_path: Path, asked: str
) -> None:
    """Blobs of a snapshot of another place are claimed one by one."""
    other = tmp_path / "other"
    tree.rename(other)
    result = store.ingest(other)
    assert (result.added_count, result.unchanged_count) == (0, 60)
    check_store(store.path)
