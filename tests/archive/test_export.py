"""Where an archive goes: formats by name, existing files, failures on the way."""

from __future__ import annotations

import errno
import io
import os
import subprocess
from collections.abc import Iterator
from pathlib import Path
from typing import BinaryIO

import pytest

from castfs.archive import Format, export_archive, format_for, write_archive
from castfs.errors import TargetError, UsageError
from castfs.progress import Progress
from tests.restore.building import Stored, store_files


@pytest.fixture
def stored(tmp_path: Path) -> Stored:
    return store_files({b"a": b"content", b"d/b": os.urandom(3 << 20)}, tmp_path / "store")


@pytest.mark.parametrize(
    ("name", "format"),
    [
        ("x.tar", "tar"),
        ("x.y.tar.zst", "tar.zst"),
        ("X.TZST", "tar.zst"),
        ("a b.zip", "zip"),
    ],
)
def test_the_format_follows_the_suffix(name: str, format: Format) -> None:
    assert format_for(name) == format


@pytest.mark.parametrize("name", ["x", "x.tar.gz", "x.zst", "tar", "-", "x.zip.bak"])
def test_an_unknown_suffix(name: str) -> None:
    with pytest.raises(UsageError, match=r"must end in \.tar, \.tar\.zst, \.tzst, \.zip"):
        format_for(name)


def test_the_result_counts(tmp_path: Path, stored: Stored) -> None:
    result = export_archive(stored.tree, stored.blobs, tmp_path / "x", format="tar")
    assert result.path == tmp_path / "x"
    assert (result.file_count, result.dir_count, result.symlink_count) == (2, 1, 0)
    assert result.total_size_bytes == (3 << 20) + 7
    assert result.archive_bytes == (tmp_path / "x").stat().st_size


@pytest.mark.parametrize("kind", ["file", "dangling", "directory"])
def test_what_exists_is_not_overwritten(tmp_path: Path, stored: Stored, kind: str) -> None:
    path = tmp_path / "x.tar"
    if kind == "file":
        path.write_text("mine")
    elif kind == "dangling":
        path.symlink_to("nowhere")
    else:
        path.mkdir()
    before = (path.lstat().st_ino, path.lstat().st_mtime_ns)
    with pytest.raises(TargetError, match=r"x\.tar (exists|is a directory)"):
        export_archive(stored.tree, stored.blobs, path)
    assert (path.lstat().st_ino, path.lstat().st_mtime_ns) == before
    assert list(tmp_path.glob(".castfs-*")) == []


def test_replace_puts_the_new_one_there_whole(tmp_path: Path, stored: Stored) -> None:
    path = tmp_path / "x.tar"
    path.write_text("mine")
    os.link(path, tmp_path / "other name")
    export_archive(stored.tree, stored.blobs, path, replace=True)
    assert path.stat().st_size > 3 << 20
    assert (tmp_path / "other name").read_text() == "mine"
    path.unlink()
    path.mkdir()
    with pytest.raises(TargetError, match="is a directory"):
        export_archive(stored.tree, stored.blobs, path, replace=True)


@pytest.mark.parametrize("linkable", [True, False])
def test_a_file_that_appears_meanwhile(
    tmp_path: Path, stored: Stored, monkeypatch: pytest.MonkeyPatch, linkable: bool
) -> None:
    path = tmp_path / "x.tar"
    real = write_archive

    def plant(*args: object, **kwargs: object) -> object:
        path.write_text("theirs")
        return real(*args, **kwargs)  # type: ignore[arg-type]

    def refuse(*args: object, **kwargs: object) -> None:
        raise PermissionError(errno.EPERM, "no hard links")

    monkeypatch.setattr("castfs.archive.export.write_archive", plant)
    if not linkable:
        monkeypatch.setattr("castfs.archive.export.os.link", refuse)
    with pytest.raises(TargetError, match="exists"):
        export_archive(stored.tree, stored.blobs, path)
    assert path.read_text() == "theirs"
    assert list(tmp_path.glob(".castfs-*")) == []


def test_the_mode_follows_the_umask(tmp_path: Path, stored: Stored) -> None:
    before = os.umask(0o027)
    try:
        export_archive(stored.tree, stored.blobs, tmp_path / "x.tar")
    finally:
        os.umask(before)
    assert (tmp_path / "x.tar").stat().st_mode & 0o777 == 0o640


def test_a_directory_that_is_missing(tmp_path: Path, stored: Stored) -> None:
    with pytest.raises(TargetError, match="No such file or directory; create the directory"):
        export_archive(stored.tree, stored.blobs, tmp_path / "missing" / "x.tar")


@pytest.fixture
def small(tmp_path: Path) -> Iterator[Path]:
    place = tmp_path / "small"
    place.mkdir()
    mount = ["mount", "-t", "tmpfs", "-o", "size=1m", "castfs-test", str(place)]
    subprocess.run(mount, check=True, timeout=20)
    yield place
    subprocess.run(["umount", "-l", str(place)], check=True, timeout=20)


@pytest.mark.parametrize("suffix", ["tar", "tar.zst", "zip"])
@pytest.mark.needs_root
def test_a_full_disk(small: Path, stored: Stored, suffix: str) -> None:
    with pytest.raises(TargetError, match="No space left on device; free some space"):
        export_archive(stored.tree, stored.blobs, small / f"x.{suffix}")
    assert list(small.iterdir()) == []


def test_an_output_that_fails(stored: Stored) -> None:
    with open("/dev/full", "wb") as output, pytest.raises(TargetError, match="No space left"):
        write_archive(stored.tree, stored.blobs, output, format="tar")


@pytest.mark.parametrize("suffix", ["tar", "tar.zst", "zip"])
def test_interrupted(tmp_path: Path, stored: Stored, suffix: str) -> None:
    class Interrupting(Progress):
        def advance(self, count: int, size: int = 0) -> None:
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        export_archive(stored.tree, stored.blobs, tmp_path / f"x.{suffix}", progress=Interrupting())
    assert {path.name for path in tmp_path.iterdir()} == {".user", "store"}


def test_progress_hears_of_all(tmp_path: Path, stored: Stored) -> None:
    class Recorder(Progress):
        total: int | None = 0
        count = size = 0

        def phase(self, name: str, *, total: int | None = None, unit: str = "files") -> None:
            self.total = total

        def advance(self, count: int, size: int = 0) -> None:
            self.count += count
            self.size += size

    formats: tuple[Format, ...] = ("tar", "tar.zst", "zip")
    for format in formats:
        recorder = Recorder()
        output: BinaryIO = io.BytesIO()
        write_archive(stored.tree, stored.blobs, output, format=format, progress=recorder)
        assert (recorder.total, recorder.count, recorder.size) == ((3 << 20) + 7, 2, (3 << 20) + 7)
