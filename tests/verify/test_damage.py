"""Every kind of damage is found, and exactly what it hurts is named."""

from __future__ import annotations

import os
import shutil
from collections.abc import Callable
from pathlib import Path

import pytest

from tests.store.checking import assert_idle, check_store
from tests.verify.conftest import ODD, World, change, fail_reading, found


def snapshots(world: World) -> list[str]:
    """Oldest first; the last is in the trash."""
    return list(world.files)


def test_a_whole_store_is_clean(world: World) -> None:
    for data in (False, True):
        result = world.verify(data=data)
        assert (result.status, result.problems, result.bad_blobs, result.hurt) == (
            "clean",
            (),
            (),
            (),
        )
        assert (result.snapshot_count, result.manifest_count, result.blob_count) == (3, 3, 5)
        assert result.quarantine_count == 0
    assert (result.hashed_count, result.hashed_bytes) == (5, 13 + 3 + 3 + 3 + 5)
    assert_idle(world.path)


def replace_by_directory(path: Path) -> None:
    path.unlink()
    path.mkdir()
    (path / "inner").touch()


def replace_by_symlink(path: Path) -> None:
    """Even one that leads to the same bytes: they may change there."""
    shutil.move(path, path.parents[3] / "elsewhere")
    path.symlink_to(path.parents[3] / "elsewhere")


def replace_by_fifo(path: Path) -> None:
    path.unlink()
    os.mkfifo(path)


#: kind of damage → how it is done, what it is called, whether looking at sizes finds it, whether
#: there is something to put aside
DAMAGE: dict[str, tuple[Callable[[Path], object], str, bool, bool]] = {
    "missing": (Path.unlink, "missing", True, False),
    "empty": (lambda path: change(path, b""), "wrong size", True, True),
    "short": (lambda path: change(path, path.read_bytes()[:-1]), "wrong size", True, True),
    "long": (lambda path: change(path, path.read_bytes() + b"\0"), "wrong size", True, True),
    "changed": (lambda path: change(path, path.read_bytes()[::-1]), "damaged", False, True),
    "directory": (replace_by_directory, "missing", True, True),
    "symlink": (replace_by_symlink, "missing", True, True),
    "fifo": (replace_by_fifo, "missing", True, True),
}


@pytest.mark.parametrize("content", [b"shared by all", b"odd", b"three"], ids=bytes.decode)
@pytest.mark.parametrize("kind", DAMAGE)
@pytest.mark.parametrize("data", [False, True], ids=["sizes", "data"])
def test_a_content_is_hurt(world: World, kind: str, content: bytes, data: bool) -> None:
    hurt, state, shows, stays = DAMAGE[kind]
    blob = world.blob(content)
    hurt(blob)
    result = world.verify(data=data)
    if not (shows or data):
        assert result.status == "clean"
        return
    assert result.status == "damaged"
    [bad] = result.bad_blobs
    assert (bad.digest, bad.state, bad.repaired) == (blob.name, state, False)
    assert found(result) == world.hurt_by(content)
    assert result.problems == ()
    assert not os.path.lexists(blob)
    assert (bad.quarantined is not None) == stays
    if bad.quarantined is not None:
        assert os.path.lexists(bad.quarantined)
        assert bad.quarantined.parent == world.path / "quarantine"
    assert result.quarantine_count == int(stays)
    assert_idle(world.path)
    # Reading it is an error from now on; the damage is the same.
    again = world.verify(data=data)
    assert (again.status, found(again)) == ("damaged", world.hurt_by(content))


@pytest.mark.parametrize("kind", [kind for kind in DAMAGE if kind != "changed"])
def test_ingesting_the_good_files_heals(world: World, kind: str) -> None:
    world.write("file", b"two")
    world.write(ODD, b"odd")
    for content in (b"two", b"shared by all"):
        DAMAGE[kind][0](world.blob(content))
    assert world.verify().status == "damaged"
    world.take()
    assert world.verify(data=True).status == "clean"
    check_store(world.path)


def test_ingesting_heals_what_was_quarantined(world: World) -> None:
    """Its size is right, so only the quarantine makes room for the good one."""
    world.write("file", b"two")
    change(world.blob(b"two"), b"owt")
    world.take()
    assert world.verify(data=True).status == "damaged"
    world.take()
    assert world.verify(data=True).status == "clean"
    check_store(world.path)


def test_several_at_once(world: World) -> None:
    world.blob(b"one").unlink()
    change(world.blob(b"two"), b"owt")
    change(world.blob(b"shared by all"), b"short")
    result = world.verify(data=True)
    assert found(result) == world.hurt_by(b"one", b"two", b"shared by all")
    assert sorted(bad.state for bad in result.bad_blobs) == ["damaged", "missing", "wrong size"]


