"""Which records are looked at while others move them."""

from __future__ import annotations

import pytest

from castfs.store import trash
from castfs.store.trash import list_trash, move_to_trash, take_back
from castfs.verify.structure import iter_all_records
from tests.gc.acting import Step
from tests.verify.conftest import World


@pytest.mark.parametrize("deleted", [True, False], ids=["comes back", "goes"])
def test_a_record_that_moves_meanwhile_is_looked_at(
    world: World, monkeypatch: pytest.MonkeyPatch, deleted: bool
) -> None:
    """After the live ones were listed, and before the trash is. Each counts once."""
    depot = world.store.depot
    *_, last = world.files
    if not deleted:
        take_back(depot, list_trash(depot))

    def move() -> None:
        if deleted:
            take_back(depot, list_trash(depot))
        else:
            move_to_trash(depot, [last])

    step = Step(monkeypatch, trash, "list_trash", move)
    found = [record.id for record in iter_all_records(depot, [])]
    assert step.done
    assert sorted(found) == sorted(world.files)


def test_so_its_damage_is_found(world: World, monkeypatch: pytest.MonkeyPatch) -> None:
    depot = world.store.depot
    world.blob(b"three").unlink()
    step = Step(monkeypatch, trash, "list_trash", lambda: take_back(depot, list_trash(depot)))
    result = world.verify()
    assert step.done
    assert {(hurt.snapshot, hurt.path) for hurt in result.hurt} == world.hurt_by(b"three")
