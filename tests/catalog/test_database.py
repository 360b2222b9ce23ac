"""The database is an index: whatever becomes of it, the files answer."""

from __future__ import annotations

import contextlib
import fcntl
import os
import shutil
import sqlite3
import subprocess
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

import castfs
from castfs.catalog import catalog, freshness, opening, rebuild
from tests.catalog.conftest import Versions, numbers
from tests.catalog.test_versions import forget_database
from tests.store.processes import run_python


@pytest.fixture
def filled(versions: Versions) -> castfs.Store:
    """Three versions, one in the trash, an alias, a tag, metadata, an unnamed snapshot."""
    store = versions.store
    versions.make(count=3)
    store.set_alias("m:v1", "best")
    store.tag("m:v3", "good")
    store.set_metadata("m:v3", {"acc": 0.5, "data": "m:v1"})
    store.remove("m:v2")
    store.ingest(versions.tree)
    return store


def answers(store: castfs.Store) -> list[object]:
    return [
        list(store.iter_snapshots()),
        list(store.iter_deleted()),
        list(store.iter_versions("m")),
        list(store.iter_artifacts()),
        list(store.log()),
        store.aliases("m"),
        [record.id for record in store.search("acc=0.5")],
        store.resolve("m:best").record,
        store.resolve("m").record,
    ]


def database(store: castfs.Store) -> Path:
    return store.path / "catalog.db"


def nothing(store: castfs.Store) -> None:
    pass


def write_garbage(store: castfs.Store) -> None:
    forget_database(store)
    database(store).write_bytes(b"no database\n" * 1000)


def damage_pages(store: castfs.Store) -> None:
    """Whole at its beginning, as after a disk's error."""
    sqlite3.connect(database(store)).close()  # no log is left
    raw = bytearray(database(store).read_bytes())
    raw[4096:] = os.urandom(len(raw) - 4096)
    database(store).write_bytes(raw)


def cut(store: castfs.Store) -> None:
    sqlite3.connect(database(store)).close()
    os.truncate(database(store), 5000)


def empty(store: castfs.Store) -> None:
    forget_database(store)
    database(store).touch()


def make_newer(store: castfs.Store) -> None:
    execute(store, "PRAGMA user_version=999")


def make_foreign(store: castfs.Store) -> None:
    execute(store, "UPDATE state SET value = 'of another store' WHERE key = 'store'")


def say_nonsense(store: castfs.Store) -> None:
    """As an unfinished change leaves it."""
    execute(store, "UPDATE records SET version = version + 10")
    execute(store, "UPDATE state SET value = 1 WHERE key = 'dirty'")
    execute(store, "UPDATE records SET stamp = x''")


def put_directory_there(store: castfs.Store) -> None:
    forget_database(store)
    database(store).mkdir()


def execute(store: castfs.Store, statement: str) -> None:
    with contextlib.closing(sqlite3.connect(database(store))) as connection:
        connection.execute(statement)
        connection.commit()


@pytest.mark.parametrize(
    "break_it",
    [
        nothing, forget_database, write_garbage, damage_pages, cut, empty, make_newer,
        make_foreign, say_nonsense, put_directory_there,
    ],
)  # fmt: skip
def test_broken_database(
    filled: castfs.Store, versions: Versions, break_it: Callable[[castfs.Store], None]
) -> None:
    before = answers(filled)
    break_it(filled)
    assert answers(filled) == before
    assert versions.make() == [4]
    filled.set_alias("m:v4", "best")
    assert numbers(filled) == [1, 2, 3, 4]


@pytest.mark.parametrize("looked_at", [0, 1000])
def test_a_page_is_damaged(
    filled: castfs.Store, monkeypatch: pytest.MonkeyPatch, looked_at: int
) -> None:
    """Of a large store it may be met by the question alone: an error, once."""
    before = answers(filled)
    monkeypatch.setattr(freshness, "LOOKED_AT", looked_at)
    with contextlib.closing(sqlite3.connect(database(filled))) as connection:
        [page] = connection.execute(
            "SELECT rootpage FROM sqlite_master WHERE name = 'records'"
        ).fetchone()
        [size] = connection.execute("PRAGMA page_size").fetchone()
        connection.execute("PRAGMA wal_checkpoint(TRUNCATE)")
    with database(filled).open("r+b") as file:
        file.seek((page - 1) * size)
        file.write(b"\xff" * size)
    if not looked_at:
        with pytest.raises(castfs.DamageError, match="run the command again"):
            filled.resolve("m:best")
    assert answers(filled) == before
    assert database(filled).exists()


