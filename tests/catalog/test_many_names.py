"""What a change of many names costs: so much for each, whatever their number."""

from __future__ import annotations

from collections import Counter
from pathlib import Path

import pytest

import castfs
from castfs.catalog import rows, syncing
from castfs.retention import Policy

NAMES = 12


@pytest.fixture
def many(store: castfs.Store, tree: Path) -> castfs.Store:
    for number in range(2 * NAMES):
        (tree / "model.bin").write_text(str(number))
        store.ingest(tree, name=f"n{number % NAMES}", aliases=["new"])
    return store


def test_each_record_is_read_again_once(
    many: castfs.Store, monkeypatch: pytest.MonkeyPatch
) -> None:
    read = Counter[str]()
    update = rows.update_record

    def counted(connection: object, depot: object, record_id: str, *more: object) -> None:
        read[record_id] += 1
        update(connection, depot, record_id, *more)  # type: ignore[arg-type]

    monkeypatch.setattr(syncing, "update_record", counted)
    result = many.forget(Policy(last=1))
    assert sum(len(group.removed) for group in result.groups) == NAMES
    assert len(read) == NAMES
    assert set(read.values()) == {1}


def test_each_name_is_read_a_few_times(many: castfs.Store, monkeypatch: pytest.MonkeyPatch) -> None:
    """Not once for each of its versions: they may have thousands."""
    for number in range(20):
        many.set_metadata("n1:v1", {"number": number})
        many.set_alias("n1:v1", f"a{number}")
    read = Counter[Path]()
    original = castfs.catalog.catalog.read_name_file  # type: ignore[attr-defined]

    def counted(path: Path) -> object:
        read[path] += 1
        return original(path)

    monkeypatch.setattr("castfs.catalog.catalog.read_name_file", counted)
    with pytest.raises(castfs.BusyError, match="used by alias"):
        many.remove("n1:v1", "n1:v2")
    many.remove(*(f"n{number}:v1" for number in range(2, NAMES)))
    assert max(read.values()) <= 2


def test_many_aliases_are_one_write(many: castfs.Store, tree: Path) -> None:
    (tree / "model.bin").write_text("another")
    before = len(many.aliases("n1").history)
    many.ingest(tree, name="n1", aliases=[f"a{number}" for number in range(50)])
    assert len(many.aliases("n1").history) == before + 50
    assert many.aliases("n1").aliases["a49"] == 3
