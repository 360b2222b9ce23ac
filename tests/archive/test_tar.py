"""tar and tar.zst: GNU tar extracts and compares them, Python's tarfile reads them."""

from __future__ import annotations

import hashlib
import io
import os
import subprocess
import sys
import tarfile
from pathlib import Path

import msgspec
import pytest

from castfs.archive import export_archive, write_archive
from castfs.archive import tar as tar_module
from castfs.errors import BlobError
from castfs.manifest import Entry, encode_xattrs
from tests.restore.building import (
    Stored,
    directory,
    file,
    make_tree,
    store_directory,
    store_files,
    symlink,
)
from tests.restore.oracles import assert_same, changes_by_rsync
from tests.restore.sources import make_source

FIXED_TAR = "b72cbeed256ef06851c48e3af8fcf3ab9f698677ac33d2c15599a8681d5b07f6"

#: What GNU tar 1.34 says of the pax keyword for names that are not UTF-8, and still does right.
_IGNORED = (
    b"tar: Ignoring unknown extended header keyword 'hdrcharset'",
    b"implausibly old time stamp",
    b"in the future",
)


def gnu_tar(*arguments: str | Path, stdin: bytes | None = None) -> bytes:
    done = subprocess.run(
        ["tar", *map(str, arguments)], input=stdin, capture_output=True, timeout=60, check=False
    )
    complaints = [
        line for line in done.stderr.splitlines() if not any(known in line for known in _IGNORED)
    ]
    assert (done.returncode, complaints) == (0, [])
    return done.stdout


@pytest.fixture
def source(tmp_path: Path) -> Path:
    return make_source(tmp_path / "source")


@pytest.fixture
def stored(tmp_path: Path, source: Path) -> Stored:
    return store_directory(source, tmp_path / "store")


@pytest.mark.needs_root
def test_gnu_tar_extracts_the_source(tmp_path: Path, source: Path, stored: Stored) -> None:
    export_archive(stored.tree, stored.blobs, tmp_path / "x.tar")
    (tmp_path / "out").mkdir()
    gnu_tar("-xpf", tmp_path / "x.tar", "-C", tmp_path / "out")
    assert_same(source, tmp_path / "out")


@pytest.mark.needs_root
def test_gnu_tar_finds_no_difference(tmp_path: Path, source: Path) -> None:
    """With recorded owners, which --compare looks at."""
    os.chown(source / "large", 5_000_000, 4_000_000_000)
    os.chown(source / "sub", 1000, 1001)
    (source / "large").chmod(0o444)
    stored = store_directory(source, tmp_path / "store", owner=True)
    export_archive(stored.tree, stored.blobs, tmp_path / "x.tar")
    assert gnu_tar("--compare", "-f", tmp_path / "x.tar", "-C", source) == b""
    (tmp_path / "out").mkdir()
    gnu_tar("-xpf", tmp_path / "x.tar", "--numeric-owner", "-C", tmp_path / "out")
    assert changes_by_rsync(source, tmp_path / "out", "-og", "--numeric-ids") == b""


@pytest.mark.needs_root
def test_gnu_tar_as_a_user_enters_read_only_directories(tmp_path: Path) -> None:
    """`a-b` sorts between `a` and `a/x`: in that order tar would have closed `a` too early."""
    contents = {b"a/x": b"1", b"a-b": b"2", b"a/y/z": b"3"}
    stored = store_files(contents, tmp_path / "store")
    closed: dict[bytes, Entry] = dict(stored.tree.iter_entries())
    closed |= {b"a": directory(0o555, mtime_ns=10**18), b"a/y": directory(0o500)}
    export_archive(make_tree(closed), stored.blobs, tmp_path / "x.tar")
    (tmp_path / "out").mkdir()
    os.chown(tmp_path / "out", 1000, 1000)
    # tar itself may be run by everybody; the way to tmp_path is closed, so it starts inside.
    script = (
        "import os, warnings; os.setgroups([]); os.setgid(1000); os.setuid(1000);"
        "os.execvp('tar', ['tar', '-xp'])"
    )
    done = subprocess.run(
        [sys.executable, "-c", script],
        cwd=tmp_path / "out",
        input=(tmp_path / "x.tar").read_bytes(),
        capture_output=True,
        timeout=60,
        check=False,
    )
    assert (done.returncode, done.stderr) == (0, b"")
    assert (tmp_path / "out/a/y/z").read_text() == "3"
    status = (tmp_path / "out/a").stat()
    assert (status.st_mode & 0o7777, status.st_mtime_ns) == (0o555, 10**18)


