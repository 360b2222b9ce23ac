"""What leads to contents keeps them. A root that nobody can understand stops the collector, which
then has changed nothing at all."""

from __future__ import annotations

import contextlib
import errno
import os
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from castfs.errors import DamageError, StoreError
from castfs.gc import tracker
from castfs.gc.sweep import Sweep
from castfs.gc.tracker import RootTracker
from castfs.repository import Store
from castfs.store import Depot, depot
from castfs.store.roots import RootNames, list_roots
from tests.gc.acting import (
    KEPT,
    LITTER,
    LOST,
    SHARED,
    Scene,
    Step,
    blob_names,
    gc,
    has,
    into_trash_long_ago,
    is_free,
    listing,
    needed_blobs,
)
from tests.store.checking import check_store


def test_records_the_trash_readers_and_writers_keep_what_they_lead_to(scene: Scene) -> None:
    store = scene.store
    store.remove(scene.lost.id)
    result = gc(store)
    assert (result.snapshot_count, result.trash_count) == (1, 1)
    assert (result.deleted.count, result.deleted.bytes) == (1, len(LITTER))
    assert result.deleted_manifests == 1
    # Where several keep a blob, the first counts.
    assert {name: amount.count for name, amount in result.kept.items()} == {
        "snapshots": 2, "trash": 2, "readers": 0, "ingests": 0, "grace": 0,
    }  # fmt: skip
    with store.resolve(scene.kept.id).pinned("test"):
        store.remove_for_good(scene.kept.id)
        store.remove_for_good(scene.lost.id)
        assert gc(store).kept["readers"].count == 2
        assert has(store, KEPT)
        assert has(store, SHARED)
        assert not has(store, LOST)
    # Now nothing leads anywhere.
    with pytest.raises(StoreError, match="deleted"):
        gc(store)
    assert gc(store, force=True).deleted.count == 2
    assert blob_names(store.path) == set()


def test_a_collection_deletes_all_that_is_not_needed_and_no_more(garbage: Scene) -> None:
    gc(garbage.store)
    assert blob_names(garbage.store.path) == needed_blobs(garbage.store.path)
    assert len(check_store(garbage.store.path)) == 1


def test_a_dry_run_changes_nothing_and_tells_what_would_go(garbage: Scene) -> None:
    before = listing(garbage.store.path)
    planned = garbage.store.plan_gc()
    assert listing(garbage.store.path) == before
    done = gc(garbage.store)
    assert planned.deleted == done.deleted
    assert planned.deleted_manifests == done.deleted_manifests == 2
    assert planned.kept == done.kept


def test_a_blob_with_another_link_frees_nothing(garbage: Scene, tmp_path: Path) -> None:
    [path] = (p for p in (garbage.store.path / "blobs").glob("??/*") if p.read_bytes() == LITTER)
    os.link(path, tmp_path / "link")
    assert gc(garbage.store).deleted.bytes == len(LOST) + 4 * 200


# Roots that stop it --------------------------------------------------------------------------


def write(path: Path, data: bytes) -> None:
    path.unlink(missing_ok=True)
    path.write_bytes(data)


def flip(path: Path, at: int) -> None:
    raw = bytearray(path.read_bytes())
    raw[at] ^= 1
    write(path, bytes(raw))


def replace_by_directory(path: Path) -> None:
    path.unlink()
    path.mkdir()


def replace_by_link_to_nothing(path: Path) -> None:
    path.unlink()
    path.symlink_to("nowhere")


def replace_by_link_to_itself(path: Path) -> None:
    path.unlink()
    path.symlink_to(path.name)


def truncate(path: Path) -> None:
    write(path, path.read_bytes()[:-2])


FILE_DAMAGE: list[Callable[[Path], None]] = [
    truncate,
    lambda path: write(path, b""),
    lambda path: flip(path, 5),
    replace_by_directory,
    replace_by_link_to_nothing,
    replace_by_link_to_itself,
]


def record_of(scene: Scene) -> Path:
    return scene.store.depot.record_path(scene.lost.id)


def trashed_record_of(scene: Scene) -> Path:
    scene.store.remove(scene.lost.id)
    [path] = scene.store.depot.trash_dir.iterdir()
    return path


def manifest_of_record(scene: Scene) -> Path:
    return scene.store.depot.manifest_path(scene.lost.manifest_id)


def manifest_of_trashed(scene: Scene) -> Path:
    scene.store.remove(scene.lost.id)
    return manifest_of_record(scene)


ROOTS = [record_of, trashed_record_of, manifest_of_record, manifest_of_trashed]


def assert_stops(scene: Scene, name: str) -> None:
    """And names it. Twice: what was seen the first time is not taken for granted."""
    before = listing(scene.store.path)
    for _ in range(2):
        with pytest.raises(DamageError) as caught:
            gc(scene.store, trash_age_seconds=10)
        assert name in caught.value.message
        assert listing(scene.store.path) == before


@pytest.mark.parametrize("find", ROOTS)
@pytest.mark.parametrize("damage", FILE_DAMAGE)
def test_a_root_that_cannot_be_read(
    scene: Scene, find: Callable[[Scene], Path], damage: Callable[[Path], None]
) -> None:
    path = find(scene)
    damage(path)
    assert_stops(scene, path.name[-20:])
    assert has(scene.store, LITTER)


