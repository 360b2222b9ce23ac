"""What an ingest says afterwards, limits, rules, records, reproducible ids."""

from __future__ import annotations

import contextlib
import json
import os
import subprocess
import time
from datetime import UTC, datetime
from pathlib import Path

import pytest

import castfs
from castfs.errors import LimitError, SourceError, TargetError
from castfs.ignore import IgnoreOptions
from castfs.ingest import ScanOptions
from castfs.repository import Store
from tests.ingest.taking import Ingest, Take
from tests.store.checking import assert_idle, check_store, read_records


def test_what_is_added_and_what_was_there(source: Path, store: Store, ingest: Ingest) -> None:
    (source / "dir").mkdir()
    (source / "link").symlink_to("dir")
    (source / "one").write_bytes(b"1" * 10)
    (source / "two").write_bytes(b"2" * 20)
    first = ingest()
    assert (first.file_count, first.dir_count, first.symlink_count) == (2, 1, 1)
    assert (first.added_count, first.added_bytes, first.total_size_bytes) == (2, 30, 30)
    assert (first.deduplicated_count, first.deduplicated_bytes, first.new_manifest) == (0, 0, True)
    (source / "three").write_bytes(b"3" * 5)
    (source / "copy").write_bytes(b"1" * 10)
    second = ingest()
    assert (second.added_count, second.added_bytes) == (1, 5)
    assert (second.deduplicated_count, second.deduplicated_bytes) == (3, 40)
    assert [record.id for record in store.iter_snapshots()] == [second.id, first.id]
    check_store(store.path)


def test_an_unchanged_tree_makes_two_records_and_one_manifest(
    source: Path, store: Store, ingest: Ingest
) -> None:
    (source / "file").write_bytes(b"x")
    first, second = ingest(), ingest()
    assert first.manifest_id == second.manifest_id
    assert (first.new_manifest, second.new_manifest) == (True, False)
    assert len(read_records(store.path)) == 2
    assert len(check_store(store.path)) == 1
    assert_idle(store.path)


def test_what_is_recorded(source: Path, store: Store, tmp_path: Path) -> None:
    (source / "file").write_bytes(b"x")
    before = time.time()
    result = store.ingest(
        source,
        output=tmp_path / "copy.json",
        name="sensors",
        tags=["raw", "2024"],
        metadata={"site": "berlin"},
        message="first\nlight",
    )
    [record] = read_records(store.path)
    made = datetime.fromisoformat(record["created_at"])
    assert made.tzinfo == UTC
    assert before - 1 <= made.timestamp() <= time.time() + 1
    assert record["host"] == os.uname().nodename
    wanted = {
        "id": result.id, "manifest": result.manifest_id, "source": str(source), "name": "sensors",
        "tags": ["raw", "2024"], "metadata": {"site": "berlin"}, "message": "first\nlight",
        "file_count": 1, "total_size_bytes": 1, "skipped": [], "version": 1,
    }  # fmt: skip
    assert record.items() >= wanted.items()
    stored = store.path / "manifests" / result.manifest_id[:2] / f"{result.manifest_id}.json"
    assert (tmp_path / "copy.json").read_bytes() == stored.read_bytes()
    document = json.loads(stored.read_bytes())
    assert document["source_path"] == str(source)
    assert before - 1 <= document["created_at"] <= time.time() + 1
    assert store.resolve("sensors").id == result.id


@pytest.mark.needs_root
def test_a_copy_that_cannot_be_written_is_said_and_the_snapshot_stays(
    source: Path, store: Store, small_disk: Path
) -> None:
    (source / "file").write_bytes(b"x")
    with contextlib.suppress(OSError), (small_disk / "filler").open("wb") as filler:
        while True:
            filler.write(bytes(4096))
            filler.flush()
    with pytest.raises(TargetError, match=r"is stored, but .* No space left"):
        store.ingest(source, output=small_disk / "copy.json")
    check_store(store.path)
    assert len(read_records(store.path)) == 1


def test_a_place_for_the_copy_that_cannot_be_is_known_before(
    source: Path, store: Store, tmp_path: Path
) -> None:
    (source / "file").write_bytes(b"x")
    for output in (tmp_path / "missing" / "copy.json", tmp_path, store.path / "castfs.json"):
        with pytest.raises(TargetError):
            store.ingest(source, output=output)
    assert read_records(store.path) == []


@pytest.mark.parametrize(
    ("limits", "passes"),
    [
        ({"max_files": 3}, True), ({"max_files": 2}, False), ({"max_files": 0}, False),
        ({"max_bytes": 60}, True), ({"max_bytes": 59}, False), ({"max_bytes": 0}, False),
        ({"max_files": 3, "max_bytes": 60}, True),
    ],
)  # fmt: skip
def test_limits(
    source: Path, store: Store, ingest: Ingest, limits: dict[str, int], passes: bool
) -> None:
    (source / "sub").mkdir()
    for number, name in enumerate(["a", "b", "sub/c"], 1):
        (source / name).write_bytes(b"x" * 10 * number)
    if passes:
        assert ingest(**limits).file_count == 3
        return
    with pytest.raises(LimitError, match="nothing was stored"):
        ingest(**limits)
    assert read_records(store.path) == []
    assert list(store.path.glob("blobs/??/*")) == []
    assert_idle(store.path)


def test_limits_count_what_is_taken(source: Path, ingest: Ingest) -> None:
    (source / "kept").write_bytes(b"x")
    for number in range(5):
        (source / f"{number}.log").write_bytes(b"x" * 100)
    ignore = IgnoreOptions(exclude=("*.log",))
    assert ingest(max_files=1, max_bytes=1, ignore=ignore).file_count == 1


