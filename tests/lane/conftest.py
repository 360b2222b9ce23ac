"""Mounts with the fast lane, and sources that reach every corner of it."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.mount.conftest import Mounter


@pytest.fixture
def mounter(tmp_path: Path) -> Iterator[Mounter]:
    base = tmp_path / "work"
    base.mkdir()
    mounter = Mounter(base)
    try:
        yield mounter
    finally:
        mounter.clean_up()
