"""Snapshots that are removed while somebody reads them, and stores that may not be written."""

from __future__ import annotations

import os
import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.cli.conftest import TIMEOUT, Run, one_line
from tests.conftest import fuse_mounts_below


@pytest.fixture
def mountpoint(tmp_path: Path) -> Iterator[Path]:
    path = tmp_path / "mnt"
    path.mkdir()
    yield path
    if os.fsencode(path) in fuse_mounts_below(tmp_path):
        subprocess.run(["fusermount3", "-uz", path], timeout=TIMEOUT, check=False)


@pytest.fixture
def read_only(taken: str, store: Path, tmp_path: Path) -> Iterator[Path]:
    """The store with `taken`, where nothing can be written."""
    path = tmp_path / "read-only"
    path.mkdir()
    subprocess.run(["mount", "--bind", store, path], check=True, timeout=TIMEOUT)
    try:
        subprocess.run(["mount", "-o", "remount,ro,bind", path], check=True, timeout=TIMEOUT)
        yield path
    finally:
        subprocess.run(["umount", "-l", path], check=True, timeout=TIMEOUT)


@pytest.mark.mounted
def test_a_mount_goes_on(program: Run, taken: str, tree: Path, mountpoint: Path) -> None:
    """Into the trash, for good, and through a collection of all that can go."""
    program("mount", taken, mountpoint)
    program("rm", taken)
    program("rm", "--permanent", "--yes", taken)
    kept = program("gc", "--grace", "0s", "--trash-age", "0s", "--json").json["kept"]
    assert kept["readers"] == {"count": 4, "bytes": 32}
    same = subprocess.run(["diff", "-r", tree, mountpoint], timeout=TIMEOUT, check=False)
    assert same.returncode == 0
    text = program("gc", "--grace", "0s").text
    assert "kept by readers" in text
    assert "`castfs umount`" in text
    program("umount", mountpoint)
    assert program("gc", "--grace", "0s", "--force", "--json").json["deleted"]["count"] == 4


@pytest.mark.mounted
@pytest.mark.needs_root
def test_a_reader_that_cannot_write_holds_it(
    program: Run, taken: str, tree: Path, read_only: Path, mountpoint: Path
) -> None:
    """Its mount cannot say in the store what it needs; so its snapshot is not let go."""
    (tree / "a.txt").write_text("another")
    other = program("ingest", "-q", tree).text.strip()
    program("--store", read_only, "mount", taken, mountpoint)
    line = one_line(program("rm", "--permanent", "--yes", taken, other, code=11).err)
    assert taken in line
    assert other not in line
    assert "the others are deleted" in line
    assert program("list", "-q").text.split() == [taken]
    program("rm", taken)
    result = program("gc", "--grace", "0s", "--trash-age", "0s", "--json").json
    assert result["held"] == [taken]
    assert result["expired"] == []
    assert "1 deleted snapshot being read" in program("gc", "--trash-age", "0s").text
    line = one_line(program("rm", "--permanent", "--yes", taken, code=11).err)
    assert "others" not in line
    assert (mountpoint / "a.txt").read_text() == "alpha\n"
    program("umount", mountpoint)
    program("rm", "--permanent", "--yes", taken)


@pytest.mark.needs_root
@pytest.mark.parametrize(
    "args",
    [
        ["rm", "{taken}"],
        ["rm", "--permanent", "--yes", "{taken}"],
        ["undelete", "{gone}"],
        ["forget", "--keep-last", "1"],
        ["gc"],
        ["gc", "--force", "--grace", "0s"],
    ],
    ids=" ".join,
)
def test_a_store_that_may_not_be_written(
    castfs: Run, tree: Path, taken: str, read_only: Path, store: Path, args: list[str]
) -> None:
    (tree / "a.txt").write_text("another")
    gone = castfs("ingest", "-q", tree).text.strip()
    castfs("rm", gone)
    other = castfs("ingest", "-q", tree).text.strip()  # so that a policy has something to do
    before = sorted(store.rglob("*"))
    words = [word.format(taken=taken, gone=gone) for word in args]
    line = one_line(castfs("--store", read_only, *words, code=1).err)
    assert line.endswith("Read-only file system; the store is on a read-only filesystem")
    assert sorted(store.rglob("*")) == before
    assert castfs("--store", read_only, "list", "-q").text.split() == [other, taken]
    assert castfs("--store", read_only, "list", "-q", "--deleted").text.split() == [gone]
    castfs("--store", read_only, "forget", "--keep-last", "1", "--dry-run")
