"""A FIFO in the place of a file: whoever opens it like a file waits for ever. Each command is a
process of its own, ends at once, and names what is wrong."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest

from castfs.store import WriteSession
from castfs.store.leases import Lease
from tests.gc.acting import LOST, Scene, blob_names, blob_path, listing
from tests.store.checking import check_store
from tests.store.processes import python_environment

#: Far above what any of these takes.
SECONDS = 60
W = "w-0123456789abcdef"


def make_fifo(path: Path) -> Path:
    path.unlink(missing_ok=True)
    os.mkfifo(path)
    return path


def record(scene: Scene) -> Path:
    return make_fifo(scene.store.depot.record_path(scene.lost.id))


def trashed(scene: Scene) -> Path:
    scene.store.remove(scene.lost.id)
    [path] = scene.store.depot.trash_dir.iterdir()
    return make_fifo(path)


def manifest(scene: Scene) -> Path:
    return make_fifo(scene.store.depot.manifest_path(scene.lost.manifest_id))


def lease(scene: Scene) -> Path:
    return make_fifo(scene.store.depot.leases_dir / f"{W}.lease")


def run(scene: Scene, *args: str) -> subprocess.CompletedProcess[str]:
    """subprocess.TimeoutExpired if it waits."""
    return subprocess.run(
        [sys.executable, "-W", "error", "-m", "castfs", "--store", scene.store.path, *args],
        env=python_environment(),
        stdin=subprocess.DEVNULL,
        capture_output=True,
        text=True,
        timeout=SECONDS,
    )


def check_named(done: subprocess.CompletedProcess[str], name: str) -> None:
    assert done.returncode == 5, (done.stdout, done.stderr)
    assert name in done.stdout + done.stderr
    assert "Traceback" not in done.stderr


PLACES = [record, trashed, manifest, lease]
IN_LIST: dict[Callable[[Scene], Path], list[str]] = {record: [], trashed: ["--deleted"]}


@pytest.mark.parametrize("place", PLACES)
def test_the_collector(scene: Scene, place: Callable[[Scene], Path]) -> None:
    path = place(scene)
    before = listing(scene.store.path)
    for more in ([], ["--dry-run"]):
        check_named(run(scene, "gc", *more), path.name)
    assert listing(scene.store.path) == before


@pytest.mark.parametrize("place", PLACES)
def test_verify(scene: Scene, place: Callable[[Scene], Path]) -> None:
    path = place(scene)
    check_named(run(scene, "verify"), path.name.removesuffix(".json"))


@pytest.mark.parametrize("place", PLACES)
def test_verify_that_puts_a_blob_aside(scene: Scene, place: Callable[[Scene], Path]) -> None:
    """It looks into leases, too, while it holds the store."""
    path = place(scene)
    blob = blob_path(scene.store, LOST)
    blob.chmod(0o644)
    blob.write_bytes(LOST[::-1])
    done = run(scene, "verify", "--data")
    check_named(done, path.name.removesuffix(".json"))
    assert blob.name in done.stdout
    assert not blob.exists()


@pytest.mark.parametrize("place", PLACES)
def test_list(scene: Scene, place: Callable[[Scene], Path]) -> None:
    """Those before and after it are listed."""
    path = place(scene)
    done = run(scene, "list", "--json", *IN_LIST.get(place, []))
    if place in IN_LIST:
        check_named(done, path.name)
    else:
        assert (done.returncode, done.stderr) == (0, "")
    found = {each.get("id") for each in json.loads(done.stdout)}
    assert (scene.kept.id in found) is (place is not trashed)


@pytest.mark.parametrize("command", ["gc", "verify"])
def test_the_manifest_of_a_lease(scene: Scene, command: str) -> None:
    """Of a living reader."""
    depot = scene.store.depot
    held = Lease(depot.leases_dir, kind="reader", purpose="test", mode=0o600)
    held.acquire()
    try:
        make_fifo(held.manifest_path)
        blobs = blob_names(scene.store.path)
        check_named(run(scene, command), held.manifest_path.name)
        assert blob_names(scene.store.path) == blobs
    finally:
        held.release()


def test_the_manifest_of_a_writer_that_is_looked_into(scene: Scene) -> None:
    """What has a writer's name is read before a blob is put aside."""
    blob = blob_path(scene.store, LOST)
    blob.chmod(0o644)
    blob.write_bytes(LOST[::-1])
    with WriteSession(scene.store.depot, purpose="test") as session:
        path = make_fifo(scene.store.depot.leases_dir / f"{session.params.lease}.json")
        check_named(run(scene, "verify", "--data"), path.name)
    assert not blob.exists()


@pytest.mark.parametrize("how", ["ingest", "repair"])
def test_a_manifest_is_written_again(scene: Scene, tmp_path: Path, how: str) -> None:
    """Looking at the one that is there does not wait for it either."""
    good = tmp_path / "good"
    shutil.copytree(scene.store.path, good)
    path = manifest(scene)
    if how == "ingest":
        done = run(scene, "ingest", "-q", str(scene.lost_source))
    else:
        done = run(scene, "verify", "--repair-from", str(good))
    assert done.returncode == (0 if how == "ingest" else 3), (done.stdout, done.stderr)
    assert path.is_file()
    check_store(scene.store.path)
