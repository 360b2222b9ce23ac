"""zip: Info-ZIP's unzip and Python's zipfile read it."""

from __future__ import annotations

import hashlib
import io
import os
import stat
import struct
import subprocess
import zipfile
from collections.abc import Iterator
from pathlib import Path
from typing import BinaryIO, cast

import msgspec
import pytest

from castfs.archive import export_archive, write_archive
from castfs.archive import zip as zip_module
from castfs.archive.sink import Sink
from castfs.errors import BlobError, UsageError
from castfs.manifest import Entry
from tests.restore.building import (
    Stored,
    directory,
    file,
    make_tree,
    store_directory,
    store_files,
    symlink,
)

FIXED_ZIP = "b0e28f846e649e49ec96da74550512dad343f2c36c1464ff83f5abdb45c37408"


@pytest.fixture
def source(tmp_path: Path) -> Path:
    """What a zip archive can hold, with whole seconds."""
    root = tmp_path / "source"
    (root / "sub/deep").mkdir(parents=True)
    (root / "empty").mkdir()
    (root / "sub/x").write_text("hello\n" * 1000)
    (root / "sub/deep/h\u00e9 \u4e2d").write_text("utf-8")
    (root / "empty file").touch()
    (root / "random").write_bytes(os.urandom(5000))
    (root / "large").write_bytes(os.urandom(100) * 30_000)
    (root / "large random").write_bytes(os.urandom(3 << 20))
    (root / "exactly").write_bytes(bytes(1 << 20))
    (root / "run").write_text("#!/bin/sh\n")
    (root / "run").chmod(0o4755)
    (root / "secret").write_text("x")
    (root / "secret").chmod(0o600)
    (root / "link").symlink_to("sub/x")
    (root / "dangling").symlink_to("h\u00e9/nowhere")
    for number, path in enumerate(sorted(root.rglob("*"))):
        if not path.is_symlink():
            os.utime(path, ns=(0, (1_500_000_001 + number) * 10**9))
    (root / "sub").chmod(0o555)
    return root


@pytest.fixture
def stored(tmp_path: Path, source: Path) -> Stored:
    return store_directory(source, tmp_path / "store")


def unzip(archive: Path, target: Path) -> None:
    target.mkdir()
    # -K keeps set-id bits.
    done = subprocess.run(
        ["unzip", "-q", "-K", str(archive), "-d", str(target)],
        capture_output=True,
        timeout=60,
        check=False,
        env={**os.environ, "LC_ALL": "C.UTF-8", "TZ": "Asia/Tokyo"},
    )
    assert (done.returncode, done.stdout, done.stderr) == (0, b"", b"")


def test_unzip_extracts_the_source(tmp_path: Path, source: Path, stored: Stored) -> None:
    export_archive(stored.tree, stored.blobs, tmp_path / "x.zip")
    unzip(tmp_path / "x.zip", tmp_path / "out")
    subprocess.run(
        ["diff", "-r", "--no-dereference", str(source), str(tmp_path / "out")],
        check=True,
        timeout=60,
    )
    for path in source.rglob("*"):
        copy = tmp_path / "out" / path.relative_to(source)
        assert path.lstat().st_mode == copy.lstat().st_mode
        if not path.is_symlink():
            assert path.stat().st_mtime_ns == copy.stat().st_mtime_ns


def test_zipfile_reads_every_entry(tmp_path: Path, stored: Stored) -> None:
    export_archive(stored.tree, stored.blobs, tmp_path / "x.zip")
    with zipfile.ZipFile(tmp_path / "x.zip") as archive:
        assert archive.testzip() is None
        assert set(archive.namelist()) == {
            os.fsdecode(path) + "/" * (path in stored.tree.dirs)
            for path, _ in stored.tree.iter_entries()
        }
        for path, entry in stored.tree.files.items():
            info = archive.getinfo(os.fsdecode(path))
            assert hashlib.sha256(archive.read(info)).hexdigest() == entry.sha256
            assert info.external_attr >> 16 == stat.S_IFREG | entry.mode
            assert info.file_size == entry.size_bytes
            assert info.compress_size <= max(entry.size_bytes * 1.001, 100)
        link = archive.getinfo("link")
        assert stat.S_ISLNK(link.external_attr >> 16)
        assert archive.read(link) == b"sub/x"


