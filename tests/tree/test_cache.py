"""Where indexes lie, which of them are used, and when they go."""

from __future__ import annotations

import logging
import os
import subprocess
import time
from collections.abc import Callable
from pathlib import Path
from typing import BinaryIO

import pytest

import castfs
from castfs.digest import Digest
from castfs.errors import ManifestError, StoreError
from castfs.repository import Store
from castfs.tree import (
    ManifestFile,
    Presentation,
    TreeIndex,
    building,
    keep_index,
    open_index,
)
from castfs.tree.cache import UNUSED_SECONDS, remove_orphans
from castfs.tree.compiler import write_index
from tests.tree.test_compiler import make_file, make_tree

ID = Digest("ab" * 32)
PRESENTATION = Presentation(owner=1)
NAME = f"{ID}.o1-o0-000.v2.index"
TREE = make_tree({b"d/f": make_file(b"1")})


class Writer:
    def __init__(self, manifest_id: Digest = ID) -> None:
        self.calls = 0
        self._id = manifest_id

    def __call__(self, file: BinaryIO) -> None:
        self.calls += 1
        write_index(file, TREE, PRESENTATION, self._id)


@pytest.fixture
def place(tmp_path: Path) -> Path:
    return tmp_path / "cache" / "indexes"


def opened(*directories: Path, writer: Writer | None = None, key: str = ID) -> int:
    """How often the index had to be made, after it was opened."""
    writer = writer or Writer()
    index = open_index(directories, key, PRESENTATION, writer)
    assert index.path(3) == b"d/f"
    return writer.calls


def test_it_is_made_once(place: Path) -> None:
    assert [opened(place), opened(place)] == [1, 0]
    [path] = place.iterdir()
    assert path.name == NAME
    assert path.stat().st_mode & 0o7777 == 0o400
    assert place.stat().st_mode & 0o7777 == 0o700


def test_another_presentation_is_another_index(place: Path) -> None:
    opened(place)
    for other in (
        Presentation(owner=2),
        Presentation(owner=1, group=1),
        Presentation(owner=1, umask=0o22),
        Presentation(owner=1, uid=1),
        Presentation(owner=1, gid=0),
    ):
        calls = 0

        def write(file: BinaryIO, other: Presentation = other) -> None:
            nonlocal calls
            calls += 1
            write_index(file, TREE, other, ID)

        open_index([place], ID, other, write)
        assert calls == 1
    # Where a uid is given for all, the owner of what has none is not seen.
    same = [str(Presentation(owner=owner, uid=3)) for owner in (1, 2)]
    assert same[0] == same[1]


@pytest.mark.parametrize("damage", ["flipped", "cut", "empty", "older", "of another manifest"])
def test_a_bad_one_is_made_again(
    place: Path, damage: str, caplog: pytest.LogCaptureFixture
) -> None:
    opened(place)
    path = place / NAME
    raw = bytearray(path.read_bytes())
    path.unlink()
    if damage == "flipped":
        raw[-1] ^= 1
    elif damage == "cut":
        del raw[-8:]
    elif damage == "empty":
        raw.clear()
    elif damage == "older":
        raw[8] = 0
    path.write_bytes(raw)
    path.chmod(0o400)
    if damage == "of another manifest":
        path.unlink()
        other = Digest("cd" * 32)
        opened(place, writer=Writer(other), key=other)
        next(place.iterdir()).rename(path)
    with caplog.at_level(logging.WARNING, "castfs.tree"):
        assert opened(place) == 1
    assert str(path) in caplog.text
    assert opened(place) == 0


def test_what_others_may_have_written_is_not_used(place: Path) -> None:
    opened(place)
    path = place / NAME
    for mode in (0o420, 0o402, 0o666):
        path.chmod(mode)
        assert opened(place) == 1
        path = place / NAME
    path.rename(place / "elsewhere")
    path.symlink_to(place / "elsewhere")
    assert opened(place) == 1
    assert not path.is_symlink()
    path.unlink()
    os.mkfifo(path)
    assert opened(place) == 1