def test_a_record_that_is_another(scene: Scene) -> None:
    write(record_of(scene), scene.store.depot.record_path(scene.kept.id).read_bytes())
    assert_stops(scene, scene.lost.id)


def test_a_manifest_that_is_another(scene: Scene) -> None:
    other = scene.store.depot.manifest_path(scene.kept.manifest_id)
    write(manifest_of_record(scene), other.read_bytes())
    assert_stops(scene, scene.lost.manifest_id)


def test_a_manifest_that_is_missing(scene: Scene) -> None:
    manifest_of_record(scene).unlink()
    assert_stops(scene, scene.lost.manifest_id)


def test_a_manifest_in_which_one_bit_is_another(scene: Scene) -> None:
    """In a digest: all else would be found by anybody."""
    path = manifest_of_record(scene)
    flip(path, path.read_bytes().rindex(b'"sha256":"') + 20)
    assert_stops(scene, scene.lost.manifest_id)


@pytest.mark.parametrize("directory", ["snapshots", "trash", "leases"])
@pytest.mark.parametrize(
    "name",
    ["notes.txt", "tmp-0123456789abcdef", ".hidden", "0" * 24, "w-0123456789abcdef.tmp",
     "0" * 24 + ".json~", "g" * 24 + ".json", "\udcff"],
)  # fmt: skip
def test_an_unknown_file_among_the_roots(scene: Scene, directory: str, name: str) -> None:
    (scene.store.path / directory / name).write_bytes(b"")
    assert_stops(scene, f"/{directory}/")
    (scene.store.path / directory / name).unlink()
    assert gc(scene.store).deleted.count == 1


@pytest.mark.parametrize("directory", ["snapshots", "trash", "leases"])
def test_what_an_nfs_client_makes_of_deleted_files_is_left_alone(
    garbage: Scene, directory: str
) -> None:
    path = garbage.store.path / directory / ".nfs000000000000a2c500000001"
    path.write_bytes(b"still open somewhere")
    before = path.stat().st_ino
    result = gc(garbage.store)
    assert result.unfinished.count == 0
    assert path.stat().st_ino == before
    assert not has(garbage.store, LITTER)


@pytest.mark.parametrize("directory", ["snapshots", "trash", "leases"])
def test_a_directory_of_roots_that_is_not_there(scene: Scene, directory: str) -> None:
    """It is not taken for an empty one."""
    path = scene.store.path / directory
    path.rename(scene.store.path / "quarantine" / directory)
    assert_stops(scene, f"/{directory}")