def test_a_blob_that_nothing_needs(world: World) -> None:
    """Nobody is hurt, and putting it aside is all that can be done."""
    change(world.blob(b"one"), b"eno")
    world.store.remove_for_good(snapshots(world)[0])
    assert world.verify().status == "clean"
    result = world.verify(data=True)
    assert (result.status, result.hurt) == ("repaired", ())
    assert world.verify(data=True).status == "clean"


def test_a_blob_that_cannot_be_read(world: World, monkeypatch: pytest.MonkeyPatch) -> None:
    """The disk's error may pass; so the blob stays."""
    blob = world.blob(b"two")
    fail_reading(monkeypatch, blob.stat().st_ino)
    result = world.verify(data=True)
    [bad] = result.bad_blobs
    assert (bad.state, bad.detail, bad.quarantined) == ("unreadable", "Input/output error", None)
    assert (result.status, found(result)) == ("damaged", world.hurt_by(b"two"))
    assert blob.read_bytes() == b"two"
    monkeypatch.undo()
    assert world.verify(data=True).status == "clean"


# Manifests and records --------------------------------------------------------------------------


def other_tree(world: World, path: Path) -> None:
    path.chmod(0o644)
    path.write_bytes(world.manifest(snapshots(world)[2]).read_bytes())


MANIFEST_DAMAGE: dict[str, Callable[[World, Path], object]] = {
    "missing": lambda world, path: path.unlink(),
    "torn": lambda world, path: change(path, path.read_bytes()[:-20]),
    "empty": lambda world, path: change(path, b""),
    "a size": lambda world, path: change(
        path, path.read_bytes().replace(b'"size_bytes":3', b'"size_bytes":4')
    ),
    "of another tree": other_tree,
    "a directory": lambda world, path: replace_by_directory(path),
}


@pytest.mark.parametrize("kind", MANIFEST_DAMAGE)
def test_a_manifest_is_hurt(world: World, kind: str) -> None:
    first = snapshots(world)[0]
    path = world.manifest(first)
    MANIFEST_DAMAGE[kind](world, path)
    result = world.verify(data=True)
    assert result.status == "damaged"
    [problem] = result.problems
    assert world.manifests[first] in problem.message
    assert problem.message.endswith(f"(needed by {first})")
    assert not problem.repaired
    assert (result.bad_blobs, result.hurt) == ((), ())
    assert world.verify(snapshots(world)[1]).status == "clean"


def test_a_manifest_that_two_snapshots_need(world: World) -> None:
    last, again = snapshots(world)[2], world.take()
    world.manifest(last).unlink()
    [problem] = world.verify().problems
    assert last in problem.message
    assert again in problem.message


def test_ingesting_heals_a_manifest(world: World) -> None:
    change(world.manifest(snapshots(world)[2]), b"{}")
    world.take()
    assert world.verify().status == "clean"


@pytest.mark.parametrize("where", ["snapshots", "trash"])
def test_a_record_is_hurt(world: World, where: str) -> None:
    path = sorted((world.path / where).iterdir())[0]
    change(path, b'{"format": "castfs-snapshot"}')
    result = world.verify()
    [problem] = result.problems
    assert str(path) in problem.message
    assert (result.status, result.snapshot_count) == ("damaged", 2)


@pytest.mark.parametrize("where", ["snapshots", "trash", "leases"])
def test_a_stray_file(world: World, where: str) -> None:
    path = world.path / where / "notes\n.txt"
    path.touch()
    result = world.verify()
    [problem] = result.problems
    assert "notes\\n.txt" in problem.message
    assert result.status == "damaged"
    assert path.exists()


def test_the_hurt_of_others_is_not_theirs(world: World) -> None:
    """A snapshot that is named is looked at with what it needs, and nothing else."""
    first, second, third = snapshots(world)
    world.blob(b"one").unlink()
    change(world.blob(b"three"), b"THREE")
    (world.path / "snapshots" / "stray").touch()
    change(world.path / "snapshots" / f"{first}.json", b"{}")
    result = world.verify(second, data=True)
    assert (result.status, result.snapshot_count, result.hashed_count) == ("clean", 1, 3)
    result = world.verify(third, second, data=True)
    assert (result.status, result.snapshot_count) == ("damaged", 2)
    assert found(result) == {(third, b"file")}


@pytest.mark.parametrize("name", ["quarantine", "trash"])
def test_a_directory_that_a_copy_left_out(world: World, name: str) -> None:
    if name == "trash":
        for path in (world.path / name).iterdir():
            path.unlink()
    (world.path / name).rmdir()
    change(world.blob(b"one"), b"eno")
    result = world.verify(data=True)
    assert found(result) == world.hurt_by(b"one")
    [bad] = result.bad_blobs
    assert bad.quarantined is not None
    assert bad.quarantined.read_bytes() == b"eno"
