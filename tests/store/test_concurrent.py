"""Several ingests at once into one store."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

import castfs
from castfs.repository import Store
from castfs.store import WriteSession
from tests.store.checking import assert_idle, check_store, hash_blobs, read_records
from tests.store.processes import run_python

_AT_ONCE = r"""
import os, sys
import castfs
from castfs.ingest import readers
from castfs.repository import taking
store, count, rounds, with_readers, sources = *sys.argv[1:5], sys.argv[5:]
if with_readers == "1":
    readers._ALONE_FILES = 0
for round in range(int(rounds)):
    ready, go = os.pipe()
    children = []
    for number in range(int(count)):
        pid = os.fork()
        if pid == 0:
            os.close(go)
            os.read(ready, 1)
            source = sources[number % len(sources)]
            result = castfs.open(store, create=True).ingest(source)
            os.write(1, f"{source} {result.manifest_id} {result.id}\n".encode())
            os._exit(0)
        children.append(pid)
    os.close(ready)
    os.close(go)
    for pid in children:
        assert os.waitpid(pid, 0)[1] == 0
"""


@pytest.fixture
def sources(source: Path) -> list[Path]:
    """The tree, and another that shares half of its contents."""
    other = source.with_name("other")
    (other / "x").mkdir(parents=True)
    (other / "x" / "a").write_bytes(b"a" * 100)
    (other / "x" / "large").write_bytes(b"large" * 300_000)
    for number in range(50):
        for place in (source, other / "x"):
            (place / f"many {number}").write_bytes(b"%d" % number)
        (other / f"own {number}").write_bytes(b"own %d" % number)
    return [source, other]


@pytest.mark.parametrize(
    ("count", "rounds", "readers"), [(2, 6, False), (4, 4, False), (2, 2, True), (4, 1, True)]
)
def test_the_same_tree_at_once(
    tmp_path: Path, source: Path, sources: list[Path], count: int, rounds: int, readers: bool
) -> None:
    """The first round makes the store, too."""
    store = tmp_path / "shared"
    out = run_python(
        _AT_ONCE, store, count, rounds, int(readers), source, CASTFS_THREADS="2"
    ).splitlines()
    assert len(out) == count * rounds
    assert len({line.split(" ")[1] for line in out}) == 1
    assert {record["id"] for record in read_records(store)} == {line.split(" ")[2] for line in out}
    assert len(check_store(store)) == 1
    assert_idle(store)


def test_trees_that_share_contents(tmp_path: Path, sources: list[Path], later: None) -> None:
    """Each takes what the other has just renamed, or is about to."""
    expected = {}
    alone = castfs.open(tmp_path / "alone", create=True)
    for path in sources:
        expected[str(path)] = alone.ingest(path).manifest_id
    store = tmp_path / "shared"
    for line in run_python(_AT_ONCE, store, 4, 4, 0, *sources).splitlines():
        source, manifest, _ = line.split(" ")
        assert expected[source] == manifest
    assert len(check_store(store)) == 2
    assert set(hash_blobs(store)) == set(hash_blobs(alone.path))
    assert_idle(store)


def test_blobs_that_vanish_between_claim_and_commit_are_no_ones_fault(
    store: Store, source: Path
) -> None:
    """Two writers of the same content: the later rename wins, and both are right."""
    with (
        WriteSession(store.depot, purpose="one") as one,
        WriteSession(store.depot, purpose="two") as two,
    ):
        first, second = one.stage_bytes(b"same"), two.stage_bytes(b"same")
        assert first == second
        assert first.new
        one.commit_blobs()
        blob = store.depot.blobs.path / store.depot.blobs.name(first.digest)
        inode = blob.stat().st_ino
        two.commit_blobs()
        assert blob.read_bytes() == b"same"
        assert blob.stat().st_ino != inode
        assert os.listdir(two.staging.path / first.digest[:2]) == []
    check_store(store.path)
    assert_idle(store.path)
