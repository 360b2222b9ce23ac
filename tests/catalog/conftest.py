"""A store and a small tree whose versions are made."""

from __future__ import annotations

from pathlib import Path

import pytest

import castfs


@pytest.fixture
def store(tmp_path: Path) -> castfs.Store:
    return castfs.open(tmp_path / "store", create=True)


@pytest.fixture
def tree(tmp_path: Path) -> Path:
    root = tmp_path / "tree"
    (root / "sub").mkdir(parents=True)
    (root / "model.bin").write_text("0")
    (root / "sub" / "link").symlink_to("../model.bin")
    return root


class Versions:
    """Makes versions of one name, each with another content."""

    def __init__(self, store: castfs.Store, tree: Path) -> None:
        self.store = store
        self.tree = tree
        self._count = 0

    def make(self, name: str = "m", count: int = 1) -> list[int]:
        numbers = []
        for _ in range(count):
            self._count += 1
            (self.tree / "model.bin").write_text(f"content {self._count}")
            result = self.store.ingest(self.tree, name=name)
            assert result.version is not None
            numbers.append(result.version)
        return numbers


@pytest.fixture
def versions(store: castfs.Store, tree: Path) -> Versions:
    return Versions(store, tree)


def numbers(store: castfs.Store, name: str = "m") -> list[int | None]:
    """Of all versions that are listed."""
    return [each.record.version for each in store.iter_versions(name)]
