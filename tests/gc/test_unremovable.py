"""What a dead writer left and nobody can remove: it never keeps a collection from freeing contents,
and the result names it."""

from __future__ import annotations

import errno
import os
import shutil
from pathlib import Path

import pytest

from castfs.store import Depot
from tests.gc.acting import LITTER, LOST, MORE, Scene, gc, has
from tests.gc.as_nobody import NOBODY, collect_as_nobody, give_to_nobody
from tests.store.checking import assert_idle, check_store

W = "w-0123456789abcdef"


def leave(depot: Depot) -> tuple[Path, Path]:
    """The lease and the staging of a writer that is dead."""
    lease, staging = depot.leases_dir / f"{W}.lease", depot.staging_dir / W
    lease.write_bytes(b"")
    (staging / "ab").mkdir(parents=True)
    (staging / "ab" / "staged").write_bytes(b"staged")
    return lease, staging


def refuse_renames(monkeypatch: pytest.MonkeyPatch, code: int) -> None:
    """Out of the way; all others work."""
    original = Path.rename

    def rename(path: Path, target: Path) -> Path:
        if target.name.startswith("dead-"):
            raise OSError(code, os.strerror(code))
        return original(path, target)

    monkeypatch.setattr(Path, "rename", rename)


def check_collected(scene: Scene) -> None:
    assert not any(has(scene.store, data) for data in (LITTER, LOST, MORE))
    check_store(scene.store.path)


@pytest.mark.parametrize("code", [errno.EACCES, errno.EPERM, errno.EBUSY, errno.EROFS])
def test_what_may_not_be_renamed_stays_and_is_named(
    garbage: Scene, monkeypatch: pytest.MonkeyPatch, code: int
) -> None:
    lease, staging = leave(garbage.store.depot)
    with monkeypatch.context() as patch:
        refuse_renames(patch, code)
        result = gc(garbage.store)
    assert set(result.left) == {lease, staging}
    assert lease.exists()
    assert (staging / "ab" / "staged").exists()
    check_collected(garbage)
    # The next one can.
    assert gc(garbage.store).left == ()
    assert_idle(garbage.store.path)


@pytest.mark.parametrize("code", [errno.ENOSPC, errno.EDQUOT, errno.EXDEV])
def test_where_nothing_can_be_renamed_it_is_removed_in_place(
    garbage: Scene, monkeypatch: pytest.MonkeyPatch, code: int
) -> None:
    """On a full disk a name may need space; on an overlay a lower layer's directory stays."""
    leave(garbage.store.depot)
    refuse_renames(monkeypatch, code)
    assert gc(garbage.store).left == ()
    check_collected(garbage)
    assert_idle(garbage.store.path)


@pytest.mark.parametrize("code", [errno.EACCES, errno.EPERM, errno.EIO])
def test_what_cannot_be_deleted_is_named_and_tried_again(
    garbage: Scene, monkeypatch: pytest.MonkeyPatch, code: int
) -> None:
    """The lease goes all the same."""
    depot = garbage.store.depot
    lease, _ = leave(depot)
    away = depot.staging_dir / f"dead-{W}"
    with monkeypatch.context() as patch:

        def rmtree(path: Path, **options: object) -> None:
            if not options:
                raise OSError(code, os.strerror(code))

        patch.setattr(shutil, "rmtree", rmtree)
        for _ in range(2):
            assert gc(garbage.store).left == (away,)
            assert list(depot.staging_dir.iterdir()) == [away]
            assert not lease.exists()
    check_collected(garbage)
    assert gc(garbage.store).left == ()
    assert_idle(garbage.store.path)


@pytest.mark.needs_root
def test_another_users_private_directory(garbage: Scene) -> None:
    """Somebody ran castfs as root once, and it was killed."""
    store = garbage.store
    give_to_nobody(store.path)
    leave(store.depot)
    for path in [store.depot.staging_dir / W, *(store.depot.staging_dir / W).rglob("*")]:
        path.chmod(0o700)
    (store.depot.leases_dir / f"{W}.lease").unlink()
    (own := store.depot.staging_dir / "w-fedcba9876543210").mkdir()
    os.chown(own, NOBODY, NOBODY)
    result = collect_as_nobody(store.path)
    # What is inside cannot be seen, so the directory itself cannot be renamed either on some
    # filesystems: it is named, under whichever name it has.
    [left] = map(Path, result["left"])
    assert left.name in (W, f"dead-{W}")
    assert left.is_dir()
    assert (left / "ab" / "staged").exists()
    assert not own.exists()
    assert result["deleted"] == 3
    check_collected(garbage)


@pytest.mark.needs_root
def test_another_users_lease_in_a_directory_that_it_cannot_leave(garbage: Scene) -> None:
    """With the sticky bit only its owner may rename it."""
    store = garbage.store
    give_to_nobody(store.path)
    lease, staging = leave(store.depot)
    lease.chmod(0o644)
    for directory in (store.depot.leases_dir, store.depot.staging_dir):
        os.chown(directory, 0, NOBODY)
        directory.chmod(0o1770)
    result = collect_as_nobody(store.path)
    assert set(map(Path, result["left"])) == {lease, staging}
    assert result["deleted"] == 3
    check_collected(garbage)
