"""--repair-from: what is bad is replaced by a good copy, and nothing else is touched."""

from __future__ import annotations

import os
import shutil
from pathlib import Path

import pytest

import castfs
from castfs.errors import SourceError, UsageError
from castfs.store import WriteSession
from castfs.store.staging import StagedFile
from tests.store.checking import assert_idle, check_store
from tests.verify.conftest import World, change, fail_reading, found

CONTENTS = (b"shared by all", b"one", b"two", b"three", b"odd")


def other_store(world: World, place: Path) -> None:
    """Another store with the same snapshots."""
    shutil.copytree(world.path, place)


def older_archive(world: World, place: Path) -> None:
    """What the older systems have: a directory `blobs`, and no description of it."""
    shutil.copytree(world.path / "blobs", place / "blobs")


def plain_directory(world: World, place: Path) -> None:
    """The files themselves, under any names, among others; and what cannot be read as a file."""
    (place / "deep" / "deeper").mkdir(parents=True)
    for number, content in enumerate(CONTENTS):
        (place / "deep" / "deeper" / f"copy {number}").write_bytes(content)
        (place / f"{number} of the same size").write_bytes(content[::-1])
    os.mkfifo(place / "a fifo")
    (place / "a loop").symlink_to(".")
    (place / "nowhere").symlink_to("gone")


SOURCES = {"store": other_store, "archive": older_archive, "directory": plain_directory}


def identities(world: World) -> dict[Path, tuple[int, int]]:
    return {
        path: (path.stat().st_ino, path.stat().st_mtime_ns)
        for path in (world.path / "blobs").glob("??/*")
    }


@pytest.mark.parametrize("kind", SOURCES)
def test_only_the_bad_is_replaced(world: World, tmp_path: Path, kind: str) -> None:
    """One is missing, one short, one changed."""
    SOURCES[kind](world, tmp_path / "good")
    world.blob(b"one").unlink()
    change(world.blob(b"two"), b"tw")
    change(world.blob(b"shared by all"), b"lla yb derahs")
    before = identities(world)
    result = world.verify(data=True, repair_from=tmp_path / "good")
    assert result.status == "repaired"
    assert found(result) == world.hurt_by(b"one", b"two", b"shared by all")
    assert all(hurt.repaired for hurt in result.hurt)
    assert sorted(bad.state for bad in result.bad_blobs) == ["damaged", "missing", "wrong size"]
    assert sum(bad.quarantined is not None for bad in result.bad_blobs) == 2
    after = identities(world)
    for content in (b"three", b"odd"):
        assert after[world.blob(content)] == before[world.blob(content)]
    assert len(after) == 5
    check_store(world.path)
    assert_idle(world.path)
    assert world.verify(data=True).status == "clean"


@pytest.mark.parametrize("kind", SOURCES)
def test_without_data_only_what_shows(world: World, tmp_path: Path, kind: str) -> None:
    SOURCES[kind](world, tmp_path / "good")
    world.blob(b"one").unlink()
    change(world.blob(b"two"), b"owt")
    assert world.verify(repair_from=tmp_path / "good").status == "repaired"
    assert world.blob(b"one").read_bytes() == b"one"
    assert world.blob(b"two").read_bytes() == b"owt"


@pytest.mark.parametrize("kind", SOURCES)
def test_a_source_that_has_only_some(world: World, tmp_path: Path, kind: str) -> None:
    """It lacks one and has another bad."""
    good = tmp_path / "good"
    SOURCES[kind](world, good)
    for path in [path for path in good.rglob("*") if path.is_file() and not path.is_symlink()]:
        if path.read_bytes() == b"one":
            path.unlink()
        elif path.read_bytes() == b"two":
            change(path, b"2wo")
    for content in (b"one", b"two", b"three"):
        world.blob(content).unlink()
    result = world.verify(repair_from=good)
    assert result.status == "damaged"
    repaired = {bad.digest: bad.repaired for bad in result.bad_blobs}
    assert repaired == {
        world.blob(b"one").name: False,
        world.blob(b"two").name: False,
        world.blob(b"three").name: True,
    }
    assert {(hurt.snapshot, hurt.path) for hurt in result.hurt if not hurt.repaired} == (
        world.hurt_by(b"one", b"two")
    )
    assert world.blob(b"three").read_bytes() == b"three"
    assert not world.blob(b"two").exists()
    assert_idle(world.path)


