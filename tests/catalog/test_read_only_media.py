"""A store on a read-only medium answers from its database, while that says what the files say."""

from __future__ import annotations

import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest

import castfs
from castfs.catalog import Catalog, reading

pytestmark = pytest.mark.needs_root


@pytest.fixture
def disk(tmp_path: Path) -> Iterator[Path]:
    image, place = tmp_path / "disk.img", tmp_path / "disk"
    subprocess.run(["mkfs.ext4", "-q", "-I", "256", image, "16M"], check=True)
    place.mkdir()
    subprocess.run(["mount", "-o", "loop", image, place], check=True)
    try:
        yield place
    finally:
        subprocess.run(["umount", "-l", place], check=True)


@pytest.fixture
def store(disk: Path, tmp_path: Path) -> castfs.Store:
    """Three versions, and one alias."""
    store = castfs.open(disk / "store", create=True)
    (tmp_path / "tree").mkdir()
    for number in range(3):
        (tmp_path / "tree" / "file").write_text(str(number))
        store.ingest(tmp_path / "tree", name="a", aliases=["best"] if number == 1 else [])
    return store


def make_read_only(disk: Path) -> None:
    subprocess.run(["mount", "-o", "remount,ro", disk], check=True)


def file_of(store: castfs.Store) -> str:
    """The database's, empty for one in memory."""
    with reading(store.depot) as catalog:
        return _file_of(catalog)


def _file_of(catalog: Catalog) -> str:
    return str(catalog._connection.execute("PRAGMA database_list").fetchone()[2])


def versions(store: castfs.Store) -> list[int | None]:
    return [record.version for record in store.iter_snapshots()]


def test_it_is_used(store: castfs.Store, disk: Path) -> None:
    best = store.resolve("a:v2").record
    make_read_only(disk)
    medium = castfs.open(disk / "store")
    assert file_of(medium) == str(disk / "store" / "catalog.db")
    assert versions(medium) == [3, 2, 1]
    assert medium.resolve("a:best").record == best


@pytest.mark.parametrize("left", ["out of date", "with changes beside it", "missing", "garbage"])
def test_it_is_not_believed(store: castfs.Store, disk: Path, left: str) -> None:
    database = store.path / "catalog.db"
    if left == "out of date":
        (store.path / "snapshots" / f"{store.resolve('a:v3').id}.json").unlink()
    elif left == "with changes beside it":
        database.with_name("catalog.db-wal").write_bytes(b"x")
    elif left == "missing":
        database.unlink()
    else:
        database.write_bytes(b"no database" * 100)
    make_read_only(disk)
    medium = castfs.open(disk / "store")
    assert file_of(medium) == ""
    assert versions(medium) == ([2, 1] if left == "out of date" else [3, 2, 1])
    assert medium.resolve("a:best").record is not None


def test_a_read_only_mount_of_what_others_write(
    store: castfs.Store, disk: Path, tmp_path: Path
) -> None:
    """As containers have it. Its database may change in the middle of a question."""
    place = tmp_path / "bound"
    place.mkdir()
    subprocess.run(["mount", "--bind", store.path, place], check=True)
    try:
        subprocess.run(["mount", "-o", "remount,bind,ro", place], check=True)
        bound = castfs.open(place)
        assert file_of(bound) == ""
        assert versions(bound) == [3, 2, 1]
    finally:
        subprocess.run(["umount", "-l", place], check=True)
