"""Runicorn's own package as the judge, and an archive in its layout."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.compat.two_runs import write_two_runs
from tests.interop.conftest import runicorn

__all__ = ["runicorn"]  # installed once for all tests that want it


@pytest.fixture
def storage(tmp_path: Path) -> Path:
    """A storage root."""
    return tmp_path / "storage"


@pytest.fixture
def blobs(storage: Path) -> Path:
    return storage / "archive" / "blobs"


@pytest.fixture
def runs(storage: Path) -> tuple[Path, Path]:
    """Their directories, in the storage root."""
    return write_two_runs(storage)
