"""SIGKILL at any point leaves the old state or the new one, and the next ingest goes on.

(That nothing is named before it is on the medium is another matter: SIGKILL keeps the page cache.
test_session.py looks at the order of syncs, test_power_cut.py cuts the power.)
"""

from __future__ import annotations

import fcntl
import os
import random
import subprocess
import sys
from pathlib import Path

import pytest

import castfs
from castfs.repository import Store
from castfs.store.locks import try_flock
from tests.store.checking import check_store, hash_blobs, read_records
from tests.store.processes import python_environment

SCRIPT = Path(__file__).with_name("crashing.py")


@pytest.fixture
def base(store: Store, source: Path) -> Store:
    """One snapshot of an earlier state of the source."""
    store.ingest(source)
    (source / "a").write_bytes(b"changed")
    (source / "new").mkdir()
    for number in range(6):
        (source / "new" / f"{number}").write_bytes(b"new %d" % (number // 2))
    (source / "new" / "large").write_bytes(b"N" * 1_200_000)
    return store


def crash(store: Store, source: Path, points: str, *, readers: bool) -> list[str]:
    done = subprocess.run(
        [sys.executable, "-P", SCRIPT, store.path, source, points, str(int(readers))],
        # Without a stat cache: with one, there is less to do once the files are two seconds old.
        env=python_environment(CASTFS_THREADS="2", XDG_CACHE_HOME="/proc/none"),
        capture_output=True,
        text=True,
        timeout=600,
    )
    assert done.returncode == 0, done.stderr
    assert done.stderr == ""
    return done.stdout.splitlines()


def check_points(base: Store, source: Path, points: list[int], *, readers: bool) -> None:
    wanted = castfs.open(base.path.with_name("other"), create=True).ingest(source).manifest_id
    [old] = read_records(base.path)
    killed = 0
    for line in crash(base, source, ",".join(map(str, points)), readers=readers):
        point, path, died = line.split(" ")
        store = castfs.open(path)
        killed += died == "1"
        check_store(store.path)
        records = read_records(store.path)
        assert records[0] == old, point
        assert len(records) <= 2, point
        if len(records) == 2:
            assert records[1]["manifest"] == wanted, point
        for lease in (store.path / "leases").glob("*.lease"):
            with lease.open("rb") as file:
                assert try_flock(file.fileno(), fcntl.LOCK_EX), point
        assert store.ingest(source).manifest_id == wanted, point
        assert wanted in check_store(store.path), point
        subprocess.run(["rm", "-rf", store.path], check=True)
    assert killed == len(points)


def count_points(base: Store, source: Path, *, readers: bool) -> int:
    [total] = crash(base, source, "count", readers=readers)
    assert int(total) > 100
    return int(total)


def sample(total: int, count: int, seed: int) -> list[int]:
    """Half of them among the last operations, where the commit is."""
    numbers = random.Random(seed)
    end = max(1, total - 120)
    late = numbers.sample(range(end, total + 1), count // 2)
    return sorted({*late, *numbers.sample(range(1, end + 1), count - count // 2)})


def test_sigkill_at_any_point(base: Store, source: Path) -> None:
    points = sample(count_points(base, source, readers=False), 26, seed=2)
    check_points(base, source, points, readers=False)


def test_sigkill_of_an_ingest_with_readers(base: Store, source: Path) -> None:
    """They end too, and what they staged is nowhere."""
    # How often the readers' answers are waited for differs from run to run, by a few.
    total = count_points(base, source, readers=True) - 15
    check_points(base, source, sample(total, 6, seed=3), readers=True)


@pytest.mark.slow
@pytest.mark.timeout(1800)
def test_sigkill_at_every_point(base: Store, source: Path) -> None:
    total = count_points(base, source, readers=False)
    check_points(base, source, list(range(1, total + 1)), readers=False)


@pytest.mark.slow
@pytest.mark.timeout(1800)
def test_sigkill_of_an_ingest_with_readers_at_many_points(base: Store, source: Path) -> None:
    total = count_points(base, source, readers=True) - 15
    check_points(base, source, list(range(1, total, 2)), readers=True)


def test_the_cache_of_a_killed_ingest_is_not_believed_too_much(
    base: Store, source: Path, later: None
) -> None:
    """Its rows may be there without its blobs."""
    other = castfs.open(base.path.with_name("other"), create=True)
    other.ingest(source)
    store = castfs.open(base.path)
    result = store.ingest(source)
    assert result.added_count > 0
    check_store(store.path)
    assert set(hash_blobs(store.path)) >= set(hash_blobs(other.path))


def test_leftovers_of_many_killed_ingests(base: Store, source: Path) -> None:
    """A hundred dead leases with their staging disturb nobody."""
    for number in range(100):
        (base.path / "leases" / f"w-{number:016x}.lease").write_bytes(os.urandom(100))
        (base.path / "staging" / f"w-{number:016x}" / "ab").mkdir(parents=True)
        (base.path / "staging" / f"tmp-{number:016x}").write_bytes(b"half a manifest")
    result = base.ingest(source)
    check_store(base.path)
    assert len(list((base.path / "leases").iterdir())) == 100
    with base.resolve(result.id).pinned("test"):
        pass
