"""What a mount cannot have in common with its source."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from tests.mount.conftest import run
from tests.mount.trees import write
from tests.semantics.conftest import World

pytestmark = pytest.mark.mounted


@pytest.fixture(scope="module")
def source(world: World) -> Path:
    source = world.directory("source")
    (source / "directory").mkdir()
    for number in range(300):
        write(source / "directory" / f"{number:0200}")
    with write(source / "sparse").open("r+b") as file:
        file.truncate(10_000_000)
    os.link(write(source / "linked", b"x"), source.parent / "outside")
    os.chown(write(source / "theirs"), 12345, 54321)
    os.setxattr(source / "theirs", "user.comment", b"hello")
    os.utime(source / "theirs", ns=(0, 2 * 10**9))
    return source


@pytest.fixture(scope="module")
def taken(world: World, source: Path) -> str:
    return world.ingest(source)


@pytest.fixture(scope="module")
def mount(world: World, taken: str) -> Path:
    return world.mount(taken)


@pytest.mark.semantics("M58")
@pytest.mark.needs_root
def test_numbers_of_its_own(world: World, source: Path, mount: Path, taken: str) -> None:
    again = world.mount(taken)
    assert len({path.stat().st_dev for path in (source, mount, again)}) == 3
    shown, real = (mount / "directory").stat(), (source / "directory").stat()
    assert shown.st_size == shown.st_blocks == 0 < real.st_size
    assert shown.st_ino != real.st_ino


@pytest.mark.semantics("M59")
@pytest.mark.needs_root
def test_other_times(source: Path, mount: Path) -> None:
    os.utime(source / "theirs", ns=(10**9, 2 * 10**9))  # its reader has set the first
    real, shown = (source / "theirs").stat(), (mount / "theirs").stat()
    assert (real.st_atime_ns, real.st_mtime_ns) == (10**9, 2 * 10**9)
    assert shown.st_atime_ns == shown.st_ctime_ns == shown.st_mtime_ns == 2 * 10**9
    assert real.st_ctime_ns > shown.st_ctime_ns
    assert run("stat", "-c", "%w", mount / "theirs") == "-\n"


@pytest.mark.semantics("M60")
@pytest.mark.needs_root
def test_names_outside(source: Path, mount: Path) -> None:
    assert (source / "linked").stat().st_nlink == 2
    assert (mount / "linked").stat().st_nlink == 1


@pytest.mark.semantics("M61")
@pytest.mark.needs_root
def test_holes(source: Path, mount: Path) -> None:
    command = ["du", "-B1"]
    assert int(run(*command, source / "sparse").split()[0]) < 10_000_000
    assert int(run(*command, mount / "sparse").split()[0]) >= 10_000_000


@pytest.mark.semantics("M62")
@pytest.mark.needs_root
def test_on_request_only(source: Path, mount: Path) -> None:
    assert (source / "theirs").stat().st_uid == 12345
    assert (mount / "theirs").stat().st_uid == os.getuid()
    assert os.listxattr(source / "theirs") == ["user.comment"]
    with pytest.raises(OSError, match="not supported"):
        os.listxattr(mount / "theirs")
