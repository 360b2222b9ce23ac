"""Modes, times, owners, extended attributes: exactly, and those on request only on request."""

from __future__ import annotations

import base64
import os
import subprocess
from pathlib import Path

import pytest

from castfs.errors import SourceError, UnreadableError
from castfs.manifest import Directory, File
from castfs.repository import Store
from tests.ingest.describing import describe_directory, describe_tree
from tests.ingest.taking import Ingest, Take

#: From the first second of ext4, 1901-12-13, to the last of 64 bits of nanoseconds, 2262-04-11.
TIMES = [
    0, 1, -1, -1_500_000_001, -(2**31) * 10**9, 10**9 - 1, 1_234_567_890_123_456_789,
    2**31 * 10**9, 2**32 * 10**9 + 999_999_999, 2**63 - 1,
]  # fmt: skip


@pytest.mark.needs_root
def test_every_mode_of_a_file(source: Path, take: Take) -> None:
    for mode in range(0o10000):
        fd = os.open(source / f"{mode:04o}", os.O_CREAT | os.O_WRONLY)
        os.fchmod(fd, mode)
        os.close(fd)
    tree = take().manifest.tree
    found = subprocess.run(
        ["find", ".", "-type", "f", "-printf", "%f %m\n"],
        cwd=source, capture_output=True, check=True, text=True,
    ).stdout  # fmt: skip
    assert {f"{os.fsdecode(path)} {file.mode:o}" for path, file in tree.files.items()} == set(
        found.splitlines()
    )
    assert len(tree.files) == 0o10000


@pytest.mark.needs_root
def test_modes_of_directories(source: Path, take: Take) -> None:
    modes = [*range(0, 0o10000, 0o111), 0o1777, 0o2755, 0o4711, 0o7777, 0]
    for mode in modes:
        (source / f"{mode:o}").mkdir(exist_ok=True)
        (source / f"{mode:o}").chmod(mode)
    source.chmod(0o3705)
    tree = take().manifest.tree
    assert {path: entry.mode for path, entry in tree.dirs.items()} == {
        b"%o" % mode: mode for mode in modes
    }
    assert tree.root.mode == 0o3705


@pytest.mark.parametrize("mtime_ns", TIMES)
def test_mtimes_to_the_nanosecond(source: Path, take: Take, mtime_ns: int) -> None:
    (source / "dir").mkdir()
    (source / "dir" / "file").write_bytes(b"x")
    (source / "link").symlink_to("dir")
    for path in (source / "dir" / "file", source / "link", source / "dir", source):
        os.utime(path, ns=(mtime_ns, mtime_ns), follow_symlinks=False)
        assert path.lstat().st_mtime_ns == mtime_ns
    tree = take().manifest.tree
    found = {path: entry.mtime_ns for path, entry in tree.iter_entries()}
    assert found == dict.fromkeys([b"dir", b"dir/file", b"link"], mtime_ns)
    assert tree.root.mtime_ns == mtime_ns


@pytest.mark.semantics("I14")
@pytest.mark.parametrize("kind", ["file", "directory", "symlink", "root"])
def test_a_time_that_does_not_fit_is_said(source: Path, store: Store, kind: str) -> None:
    """ext4 goes on to 2446, xfs to 2486; 64 bits of nanoseconds end in 2262."""
    (source / "other").write_bytes(b"x")
    place = source if kind == "root" else source / "strange"
    if kind == "file":
        place.write_bytes(b"x")
    elif kind == "directory":
        place.mkdir()
    elif kind == "symlink":
        place.symlink_to("other")
    os.utime(place, ns=(0, 2**63), follow_symlinks=False)
    assert place.lstat().st_mtime_ns == 2**63
    with pytest.raises(SourceError, match="time") as caught:
        store.ingest(source)
    if kind != "root":
        assert isinstance(caught.value, UnreadableError)
        assert [path for path, _ in caught.value.entries] == [b"strange"]
    assert list(store.iter_snapshots()) == []


def test_directories_and_what_find_says_of_them(source: Path, take: Take) -> None:
    (source / "empty").mkdir(mode=0o700)
    (source / "deep" / "er").mkdir(parents=True)
    (source / "deep" / "file").write_bytes(b"content")
    (source / "deep" / "link").symlink_to("../nowhere")
    os.utime(source / "deep", ns=(0, 1_111_111_111_222_222_222))
    found = subprocess.run(
        ["find", ".", "-mindepth", "1", "-printf", "%P|%y|%m|%T@|%l\n"],
        cwd=source, capture_output=True, check=True, text=True,
    ).stdout  # fmt: skip
    said = {}
    for line in found.splitlines():
        path, kind, mode, mtime, target = line.split("|")
        seconds, _, fraction = mtime.partition(".")
        said[path] = (kind, mode, int(seconds + fraction[:9]), target)
    ours = {}
    for path_bytes, entry in take().iter_entries():
        path = path_bytes.decode()
        if isinstance(entry, Directory | File):
            kind = "d" if isinstance(entry, Directory) else "f"
            ours[path] = (kind, f"{entry.mode:o}", entry.mtime_ns, "")
        else:
            ours[path] = ("l", "777", entry.mtime_ns, entry.raw_target.decode())
    assert ours == said


