"""gc: figures against bytes that were counted by hand, and what stops it."""

from __future__ import annotations

import contextlib
import fcntl
import os
import time
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

import pytest

import castfs as api
from castfs import syscalls
from castfs.digest import Digest
from castfs.progress import Progress
from castfs.store import Depot, WriteSession, open_depot, pin_manifest
from tests.cli.conftest import Run, one_line

#: What differs between two runs that did the same.
TIMES = {"dry_run", "seconds", "longest_hold_seconds"}


def without_times(document: dict[str, Any]) -> dict[str, Any]:
    return {name: value for name, value in document.items() if name not in TIMES}


def files(store: Path) -> dict[str, int]:
    """Every file of a store with its size, but those that only lock."""
    return {
        str(path.relative_to(store)): path.lstat().st_size
        for path in store.rglob("*")
        if not path.is_dir() and path.parent != store
    }


def put(depot: Depot, content: bytes) -> Path:
    """A blob that nothing refers to."""
    with WriteSession(depot, purpose="test") as session:
        digest = session.stage_bytes(content).digest
        session.commit_blobs()
    return depot.blobs.path / depot.blobs.name(digest)


def backdate(*paths: Path) -> None:
    for path in paths:
        os.utime(path, (1, 1))


@pytest.fixture
def stray(castfs: Run, taken: str, store: Path) -> Path:
    """A blob of 5 bytes that a collection with a grace of an hour deletes."""
    path = put(open_depot(store), b"stray")
    backdate(path)
    return path


@dataclass
class Kept:
    """A store where each keeper keeps a content that no other one does."""

    store: Path
    garbage: Path


@pytest.fixture
def kept(castfs: Run, tmp_path: Path, store: Path) -> Iterator[Kept]:
    source = tmp_path / "source"
    source.mkdir()

    def take(**sizes: int) -> tuple[str, Digest]:
        for name, size in sizes.items():
            (source / name).write_bytes(name[:1].encode() * size)
        done = castfs("ingest", "--json", source).json
        for name in sizes:
            (source / name).unlink()
        return done["id"], Digest(done["manifest_id"])

    with contextlib.ExitStack() as stack:
        take(shared=500, alive=1000)
        trashed, _ = take(shared=500, trashed=2000)
        castfs("rm", trashed)
        read, manifest = take(shared=500, read=4000)
        depot = open_depot(store)
        stack.enter_context(pin_manifest(depot, manifest, purpose="test"))
        castfs("rm", "--permanent", "--yes", read)
        session = stack.enter_context(WriteSession(depot, purpose="test"))
        written = session.stage_bytes(b"w" * 8000).digest
        session.commit_blobs()
        garbage = put(depot, b"g" * 32000)
        backdate(*(path for path in store.rglob("blobs/??/*")), garbage)
        assert (depot.blobs.path / depot.blobs.name(written)).stat().st_mtime == 1
        put(depot, b"y" * 16000)
        yield Kept(store, garbage)


AMOUNTS = {
    "snapshots": {"count": 2, "bytes": 1500},
    "trash": {"count": 1, "bytes": 2000},
    "readers": {"count": 1, "bytes": 4000},
    "ingests": {"count": 1, "bytes": 8000},
    "grace": {"count": 1, "bytes": 16000},
}


def test_figures(castfs: Run, kept: Kept) -> None:
    planned = castfs("gc", "--dry-run", "--json").json
    before = files(kept.store)
    assert castfs("gc", "-n", "--json").json["dry_run"] is True
    assert files(kept.store) == before
    done = castfs("gc", "--json").json
    assert done["kept"] == AMOUNTS
    assert done["deleted"] == {"count": 1, "bytes": 32000}
    assert done["scanned"] == {"count": 7, "bytes": 63500}
    assert (done["snapshot_count"], done["trash_count"], done["deleted_manifests"]) == (1, 1, 0)
    assert (done["expired"], done["held"]) == ([], [])
    assert done["unfinished"] == {"count": 0, "bytes": 0}
    assert without_times(planned) == without_times(done)
    assert set(before) - set(files(kept.store)) == {str(kept.garbage.relative_to(kept.store))}


