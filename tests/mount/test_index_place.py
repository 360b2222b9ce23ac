"""Where the index of a mount is kept: in a store of one's own, else in one's own cache."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from castfs import settings
from castfs.mount import unmount
from tests.mount.conftest import Mounter, run
from tests.mount.snapshots import Snapshot
from tests.mount.test_users import OPEN_DEVICE, USER, run_as_user
from tests.mount.trees import write

pytestmark = [pytest.mark.mounted, pytest.mark.needs_root]


@pytest.fixture
def snapshot(public: Mounter) -> Snapshot:
    write(public.source / "file", b"content")
    return public.take()


def kept(directory: Path) -> list[int]:
    """The owners of the indexes there."""
    return [path.stat().st_uid for path in directory.glob("*.index")]


def mount_and_unmount(mounter: Mounter, snapshot: Snapshot) -> None:
    mounter.start(snapshot)
    assert (mounter.mountpoint / "file").read_bytes() == b"content"
    unmount(mounter.mountpoint)


def test_in_the_store(public: Mounter, snapshot: Snapshot) -> None:
    mount_and_unmount(public, snapshot)
    assert kept(snapshot.depot.index_dir) == [0]
    assert not (settings.cache_dir() / "indexes").exists()


def test_root_leaves_none_in_another_users_store(public: Mounter, snapshot: Snapshot) -> None:
    """Its owner could lead root elsewhere by it, or put another one there."""
    outside = public.base / "outside"
    outside.mkdir()
    snapshot.depot.index_dir.parent.mkdir(exist_ok=True)
    snapshot.depot.index_dir.symlink_to(outside)
    run("chown", "-R", "-h", f"{USER}:{USER}", public.store)
    mount_and_unmount(public, snapshot)
    assert kept(settings.cache_dir() / "indexes") == [0]
    assert os.listdir(outside) == []


@pytest.mark.parametrize("shared", [False, True], ids=["read-only", "writable"])
def test_a_user_leaves_none_in_a_store_of_root(
    public: Mounter, snapshot: Snapshot, shared: bool
) -> None:
    run("chmod", "-R", "a+rwX" if shared else "a+rX", public.store)
    script = f"""
from dataclasses import replace
from castfs import settings
theirs = Path({str(public.store)!r})
request = replace(
    snapshot.request(mnt), store=theirs, blob_dir=theirs / "blobs",
    manifest_id={snapshot.manifest.id!r}, record_id={snapshot.record_id!r})
start_mount(request, timeout=20)
content = (mnt / "file").read_text()
unmount(mnt)
indexes = [path.stat().st_uid for path in (settings.cache_dir() / "indexes").glob("*.index")]
print(json.dumps([content, indexes]))
"""
    assert run_as_user(public.base, script, OPEN_DEVICE) == ["content", [USER]]
    assert kept(snapshot.depot.index_dir) == []