def test_a_mistake_leaves_the_database_as_it_was(filled: castfs.Store) -> None:
    numbers(filled)
    for mistake in ("nosuch", "m:v9"):
        with pytest.raises(castfs.NotFoundError):
            filled.set_alias(mistake, "x")
    with contextlib.closing(sqlite3.connect(database(filled))) as connection:
        assert connection.execute("SELECT value FROM state WHERE key='dirty'").fetchone() == (0,)


def test_rebuild(filled: castfs.Store) -> None:
    before = answers(filled)
    say_nonsense(filled)
    assert rebuild(filled.depot) == 4
    assert answers(filled) == before


def test_a_copied_store_is_another_place(filled: castfs.Store, tmp_path: Path) -> None:
    before = answers(filled)
    subprocess.run(["cp", "-a", filled.path, tmp_path / "copy"], check=True)
    assert answers(castfs.open(tmp_path / "copy")) == before


# What others do to the files --------------------------------------------------------------------


def take_record_away(store: castfs.Store, record_id: str) -> None:
    (store.path / "snapshots" / f"{record_id}.json").unlink()


def test_a_record_that_somebody_takes_away(filled: castfs.Store) -> None:
    record = filled.resolve("m:v3").record
    assert record is not None
    take_record_away(filled, record.id)
    assert numbers(filled) == [1, 2]
    assert [info.latest for info in filled.iter_artifacts()] == [1]


def test_records_that_come_by_cp(filled: castfs.Store, tmp_path: Path) -> None:
    before = answers(filled)
    backup = tmp_path / "backup"
    shutil.copytree(filled.path, backup)
    filled.remove_for_good("m", all_versions=True, force=True)
    assert list(filled.iter_artifacts()) == []
    for room in ("snapshots", "trash", "names", "notes", "manifests", "blobs"):
        subprocess.run(["cp", "-a", f"{backup}/{room}", filled.path], check=True)
    assert answers(filled)[:4] == before[:4]


def test_a_names_file_of_yesterday(filled: castfs.Store, tmp_path: Path) -> None:
    """Restored from a backup by a rename, as rsync does it."""
    [file] = (filled.path / "names").iterdir()
    shutil.copy2(file, tmp_path / "old")
    filled.set_alias("m:v3", "best")
    assert filled.aliases("m").aliases == {"best": 3}
    shutil.copy2(tmp_path / "old", file.with_name("temp"))
    file.with_name("temp").replace(file)
    assert filled.aliases("m").aliases == {"best": 1}


def test_a_damaged_record(filled: castfs.Store) -> None:
    record = filled.resolve("m:v3").record
    assert record is not None
    path = filled.path / "snapshots" / f"{record.id}.json"
    good = path.read_bytes()
    path.chmod(0o644)
    path.write_bytes(good[:20])
    with pytest.raises(castfs.DamageError, match=record.id):
        filled.resolve("m")
    seen = []
    listing = filled.iter_versions("m")
    seen += [next(listing).record.version, next(listing).record.version]
    with pytest.raises(castfs.DamageError, match=record.id):
        next(listing)
    assert seen == [1, 2], "what is readable comes first"
    meant = filled.resolve("m:v1").record
    assert meant is not None, "a number says what it means"
    path.write_bytes(good)
    assert numbers(filled) == [1, 2, 3]


def test_a_damaged_names_file(filled: castfs.Store, versions: Versions) -> None:
    [file] = (filled.path / "names").iterdir()
    good = file.read_bytes()
    file.chmod(0o644)
    file.write_bytes(b"{}")
    os.utime(file.parent)  # what a rename would have done
    for ask in (
        lambda: filled.aliases("m"),
        lambda: filled.resolve("m:best"),
        lambda: filled.set_alias("m:v3", "best"),
        lambda: filled.remove("m:v1"),
        lambda: versions.make(),
    ):
        with pytest.raises(castfs.DamageError, match="names/"):
            ask()
    latest = filled.resolve("m").record
    assert latest is not None, "it says nothing of which snapshots there are"
    assert latest.version == 3
    messages = [problem.message for problem in filled.verify().problems]
    assert len(messages) == 1
    assert "names/" in messages[0]
    file.write_bytes(good)
    os.utime(file.parent)
    assert filled.aliases("m").aliases == {"best": 1}
    assert filled.verify().status == "clean"