def test_text(castfs: Run, kept: Kept) -> None:
    """Each line that says what is kept says what frees it."""
    planned = castfs("gc", "--dry-run").text.splitlines()[:-1]
    *lines, took = castfs("gc").text.splitlines()
    assert [line.removeprefix("would be ").split() for line in planned] == [
        line.split() for line in lines
    ]
    assert [line for line in planned if line.startswith("would be ")] == [
        "would be deleted   1 blob, 31.2 KiB freed, 0 manifests"
    ]
    assert {line[:17].strip(): line[17:].strip() for line in lines} == {
        "snapshots": "1, and 1 in the trash",
        "scanned": "7 blobs, 62.0 KiB",
        "deleted": "1 blob, 31.2 KiB freed, 0 manifests",
        "kept by snapshots": "2 blobs, 1.46 KiB",
        "kept by trash": "1 blob, 1.95 KiB (`castfs gc --trash-age 0s` empties the trash)",
        "kept by readers": "1 blob, 3.91 KiB (until they end: `castfs mounts`, `castfs umount`)",
        "kept by ingests": "1 blob, 7.81 KiB (until they end)",
        "kept by grace": "1 blob, 15.6 KiB (`castfs gc --grace 0s` frees what is not needed of it)",
    }
    assert took.startswith("time ")


def test_the_advice_is_true(castfs: Run, kept: Kept) -> None:
    """What is said to free something frees it, and only that."""
    result = castfs("gc", "--trash-age", "0s", "--json").json
    assert len(result["expired"]) == 1
    # Its manifest is as young as this test.
    assert result["kept"]["trash"] == {"count": 0, "bytes": 0}
    assert result["kept"]["grace"] == {"count": 2, "bytes": 18000}
    assert castfs("list", "-q", "--deleted").out == b""


def test_grace_ends(castfs: Run, taken: str, store: Path) -> None:
    castfs("rm", "--permanent", "--yes", taken)
    put(open_depot(store), b"young")
    text = castfs("gc", "--force", "--json", "--grace", "1h30m").json
    assert text["kept"]["grace"]["count"] == 5
    assert text["deleted_manifests"] == 0
    done = castfs("gc", "--force", "--json", "--grace", "0s").json
    assert (done["deleted"]["count"], done["deleted_manifests"]) == (5, 1)
    assert [name for name in files(store) if name.startswith(("blobs", "manifests"))] == []


def test_trash_age(castfs: Run, taken: str, store: Path) -> None:
    castfs("rm", taken)
    assert castfs("gc", "--trash-age", "1h", "--json").json["trash_count"] == 1
    [path] = (store / "trash").iterdir()
    path.rename(path.with_name(f"{1:012x}{path.name[12:]}"))
    planned = castfs("gc", "--trash-age", "1y", "--grace", "0s", "--dry-run").text
    assert "would be expired 1 deleted snapshot" in " ".join(planned.split())
    done = castfs("gc", "--grace", "0s", "--json").json  # 30 days, if nothing is said
    assert done["expired"] == [taken]
    assert done["deleted"] == {"count": 4, "bytes": 32}
    assert castfs("undelete", taken, code=4).out == b""


def test_what_dead_writers_left(castfs: Run, taken: str, store: Path) -> None:
    left = store / "staging" / "w-0123456789abcdef"
    left.mkdir()
    (left / "part-1-0").write_bytes(b"x" * 3000)
    result = castfs("gc", "--dry-run", "--json").json
    assert result["unfinished"] == {"count": 1, "bytes": 3000}
    assert "1 file, 2.93 KiB of writers that died would be removed" in castfs("gc", "-n").text
    assert castfs("gc", "--json").json["unfinished"] == {"count": 1, "bytes": 3000}
    assert list((store / "staging").iterdir()) == []


def test_a_blob_with_another_name_frees_nothing(castfs: Run, stray: Path, tmp_path: Path) -> None:
    os.link(stray, tmp_path / "elsewhere")
    assert castfs("gc", "-n", "--json").json["deleted"] == {"count": 1, "bytes": 0}
    assert castfs("gc", "--json").json["deleted"] == {"count": 1, "bytes": 0}
    assert not stray.exists()
    assert (tmp_path / "elsewhere").read_bytes() == b"stray"


