"""What an ingest that runs counts on is not put aside: its snapshot would lack it."""

from __future__ import annotations

import hashlib
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from castfs.digest import Digest
from castfs.store import WriteSession
from castfs.verify import quarantine, run
from tests.verify.conftest import World, change, found

CONTENT = b"one"


def claim(world: World, session: WriteSession) -> None:
    digest = Digest(hashlib.sha256(CONTENT).hexdigest())
    assert session.claim([(digest, len(CONTENT))]) == [True]


def pin(world: World, session: WriteSession) -> None:
    """Its parent has it. The blob is not touched then, and not logged."""
    first = next(iter(world.files))
    assert session.pin_parent(first, Digest(world.manifests[first])) is not None


RELY = [claim, pin]


@pytest.mark.parametrize("rely", RELY)
@pytest.mark.parametrize("when", ["before", "after", "meanwhile"])
def test_it_stays_until_the_ingest_has_ended(
    world: World,
    monkeypatch: pytest.MonkeyPatch,
    rely: Callable[[World, WriteSession], None],
    when: str,
) -> None:
    """Whether it was damaged before or after the ingest looked; and if the ingest looks after it
    was hashed."""
    blob = world.blob(CONTENT)
    with WriteSession(world.store.depot, purpose="test") as session:
        if when == "before":
            rely(world, session)
        change(blob, b"eno")
        if when == "after":
            rely(world, session)
        with monkeypatch.context() as patch:
            if when == "meanwhile":
                original = quarantine.quarantine

                def put_aside(*args: Any) -> dict[str, Path]:
                    rely(world, session)
                    return original(*args)

                patch.setattr(run, "quarantine", put_aside)
            result = world.verify(data=True)
        assert result.status == "damaged"
        assert found(result) == world.hurt_by(CONTENT)
        assert [bad.quarantined for bad in result.bad_blobs] == [None]
        assert blob.read_bytes() == b"eno"
        assert result.quarantine_count == 0
    [bad] = world.verify(data=True).bad_blobs
    assert bad.quarantined is not None
    assert bad.quarantined.read_bytes() == b"eno"
    assert not blob.exists()


def test_what_it_does_not_count_on_is_put_aside(world: World) -> None:
    change(world.blob(b"two"), b"owt")
    with WriteSession(world.store.depot, purpose="test") as session:
        claim(world, session)
        pin(world, session)
        [bad] = world.verify(data=True).bad_blobs
        assert bad.quarantined is not None


def test_a_reader_does_not_count(world: World) -> None:
    """It gets an error instead of wrong bytes."""
    change(world.blob(CONTENT), b"eno")
    with world.store.resolve(next(iter(world.files))).pinned("test"):
        [bad] = world.verify(data=True).bad_blobs
        assert bad.quarantined is not None