@pytest.mark.needs_root
def test_extended_attributes_reach_gnu_tar(tmp_path: Path, source: Path) -> None:
    os.setxattr(source / "large", b"user.odd=%name", b"\0\xff\n")
    os.setxattr(source / "sub", b"user.dir", b"value")
    os.setxattr(source / "run.sh", b"user.empty", b"")
    stored = store_directory(source, tmp_path / "store", xattrs=True)
    export_archive(stored.tree, stored.blobs, tmp_path / "x.tar")
    (tmp_path / "out").mkdir()
    gnu_tar("--xattrs", "-xpf", tmp_path / "x.tar", "-C", tmp_path / "out")
    assert os.getxattr(tmp_path / "out/large", b"user.odd=%name") == b"\0\xff\n"
    assert os.getxattr(tmp_path / "out/sub", b"user.dir") == b"value"
    assert os.getxattr(tmp_path / "out/run.sh", b"user.empty") == b""
    assert_same(source, tmp_path / "out")
    assert gnu_tar("--xattrs", "--compare", "-f", tmp_path / "x.tar", "-C", source) == b""


@pytest.mark.needs_root
def test_tarfile_reads_every_entry(tmp_path: Path, stored: Stored) -> None:
    export_archive(stored.tree, stored.blobs, tmp_path / "x.tar")
    with tarfile.open(tmp_path / "x.tar") as archive:
        members = {os.fsencode(member.name): member for member in archive}
        assert members.pop(b".").mode == stored.tree.root.mode
        assert members.keys() == {path for path, _ in stored.tree.iter_entries()}
        for path, entry in stored.tree.files.items():
            member = members[path]
            content = archive.extractfile(member)
            assert content is not None
            assert hashlib.sha256(content.read()).hexdigest() == entry.sha256
            assert (member.mode, member.uid, member.gid) == (entry.mode, 0, 0)
            assert (member.uname, member.gname) == ("", "")
        for path, link in stored.tree.symlinks.items():
            if members[path].issym():
                assert os.fsencode(members[path].linkname) == link.raw_target
        assert sum(member.islnk() for member in members.values()) == 3


@pytest.mark.parametrize("format", ["tar", "tar.zst"])
@pytest.mark.needs_root
def test_the_same_tree_gives_the_same_bytes(tmp_path: Path, source: Path, format: str) -> None:
    archives = set()
    for number in range(2):
        stored = store_directory(source, tmp_path / f"store{number}")
        # In whatever order the mappings are.
        entries = dict(reversed(list(stored.tree.iter_entries())))
        tree = make_tree(entries, root=stored.tree.root)  # type: ignore[arg-type]
        output = io.BytesIO()
        write_archive(tree, stored.blobs, output, format=format)  # type: ignore[arg-type]
        archives.add(output.getvalue())
    assert len(archives) == 1


def test_the_bytes_of_a_small_archive_are_fixed(tmp_path: Path) -> None:
    """A change of these bytes is a change for everybody who compares archives by digest."""
    stored = store_files({b"a": b"content"}, tmp_path / "store")
    linked = msgspec.structs.replace(file(b"content", 0o4755, 1), hardlink="d/b")
    tree = make_tree(
        {
            b"d": directory(0o700, 10**18),
            b"d/b": linked,
            b"e\xff": linked,
            b"l": symlink(b"d/b", -1),
            b"x": msgspec.structs.replace(
                file(b"content"), uid=1000, gid=2**31, xattrs=encode_xattrs({b"user.k": b"v"})
            ),
        }
    )
    output = io.BytesIO()
    write_archive(tree, stored.blobs, output, format="tar")
    assert hashlib.sha256(output.getvalue()).hexdigest() == FIXED_TAR


@pytest.mark.needs_root
def test_through_a_pipe(tmp_path: Path, source: Path, stored: Stored) -> None:
    (tmp_path / "out").mkdir()
    tar = subprocess.Popen(
        ["tar", "-xp", "-C", str(tmp_path / "out")], stdin=subprocess.PIPE, stderr=subprocess.PIPE
    )
    assert tar.stdin is not None
    # Unbuffered: a write to a pipe may take a part only.
    with open(tar.stdin.fileno(), "wb", buffering=0, closefd=False) as raw:
        write_archive(stored.tree, stored.blobs, raw, format="tar")
    tar.communicate(timeout=60)
    assert tar.returncode == 0
    assert_same(source, tmp_path / "out")