# When it refuses --------------------------------------------------------------------------------


def test_nothing_refers_to_anything(castfs: Run, taken: str, store: Path) -> None:
    castfs("rm", "--permanent", "--yes", taken)
    before = files(store)
    for args in ([], ["--grace", "0s"], ["--dry-run"]):
        line = one_line(castfs("gc", *args, code=1).err)
        assert "refers to any of its 4 blobs" in line
        assert line.endswith("give --force if that is what you want")
    assert files(store) == before
    castfs("gc", "--force")
    assert files(store) == before, "--force does not shorten the grace"
    castfs("gc", "--force", "--grace", "0s")
    castfs("gc")  # an empty store is nothing to be asked about


def test_a_snapshot_in_the_trash_is_enough(castfs: Run, taken: str) -> None:
    castfs("rm", taken)
    result = castfs("gc", "--grace", "0s", "--trash-age", "0s", "--json").json
    assert result["deleted"]["count"] == 4


def test_force_changes_nothing_else(castfs: Run, kept: Kept) -> None:
    planned = castfs("gc", "--dry-run", "--json").json
    assert without_times(castfs("gc", "--force", "--json").json) == without_times(planned)


@pytest.mark.parametrize("args", [[], ["--dry-run"], ["--force"]], ids=" ".join)
def test_another_collector(castfs: Run, stray: Path, store: Path, args: list[str]) -> None:
    with (store / "gc.lock").open("rb") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        line = one_line(castfs("gc", *args, code=11).err)
        assert line.startswith("castfs: another collector is at work in ")
        assert stray.exists()
    castfs("gc")
    assert not stray.exists()


def test_no_store(castfs: Run, store: Path, tmp_path: Path) -> None:
    one_line(castfs("gc", code=10).err)
    assert not store.exists()
    (tmp_path / "blobs" / "aa").mkdir(parents=True)
    (tmp_path / "blobs" / "aa" / ("aa" * 32)).touch()
    one_line(castfs("gc", "--store", tmp_path, "--force", "--grace", "0s", code=10).err)
    assert (tmp_path / "blobs" / "aa" / ("aa" * 32)).exists()


def test_a_network_store(
    castfs: Run, stray: Path, monkeypatch: pytest.MonkeyPatch, store: Path
) -> None:
    monkeypatch.setattr(syscalls, "is_local", lambda fd: False)
    for args in ([], ["--force"], ["--dry-run"]):
        line = one_line(castfs("gc", *args, code=1).err)
        assert str(store) in line
        assert "--network-store" in line
    assert stray.exists()
    castfs("gc", "--network-store")
    assert not stray.exists()


def ruin_record(store: Path) -> Path:
    [path] = (store / "snapshots").iterdir()
    path.chmod(0o644)
    path.write_text("{")
    return path


def ruin_trash(store: Path) -> Path:
    path = store / "trash" / f"{time.time_ns() // 10**6:012x}-{'0' * 24}.json"
    path.write_text("{}")
    return path


def record_that_is_a_directory(store: Path) -> Path:
    path = store / "snapshots" / f"{'0' * 24}.json"
    path.mkdir()
    return path


def record_that_leads_nowhere(store: Path) -> Path:
    path = store / "snapshots" / f"{'0' * 24}.json"
    path.symlink_to("on-a-disk-that-is-away")
    return path


def trash_that_leads_nowhere(store: Path) -> Path:
    path = store / "trash" / f"{time.time_ns() // 10**6:012x}-{'0' * 24}.json"
    path.symlink_to("on-a-disk-that-is-away")
    return path


def ruin_manifest(store: Path) -> Path:
    """One content less: still JSON, but of another tree."""
    [path] = (store / "manifests").glob("??/*")
    path.chmod(0o644)
    path.write_text(path.read_text().replace('"a.txt"', '"b.txt"'))
    return path


def lose_manifest(store: Path) -> Path:
    [path] = (store / "manifests").glob("??/*")
    path.unlink()
    return path


