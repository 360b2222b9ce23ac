"""Version numbers only grow, and what is the same is no new version."""

from __future__ import annotations

import os
from collections.abc import Callable
from pathlib import Path

import pytest

import castfs
from castfs.catalog import rebuild
from castfs.gc import GcOptions
from castfs.repository.drafting import Draft
from castfs.repository.publishing import Details
from tests.catalog.conftest import Versions, numbers

EMPTY_TRASH = GcOptions(grace_seconds=0, trash_age_seconds=0)


def forget_database(store: castfs.Store) -> None:
    for file in store.path.glob("catalog.db*"):
        file.unlink()


def remove_permanently(store: castfs.Store) -> None:
    store.remove_for_good("m:v3")


def expire(store: castfs.Store) -> None:
    store.remove("m:v3")
    store.gc(EMPTY_TRASH)


def remove_softly(store: castfs.Store) -> None:
    store.remove("m:v3")


@pytest.mark.parametrize("take_away", [remove_softly, remove_permanently, expire])
@pytest.mark.parametrize("database", ["kept", "deleted", "rebuilt"])
def test_no_number_comes_again(
    versions: Versions, take_away: Callable[[castfs.Store], None], database: str
) -> None:
    store = versions.store
    assert versions.make(count=3) == [1, 2, 3]
    take_away(store)
    if database == "deleted":
        forget_database(store)
    elif database == "rebuilt":
        assert rebuild(store.depot) >= 2
    latest = store.resolve("m").record
    assert latest is not None
    assert latest.version == 2, "the highest version that is not deleted"
    assert versions.make(count=2) == [4, 5]


@pytest.mark.parametrize("database", ["kept", "deleted"])
def test_no_number_comes_again_after_all_are_gone(versions: Versions, database: str) -> None:
    versions.make(count=2)
    versions.store.remove_for_good("m", all_versions=True)
    if database == "deleted":
        forget_database(versions.store)
    with pytest.raises(castfs.NotFoundError, match=r"no version of m is left .*; the last was v2"):
        list(versions.store.iter_versions("m"))
    assert versions.make() == [3]


def test_no_number_comes_again_without_the_names_file(versions: Versions) -> None:
    """Records say their numbers, too."""
    versions.make(count=3)
    forget_database(versions.store)
    for file in (versions.store.path / "names").iterdir():
        file.unlink()
    assert versions.make() == [4]


def test_undeleted_version_is_as_before(versions: Versions) -> None:
    store = versions.store
    versions.make(count=3)
    store.tag("m:v3", "good")
    before = store.resolve("m:v3").record
    store.remove("m:v3")
    with pytest.raises(castfs.NotFoundError, match="trash"):
        store.resolve("m:v3")
    assert [each.status for each in store.iter_versions("m")] == ["ready", "ready", "deleted"]
    assert versions.make() == [4]
    store.undelete("m:v3")
    assert store.resolve("m:v3").record == before
    assert numbers(store) == [1, 2, 3, 4]
    assert {each.deleted_at for each in store.iter_versions("m")} == {None}


def test_an_importer_may_fill_gaps_alone(versions: Versions) -> None:
    """It says the number; one that a version has, also in the trash, means that one."""
    store = versions.store
    versions.make(count=2)
    store.remove("m:v2")

    def put(number: int) -> None:
        with Draft(store.depot, "test") as draft:
            draft.add_bytes(b"file", str(number).encode())
            draft.commit(Details(name="m", version=number))

    for number in (1, 2):
        with pytest.raises(castfs.UsageError, match=f"there is a m:v{number} already"):
            put(number)
    put(5)
    put(4)
    assert numbers(store) == [1, 2, 4, 5]
    assert versions.make() == [6]


# What is no change ----------------------------------------------------------------------------


def touch(tree: Path) -> None:
    for path in (tree / "model.bin", tree / "sub", tree):
        os.utime(path, ns=(1, 1))
    os.utime(tree / "sub" / "link", ns=(1, 1), follow_symlinks=False)


def rewrite(tree: Path) -> None:
    (tree / "new").write_text("0")
    (tree / "new").replace(tree / "model.bin")


