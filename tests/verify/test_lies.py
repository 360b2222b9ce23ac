"""A manifest that is well-formed, has the right id, and says something false about a content."""

from __future__ import annotations

import json

import pytest

from castfs.manifest import decode_stored
from tests.manifest.documents import encode, sign
from tests.verify.conftest import World, change, found

CONTENT = b"shared by all"


def add_liar(world: World, *, newest: bool, size: int = 5) -> str:
    """A snapshot like the first, but it says that CONTENT has another size. Returns its manifest's
    id. Newer ones are looked at first."""
    depot = world.store.depot
    first = next(iter(world.files))
    document = json.loads(world.manifest(first).read_bytes())
    for key in ("shared", "sub/shared"):
        document["files"][key]["size_bytes"] = size
    document = sign(document)
    manifest_id = str(document["id"])
    path = depot.manifest_path(manifest_id)
    path.parent.mkdir(exist_ok=True)
    path.write_bytes(encode(document))
    assert decode_stored(path.read_bytes(), document["id"]).id == manifest_id
    record = json.loads(depot.record_path(first).read_bytes())
    record["id"] = ("f" if newest else "0") * 24
    record["manifest"] = manifest_id
    depot.record_path(record["id"]).write_text(json.dumps(record))
    return manifest_id


@pytest.mark.parametrize("newest", [True, False])
@pytest.mark.parametrize("data", [True, False])
@pytest.mark.parametrize("size", [5, 5000])
def test_the_liar_is_named_and_the_honest_are_not(
    world: World, newest: bool, data: bool, size: int
) -> None:
    """Whichever is looked at first. The content is good, and stays where it is."""
    blob = world.blob(CONTENT)
    liar = add_liar(world, newest=newest, size=size)
    inode = blob.stat().st_ino
    result = world.verify(data=data)
    assert result.status == "damaged"
    [problem] = result.problems
    assert liar in problem.message
    assert ("f" if newest else "0") * 24 in problem.message
    assert not any(honest in problem.message for honest in world.files)
    assert (result.bad_blobs, result.hurt) == ((), ())
    assert blob.stat().st_ino == inode
    assert result.quarantine_count == 0


@pytest.mark.parametrize("newest", [True, False])
def test_a_content_that_is_bad_is_no_witness(world: World, newest: bool) -> None:
    """It happens to have the size that the liar says. It is bad all the same."""
    blob = world.blob(CONTENT)
    add_liar(world, newest=newest)
    change(blob, CONTENT[:5])
    result = world.verify(data=True)
    assert result.status == "damaged"
    assert found(result) >= world.hurt_by(CONTENT)
    assert result.problems == (), "the honest do not lie"
    [bad] = result.bad_blobs
    assert bad.digest == blob.name
    assert not blob.exists()
