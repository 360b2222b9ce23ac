"""Files that change in ways that the database cannot have been told of, and what survives that."""

from __future__ import annotations

import os
import subprocess
import threading
import time
from pathlib import Path

import pytest

import castfs
from castfs.catalog import changing, freshness, rebuild
from castfs.catalog.files import note_path
from castfs.errors import DamageError, UsageError
from castfs.gc import GcOptions
from castfs.repository import removing
from castfs.repository.publishing import move_alias
from castfs.repository.removing import move_records


@pytest.fixture
def store(tmp_path: Path) -> castfs.Store:
    return castfs.open(tmp_path / "store", create=True)


@pytest.fixture
def tree(tmp_path: Path) -> Path:
    (tmp_path / "tree").mkdir()
    (tmp_path / "tree" / "file").write_text("1")
    return tmp_path / "tree"


def versions(store: castfs.Store) -> list[int]:
    return sorted(record.version or 0 for record in store.iter_snapshots(name="t"))


def take(store: castfs.Store, tree: Path, text: str) -> int | None:
    (tree / "file").write_text(text)
    return store.ingest(tree, name="t").version


def test_a_backup_that_is_put_back(store: castfs.Store, tree: Path, tmp_path: Path) -> None:
    """With the directories' times and the database, which say that all is as it was."""
    take(store, tree, "1")
    subprocess.run(["cp", "-a", store.path, tmp_path / "backup"], check=True)
    time.sleep(0.01)
    take(store, tree, "2")
    subprocess.run(["cp", "-a", f"{tmp_path}/backup/.", store.path], check=True)
    assert versions(store) == [1, 2]
    assert take(store, tree, "3") == 3


@pytest.mark.filterwarnings("ignore:.*fork:DeprecationWarning")
def test_a_child_that_was_forked_meanwhile(store: castfs.Store, tree: Path) -> None:
    """It has the lock's descriptor, and no part in what it is for."""
    inside, leave = threading.Event(), threading.Event()

    def hold() -> None:
        with changing(store.depot), store.depot.locks.shared():
            inside.set()
            leave.wait(20)

    holder = threading.Thread(target=hold)
    holder.start()
    inside.wait(20)
    read, write = os.pipe()
    pid = os.fork()
    if pid == 0:
        os.close(write)
        os.read(read, 1)
        os._exit(0)
    os.close(read)
    try:
        leave.set()
        holder.join(20)
        assert take(store, tree, "1") == 1
        store.gc(GcOptions(grace_seconds=0))
    finally:
        os.close(write)
        os.waitpid(pid, 0)


def test_a_damaged_note_is_said_each_time_and_never_written_over(
    store: castfs.Store, tree: Path
) -> None:
    take(store, tree, "1")
    store.tag("t:v1", "hello")
    note = note_path(store.depot, store.resolve("t:v1").id)
    good = note.read_bytes()
    note.chmod(0o644)
    note.write_text("{bad")
    for _ in range(2):
        os.utime(note.parent.parent / "names")
        with pytest.raises(DamageError):
            list(store.iter_snapshots())
    with pytest.raises(DamageError):
        store.ingest(tree, name="t", tags=["another"])
    assert note.read_text() == "{bad"
    note.write_bytes(good)
    rebuild(store.depot)
    store.tag("t:v1", "second")
    assert store.iter_snapshots(name="t").__next__().tags == ("hello", "second")


@pytest.mark.parametrize("touched", [False, True])
def test_an_ingest_heals_what_is_unchanged(store: castfs.Store, tree: Path, touched: bool) -> None:
    take(store, tree, "1")
    store.depot.manifest_path(store.ingest(tree, name="t").manifest_id).unlink()
    if touched:
        os.utime(tree / "file", (1, 1))
    again = store.ingest(tree, name="t")
    assert again.version == (2 if touched else 1)
    with store.resolve(again.id).open("file") as file:
        assert file.read() == b"1"


def test_a_collection_that_is_interrupted(
    store: castfs.Store, tree: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """After it has emptied the trash."""
    take(store, tree, "1")
    store.set_alias("t:v1", "best")
    store.remove("t:v1", force=True)

    def interrupt(*_: object, **__: object) -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr("castfs.gc.sweep.Sweep._delete_manifests", interrupt)
    with pytest.raises(KeyboardInterrupt):
        store.gc(GcOptions(grace_seconds=0, trash_age_seconds=0, force=True))
    assert store.aliases("t").aliases == {}
    assert [entry.kind for entry in store.log("t")].count("delete") == 1


def test_a_type_that_is_said_later(store: castfs.Store, tree: Path) -> None:
    take(store, tree, "1")
    assert store.ingest(tree, name="t", type="model").unchanged
    with pytest.raises(UsageError, match="is a model"):
        store.ingest(tree, name="t", type="dataset", new_version=True)


def test_a_directory_called_like_a_name(
    store: castfs.Store, tree: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tree.parent)
    (tree / "sub").mkdir()
    (tree / "sub" / "file").write_text("x")
    taken = store.ingest("tree/sub", name="tree/sub")
    assert store.resolve("tree/sub").id == taken.id


@pytest.fixture
def large(monkeypatch: pytest.MonkeyPatch) -> None:
    """A store that has more snapshots than are looked at each time."""
    monkeypatch.setattr(freshness, "LOOKED_AT", 0)


def test_a_change_that_meets_another_one(store: castfs.Store, tree: Path, large: None) -> None:
    """Somebody removes a file while an alias is set: by the directories' times after that."""
    take(store, tree, "1")
    take(store, tree, "2")
    with changing(store.depot) as change:
        move_alias(change, "t", "best", 2)
        store.depot.record_path(store.resolve("t:v1").id).unlink()
    assert versions(store) == [2]


def test_a_removal_that_meets_the_collector(store: castfs.Store, tree: Path, large: None) -> None:
    """It has emptied the trash, and is killed before it can say so."""
    for text in "123":
        take(store, tree, text)
    store.remove("t:v1")
    with changing(store.depot) as change:
        record = change.find_version("t", 2)
        [path] = store.depot.trash_dir.iterdir()
        move_records(change, record)
        path.unlink()
    assert [each.record.version for each in store.iter_deleted()] == [2]
    assert [each.record.version for each in store.iter_versions("t")] == [2, 3]


def test_a_collection_compares_everything(store: castfs.Store, tree: Path, large: None) -> None:
    """Whatever went unnoticed until then."""
    take(store, tree, "1")
    take(store, tree, "2")
    gone = store.depot.record_path(store.resolve("t:v1").id)
    with changing(store.depot) as change:
        change.touch()
        gone.unlink()
    assert versions(store) == [1, 2]
    store.gc()
    assert versions(store) == [2]


def test_undelete_of_what_expires_meanwhile(
    store: castfs.Store, tree: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """All of them, or none."""
    for text in "123":
        take(store, tree, text)
    store.remove("t:v1", "t:v2", "t:v3")
    find = removing._chosen

    def choose(*given: object, **more: object) -> list[castfs.Record]:
        chosen = find(*given, **more)  # type: ignore[arg-type]
        [path] = store.depot.trash_dir.glob(f"*-{chosen[1].id}.json")
        path.unlink()
        return chosen

    monkeypatch.setattr(removing, "_chosen", choose)
    with pytest.raises(castfs.NotFoundError, match="removed meanwhile"):
        store.undelete("t:v1", "t:v2", "t:v3")
    assert versions(store) == []
    assert sorted(each.record.version or 0 for each in store.iter_deleted()) == [1, 3]
