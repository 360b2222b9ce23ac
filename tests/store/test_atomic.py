"""Files that appear whole or not at all; system calls that Python has not."""

from __future__ import annotations

import errno
import os
import platform
import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest

from castfs import atomic, syscalls


@pytest.fixture
def place(tmp_path: Path) -> Path:
    path = tmp_path / "place"
    path.mkdir()
    return path


def test_a_file_is_replaced_as_a_whole(place: Path) -> None:
    (place / "file").write_bytes(b"old")
    (place / "link").symlink_to("file")
    old = (place / "file").stat().st_ino
    before = os.umask(0o027)
    try:
        atomic.write_file(place / "link", [b"ne", b"", b"w"])
    finally:
        os.umask(before)
    assert (place / "file").read_bytes() == b"new"
    assert (place / "file").stat().st_mode & 0o7777 == 0o640
    assert (place / "file").stat().st_ino != old
    assert (place / "link").is_symlink()
    assert sorted(os.listdir(place)) == ["file", "link"]


@pytest.mark.needs_root
def test_what_is_no_file_is_written_to(place: Path) -> None:
    os.mkfifo(place / "fifo")
    reader = os.open(place / "fifo", os.O_RDONLY | os.O_NONBLOCK)
    os.mknod(place / "null", 0o20666, os.makedev(1, 3))
    try:
        for name in ("fifo", "null"):
            atomic.write_file(place / name, [b"a", b"b"])
        assert os.read(reader, 10) == b"ab"
    finally:
        os.close(reader)
    assert (place / "fifo").is_fifo()
    assert (place / "null").is_char_device()
    assert sorted(os.listdir(place)) == ["fifo", "null"]


def test_an_error_in_the_middle_leaves_what_was(place: Path) -> None:
    (place / "file").write_bytes(b"old")

    def chunks() -> Iterator[bytes]:
        yield b"half"
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        atomic.write_file(place / "file", chunks())
    assert (place / "file").read_bytes() == b"old"
    assert os.listdir(place) == ["file"]


@pytest.mark.parametrize("call", ["fsync", "replace"])
def test_a_failing_system_call_leaves_what_was(
    place: Path, call: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    def fail(*args: object) -> None:
        raise OSError(errno.EIO, "Input/output error")

    with monkeypatch.context() as patch:
        patch.setattr(os, call, fail)
        with pytest.raises(OSError, match="Input/output error"):
            atomic.write_file(place / "file", [b"new"])
    assert os.listdir(place) == []


def test_a_target_that_is_a_directory(place: Path) -> None:
    (place / "dir").mkdir()
    with pytest.raises(IsADirectoryError):
        atomic.write_file(place / "dir", [b"x"])
    assert os.listdir(place) == ["dir"]


@pytest.mark.parametrize("umask", [0, 0o077])
def test_directories_have_the_mode_that_was_asked_for(place: Path, umask: int) -> None:
    before = os.umask(umask)
    try:
        atomic.ensure_dir(place / "new", 0o2750)
        atomic.ensure_dir(place / "new", 0o700)
        (place / "half made").mkdir()
        atomic.ensure_dir(place / "half made", 0o2770)
    finally:
        os.umask(before)
    assert (place / "new").stat().st_mode & 0o7777 == 0o2750
    assert (place / "half made").stat().st_mode & 0o2770 == 0o2770


def test_what_the_kernel_says_of_itself_and_its_filesystems(tmp_path: Path) -> None:
    assert ".".join(map(str, syscalls.kernel_version())) in platform.release()
    fd = os.open(tmp_path, os.O_RDONLY)
    magic = subprocess.run(
        ["stat", "-f", "-c", "%t", tmp_path], capture_output=True, check=True, text=True
    ).stdout
    assert syscalls.filesystem_magic(fd) == int(magic, 16)
    syscalls.syncfs(fd)
    os.close(fd)
    for call in (syscalls.syncfs, syscalls.filesystem_magic):
        with pytest.raises(OSError, match=os.strerror(errno.EBADF)):
            call(fd)


@pytest.mark.needs_root
def test_no_clone_on_a_filesystem_that_cannot(small_disk: Path, tmp_path: Path) -> None:
    (small_disk / "a").write_bytes(b"x")
    with (small_disk / "a").open("rb") as source, (small_disk / "b").open("wb") as target:
        assert not syscalls.clone_file(source.fileno(), target.fileno())
    with (small_disk / "a").open("rb") as source, (tmp_path / "b").open("wb") as target:
        assert not syscalls.clone_file(source.fileno(), target.fileno())


def test_renaming_without_replacing(place: Path) -> None:
    (place / "a").write_bytes(b"a")
    (place / "b").write_bytes(b"b")
    fd = os.open(place, os.O_RDONLY)
    try:
        with pytest.raises(FileExistsError):
            syscalls.rename_noreplace(fd, b"a", b"b")
        assert syscalls.rename_noreplace(fd, b"a", b"c")
    finally:
        os.close(fd)
    assert sorted(os.listdir(place)) == ["b", "c"]


def test_the_boot_id_is_the_kernels() -> None:
    assert f"{syscalls.boot_id()}\n" == Path("/proc/sys/kernel/random/boot_id").read_text()
