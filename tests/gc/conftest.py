from __future__ import annotations

from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

import castfs
from castfs.repository import Store
from castfs.store import Depot
from tests.gc.acting import KEPT, LITTER, LOST, MORE, SHARED, Scene, Step, age, put


@pytest.fixture
def store(tmp_path: Path) -> Store:
    return castfs.open(tmp_path / "store", create=True)


@pytest.fixture
def depot(store: Store) -> Depot:
    return store.depot


@pytest.fixture
def scene(store: Store, tmp_path: Path) -> Scene:
    kept_source, lost_source = tmp_path / "kept", tmp_path / "lost"
    kept = put(store, kept_source, shared=SHARED, kept=KEPT)
    lost = put(store, lost_source, shared=SHARED, lost=LOST, more=MORE)
    store.remove_for_good(put(store, tmp_path / "litter", litter=LITTER).id)
    age(store.path)
    return Scene(store, kept, lost, kept_source, lost_source)


@pytest.fixture
def garbage(scene: Scene) -> Scene:
    """The scene once the second snapshot is gone for good: LOST, MORE and a manifest, too."""
    scene.store.remove_for_good(scene.lost.id)
    return scene


@pytest.fixture
def at(monkeypatch: pytest.MonkeyPatch) -> Iterator[Callable[..., Step]]:
    """`Step` with this test's monkeypatch. Fails if a step was never reached."""
    steps: list[Step] = []

    def add(owner: Any, name: str, act: Callable[[], object], **options: Any) -> Step:
        steps.append(Step(monkeypatch, owner, name, act, **options))
        return steps[-1]

    yield add
    assert all(step.done for step in steps), "a step was not reached"