def ruin_lease(store: Path) -> Path:
    path = store / "leases" / "r-0123456789abcdef.lease"
    path.mkdir()
    return path


def stranger_among(directory: Literal["snapshots", "trash", "leases"], store: Path) -> Path:
    path = store / directory / "notes.txt"
    path.touch()
    return path


ROOTS = {
    "record": ruin_record,
    "record, a directory": record_that_is_a_directory,
    "record, a symlink": record_that_leads_nowhere,
    "trash": ruin_trash,
    "trash, a symlink": trash_that_leads_nowhere,
    "manifest": ruin_manifest,
    "no manifest": lose_manifest,
    "lease": ruin_lease,
    "stranger in snapshots": lambda store: stranger_among("snapshots", store),
    "stranger in trash": lambda store: stranger_among("trash", store),
    "stranger in leases": lambda store: stranger_among("leases", store),
}


@pytest.mark.parametrize("ruin", ROOTS.values(), ids=ROOTS)
def test_a_root_that_nobody_can_read(castfs: Run, stray: Path, store: Path, ruin: Any) -> None:
    """It is named, and nothing is deleted, whatever the options."""
    path = ruin(store)
    before = files(store)
    for args in ([], ["--force", "--grace", "0s"], ["--dry-run"], ["--json"]):
        result = castfs("gc", *args, code=5)
        assert result.out == b""
        assert str(path) in one_line(result.err)
    assert files(store) == before
    assert path.stem in castfs("verify", code=5).text, "verify names it, too"


def test_a_lease_in_use_that_says_nothing(castfs: Run, stray: Path, store: Path) -> None:
    path = store / "leases" / "w-0123456789abcdef.lease"
    with path.open("wb") as lease:
        lease.write(b"torn")
        lease.flush()
        fcntl.flock(lease, fcntl.LOCK_EX)
        assert str(path) in one_line(castfs("gc", "--force", code=5).err)
        assert stray.exists()
    castfs("gc")  # its owner is dead: it is none
    assert not stray.exists()
    assert not path.exists()


def test_what_nfs_leaves_is_no_stranger(castfs: Run, stray: Path, store: Path) -> None:
    for directory in ("snapshots", "trash", "leases"):
        (store / directory / ".nfs000000000001").touch()
    castfs("gc")
    assert not stray.exists()


USAGE = [
    ["--grace", "1"],
    ["--grace", "-1s"],
    ["--grace", ""],
    ["--grace", "soon"],
    ["--grace", "1h30"],
    ["--grace", "9999y"],
    ["--trash-age", "30"],
    ["--trash-age", "1mo"],
    ["--every", "0"],
    ["--every", "0.5s"],
    ["--every", "daily"],
    ["--every", "1h", "--dry-run"],
    ["somewhere"],
]


@pytest.mark.parametrize("args", USAGE, ids=" ".join)
def test_usage(castfs: Run, stray: Path, args: list[str]) -> None:
    result = castfs("gc", *args, code=2)
    assert result.out == b""
    assert ";" in one_line(result.err), "no hint"
    assert stray.exists()


@pytest.mark.parametrize("age", ["0", "0s", "90s", "1h30m", "1.5h", "1 d 2 h", "2W", "1000y"])
def test_ages(castfs: Run, stray: Path, age: str) -> None:
    castfs("gc", "--grace", age, "--trash-age", age)
    assert stray.exists() == (age == "1000y")


class Phases(Progress):
    """What a bar is told."""

    def __init__(self) -> None:
        self.phases: list[tuple[str, int | None]] = []
        self.done = 0

    def phase(
        self, name: str, *, total: int | None = None, unit: Literal["files", "bytes"] = "files"
    ) -> None:
        self.phases.append((name, total))
        self.done = 0

    def advance(self, count: int, size: int = 0) -> None:
        self.done += count


def test_progress(stray: Path, store: Path) -> None:
    seen = Phases()
    api.open(store).gc(progress=seen)
    assert seen.phases == [("reading snapshots", None), ("looking at blobs", None), ("deleting", 1)]
    assert seen.done == 1