def test_a_stream_reader_finds_every_file(tmp_path: Path, stored: Stored) -> None:
    """One that goes by the local headers alone: what has no sizes there is deflated, so that its
    end shows in the stream."""
    export_archive(stored.tree, stored.blobs, tmp_path / "x.zip")
    data = (tmp_path / "x.zip").read_bytes()
    with zipfile.ZipFile(tmp_path / "x.zip") as archive:
        for info in archive.infolist():
            local = struct.unpack_from("<4sHHHHHLLLHH", data, info.header_offset)
            assert local[0] == b"PK\x03\x04"
            if info.flag_bits & 0x08:
                assert info.compress_type == zipfile.ZIP_DEFLATED
                assert info.file_size > 1 << 20
            else:
                assert local[6:9] == (info.CRC, info.compress_size, info.file_size)


def test_the_same_bytes_from_a_pipe_and_a_file(tmp_path: Path, stored: Stored) -> None:
    export_archive(stored.tree, stored.blobs, tmp_path / "x.zip")
    with (tmp_path / "piped.zip").open("wb") as piped:
        cat = subprocess.Popen(["cat"], stdin=subprocess.PIPE, stdout=piped)
        assert cat.stdin is not None
        write_archive(stored.tree, stored.blobs, cast(BinaryIO, cat.stdin), format="zip")
        cat.communicate(timeout=60)
    assert (tmp_path / "piped.zip").read_bytes() == (tmp_path / "x.zip").read_bytes()


def test_names_that_are_not_utf8_are_refused_before_the_first_byte(tmp_path: Path) -> None:
    stored = store_files({b"a": b"x"}, tmp_path / "store")
    tree = make_tree({b"a": file(b"x"), b"d/\xff": file(b"x")})
    output = io.BytesIO()
    with pytest.raises(UsageError, match=r"zip cannot hold d/\\xff: .*not UTF-8; use \.tar"):
        write_archive(tree, stored.blobs, output, format="zip")
    assert output.getvalue() == b""


@pytest.mark.parametrize(
    ("seconds", "shown"),
    [
        (-(10**9), (1980, 1, 1, 0, 0, 0)),
        (0, (1980, 1, 1, 0, 0, 0)),
        (315_532_800, (1980, 1, 1, 0, 0, 0)),
        (1_000_000_001, (2001, 9, 9, 1, 46, 40)),
        (4_354_819_199, (2107, 12, 31, 23, 59, 58)),
        (4_354_819_200, (2107, 12, 31, 23, 59, 58)),
        (9_000_000_000, (2107, 12, 31, 23, 59, 58)),
    ],
)
def test_times_are_clamped_and_exact_in_the_extra_field(
    tmp_path: Path, seconds: int, shown: tuple[int, ...]
) -> None:
    stored = store_files({b"a": b"x"}, tmp_path / "store")
    tree = make_tree({b"a": file(b"x", mtime_ns=seconds * 10**9 + 999_999_999)})
    output = io.BytesIO()
    write_archive(tree, stored.blobs, output, format="zip")
    with zipfile.ZipFile(output) as archive:
        info = archive.getinfo("a")
    assert info.date_time == shown
    if -(2**31) <= seconds < 2**31:
        assert info.extra == struct.pack("<HHBl", 0x5455, 5, 1, seconds)
    else:
        assert info.extra == b""


@pytest.mark.needs_root
def test_owners_are_in_the_extra_field(tmp_path: Path) -> None:
    stored = store_files({b"a": b"x"}, tmp_path / "store")
    entry = msgspec.structs.replace(file(b"x"), uid=1234, gid=4321)
    export_archive(make_tree({b"a": entry}), stored.blobs, tmp_path / "x.zip")
    (tmp_path / "out").mkdir()
    subprocess.run(
        ["unzip", "-q", "-X", str(tmp_path / "x.zip"), "-d", str(tmp_path / "out")],
        check=True,
        timeout=60,
    )
    status = (tmp_path / "out/a").stat()
    assert (status.st_uid, status.st_gid) == (1234, 4321)


def test_hard_links_are_copies(tmp_path: Path) -> None:
    stored = store_files({b"a": b"linked"}, tmp_path / "store")
    linked = msgspec.structs.replace(file(b"linked"), hardlink="a")
    export_archive(make_tree({b"a": linked, b"b": linked}), stored.blobs, tmp_path / "x.zip")
    with zipfile.ZipFile(tmp_path / "x.zip") as archive:
        assert archive.read("a") == archive.read("b") == b"linked"


