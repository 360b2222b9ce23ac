"""Nothing outside the target is written, read through or removed, whoever plants what and when."""

from __future__ import annotations

import contextlib
import os
import threading
from collections.abc import Iterator
from pathlib import Path

import msgspec
import pytest

from castfs.errors import TargetError
from castfs.restore import IfExists, restore_tree
from castfs.restore import directories as directories_module
from castfs.restore.cursor import open_existing
from castfs.restore.leaf import LeafWriter
from tests.restore.building import Stored, file, make_tree, store_files
from tests.restore.oracles import fingerprint, temporary_files


@pytest.fixture
def stored(tmp_path: Path) -> Stored:
    contents = {b"d/e/f%d" % number: b"ours %d" % number for number in range(8)}
    return store_files({**contents, b"d/top": b"ours", b"z": b"ours"}, tmp_path / "store")


@pytest.fixture
def outside(tmp_path: Path) -> Iterator[Path]:
    """A directory that looks like the tree, and must not change."""
    place = tmp_path / "outside"
    (place / "e").mkdir(parents=True)
    for name in ("top", "e/f0", "e/f5", "precious"):
        (place / name).write_text("theirs")
    before = fingerprint(place)
    yield place
    assert fingerprint(place) == before


@pytest.mark.parametrize("policy", ["fail", "skip", "replace"])
@pytest.mark.parametrize("where", ["d", "d/e"])
def test_a_symlink_that_was_there_before(
    tmp_path: Path, stored: Stored, outside: Path, policy: IfExists, where: str
) -> None:
    link = tmp_path / "out" / where
    link.parent.mkdir(parents=True)
    link.symlink_to(outside if where == "d" else outside / "e")
    if policy == "replace":
        restore_tree(stored.tree, stored.blobs, tmp_path / "out", if_exists=policy)
        assert not link.is_symlink()
        assert (tmp_path / "out/d/e/f0").read_text() == "ours 0"
        return
    with pytest.raises(TargetError, match="is a directory in the snapshot and none in"):
        restore_tree(stored.tree, stored.blobs, tmp_path / "out", if_exists=policy)
    assert link.is_symlink()


def test_a_symlink_in_the_place_of_a_file(tmp_path: Path, stored: Stored, outside: Path) -> None:
    out = tmp_path / "out"
    (out / "d").mkdir(parents=True)
    (out / "z").symlink_to(outside / "precious")
    (out / "d/top").symlink_to(outside / "not there yet")
    restore_tree(stored.tree, stored.blobs, out, if_exists="skip")
    assert (out / "z").is_symlink()
    restore_tree(stored.tree, stored.blobs, out, if_exists="replace")
    assert (out / "z").read_text() == (out / "d/top").read_text() == "ours"


@pytest.mark.semantics("R16")
@pytest.mark.parametrize("policy", ["fail", "replace"])
@pytest.mark.parametrize("moment", ["d/e/f3", "d/e/f7", "d/top"])
def test_a_directory_is_swapped_for_a_symlink_between_two_files(
    tmp_path: Path,
    stored: Stored,
    outside: Path,
    monkeypatch: pytest.MonkeyPatch,
    policy: IfExists,
    moment: str,
) -> None:
    """Files go on into the directory that was opened; its mode and time then find a stranger."""
    out = tmp_path / "out"
    write = LeafWriter.write

    def swap(self: LeafWriter, dir_fd: int, path: bytes, entry: object) -> object:
        if path == os.fsencode(moment):
            (out / "d").rename(out / "moved")
            (out / "d").symlink_to(outside)
        return write(self, dir_fd, path, entry)  # type: ignore[arg-type]

    monkeypatch.setattr(LeafWriter, "write", swap)
    with pytest.raises(TargetError, match=r"d/?.* was changed by somebody else"):
        restore_tree(stored.tree, stored.blobs, out, if_exists=policy)
    assert temporary_files(out) == []