def test_an_empty_directory_is_a_snapshot(source: Path, take: Take) -> None:
    snapshot = take()
    assert describe_tree(snapshot.manifest.tree) == describe_directory(source)
    assert list(snapshot.iter_entries()) == []


@pytest.mark.needs_root
def test_owners_only_on_request(source: Path, take: Take) -> None:
    (source / "dir").mkdir()
    (source / "dir" / "file").write_bytes(b"x")
    (source / "link").symlink_to("dir")
    owners = {"dir": (1, 2), "dir/file": (4_000_000_000, 65534), "link": (7, 2**32 - 2)}
    for path, (uid, gid) in owners.items():
        os.chown(source / path, uid, gid, follow_symlinks=False)
    os.chown(source, 12, 34)
    for entry in (entry for _, entry in take().iter_entries()):
        assert (entry.uid, entry.gid) == (None, None)
    tree = take(owner=True).manifest.tree
    found = {os.fsdecode(path): (entry.uid, entry.gid) for path, entry in tree.iter_entries()}
    assert found == owners
    assert (tree.root.uid, tree.root.gid) == (12, 34)


def getfattr(path: Path) -> dict[bytes, bytes]:
    """What getfattr(1) says: name → value."""
    out = subprocess.run(
        ["getfattr", "-h", "-d", "-m", "-", "-e", "base64", "--absolute-names", path],
        capture_output=True, check=True,
    ).stdout  # fmt: skip
    pairs = [line.split(b"=", 1) for line in out.splitlines() if b"=" in line]
    return {name: base64.b64decode(value.removeprefix(b"0s")) for name, value in pairs}


@pytest.mark.needs_root
def test_extended_attributes_only_on_request(source: Path, take: Take) -> None:
    (source / "dir").mkdir()
    for name in ("dir/file", "large", "plain"):
        (source / name).write_bytes(b"x" * (2 << 20 if name == "large" else 1))
    (source / "link").symlink_to("dir")
    os.setxattr(source / "dir" / "file", "user.text", b"value")
    os.setxattr(source / "dir" / "file", b"user.\xff", bytes(range(256)))
    os.setxattr(source / "large", "user.empty", b"")
    os.setxattr(source / "dir", "trusted.root", b"only root sees it")
    os.setxattr(source / "link", "trusted.link", b"of the link", follow_symlinks=False)
    os.setxattr(source, "user.of the root", b"1")
    assert not take().manifest.tree.has_xattrs
    snapshot = take(xattrs=True)
    for path, entry in (*snapshot.iter_entries(), (b"", snapshot.get(b""))):
        raw = dict(entry.iter_xattrs())
        expected = getfattr(source / os.fsdecode(path))
        if path == b"dir/file":  # getfattr writes the odd byte as \377
            expected = {name.replace(b"\\377", b"\xff"): v for name, v in expected.items()}
        assert raw == expected, path
        assert bool(raw) is (path != b"plain")


def test_extended_attributes_of_files_that_the_cache_knows(
    source: Path, take: Take, later: None
) -> None:
    (source / "file").write_bytes(b"x")
    os.setxattr(source / "file", "user.a", b"1")
    first = take(xattrs=True)
    second = take(xattrs=True)
    assert dict(second.get(b"file").iter_xattrs()) == {b"user.a": b"1"}
    assert first.manifest.id == second.manifest.id


@pytest.mark.needs_root
def test_reproducible_takes_no_owner_and_no_attributes(
    source: Path, take: Take, ingest: Ingest
) -> None:
    (source / "file").write_bytes(b"x")
    (source / "link").symlink_to("file")
    plain = ingest(reproducible=True)
    os.setxattr(source / "file", "user.a", b"1")
    os.setxattr(source, "user.a", b"1")
    os.chown(source / "file", 5, 5)
    snapshot = take(reproducible=True, xattrs=True, owner=True)
    assert snapshot.manifest.id == plain.manifest_id
    assert not snapshot.manifest.tree.has_xattrs
    assert snapshot.get(b"file").uid is None
