"""verify: its exit codes, what it prints, and stores that may not be written."""

from __future__ import annotations

import hashlib
import os
import re
import shutil
import subprocess
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from castfs.verify import hashing
from tests.cli.conftest import HOSTILE_NAMES, TIMEOUT, Run, one_line
from tests.conftest import fuse_mounts_below


def blob(store: Path, content: bytes) -> Path:
    digest = hashlib.sha256(content).hexdigest()
    return store / "blobs" / digest[:2] / digest


def change(path: Path, content: bytes) -> None:
    path.chmod(0o644)
    path.write_bytes(content)


def test_clean(castfs: Run, taken: str) -> None:
    result = castfs("verify", code=0)
    counts, status = result.text.splitlines()
    assert re.fullmatch(r"1 snapshot, 1 manifest, 4 contents looked at in \d+\.\d s", counts)
    assert (status, result.err) == ("clean", "")
    counts = castfs("verify", "--data", code=0).text.splitlines()[0]
    assert "looked at; 4 hashed, 32 B in " in counts
    assert castfs("verify", taken[:12], code=0).text.splitlines()[-1] == "clean"


def test_damaged_then_repaired(castfs: Run, taken: str, tree: Path, store: Path) -> None:
    bad = blob(store, b"alpha\n")
    change(bad, b"ALPHA\n")
    castfs("verify", code=0)
    castfs("verify", "--data", "--since", "2999-01-01", code=0)
    result = castfs("verify", "--data", code=5)
    lines = result.text.splitlines()
    assert lines[:2] == [
        f"damaged: blob {bad.name}: its content is not what its name says, quarantined",
        f"damaged: {taken}: a.txt",
    ]
    assert lines[-1] == (
        "damaged: ingest the good files again, or give --repair-from with another copy"
    )
    assert one_line(result.err).startswith(f"1 bad blob in {store}/quarantine; ")
    assert "a.txt" in castfs("cat", taken, "a.txt", code=5).err
    result = castfs("verify", "--repair-from", tree, code=3)
    assert result.text.splitlines()[:2] == [
        f"repaired: blob {bad.name}: it is not in the store",
        f"repaired: {taken}: a.txt",
    ]
    assert result.text.splitlines()[-1] == "repaired"
    assert castfs("cat", taken, "a.txt").out == b"alpha\n"
    castfs("verify", "--data", code=0)


def test_json(castfs: Run, taken: str, store: Path) -> None:
    clean = castfs("verify", "--data", "--json").json
    assert (clean["status"], clean["hashed_count"], clean["hashed_bytes"]) == ("clean", 4, 32)
    bad = blob(store, b"alpha\n")
    change(bad, b"ALPHA")
    (store / "trash" / "stray").touch()
    result = castfs("verify", "--json", code=5).json
    assert result["status"] == "damaged"
    [found] = result["bad_blobs"]
    place = found.pop("quarantined")
    assert Path(place).read_bytes() == b"ALPHA"
    assert found == {
        "digest": bad.name,
        "state": "wrong size",
        "detail": "it has 5 bytes instead of 6",
        "repaired": False,
    }
    [hurt] = result["hurt"]
    assert (hurt["snapshot"], hurt["path"], hurt["repaired"]) == (taken, "a.txt", False)
    assert "stray" in result["problems"][0]["message"]
    assert result["quarantine_count"] == 1


def test_names_that_would_break_a_line(castfs: Run, hostile: Path, store: Path) -> None:
    taken = castfs("ingest", "-q", hostile).text.strip()
    for name in HOSTILE_NAMES:
        blob(store, name).unlink()
    result = castfs("verify", code=5)
    assert all(line.isprintable() for line in result.text.splitlines())
    hurt = [line for line in result.text.splitlines() if line.startswith(f"damaged: {taken}: ")]
    assert len(set(hurt)) == len(HOSTILE_NAMES)
    paths = {found["path"] for found in castfs("verify", "--json", code=5).json["hurt"]}
    assert len(paths) == len(HOSTILE_NAMES)
    castfs("verify", "--repair-from", hostile, code=3)


def test_what_is_no_content_has_its_own_advice(castfs: Run, taken: str, store: Path) -> None:
    (store / "snapshots" / "notes.txt").touch()
    lines = castfs("verify", code=5).text.splitlines()
    assert "move it out of the store" in lines[0]
    assert lines[-1] == "damaged"


def test_a_directory_in_the_place_of_a_blob(
    castfs: Run, taken: str, tree: Path, store: Path
) -> None:
    """An ingest cannot get past it, and says who can."""
    place = blob(store, b"alpha\n")
    place.unlink()
    place.mkdir()
    assert "`castfs verify`" in one_line(castfs("ingest", "--rehash", tree, code=1).err)
    assert "what lies in its place is no file, quarantined" in castfs("verify", code=5).text
    castfs("ingest", "--rehash", tree)
    castfs("verify", "--data")


def test_words(castfs: Run, taken: str, tree: Path) -> None:
    """All that a word means, also what is in the trash; nobody is asked to choose."""
    (tree / "a.txt").write_text("second")
    castfs("ingest", tree, "--name", "run")
    (tree / "a.txt").write_text("third")
    castfs("ingest", tree, "--name", "run")
    assert castfs("verify", "run", "--json").json["snapshot_count"] == 1
    castfs("rm", taken)
    assert castfs("verify", taken, "run", "--json").json["snapshot_count"] == 2
    one_line(castfs("verify", "nothing", code=4).err)