@pytest.mark.parametrize("what", ["snapshots", "trash", "leases"])
def test_a_directory_that_cannot_be_listed(
    scene: Scene, what: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    original = os.listdir

    def listdir(path: Any = ".") -> list[str]:
        if str(path).endswith(what):
            raise OSError(errno.EIO, os.strerror(errno.EIO))
        return original(path)

    monkeypatch.setattr(os, "listdir", listdir)
    assert_stops(scene, f"/{what}")


@pytest.mark.parametrize("find", [record_of, manifest_of_record])
def test_a_root_that_the_disk_cannot_read(
    scene: Scene, find: Callable[[Scene], Path], monkeypatch: pytest.MonkeyPatch
) -> None:
    path = find(scene)
    inode = path.stat().st_ino

    def broken(original: Any) -> Any:
        def read(fd: int, *args: Any) -> Any:
            if os.fstat(fd).st_ino == inode:
                raise OSError(errno.EIO, os.strerror(errno.EIO))
            return original(fd, *args)

        return read

    if find is manifest_of_record:
        monkeypatch.setattr(os, "readv", broken(os.readv))
    else:
        monkeypatch.setattr(
            depot, "read_regular", lambda path: open_and(broken(os.read), path, 1 << 20)
        )
    with pytest.raises(DamageError, match=path.stem):
        gc(scene.store)
    monkeypatch.undo()
    assert has(scene.store, LITTER)


def open_and(read: Any, path: Path, size: int) -> bytes:
    with path.open("rb") as file:
        result: bytes = read(file.fileno(), size)
        return result


@pytest.mark.parametrize(
    "damage", [replace_by_directory, replace_by_link_to_itself, lambda path: write(path, b"")]
)
def test_the_own_manifest_of_a_live_lease(scene: Scene, damage: Callable[[Path], None]) -> None:
    with scene.store.resolve(scene.lost.id).pinned("test"):
        [path] = scene.store.depot.leases_dir.glob("*.json")
        damage(path)
        assert_stops(scene, path.name)
        if path.is_dir():
            path.rmdir()
            path.touch()


@pytest.mark.parametrize("directory", ["snapshots", "trash", "leases"])
@pytest.mark.parametrize("step", ["run", "_delete_manifests", "_delete_blobs"])
def test_a_root_that_comes_meanwhile_and_cannot_be_read(
    scene: Scene, at: Callable[..., Step], step: str, directory: str
) -> None:
    """What leads to contents is gone then, but no content."""
    expired = into_trash_long_ago(scene.store, scene.lost.id)
    at(Sweep, step, lambda: (scene.store.path / directory / "stray").write_bytes(b""))
    with pytest.raises(DamageError, match="stray"):
        gc(scene.store)
    assert not expired.exists()
    assert {has(scene.store, data) for data in (LITTER, LOST, KEPT)} == {True}
    (scene.store.path / directory / "stray").unlink()
    gc(scene.store)
    assert blob_names(scene.store.path) == needed_blobs(scene.store.path)


# Listing and looking -------------------------------------------------------------------------


@pytest.mark.parametrize("inline", [0, 64])
def test_roots_are_listed_while_nobody_can_move_them(
    garbage: Scene, monkeypatch: pytest.MonkeyPatch, inline: int
) -> None:
    monkeypatch.setattr(tracker, "_INLINE_RECORDS", inline)
    depot, seen = garbage.store.depot, []
    original = list_roots

    def watched(depot: Depot, *known: RootNames) -> Any:
        seen.append(is_free(depot.path / "store") or is_free(depot.path / "gate"))
        return original(depot, *known)

    monkeypatch.setattr(tracker, "list_roots", watched)
    gc(garbage.store)
    # Trash, marks; before the batch of manifests and that of blobs.
    assert len(seen) >= 4
    assert not any(seen)
    assert is_free(depot.path / "store")


def to_the_trash(store: Store, record_id: str) -> None:
    store.remove(record_id)


def there_and_back(store: Store, record_id: str) -> None:
    store.remove(record_id)
    store.undelete(record_id)


def for_good(store: Store, record_id: str) -> None:
    store.remove_for_good(record_id)


@pytest.mark.parametrize("move", [to_the_trash, there_and_back, for_good])
def test_a_record_that_is_moved_between_listing_and_reading(
    scene: Scene,
    at: Callable[..., Step],
    move: Callable[[Store, str], None],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """Where much is new it is read while nobody holds the store. Roots are listed again then; none
    is skipped."""
    monkeypatch.setattr(tracker, "_INLINE_RECORDS", 0)
    at(Depot, "read_record", lambda: move(scene.store, scene.lost.id))
    gc(scene.store)
    assert not has(scene.store, LITTER)
    if move is not for_good:
        assert has(scene.store, LOST)
    check_store(scene.store.path)


def test_a_snapshot_that_leaves_the_trash_between_listing_and_reading(
    scene: Scene, at: Callable[..., Step], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(tracker, "_INLINE_RECORDS", 0)
    scene.store.remove(scene.lost.id)
    at(tracker, "read_trashed", lambda: scene.store.undelete(scene.lost.id))
    gc(scene.store)
    assert has(scene.store, LOST)
    check_store(scene.store.path)


def test_a_pin_that_ends_between_listing_and_reading(
    scene: Scene, at: Callable[..., Step], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(tracker, "_INLINE_RECORDS", 0)
    with contextlib.ExitStack() as stack:
        stack.enter_context(scene.store.resolve(scene.lost.id).pinned("test"))
        at(tracker, "_peek", stack.close)
        gc(scene.store)
    assert not has(scene.store, LITTER)
    check_store(scene.store.path)


def test_a_root_that_is_moved_by_somebody_who_takes_no_lock(
    scene: Scene, at: Callable[..., Step]
) -> None:
    """It is in neither of the two places for who lists one and then the other."""
    path = record_of(scene)
    target = scene.store.depot.trash_dir / f"{1 << 41:012x}-{path.name}"
    at(Depot, "read_record", lambda: path.rename(target), number=2)
    with pytest.raises(DamageError, match="cannot be read"):
        gc(scene.store)
    assert has(scene.store, LITTER)
    gc(scene.store)
    assert has(scene.store, LOST)


def test_news_that_never_end_do_not_keep_it_from_ending(
    garbage: Scene, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    """After ten vain tries whatever is new is read while the store is held, and marked."""
    monkeypatch.setattr(tracker, "_INLINE_RECORDS", 0)
    store = garbage.store
    taken: list[bytes] = []
    original = RootTracker.catch_up

    def catch_up(self: RootTracker) -> None:
        original(self)
        # After what it has seen: at the next look something is new again.
        data = b"%d" % len(taken)
        taken.append(data)
        source = tmp_path / f"new {len(taken)}"
        source.mkdir()
        (source / "file").write_bytes(data)
        store.ingest(source)

    tries: list[tuple[bool, bool]] = []
    keep_up = RootTracker.keep_up

    def watched(self: RootTracker, *, whatever: bool = False) -> bool:
        result = keep_up(self, whatever=whatever)
        tries.append((whatever, result))
        return result

    monkeypatch.setattr(RootTracker, "catch_up", catch_up)
    monkeypatch.setattr(RootTracker, "keep_up", watched)
    result = gc(store)
    assert tries[:11] == [(False, False)] * 10 + [(True, True)]
    assert result.snapshot_count == 1 + 10
    assert not has(store, LITTER)
    assert all(has(store, data) for data in taken)
    check_store(store.path)
