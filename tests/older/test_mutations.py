"""Documents with anything in the place of anything: an import ends, and says what was wrong."""

from __future__ import annotations

import json
import random
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from castfs.older.importing import import_directory
from tests.older.conftest import Made
from tests.older.memory import Memory

#: Mutated copies of each document.
ROUNDS = 12
ANYTHING: tuple[Any, ...] = (
    None, True, False, 0, -1, 1, 7, 2**31, 2**63, 2**64, 10**40, 0.5, 1e308, float("nan"),
    float("inf"), "", ".", "..", "/", "../../etc/passwd", "a/../b", "a\0b", "\ud800", "x" * 5000,
    "d/" * 2000, "v1", "latest", "sha256:", "sha256:" + "a" * 64, "a" * 64, [], {}, [[]], [None],
    {"": None}, {"a": {"b": []}}, [1, "x", {}],
)  # fmt: skip


def places(value: Any, at: tuple[Any, ...] = ()) -> Iterator[tuple[Any, ...]]:
    """The way to every value in a document."""
    yield at
    if isinstance(value, dict | list):
        keys = list(value) if isinstance(value, dict) else range(len(value))
        for key in keys:
            yield from places(value[key], (*at, key))


def mutate(document: Any, chance: random.Random) -> Any:
    at = chance.choice(list(places(document)))
    if not at or chance.random() < 0.02:
        return chance.choice(ANYTHING)
    inner = document
    for key in at[:-1]:
        inner = inner[key]
    kind = chance.randrange(4)
    if kind == 0:
        del inner[at[-1]]
    elif kind == 1 and isinstance(inner, dict):
        inner[str(chance.choice(ANYTHING))[:4000]] = inner.pop(at[-1])
    else:
        inner[at[-1]] = chance.choice(ANYTHING)
    return document


def check(made: Made, name: str) -> None:
    paths = sorted(path for path in made.root.rglob(name) if path.is_file())
    assert paths
    path = paths[0]
    original = path.read_bytes()
    for seed in range(ROUNDS):
        chance = random.Random(f"{name} {seed}")
        document = json.loads(original)
        for _ in range(chance.choice((1, 1, 3))):
            document = mutate(document, chance)
        path.write_text(json.dumps(document))
        memory = Memory()
        first = import_directory(memory, made.root)
        again = import_directory(memory, made.root)
        assert again.versions == (), (seed, document)
        assert set(again.damage) == set(first.damage), (seed, document)
        for entry in first.damage:
            assert entry.reason
        assert memory.versions  # of what the document says nothing
    path.write_bytes(original)


@pytest.mark.parametrize(
    "name",
    [
        *("manifest.json", "metadata.json", "versions.json", "artifacts_created.json"),
        *("meta.json", "artifacts_used.json", "status.json", "summary.json"),
    ],
)
def test_artifacts(artifacts: Made, name: str) -> None:
    check(artifacts, name)


@pytest.mark.parametrize("name", ["assets.json", "meta.json", "status.json"])
def test_assets(newest_assets: Made, name: str) -> None:
    check(newest_assets, name)


def test_manifests(newest_assets: Made) -> None:
    manifest = next((newest_assets.root / "archive/manifests/datasets").rglob("*.json"))
    check(newest_assets, manifest.name)


def test_zips(newest_assets: Made) -> None:
    """Bytes of a zip, as nobody but its digest can tell; so without one."""
    run = newest_assets.root / newest_assets.said["directories"][2]
    path: Path = run / "code_snapshot.zip"
    original = path.read_bytes()
    for seed in range(ROUNDS * 10):
        chance = random.Random(seed)
        raw = bytearray(original)
        for _ in range(chance.choice((1, 2, 8))):
            raw[chance.randrange(len(raw))] = chance.choice((0, 1, 0x50, 0x7F, 0xFF))
        path.write_bytes(raw[: chance.choice((len(raw), len(raw), chance.randrange(len(raw))))])
        for zipped in newest_assets.root.glob("archive/blobs/*/*"):
            zipped.unlink()
        memory = Memory()
        first = import_directory(memory, newest_assets.root)
        again = import_directory(memory, newest_assets.root)
        assert again.versions == (), seed
        assert set(again.damage) == set(first.damage), seed