@pytest.mark.parametrize("damage", [b"{}", None], ids=["malformed", "missing"])
def test_a_manifest_from_another_store(world: World, tmp_path: Path, damage: bytes | None) -> None:
    """With it comes the knowledge of its contents; one of them is bad, too."""
    other_store(world, tmp_path / "good")
    first = next(iter(world.files))
    if damage is None:
        world.manifest(first).unlink()
    else:
        change(world.manifest(first), damage)
    world.blob(b"one").unlink()
    result = world.verify(repair_from=tmp_path / "good")
    assert result.status == "repaired"
    [problem] = result.problems
    assert problem.repaired
    assert found(result) == world.hurt_by(b"one")
    assert world.verify(data=True).status == "clean"
    check_store(world.path)


def test_a_manifest_that_the_source_has_damaged(world: World, tmp_path: Path) -> None:
    other_store(world, tmp_path / "good")
    first = next(iter(world.files))
    change(tmp_path / "good" / world.manifest(first).relative_to(world.path), b"{}")
    world.manifest(first).unlink()
    result = world.verify(repair_from=tmp_path / "good")
    assert (result.status, result.problems[0].repaired) == ("damaged", False)
    assert not world.manifest(first).exists()


@pytest.mark.parametrize("kind", ["archive", "directory"])
def test_a_manifest_is_not_found_among_files(world: World, tmp_path: Path, kind: str) -> None:
    SOURCES[kind](world, tmp_path / "good")
    world.manifest(next(iter(world.files))).unlink()
    assert world.verify(repair_from=tmp_path / "good").status == "damaged"


def test_a_blob_that_cannot_be_read(
    world: World, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Another copy takes its place at once."""
    other_store(world, tmp_path / "good")
    blob = world.blob(b"two")
    inode = blob.stat().st_ino
    fail_reading(monkeypatch, inode)
    result = world.verify(data=True, repair_from=tmp_path / "good")
    assert [(bad.state, bad.repaired) for bad in result.bad_blobs] == [("unreadable", True)]
    assert blob.stat().st_ino != inode
    assert world.verify(data=True).status == "clean"


def test_the_store_itself(world: World, tmp_path: Path) -> None:
    (tmp_path / "link").symlink_to(world.path)
    for place in (world.path, tmp_path / "link"):
        with pytest.raises(UsageError, match="the store itself"):
            world.verify(repair_from=place)


def test_no_directory(world: World, tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    for name in ("missing", "file"):
        with pytest.raises(SourceError, match="no directory"):
            world.verify(repair_from=tmp_path / name)


def test_nothing_to_repair(world: World, tmp_path: Path) -> None:
    (tmp_path / "empty").mkdir()
    before = identities(world)
    assert world.verify(data=True, repair_from=tmp_path / "empty").status == "clean"
    castfs.open(tmp_path / "other", create=True)
    assert world.verify(data=True, repair_from=tmp_path / "other").status == "clean"
    assert identities(world) == before


def test_only_what_is_wanted_is_staged(
    world: World, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A directory may have a million files of one size."""
    good = tmp_path / "good"
    good.mkdir()
    for number in range(50):
        (good / f"{number}").write_bytes(b"%03d" % number)
    (good / "a").write_bytes(b"one")
    (good / "b").write_bytes(b"two")
    staged: list[bytes] = []
    original = WriteSession.stage_file

    def stage_file(session: WriteSession, source_fd: int) -> StagedFile:
        assert os.lseek(source_fd, 0, os.SEEK_CUR) == 0
        staged.append(os.pread(source_fd, 100, 0))
        return original(session, source_fd)

    monkeypatch.setattr(WriteSession, "stage_file", stage_file)
    world.blob(b"one").unlink()
    change(world.blob(b"two"), b"owt")
    assert world.verify(data=True, repair_from=good).status == "repaired"
    assert sorted(staged) == [b"one", b"two"]
    check_store(world.path)
