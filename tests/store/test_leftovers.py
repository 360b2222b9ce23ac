"""What killed ingests leave disturbs nobody."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

import castfs
from castfs.repository import Store
from tests.store.checking import check_store, hash_blobs


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