def change_mode(tree: Path) -> None:
    (tree / "model.bin").chmod(0o755)


def change_directory_mode(tree: Path) -> None:
    (tree / "sub").chmod(0o700)


def change_root_mode(tree: Path) -> None:
    tree.chmod(0o700)


def change_target(tree: Path) -> None:
    (tree / "sub" / "link").unlink()
    (tree / "sub" / "link").symlink_to("../other")


def change_content(tree: Path) -> None:
    status = (tree / "model.bin").stat()
    (tree / "model.bin").write_text("1")
    os.utime(tree / "model.bin", ns=(status.st_atime_ns, status.st_mtime_ns))


def change_type(tree: Path) -> None:
    (tree / "sub" / "link").unlink()
    (tree / "sub" / "link").write_text("../model.bin")


def rename(tree: Path) -> None:
    (tree / "model.bin").rename(tree / "renamed.bin")


def add_empty_directory(tree: Path) -> None:
    (tree / "empty").mkdir()


def nothing(tree: Path) -> None:
    pass


@pytest.mark.parametrize("change", [nothing, touch, rewrite])
def test_the_same_is_no_version(
    store: castfs.Store, tree: Path, change: Callable[[Path], None]
) -> None:
    first = store.ingest(tree, name="m")
    change(tree)
    again = store.ingest(tree, name="m")
    assert (again.unchanged, again.version, again.id) == (True, 1, first.id)
    assert again.manifest_id == first.manifest_id
    forced = store.ingest(tree, name="m", new_version=True)
    assert (forced.unchanged, forced.version) == (False, 2)


@pytest.mark.parametrize(
    "change",
    [
        change_mode, change_directory_mode, change_root_mode, change_target, change_content,
        change_type, rename, add_empty_directory,
    ],
)  # fmt: skip
def test_what_differs_is_a_version(
    store: castfs.Store, tree: Path, change: Callable[[Path], None]
) -> None:
    store.ingest(tree, name="m")
    change(tree)
    again = store.ingest(tree, name="m")
    assert (again.unchanged, again.version) == (False, 2)


def test_it_is_the_latest_that_counts(store: castfs.Store, tree: Path) -> None:
    store.ingest(tree, name="m")
    change_content(tree)
    store.ingest(tree, name="m")
    (tree / "model.bin").write_text("0")
    assert store.ingest(tree, name="m").version == 3, "as v1 was, but v2 came between"
    store.remove("m:v3")
    assert store.ingest(tree, name="m").version == 4, "v2 is the latest now"


def test_what_else_is_said_goes_to_the_version(store: castfs.Store, tree: Path) -> None:
    store.ingest(tree, name="m", tags=["a"], metadata={"k": 1, "x": [1, {"y": None}]})
    again = store.ingest(tree, name="m", tags=["b"], metadata={"k": 2}, aliases=["best"])
    assert again.unchanged
    for database in ("kept", "deleted"):
        record = store.resolve("m:best").record
        assert record is not None
        assert record.tags == ("a", "b")
        assert record.metadata == {"k": 2, "x": [1, {"y": None}]}
        if database == "kept":
            forget_database(store)


def test_a_copy_of_the_manifest_is_the_one_that_is_recorded(
    store: castfs.Store, tree: Path, tmp_path: Path
) -> None:
    first = store.ingest(tree, name="m")
    touch(tree)
    store.ingest(tree, name="m", output=tmp_path / "copy.json")
    assert store.resolve(str(tmp_path / "copy.json")).manifest_id == first.manifest_id


def test_a_first_version_that_failed_reserves_no_type(
    store: castfs.Store, tree: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def fail(*_: object) -> None:
        raise castfs.StoreError("the disk is full")

    with monkeypatch.context() as patch:
        patch.setattr("castfs.store.session.WriteSession.publish_record", fail)
        with pytest.raises(castfs.StoreError):
            store.ingest(tree, name="raw", type="dataset")
    taken = store.ingest(tree, name="raw", type="model")
    assert taken.version == 2
    assert [record.type for record in store.iter_snapshots()] == ["model"]
    with pytest.raises(castfs.UsageError, match="is a model"):
        store.ingest(tree, name="raw", type="dataset", new_version=True)