@pytest.mark.needs_root
def test_what_another_user_wrote_is_not_used(place: Path) -> None:
    opened(place)
    os.chown(place / NAME, 4242, 4242)
    assert opened(place) == 1


def test_places_are_tried_in_order(tmp_path: Path) -> None:
    first, second, third = (tmp_path / name for name in ("a", "b", "c"))
    first.write_text("no directory")
    assert opened(first, second, third) == 1
    assert (second / NAME).exists()
    assert not third.exists()
    assert opened(third, second) == 0
    assert not third.exists()
    assert opened(first, Path("relative/to/nothing")) == 1  # in memory
    assert not Path("relative").exists()


@pytest.mark.needs_root
def test_a_full_disk_is_no_reason_not_to_mount(small_disk: Path) -> None:
    size = os.statvfs(small_disk).f_bavail * 4096
    (small_disk / "filler").write_bytes(bytes(size))
    assert opened(small_disk) == 2  # there, and then in memory
    assert [path.name for path in small_disk.iterdir()] == ["filler"]


def test_an_error_of_the_manifest_is_the_callers(place: Path) -> None:
    def fail(file: BinaryIO) -> None:
        file.write(b"half")
        raise ManifestError("bad")

    with pytest.raises(ManifestError, match="bad"):
        open_index([place], ID, PRESENTATION, fail)
    assert list(place.iterdir()) == []


def test_a_mapped_one_lives_on(place: Path) -> None:
    index = open_index([place], ID, PRESENTATION, Writer())
    (place / NAME).unlink()
    assert index.digest(3) == make_file(b"1").sha256


def test_two_at_once_share_the_first(place: Path) -> None:
    """The one that is mapped already stays under its name."""
    first: list[int] = []

    def slow(file: BinaryIO) -> None:
        Writer()(file)
        opened(place)
        first.append((place / NAME).stat().st_ino)

    open_index([place], ID, PRESENTATION, slow)
    assert [(place / NAME).stat().st_ino] == first
    assert [path.name for path in place.iterdir()] == [NAME]


def test_unused_ones_go(place: Path) -> None:
    opened(place)
    now = time.time()
    for name, age in (
        (f"{'01' * 32}.o0-o0-000.v2.index", UNUSED_SECONDS + 60),
        (f"file-{'02' * 32}.o0-u5-022.v0.index", UNUSED_SECONDS + 60),
        (f"{'03' * 32}.o0-o0-000.v2.index", UNUSED_SECONDS - 60),
        ("tmp-0123456789abcdef", 2 * 86400),
        ("tmp-0123456789abcdee", 3600),
        ("of somebody else", UNUSED_SECONDS * 2),
    ):
        (place / name).write_bytes(b"")
        os.utime(place / name, (now - age, now - age))
    (place / NAME).rename(place / "aside")
    (place / "aside").unlink()
    opened(place)
    assert {path.name[:4] for path in place.iterdir()} == {"abab", "0303", "tmp-", "of s"}
    assert len(list(place.glob("tmp-*"))) == 1


def test_being_used_keeps_it(place: Path) -> None:
    opened(place)
    old = time.time() - UNUSED_SECONDS / 2
    os.utime(place / NAME, (old, old))
    opened(place)
    assert (place / NAME).stat().st_mtime > time.time() - 3600


def test_holding_it_keeps_it(tmp_path: Path) -> None:
    """Wherever it lies, and as a mount does that lives for months."""
    places = [tmp_path / "a", tmp_path / "b"]
    keep_index(places, ID, PRESENTATION)  # there is none
    opened(places[1])
    path = places[1] / NAME
    keep_index(places, ID, PRESENTATION)
    now = time.time()
    for age, kept in ((3600, False), (UNUSED_SECONDS - 60, True)):
        os.utime(path, (now - age, now - age))
        keep_index(places, ID, PRESENTATION)
        assert (path.stat().st_mtime > now - 60) == kept
    remove_orphans(places[1], lambda digest: True)
    assert opened(*places) == 0
    path.rename(tmp_path / "theirs")
    os.utime(tmp_path / "theirs", (0, 0))
    path.symlink_to(tmp_path / "theirs")
    os.utime(path, (0, 0), follow_symlinks=False)
    keep_index(places, ID, PRESENTATION)
    assert (tmp_path / "theirs").stat().st_mtime == 0


