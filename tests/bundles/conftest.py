"""Two stores: one with artifacts and their runs, one where a bundle of them goes."""

from __future__ import annotations

from pathlib import Path

import pytest

import castfs
from castfs import Artifact, Store


@pytest.fixture
def there(tmp_path: Path) -> Store:
    """A store with two artifacts and their runs."""
    store = castfs.open(tmp_path / "there", create=True)
    large, file = tmp_path / "large", tmp_path / "file"
    large.write_bytes(b"0123456789abcdef" * (600 << 10))
    with castfs.init("ml", "prep", store=store) as run:
        run.log_artifact(Artifact("data", "dataset").add_file(large).add_tags("raw"))
    for number in (1, 2, 3):
        file.write_text(f"model {number}")
        with castfs.init("ml", f"train {number}", store=store) as run:
            run.use_artifact("data:v1")
            made = Artifact("team/model", metadata={"acc": number / 10, "data": "data:v1"})
            run.log_artifact(made.add_file(file), aliases=["best"] if number == 2 else [])
    with castfs.init("ml", "eval", store=store) as run:
        run.use_artifact("team/model:best")
    store.remove("team/model:v1")
    return store


@pytest.fixture
def here(tmp_path: Path) -> Store:
    return castfs.open(tmp_path / "here", create=True)
