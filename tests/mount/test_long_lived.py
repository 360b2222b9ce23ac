"""What a mount keeps up while it lives, and gives back when it has ended."""

from __future__ import annotations

import os
import resource
import time
from collections.abc import Iterator
from dataclasses import replace

import pytest

from castfs.mount import unmount
from castfs.mount.loading import loaded
from castfs.tree import remove_orphans
from castfs.tree.cache import UNUSED_SECONDS
from tests.lane.serving import served
from tests.mount.conftest import Mounter, wait_until
from tests.mount.snapshots import Snapshot
from tests.mount.test_running import finish, start
from tests.mount.trees import write

pytestmark = pytest.mark.mounted

SOFT = 300


@pytest.fixture
def snapshot(mounter: Mounter) -> Snapshot:
    write(mounter.source / "file", b"content")
    return mounter.take()


@pytest.fixture
def few_descriptors() -> Iterator[int]:
    """Less than what is allowed; that is returned."""
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    assert hard > SOFT
    resource.setrlimit(resource.RLIMIT_NOFILE, (SOFT, hard))
    yield hard
    resource.setrlimit(resource.RLIMIT_NOFILE, (soft, hard))


def test_a_command_has_the_limit_of_its_caller(
    mounter: Mounter, snapshot: Snapshot, few_descriptors: int
) -> None:
    process = start(mounter, snapshot, "sh", "-c", "ulimit -Sn; ulimit -Hn")
    assert finish(mounter, process) == (0, f"{SOFT}\n{few_descriptors}\n", "")


def test_a_program_has_its_limit_back(
    mounter: Mounter, snapshot: Snapshot, few_descriptors: int
) -> None:
    patch = """
import atexit, resource
from castfs.mount import serving
def note(name):
    print(*resource.getrlimit(resource.RLIMIT_NOFILE), file=open(place + "/" + name, "w"))
def init(*arguments, original=serving._init):
    note("mounting")
    original(*arguments)
serving._init = init
atexit.register(note, "afterwards")
"""
    with served(mounter, snapshot, patch) as server:
        unmount(mounter.mountpoint)
        assert server.finish() == 0, server.said
        assert (server.place / "mounting").read_text() == f"{few_descriptors} {few_descriptors}\n"
        assert (server.place / "afterwards").read_text() == f"{SOFT} {few_descriptors}\n"


@pytest.mark.parametrize("stored", [True, False], ids=["of a record", "of a manifest file"])
def test_a_mount_keeps_its_index(mounter: Mounter, snapshot: Snapshot, stored: bool) -> None:
    """A collector removes what was not used for a month, and mounts live for longer."""
    request = snapshot.request(mounter.mountpoint)
    if not stored:
        path = snapshot.depot.manifest_path(snapshot.manifest.id)
        request = replace(request, manifest_file=path, record_id=None)
    with loaded(request) as held:
        (index,) = snapshot.depot.index_dir.iterdir()
        os.utime(index, (0, 0))
        held.beat()
        assert index.stat().st_mtime > time.time() - UNUSED_SECONDS
        remove_orphans(snapshot.depot.index_dir, lambda digest: True)
        assert index.exists()


def test_it_does_so_while_it_is_served(mounter: Mounter, snapshot: Snapshot) -> None:
    patch = """
from castfs.mount import serving
serving.BEAT_SECONDS = 0.05
"""
    with served(mounter, snapshot, patch):
        (index,) = snapshot.depot.index_dir.iterdir()
        os.utime(index, (0, 0))
        wait_until(lambda: index.stat().st_mtime > time.time() - 60)
