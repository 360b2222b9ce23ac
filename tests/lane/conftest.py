"""Mounts with the fast lane."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.mount.conftest import Mounter, mounter_below


@pytest.fixture
def mounter(tmp_path: Path) -> Iterator[Mounter]:
    with mounter_below(tmp_path) as mounter:
        yield mounter