@pytest.mark.semantics("R16")
def test_a_symlink_appears_between_mkdir_and_open(
    tmp_path: Path, stored: Stored, outside: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Each time: the attacker wins, and gets nothing but an error."""
    real = open_existing
    tries = []

    def plant(parent_fd: int, name: bytes, path: bytes) -> int:
        if path == b"d":
            tries.append(path)
            with contextlib.suppress(OSError):
                os.rmdir(name, dir_fd=parent_fd)
            os.symlink(outside, name, dir_fd=parent_fd)
        return real(parent_fd, name, path)

    monkeypatch.setattr(directories_module, "open_existing", plant)
    with pytest.raises(TargetError, match=r"d in .* was changed by somebody else"):
        restore_tree(stored.tree, stored.blobs, tmp_path / "out", if_exists="replace")
    assert 1 < len(tries) < 100


def test_a_directory_appears_where_a_file_goes(
    tmp_path: Path, stored: Stored, monkeypatch: pytest.MonkeyPatch
) -> None:
    out = tmp_path / "out"
    place = LeafWriter._place

    def plant(self: LeafWriter, dir_fd: int, temp: bytes, path: bytes) -> bool:
        if path == b"z":
            (out / "z").mkdir()
        return place(self, dir_fd, temp, path)

    monkeypatch.setattr(LeafWriter, "_place", plant)
    with pytest.raises(TargetError, match=r"z is a directory in .* never removes a directory"):
        restore_tree(stored.tree, stored.blobs, out, if_exists="replace")
    assert (out / "z").is_dir()
    assert temporary_files(out) == []


def test_the_first_of_a_hard_link_group_is_swapped(
    tmp_path: Path, outside: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A link to somebody else's file must not get into the target: later writes would change it."""
    stored = store_files({b"a": b"linked"}, tmp_path / "store")
    linked = msgspec.structs.replace(file(b"linked"), hardlink="a")
    tree = make_tree({b"a": linked, b"b": linked})
    out = tmp_path / "out"
    link = LeafWriter.link

    def swap(self: LeafWriter, *args: object) -> object:
        (out / "a").unlink()
        os.link(tmp_path / "victim", out / "a")
        return link(self, *args)  # type: ignore[arg-type]

    (tmp_path / "victim").write_text("victim")
    monkeypatch.setattr(LeafWriter, "link", swap)
    with pytest.raises(TargetError, match=r"a in .* was changed by somebody else"):
        restore_tree(tree, stored.blobs, out)
    assert not (out / "b").exists()
    assert temporary_files(out) == []


@pytest.mark.semantics("R16")
@pytest.mark.parametrize("threads", [1, 2])
def test_a_thread_swaps_a_directory_in_a_loop(
    tmp_path: Path, stored: Stored, outside: Path, threads: int
) -> None:
    """100 restores against a racer that never rests. An error is fine, a change outside is not."""
    out = tmp_path / "out"
    (out / "d/e").mkdir(parents=True)
    finished = threading.Event()
    swaps = 0

    def race() -> None:
        nonlocal swaps
        number = 0
        while not finished.is_set():
            number += 1
            for name, goal in (("d", outside), ("d/e", outside / "e")):
                with contextlib.suppress(OSError):
                    (out / name).rename(out / f"aside{number}")
                    (out / name).symlink_to(goal)
                    swaps += 1
                with contextlib.suppress(OSError):
                    (out / name).unlink()
                    (out / f"aside{number}").rename(out / name)

    racer = threading.Thread(target=race)
    racer.start()
    restored = 0
    try:
        for _ in range(100):
            with contextlib.suppress(TargetError):
                restore_tree(stored.tree, stored.blobs, out, if_exists="replace", threads=threads)
                restored += 1
    finally:
        finished.set()
        racer.join()
    assert swaps > 50


def test_what_lies_behind_a_link_is_not_looked_at(
    tmp_path: Path, stored: Stored, outside: Path
) -> None:
    """Not even to find that a file exists: with "fail", the link itself is what is in the way."""
    out = tmp_path / "out"
    out.mkdir()
    (out / "d").symlink_to(outside)
    with pytest.raises(TargetError, match=r"^d is a directory in the snapshot and none in"):
        restore_tree(stored.tree, stored.blobs, out)
