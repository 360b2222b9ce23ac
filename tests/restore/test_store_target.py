"""A restore never writes into the store that it reads from."""

from __future__ import annotations

from pathlib import Path

import pytest

import castfs
from castfs.errors import TargetError


@pytest.mark.parametrize("inside", [".", "blobs", "new/deeper"])
def test_a_target_in_the_store_is_refused(tmp_path: Path, inside: str) -> None:
    source = tmp_path / "source"
    source.mkdir()
    (source / "file").write_text("content")
    store = castfs.open(tmp_path / "store", create=True)
    snapshot = store.resolve(store.ingest(source).id)
    link = tmp_path / "link"
    link.symlink_to(store.path)
    before = sorted(store.path.rglob("*"))
    for way in (store.path, link):
        with pytest.raises(TargetError, match="lies in the store"):
            snapshot.restore(way / inside, if_exists="replace")
    assert sorted(store.path.rglob("*")) == before