def test_zip64_for_many_entries(tmp_path: Path) -> None:
    stored = store_files({b"a": b"x"}, tmp_path / "store")
    tree = make_tree({b"f%05d" % number: file(b"x") for number in range(70_000)})
    export_archive(tree, stored.blobs, tmp_path / "x.zip")
    with zipfile.ZipFile(tmp_path / "x.zip") as archive:
        assert len(archive.infolist()) == 70_000
        assert archive.read("f69999") == b"x"
    done = subprocess.run(
        ["unzip", "-tq", str(tmp_path / "x.zip")], capture_output=True, timeout=60, check=False
    )
    assert done.returncode == 0, done.stdout


def write_alone(output: BinaryIO, size: int, chunks: Iterator[memoryview]) -> None:
    """An archive of one file, without a blob for it."""
    sink = Sink(output)
    entry = msgspec.structs.replace(file(b""), size_bytes=size)
    member = zip_module._Member(b"huge", entry, 0)
    member.write_stream(sink, chunks)
    central = member.central_header()
    start = sink.position
    sink.write(central)
    sink.write(zip_module._end(1, start, len(central)))
    sink.flush()


def zeros(size: int) -> Iterator[memoryview]:
    chunk = memoryview(bytes(min(size, 64 << 20)))
    while size:
        yield chunk[: min(size, len(chunk))]
        size -= min(size, len(chunk))


@pytest.mark.parametrize("size", [5 << 20, pytest.param((4 << 30) + 7, marks=pytest.mark.slow)])
def test_zip64_sizes(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, size: int) -> None:
    """The form for files beyond 4 GiB, which readers also take for smaller ones."""
    if size < 4 << 30:
        monkeypatch.setattr(zip_module, "_ZIP64_FROM", 0)
    with (tmp_path / "x.zip").open("wb") as output:
        write_alone(output, size, zeros(size))
    with zipfile.ZipFile(tmp_path / "x.zip") as archive:
        info = archive.getinfo("huge")
        assert info.file_size == size
        assert info.extract_version == 45
        with archive.open(info) as content:
            assert content.read(100) == bytes(100)
    done = subprocess.run(
        ["unzip", "-tq", str(tmp_path / "x.zip")], capture_output=True, timeout=100, check=False
    )
    assert done.returncode == 0, done.stdout


def test_zip64_offsets(tmp_path: Path) -> None:
    """An archive that starts 5 GiB into a sparse file."""
    before = 5 << 30
    path = tmp_path / "x.zip"
    with path.open("wb") as output:
        output.seek(before)
        sink = Sink(output)
        sink.position = before
        member = zip_module._Member(b"far", file(b"far away"), before)
        member.write_whole(sink, b"far away")
        start = sink.position
        central = member.central_header()
        sink.write(central)
        sink.write(zip_module._end(1, start, len(central)))
        sink.flush()
    with zipfile.ZipFile(path) as archive:
        assert archive.getinfo("far").header_offset == before
        assert archive.read("far") == b"far away"
    done = subprocess.run(["unzip", "-tq", str(path)], capture_output=True, timeout=60, check=False)
    # 1: "extra bytes at beginning", which there are.
    assert done.returncode in (0, 1), done.stdout


@pytest.mark.parametrize("name", [b"sub/x", b"large"])
def test_other_content_is_an_error(tmp_path: Path, stored: Stored, name: bytes) -> None:
    blob = stored.blob_path(name)
    data = blob.read_bytes()
    blob.chmod(0o644)
    blob.write_bytes(data[:-1] + bytes([data[-1] ^ 1]))
    with pytest.raises(BlobError, match="has other content"):
        export_archive(stored.tree, stored.blobs, tmp_path / "x.zip")
    assert not (tmp_path / "x.zip").exists()


def test_an_empty_tree(tmp_path: Path) -> None:
    stored = store_files({}, tmp_path / "store")
    export_archive(stored.tree, stored.blobs, tmp_path / "x.zip")
    with zipfile.ZipFile(tmp_path / "x.zip") as archive:
        assert archive.namelist() == []


def test_the_bytes_before_deflate_are_fixed(tmp_path: Path) -> None:
    """Deflate's own output may change with zlib; everything around it may not."""
    stored = store_files({b"a": b"xy"}, tmp_path / "store")
    entries: dict[bytes, Entry] = {
        b"d": directory(0o700),
        b"d/a": file(b"xy", 0o4711),
        b"l\xc3\xa9": symlink(b"d/a"),
    }
    output = io.BytesIO()
    write_archive(make_tree(entries), stored.blobs, output, format="zip")
    assert hashlib.sha256(output.getvalue()).hexdigest() == FIXED_ZIP