USAGE = [
    ["--sample", "5%"],
    ["--since", "7d"],
    ["--data", "--sample", "5"],
    ["--data", "--sample", "0%"],
    ["--data", "--sample", "101%"],
    ["--data", "--sample", "some"],
    ["--data", "--since", "yesterday"],
    ["--data", "--since", ""],
    ["--repair-from", ""],
    [""],
]


@pytest.mark.parametrize("args", USAGE, ids=" ".join)
def test_usage(castfs: Run, taken: str, args: list[str]) -> None:
    result = castfs("verify", *args, code=2)
    assert result.out == b""
    assert ";" in one_line(result.err), "no hint"


@pytest.mark.parametrize(
    "when", ["7d", "1h30m", "2020-01-01", "2020-01-01T12:00", "2020-01-01 12:00Z"]
)
def test_since(castfs: Run, taken: str, when: str) -> None:
    assert castfs("verify", "--data", "--since", when, "--json").json["hashed_count"] == 4


def test_places_to_repair_from(castfs: Run, taken: str, store: Path, tmp_path: Path) -> None:
    line = one_line(castfs("verify", "--repair-from", store, code=2).err)
    assert "the store itself" in line
    line = one_line(castfs("verify", "--repair-from", tmp_path / "missing", code=1).err)
    assert "is no directory" in line


def test_no_store(castfs: Run, store: Path) -> None:
    one_line(castfs("verify", code=10).err)
    assert not store.exists()


@pytest.mark.parametrize("before", [False, True], ids=["at some time", "before it is fed"])
def test_a_hasher_that_is_killed(
    castfs: Run, taken: str, store: Path, monkeypatch: pytest.MonkeyPatch, before: bool
) -> None:
    monkeypatch.setenv("CASTFS_THREADS", "2")
    monkeypatch.setattr(hashing, "_ALONE_FILES", 0)
    monkeypatch.setattr(hashing, "_ALONE_BYTES", 0)
    castfs("verify", "--data")
    monkeypatch.setattr(hashing, "_START", "import os; os.kill(os.getpid(), 9)")
    original = hashing._feed

    def feed(process: subprocess.Popen[bytes], *rest: Any) -> None:
        if before:
            process.wait(TIMEOUT)
        original(process, *rest)

    monkeypatch.setattr(hashing, "_feed", feed)
    line = one_line(castfs("verify", "--data", code=1).err)
    assert line.startswith("castfs: a process that hashes blobs ended; ")
    assert list((store / "leases").iterdir()) == []


# Where nothing can be written -------------------------------------------------------------------


@pytest.fixture
def read_only(castfs: Run, taken: str, tree: Path, store: Path, tmp_path: Path) -> Iterator[Path]:
    """The store with a damaged blob, mounted where nothing can be written."""
    change(blob(store, b"beta\n"), b"BETA\n")
    path = tmp_path / "read-only"
    path.mkdir()
    subprocess.run(["mount", "--bind", store, path], check=True, timeout=TIMEOUT)
    try:
        subprocess.run(["mount", "-o", "remount,ro,bind", path], check=True, timeout=TIMEOUT)
        yield path
    finally:
        subprocess.run(["umount", "-l", path], check=True, timeout=TIMEOUT)


def everything(store: Path) -> dict[str, tuple[int, int, int]]:
    return {
        str(path.relative_to(store)): (
            (status := path.lstat()).st_ino,
            status.st_mtime_ns,
            status.st_size,
        )
        for path in store.rglob("*")
    }


@pytest.mark.needs_root
def test_a_store_that_may_not_be_written(
    castfs: Run, taken: str, tree: Path, store: Path, read_only: Path
) -> None:
    before = everything(store)
    castfs("--store", read_only, "verify", code=0)
    result = castfs("--store", read_only, "verify", "--data", code=5)
    assert f"damaged: {taken}: sub/b.txt" in result.text.splitlines()
    assert "quarantined" not in result.text
    again = castfs("--store", read_only, "verify", "--data", "--json", code=5).json
    assert again["bad_blobs"][0]["quarantined"] is None
    line = castfs("--store", read_only, "verify", "--data", "--repair-from", tree, code=1).err
    assert one_line(line).endswith("the store is on a read-only filesystem")
    assert everything(store) == before


@pytest.mark.needs_root
@pytest.mark.mounted
def test_such_a_store_can_be_read(
    program: Run, taken: str, tree: Path, store: Path, read_only: Path, tmp_path: Path
) -> None:
    change(blob(store, b"beta\n"), b"beta\n")
    before = everything(store)
    mountpoint = tmp_path / "mnt"
    mountpoint.mkdir()
    try:
        program("--store", read_only, "mount", taken, mountpoint)
        program("--store", read_only, "restore", taken, tmp_path / "target")
        for copy in (mountpoint, tmp_path / "target"):
            same = subprocess.run(["diff", "-r", tree, copy], timeout=TIMEOUT, check=False)
            assert same.returncode == 0
        program("umount", mountpoint)
    finally:
        if os.fsencode(mountpoint) in fuse_mounts_below(tmp_path):
            subprocess.run(["fusermount3", "-uz", mountpoint], timeout=TIMEOUT, check=False)
    assert everything(store) == before


def test_another_copy_of_the_store(castfs: Run, taken: str, store: Path, tmp_path: Path) -> None:
    """A manifest, too, and its contents."""
    shutil.copytree(store, tmp_path / "copy")
    [manifest] = (store / "manifests").glob("??/*")
    manifest.unlink()
    blob(store, b"alpha\n").unlink()
    text = castfs("verify", "--repair-from", tmp_path / "copy", code=3).text
    assert f"(needed by {taken})" in text
    assert f"repaired: {taken}: a.txt" in text
    castfs("verify", "--data", code=0)
