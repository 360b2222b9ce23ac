"""What is looked at: --sample, --since; and what may be put aside."""

from __future__ import annotations

import hashlib
import os
import time
from pathlib import Path

import pytest

from castfs.digest import Digest
from castfs.store import Depot
from castfs.verify import run
from castfs.verify.hashing import Suspect, hash_batch
from castfs.verify.quarantine import quarantine
from tests.verify.conftest import World, change, found


@pytest.fixture
def hundred(world: World) -> World:
    """A hundred more blobs, all of them bad in the same way."""
    for number in range(100):
        blob = world.blob(b"%3d" % number)
        blob.parent.mkdir(exist_ok=True)
        change_new(blob, b"bad")
    return world


def change_new(path: Path, content: bytes) -> None:
    path.write_bytes(content)
    path.chmod(0o444)


def test_a_sample(hundred: World) -> None:
    """So many each time, and each time others: all that is bad is found in the end."""
    left = 105
    while left > 5:
        result = hundred.verify(data=True, sample=0.2)
        assert result.hashed_count == max(1, round(left * 0.2))
        left -= len(result.bad_blobs)
        assert result.quarantine_count == 105 - left
    assert hundred.verify(data=True).status == "clean"
    assert hundred.verify(data=True, sample=0.0001).hashed_count == 1


def test_since(hundred: World) -> None:
    """When it was stored or last relied on."""
    now = time.time()
    for blob, _ in list(hundred.store.depot.blobs.iter_blobs())[::2]:
        path = hundred.path / "blobs" / hundred.store.depot.blobs.name(blob)
        os.utime(path, (now - 7200, now - 7200))
    assert hundred.verify(data=True, since=now + 3600).hashed_count == 0
    assert hundred.verify(data=True, since=now - 3600).hashed_count == 52
    assert hundred.verify(data=True).quarantine_count == 100


def test_sizes_are_always_looked_at(world: World) -> None:
    world.blob(b"one").unlink()
    result = world.verify(data=True, sample=0.01, since=time.time() + 3600)
    assert found(result) == world.hurt_by(b"one")


# Quarantine -------------------------------------------------------------------------------------


def suspect(depot: Depot, content: bytes) -> Suspect:
    digest = Digest(hashlib.sha256(content).hexdigest())
    [found] = hash_batch(depot.blobs, [digest]).suspects
    return found


def heal(blob: Path, content: bytes) -> None:
    """As a writer does: by rename."""
    new = blob.with_name("new")
    new.write_bytes(content)
    new.replace(blob)


def test_only_what_was_hashed_is_put_aside(world: World) -> None:
    blob = world.blob(b"one")
    change(blob, b"eno")
    hashed = suspect(world.store.depot, b"one")
    heal(blob, b"one")
    assert quarantine(world.store.depot, [hashed]) == {}
    assert blob.read_bytes() == b"one"


@pytest.mark.parametrize("what", ["inode", "mtime"])
def test_inode_and_mtime_tell(world: World, what: str) -> None:
    """Another file with the same times; the same file with other ones."""
    blob = world.blob(b"one")
    change(blob, b"eno")
    hashed = suspect(world.store.depot, b"one")
    times = (blob.stat().st_atime_ns, blob.stat().st_mtime_ns)
    if what == "inode":
        heal(blob, b"eno")
        os.utime(blob, ns=times)
    else:
        os.utime(blob, ns=(times[0], times[1] + 1))
    assert quarantine(world.store.depot, [hashed]) == {}
    assert blob.exists()
    assert list(quarantine(world.store.depot, [suspect(world.store.depot, b"one")])) == [blob.name]
    assert not blob.exists()


def test_one_that_is_gone(world: World) -> None:
    change(world.blob(b"one"), b"eno")
    hashed = suspect(world.store.depot, b"one")
    world.blob(b"one").unlink()
    assert quarantine(world.store.depot, [hashed]) == {}


def test_a_writer_heals_in_between(world: World, monkeypatch: pytest.MonkeyPatch) -> None:
    """After it was hashed: what was found is told, what is good stays."""
    blob = world.blob(b"one")
    change(blob, b"eno")

    def after_heal(depot: Depot, suspects: list[Suspect]) -> dict[str, Path]:
        heal(blob, b"one")
        return quarantine(depot, suspects)

    monkeypatch.setattr(run, "quarantine", after_heal)
    result = world.verify(data=True)
    [bad] = result.bad_blobs
    assert bad.quarantined is None
    assert blob.read_bytes() == b"one"
    monkeypatch.undo()
    assert world.verify(data=True).status == "clean"