def test_ignored_by_rule_largest_first(source: Path, ingest: Ingest) -> None:
    (source / ".castignore").write_text("*.log\nbuild/\n")
    (source / "build" / "deep").mkdir(parents=True)
    (source / "build" / "deep" / "big").write_bytes(b"x" * 5000)
    (source / "build" / "small").write_bytes(b"x" * 10)
    (source / "build" / "link").symlink_to("small")
    for number in range(3):
        (source / f"{number}.log").write_bytes(b"x" * 100)
    (source / "kept").write_bytes(b"x")
    result = ingest(ignore=IgnoreOptions(exclude=("nothing",)))
    assert [
        (row.rule.pattern, row.rule.origin, row.entries, row.size_bytes) for row in result.ignored
    ] == [("build/", ".castignore:2", 5, 5010), ("*.log", ".castignore:1", 3, 300)]
    assert result.file_count == 2


def test_everything_ignored_is_an_error(source: Path, store: Store, ingest: Ingest) -> None:
    (source / "a.log").write_bytes(b"x" * 10)
    (source / "b.tmp").write_bytes(b"x" * 100)
    with pytest.raises(SourceError, match=r"everything in .* is ignored, most of it by \*\.tmp"):
        ingest(ignore=IgnoreOptions(exclude=("*.log", "*.tmp")))
    assert read_records(store.path) == []
    assert_idle(store.path)


def git(*words: str, cwd: Path, umask: int = 0o022) -> None:
    subprocess.run(["git", *words], cwd=cwd, check=True, capture_output=True, umask=umask)


def test_reproducible_is_the_same_for_every_clone(tmp_path: Path, store: Store) -> None:
    origin = tmp_path / "origin"
    (origin / "sub").mkdir(parents=True)
    git("init", "-q", cwd=origin)
    (origin / "file").write_bytes(b"x")
    (origin / "sub" / "run").write_bytes(b"#!/bin/sh\n")
    (origin / "sub" / "run").chmod(0o755)
    (origin / "link").symlink_to("file")
    (origin / ".gitignore").write_text("*.log\n")
    git("add", ".", cwd=origin)
    git("-c", "user.name=n", "-c", "user.email=e", "commit", "-qm", "one", cwd=origin)
    clones = [tmp_path / "one", tmp_path / "deeper" / "two"]
    for clone, umask in zip(clones, (0o022, 0o077), strict=True):
        git("clone", "-q", str(origin), str(clone), cwd=tmp_path, umask=umask)
    # Another time, another owner, hard links, junk that is ignored.
    for path in (clones[1], *clones[1].rglob("*")):
        os.utime(path, ns=(10**9, 10**9), follow_symlinks=False)
        os.chown(path, 1000, 1000, follow_symlinks=False)
    (clones[1] / "x.log").write_bytes(b"junk")
    options = ScanOptions(reproducible=True)
    ids = {store.ingest(clone, options=options).manifest_id for clone in clones}
    assert len(ids) == 1
    assert len({store.ingest(clone).manifest_id for clone in clones}) == 2
    tree = store.resolve(ids.pop()).manifest.tree
    modes = {path: entry.mode for path, entry in tree.files.items()}
    modes |= {path: entry.mode for path, entry in tree.dirs.items()}
    assert modes == {b".gitignore": 0o644, b"file": 0o644, b"sub": 0o755, b"sub/run": 0o755}
    assert {entry.mtime_ns for _, entry in tree.iter_entries()} == {tree.root.mtime_ns}
    assert tree.root.mtime_ns == 315_532_800 * 10**9


def test_reproducible_knows_no_hard_links(source: Path, store: Store, tmp_path: Path) -> None:
    (source / "a").write_bytes(b"x")
    os.link(source / "a", source / "b")
    copy = tmp_path / "copy"
    subprocess.run(["cp", "-r", "--no-preserve=links", source, copy], check=True)
    options = ScanOptions(reproducible=True)
    assert (
        store.ingest(source, options=options).manifest_id
        == store.ingest(copy, options=options).manifest_id
    )


def test_a_damaged_record_of_another_tree_is_no_obstacle(
    source: Path, store: Store, ingest: Ingest
) -> None:
    (source / "file").write_bytes(b"x")
    (store.path / "snapshots" / "ffffffffffff000000000000.json").write_bytes(b"{}")
    assert ingest().file_count == 1


@pytest.mark.parametrize("damage", ["empty", "cut", "flipped", "garbage", "header", "missing"])
def test_a_damaged_manifest_is_healed_by_the_same_tree(
    source: Path, store: Store, take: Take, ingest: Ingest, damage: str
) -> None:
    (source / "file").write_bytes(b"x")
    first = ingest()
    path = store.path / "manifests" / first.manifest_id[:2] / f"{first.manifest_id}.json"
    raw = path.read_bytes()
    path.unlink()
    changed = {
        "empty": b"",
        "cut": raw[:-5],
        "flipped": raw.replace(b'"size_bytes":1', b'"size_bytes":3'),
        "garbage": b"\xff{" * 50,
        "header": raw.replace(b'"file_count":1', b'"file_count":2'),
    }
    if damage != "missing":
        path.write_bytes(changed[damage])
    snapshot = take()
    assert snapshot.manifest.id == first.manifest_id
    check_store(store.path)


def test_a_source_may_be_named_in_any_way_by_the_public_api(tmp_path: Path) -> None:
    """As str, Path, bytes-like names; a store at a relative path."""
    (tmp_path / "d").mkdir()
    (tmp_path / "d" / "f").write_bytes(b"x")
    store = castfs.open(str(tmp_path / "new" / "store"), create=True)
    assert store.created
    assert store.ingest(str(tmp_path / "d")).manifest_id == store.ingest(tmp_path / "d").manifest_id