def test_a_reader_that_goes_away(tmp_path: Path) -> None:
    stored = store_files({b"a": os.urandom(1 << 20)}, tmp_path / "store")
    reading, writing = os.pipe()
    os.close(reading)
    with open(writing, "wb", buffering=0) as output, pytest.raises(BrokenPipeError):
        write_archive(stored.tree, stored.blobs, output, format="tar")


@pytest.mark.needs_root
def test_zstd_says_that_it_is_whole(tmp_path: Path, source: Path, stored: Stored) -> None:
    for name in ("x.tar.zst", "x.tzst"):
        result = export_archive(stored.tree, stored.blobs, tmp_path / name)
        assert result.format == "tar.zst"
        assert result.archive_bytes == (tmp_path / name).stat().st_size
        subprocess.run(["zstd", "-q", "-t", str(tmp_path / name)], check=True, timeout=60)
    unpacked = subprocess.run(
        ["zstd", "-dc", str(tmp_path / "x.tzst")], check=True, timeout=60, capture_output=True
    ).stdout
    export_archive(stored.tree, stored.blobs, tmp_path / "x.tar")
    assert unpacked == (tmp_path / "x.tar").read_bytes()
    assert len(unpacked) % 10240 == 0


@pytest.mark.parametrize("length", [99, 100, 101, 155, 255])
@pytest.mark.parametrize("depth", [1, 3])
def test_names_at_the_edges_of_the_header(tmp_path: Path, length: int, depth: int) -> None:
    name = b"/".join([b"n" * length] * depth)
    stored = store_files({name: b"x"}, tmp_path / "store")
    tree = make_tree({name: file(b"x"), b"link": symlink(name)})
    export_archive(tree, stored.blobs, tmp_path / "x.tar")
    listed = gnu_tar("-tf", tmp_path / "x.tar").splitlines()
    assert name in listed
    (tmp_path / "out").mkdir()
    gnu_tar("-xf", tmp_path / "x.tar", "-C", tmp_path / "out")
    assert (tmp_path / "out/link").read_text() == "x"


def test_a_file_beyond_8_gib() -> None:
    """Its size needs a pax record. The header alone: the content would be 8 GiB."""
    size = (8 << 30) + 5
    entry = msgspec.structs.replace(file(b""), size_bytes=size)
    header = tar_module._header(b"huge", entry)
    with tarfile.open(fileobj=io.BytesIO(header + bytes(1024)), mode="r:") as archive:
        member = archive.next()
    assert member is not None
    assert (member.name, member.size) == ("huge", size)


@pytest.mark.parametrize(
    "mtime_ns", [0, 1, -1, -1_500_000_000, 10**9, 123_456_789_100, 2**62, 8 * 10**18, -(10**18)]
)
def test_times_are_exact(tmp_path: Path, mtime_ns: int) -> None:
    stored = store_files({b"a": b"x"}, tmp_path / "store")
    tree = make_tree({b"a": file(b"x", mtime_ns=mtime_ns)})
    output = io.BytesIO()
    write_archive(tree, stored.blobs, output, format="tar")
    (tmp_path / "out").mkdir()
    gnu_tar("-x", "-C", tmp_path / "out", stdin=output.getvalue())
    assert (tmp_path / "out/a").stat().st_mtime_ns == mtime_ns


@pytest.mark.needs_root
def test_other_content_ends_the_archive(tmp_path: Path, stored: Stored) -> None:
    blob = stored.blob_path(b"large")
    data = blob.read_bytes()
    blob.chmod(0o644)
    blob.write_bytes(data[:-1] + bytes([data[-1] ^ 1]))
    with pytest.raises(BlobError, match=r"^large: blob .* has other content"):
        export_archive(stored.tree, stored.blobs, tmp_path / "x.tar")
    assert list(tmp_path.glob("*.tar")) == []
    assert list(tmp_path.glob(".castfs-*")) == []


@pytest.mark.needs_root
def test_a_missing_blob_is_found_before_the_first_byte(tmp_path: Path, stored: Stored) -> None:
    stored.blob_path(b"large").unlink()
    output = io.BytesIO()
    with pytest.raises(BlobError, match=r"^the blob of large in .* is missing"):
        write_archive(stored.tree, stored.blobs, output, format="tar")
    assert output.getvalue() == b""