def test_orphans_go(place: Path) -> None:
    opened(place)
    kept = place / f"file-{'02' * 32}.o0-o0-000.v2.index"
    kept.write_bytes(b"")
    remove_orphans(place, lambda digest: digest == ID)
    assert len(list(place.iterdir())) == 2
    remove_orphans(place, lambda digest: False)
    assert list(place.iterdir()) == [kept]
    remove_orphans(place / "missing", lambda digest: False)


# From a manifest file ------------------------------------------------------------------------


@pytest.fixture
def source(tmp_path: Path) -> Callable[..., ManifestFile]:
    tree = tmp_path / "source"
    tree.mkdir()
    (tree / "file").write_bytes(b"content")
    store: Store = castfs.open(tmp_path / "store", create=True)
    taken = store.ingest(tree)
    path = store.depot.manifest_path(taken.manifest_id)

    def make(**fields: str) -> ManifestFile:
        return ManifestFile(path=path, **{"manifest_id": taken.manifest_id, **fields})

    return make


def build(source: ManifestFile, path: Path) -> TreeIndex:
    with path.open("w+b") as file:
        source.write_index(file, PRESENTATION)
    return TreeIndex(path.read_bytes())


def test_in_a_process_of_its_own(
    source: Callable[..., ManifestFile], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    here = build(source(), tmp_path / "here")
    monkeypatch.setattr(building, "_ALONE_BYTES", 0)
    monkeypatch.setattr(building, "write_index", None)  # there it is the module's own
    there = build(source(), tmp_path / "there")
    assert there.manifest_id == here.manifest_id == source().manifest_id
    assert (tmp_path / "there").read_bytes() == (tmp_path / "here").read_bytes()


@pytest.mark.parametrize("alone", [1 << 30, 0], ids=["here", "there"])
def test_a_file_that_is_not_what_it_was(
    source: Callable[..., ManifestFile],
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    alone: int,
) -> None:
    monkeypatch.setattr(building, "_ALONE_BYTES", alone)
    for wrong in ({"manifest_id": "0" * 64}, {"sha256": "0" * 64}):
        with pytest.raises(ManifestError, match="another manifest than before"):
            build(source(**wrong), tmp_path / "index")
    source().path.chmod(0o644)
    source().path.write_bytes(b"{}")
    with pytest.raises(ManifestError):
        build(source(), tmp_path / "index")


@pytest.mark.needs_root
def test_a_disk_that_is_full_for_the_other_process(
    source: Callable[..., ManifestFile], small_disk: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Compiling a million entries once more here would take seconds, and end the same way."""
    (small_disk / "filler").write_bytes(bytes(os.statvfs(small_disk).f_bavail * 4096))
    monkeypatch.setattr(building, "_ALONE_BYTES", 0)
    monkeypatch.setattr(building, "write_index", None)
    with pytest.raises(OSError, match="index cannot be written"):
        build(source(), small_disk / "index")


def test_a_compiler_that_is_killed(
    source: Callable[..., ManifestFile], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(building, "_ALONE_BYTES", 0)
    original = subprocess.run

    def run(command: list[str], **options: object) -> object:
        return original([*command[:3], "import os; os.kill(os.getpid(), 9)"], **options)  # type: ignore[call-overload]

    monkeypatch.setattr(subprocess, "run", run)
    with pytest.raises(StoreError, match="signal 9"):
        build(source(), tmp_path / "index")