def test_a_damaged_note_is_not_written_over(filled: castfs.Store) -> None:
    [note] = (filled.path / "notes").iterdir()
    note.chmod(0o644)
    note.write_bytes(b"{")
    os.utime(note.parent)
    with pytest.raises(castfs.DamageError, match="notes/"):
        filled.tag("m:v3", "more")
    assert note.read_bytes() == b"{"


_DIES = """
import os, sys
import castfs
from castfs.catalog import changing
from castfs.repository.publishing import move_alias
depot = castfs.open(sys.argv[1]).depot
with changing(depot) as change:
    change.update = lambda: None
    move_alias(change, "m", "best", 3)
    os._exit(0)
"""


def test_who_dies_in_a_change_is_noticed(filled: castfs.Store) -> None:
    """Also where all was so quick that no time of a directory is another."""
    names = filled.path / "names"
    before = names.stat()
    run_python(_DIES, filled.path)
    os.utime(names, ns=(before.st_atime_ns, before.st_mtime_ns))
    assert filled.aliases("m").aliases == {"best": 3}


# Where it cannot be written ---------------------------------------------------------------------


@pytest.fixture
def read_only(filled: castfs.Store) -> Iterator[castfs.Store]:
    """The same store through a read-only bind mount."""
    path = filled.path.with_name("read-only")
    path.mkdir()
    subprocess.run(["mount", "--bind", filled.path, path], check=True)
    try:
        subprocess.run(["mount", "-o", "remount,bind,ro", path], check=True)
        yield castfs.open(path)
    finally:
        subprocess.run(["umount", "-l", path], check=True, timeout=10)


@pytest.mark.needs_root
@pytest.mark.parametrize("break_it", [nothing, forget_database, write_garbage, say_nonsense])
def test_read_only_store(
    filled: castfs.Store, read_only: castfs.Store, break_it: Callable[[castfs.Store], None]
) -> None:
    before = answers(filled)
    break_it(filled)
    assert answers(read_only) == before
    with pytest.raises(castfs.StoreError, match="read-only"):
        read_only.set_alias("m:v3", "best")
    with pytest.raises(castfs.StoreError, match="read-only"):
        read_only.tag("m:v3", "x")


def fill_up(path: Path) -> None:
    with path.open("wb", buffering=0) as file, contextlib.suppress(OSError):
        while True:
            file.write(bytes(4096))


@pytest.mark.needs_root
@pytest.mark.parametrize("database", ["kept", "deleted"])
def test_full_disk(small_disk: Path, tree: Path, database: str) -> None:
    store = castfs.open(small_disk / "store", create=True)
    versions = Versions(store, tree)
    versions.make(count=2)
    store.set_alias("m:v1", "best")
    before = list(store.iter_versions("m"))
    if database == "deleted":
        forget_database(store)
    fill = small_disk / "fill"
    fill_up(fill)
    assert list(store.iter_versions("m")) == before
    with pytest.raises(castfs.StoreError, match="free some space"):
        store.set_alias("m:v2", "best")
    with pytest.raises(castfs.StoreError, match="free some space"):
        store.tag("m:v2", "x")
    assert list(store.iter_versions("m")) == before
    assert store.aliases("m").aliases == {"best": 1}
    # What gives space back works.
    store.remove("m:v2")
    store.remove_for_good("m:v2")
    fill.unlink()
    assert versions.make() == [3]
    assert numbers(store) == [1, 3]


# While somebody changes it -----------------------------------------------------------------------


@pytest.fixture
def stopped(filled: castfs.Store) -> Iterator[None]:
    """Somebody is in the middle of a change, and does not go on."""
    execute(filled, "UPDATE state SET value = 1 WHERE key = 'dirty'")
    fd = os.open(filled.path / "catalog.lock", os.O_RDWR | os.O_CLOEXEC)
    try:
        fcntl.flock(fd, fcntl.LOCK_EX)
        yield
    finally:
        os.close(fd)


def test_readers_do_not_wait_for_ever(
    filled: castfs.Store, stopped: None, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(catalog, "_PATIENCE_SECONDS", 0.05)
    assert numbers(filled) == [1, 2, 3]
    record = filled.resolve("m:best").record
    assert record is not None


def test_writers_say_who_is_in_the_way(
    filled: castfs.Store, stopped: None, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(opening, "BUSY_SECONDS", 0.05)
    monkeypatch.setattr(catalog, "_PATIENCE_SECONDS", 0.05)
    with pytest.raises(castfs.BusyError, match=f"is it stopped.*{os.getpid()}"):
        filled.tag("m:v3", "x")
