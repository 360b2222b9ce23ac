"""`castfs debug`."""

from __future__ import annotations

import hashlib
from pathlib import Path

import pytest

from tests.cli.conftest import Run


@pytest.mark.mounted
def test_the_index_of_a_mount(castfs: Run, tmp_path: Path, store: Path) -> None:
    source = tmp_path / "source"
    source.mkdir()
    (source / "file").write_bytes(b"content")
    snapshot = castfs("ingest", "-q", source).text.strip()
    place = tmp_path / "mnt"
    place.mkdir()
    castfs("mount", snapshot, place, "--", "true")
    [index] = (store / "cache" / "indexes").iterdir()
    lines = castfs("debug", "index", index).text.splitlines()
    assert lines[:1] == ["tree index, version 2"]
    [line] = [line for line in lines if " file " in line]
    assert line.endswith(f"sha256={hashlib.sha256(b'content').hexdigest()}")


def test_what_is_no_index(castfs: Run, tmp_path: Path) -> None:
    assert "cannot read" in castfs("debug", "index", tmp_path / "none", code=4).err
    (tmp_path / "other").write_bytes(bytes(5000))
    assert "no tree index" in castfs("debug", "index", tmp_path / "other", code=5).err
