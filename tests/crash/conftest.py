from __future__ import annotations

from pathlib import Path

import pytest


@pytest.fixture
def source(tmp_path: Path) -> Path:
    """A small tree; one file is read in more than one piece."""
    path = tmp_path / "source"
    (path / "sub").mkdir(parents=True)
    for name in ("a", "b", "sub/c"):
        (path / name).write_bytes(name.encode() * 100)
    (path / "large").write_bytes(b"large" * 300_000)
    return path
