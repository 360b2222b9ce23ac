"""What is restored equals what was taken, by the word of diff, find and rsync."""

from __future__ import annotations

import os
import resource
import subprocess
import threading
from pathlib import Path

import msgspec
import pytest

from castfs.manifest import encode_xattrs
from castfs.progress import Progress
from castfs.restore import restore_tree, workers
from castfs.restore.cursor import WINDOW
from castfs.store import BlobDir
from tests.restore.building import (
    MTIME_NS,
    directory,
    file,
    make_tree,
    store_blobs,
    store_directory,
    store_files,
    symlink,
)
from tests.restore.oracles import assert_same, changes_by_rsync, temporary_files
from tests.restore.sources import make_source


@pytest.mark.parametrize("threads", [1, 3])
@pytest.mark.parametrize("verify", [True, False])
@pytest.mark.needs_root
def test_everything_comes_back(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, threads: int, verify: bool
) -> None:
    monkeypatch.setattr(workers, "_WORTH_BYTES", 0)
    source = make_source(tmp_path / "source")
    stored = store_directory(source, tmp_path / "store")
    result = restore_tree(
        stored.tree, stored.blobs, tmp_path / "out", threads=threads, verify=verify
    )
    assert_same(source, tmp_path / "out")
    assert result.file_count == len(stored.tree.files)
    assert result.dir_count == len(stored.tree.dirs)
    assert result.symlink_count == len(stored.tree.symlinks)
    assert result.total_size_bytes == stored.tree.total_size_bytes
    assert result.skipped_existing == ()
    assert result.not_set == ()


@pytest.mark.needs_root
def test_hard_links_are_one_inode(tmp_path: Path) -> None:
    source = make_source(tmp_path / "source")
    stored = store_directory(source, tmp_path / "store")
    out = tmp_path / "out"
    restore_tree(stored.tree, stored.blobs, out)
    assert os.path.samefile(out / "hard", out / "sub" / "x")
    assert (out / "hard").stat().st_nlink == 3
    assert (out / "dangling").lstat().st_ino == (out / "hard dangling").lstat().st_ino


def test_runs_of_zeros_become_holes(tmp_path: Path) -> None:
    data = b"a" * (1 << 20) + bytes(64 << 20) + b"z"
    stored = store_files({b"sparse": data, b"all": bytes(3 << 20)}, tmp_path / "store")
    restore_tree(stored.tree, stored.blobs, tmp_path / "out")
    assert (tmp_path / "out/sparse").read_bytes() == data
    assert (tmp_path / "out/sparse").stat().st_blocks * 512 < 4 << 20
    assert (tmp_path / "out/all").read_bytes() == bytes(3 << 20)


@pytest.mark.needs_root
def test_owners_only_when_asked(tmp_path: Path) -> None:
    source = make_source(tmp_path / "source")
    for number, path in enumerate((source, source / "sub", source / "hard", source / "up")):
        os.chown(path, 1000 + number, 2000 + number, follow_symlinks=False)
    stored = store_directory(source, tmp_path / "store", owner=True)
    restore_tree(stored.tree, stored.blobs, tmp_path / "mine")
    assert (tmp_path / "mine/hard").stat().st_uid == os.getuid()
    result = restore_tree(stored.tree, stored.blobs, tmp_path / "theirs", owner=True)
    assert changes_by_rsync(source, tmp_path / "theirs", "-og", "--numeric-ids") == b""
    assert_same(source, tmp_path / "theirs")
    assert result.not_set == ()


def test_owners_that_were_not_recorded_are_reported(tmp_path: Path) -> None:
    stored = store_files({b"a": b"1"}, tmp_path / "store")
    result = restore_tree(stored.tree, stored.blobs, tmp_path / "out", owner=True)
    assert [(n.what, n.reason) for n in result.not_set] == [
        ("owner", "the snapshot does not record owners")
    ]


@pytest.mark.needs_root
def test_extended_attributes(tmp_path: Path) -> None:
    source = make_source(tmp_path / "source")
    os.setxattr(source / "large", b"user.bin\xff", b"\0\xff\n")
    os.setxattr(source / "sub", b"user.dir", b"on a read-only directory")
    os.setxattr(source / "-rf", b"user.empty", b"")
    os.setxattr(source, b"user.root", b"of the root")
    os.setxattr(source / "run.sh", b"trusted.secret", b"root only")
    stored = store_directory(source, tmp_path / "store", xattrs=True)
    out = tmp_path / "out"
    result = restore_tree(stored.tree, stored.blobs, out)
    for path in (source, *source.rglob("*")):
        copy = out / path.relative_to(source)
        names = os.listxattr(path, follow_symlinks=False)
        assert names == os.listxattr(copy, follow_symlinks=False)
        for name in names:
            assert os.getxattr(path, name) == os.getxattr(copy, name)
    assert_same(source, out)
    assert result.not_set == ()


def test_attributes_that_are_refused_are_reported_once_for_each_kind(tmp_path: Path) -> None:
    xattrs = encode_xattrs({b"nosuchkind.a": b"1", b"nosuchkind.b": b"2"})
    entry = msgspec.structs.replace(file(b"x"), xattrs=xattrs)
    stored = store_files({b"a": b"x"}, tmp_path / "store")
    tree = make_tree({b"a": entry, b"b": entry})
    result = restore_tree(tree, stored.blobs, tmp_path / "out")
    assert [(n.path, n.what, n.count) for n in result.not_set] == [
        (b"a", "nosuchkind.* extended attributes", 4)
    ]
    assert (tmp_path / "out/a").read_bytes() == b"x"


def test_a_time_that_the_filesystem_cannot_hold_is_reported(tmp_path: Path) -> None:
    stored = store_files({b"a": b"x"}, tmp_path / "store")
    tree = make_tree({b"a": file(b"x", mtime_ns=-(2**63))})
    result = restore_tree(tree, stored.blobs, tmp_path / "out")
    shown = (tmp_path / "out/a").stat().st_mtime_ns
    assert shown == -(2**63) or [n.what for n in result.not_set] == ["mtime"]


def test_an_empty_tree_makes_the_target(tmp_path: Path) -> None:
    stored = store_files({}, tmp_path / "store")
    root = directory(0o701, mtime_ns=1_000_000_007)
    restore_tree(make_tree({}, root=root), stored.blobs, tmp_path / "out")
    status = (tmp_path / "out").stat()
    assert (status.st_mode & 0o7777, status.st_mtime_ns) == (0o701, 1_000_000_007)


def test_the_target_may_be_a_symlink_to_a_directory(tmp_path: Path) -> None:
    stored = store_files({b"a": b"x"}, tmp_path / "store")
    (tmp_path / "real").mkdir()
    (tmp_path / "link").symlink_to("real")
    restore_tree(stored.tree, stored.blobs, tmp_path / "link")
    assert (tmp_path / "real/a").read_bytes() == b"x"


@pytest.mark.needs_root
def test_umask_has_no_say(tmp_path: Path) -> None:
    source = make_source(tmp_path / "source")
    stored = store_directory(source, tmp_path / "store")
    before = os.umask(0o777)
    try:
        restore_tree(stored.tree, stored.blobs, tmp_path / "out")
    finally:
        os.umask(before)
    assert_same(source, tmp_path / "out")


@pytest.mark.needs_root
def test_depth_of_5000_with_few_descriptors(tmp_path: Path) -> None:
    """Paths of 55,000 bytes: PATH_MAX is 4096. Two branches, so that the cursor goes far up."""
    step = b"component-"
    depth = 5000
    deepest = b"/".join([step] * depth)
    branch = b"/".join([step] * 100) + b"/other/place"
    files = {deepest + b"/bottom": b"deep", branch: b"shallow", b"top": b"top"}
    stored = store_files(files, tmp_path / "store")
    entries = {path: file(data) for path, data in files.items()}
    linked = msgspec.structs.replace(file(b"deep"), hardlink=(deepest + b"/bottom").decode())
    entries[deepest + b"/bottom"] = entries[deepest + b"/second"] = linked
    tree = make_tree({**entries, deepest: directory(0o500, mtime_ns=77)})
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    used = max(map(int, os.listdir("/proc/self/fd")))
    resource.setrlimit(resource.RLIMIT_NOFILE, (used + 2 * WINDOW + 20, hard))
    try:
        restore_tree(tree, stored.blobs, tmp_path / "out", threads=2)
    finally:
        resource.setrlimit(resource.RLIMIT_NOFILE, (soft, hard))
    fd = os.open(tmp_path / "out", os.O_RDONLY)
    for level in range(depth):
        below = os.open(step, os.O_RDONLY | os.O_NOFOLLOW, dir_fd=fd)
        os.close(fd)
        fd = below
        if level < depth - 1:
            assert os.fstat(fd).st_mtime_ns == MTIME_NS
    status = os.fstat(fd)
    assert (status.st_mode & 0o7777, status.st_mtime_ns) == (0o500, 77)
    assert sorted(os.listdir(fd)) == ["bottom", "second"]
    assert os.stat("second", dir_fd=fd).st_nlink == 2
    os.close(fd)
    assert os.path.exists(tmp_path / "out" / os.fsdecode(branch))
    # pytest's own clean-up cannot remove paths of that length.
    subprocess.run(["rm", "-rf", tmp_path / "out"], check=True, timeout=60)


def test_progress_hears_of_all_from_the_calling_thread(tmp_path: Path) -> None:
    class Recorder(Progress):
        def __init__(self) -> None:
            self.phases: list[tuple[str, int | None]] = []
            self.count = self.size = self.calls = 0

        def phase(self, name: str, *, total: int | None = None, unit: str = "files") -> None:
            self.phases.append((name, total))

        def advance(self, count: int, size: int = 0) -> None:
            assert threading.current_thread() is threading.main_thread()
            self.count += count
            self.size += size
            self.calls += 1

    contents = {b"d%d/f%d" % (i % 7, i): b"%d" % i * 1000 for i in range(500)}
    contents |= {b"large%d" % i: bytes([i]) * (2 << 20) for i in range(8)}
    stored = store_files(contents, tmp_path / "store")
    recorder = Recorder()
    restore_tree(stored.tree, stored.blobs, tmp_path / "out", threads=3, progress=recorder)
    total = stored.tree.total_size_bytes
    assert recorder.phases == [("checking", None), ("restoring", total)]
    assert (recorder.count, recorder.size) == (508, total)
    assert recorder.calls < 508


def test_the_same_blob_under_many_names(tmp_path: Path) -> None:
    stored = store_files({b"a": b"same"}, tmp_path / "store")
    names = [b"n%d" % number for number in range(300)]
    tree = make_tree({name: file(b"same", mode=0o600 + i % 8) for i, name in enumerate(names)})
    restore_tree(tree, stored.blobs, tmp_path / "out", threads=4)
    for i, name in enumerate(names):
        status = (tmp_path / "out" / os.fsdecode(name)).stat()
        assert (status.st_mode & 0o7777, status.st_nlink) == (0o600 + i % 8, 1)
    assert temporary_files(tmp_path) == []


def test_blobs_may_lie_in_a_directory_without_a_store(tmp_path: Path) -> None:
    """The older systems' layout: only a directory of blobs."""
    stored = store_files({b"a": b"x", b"l/b": b"y"}, tmp_path / "store")
    (tmp_path / "store/blobs").rename(tmp_path / "blobs")
    tree = make_tree({**dict(stored.tree.iter_entries()), b"s": symlink(b"l")})
    restore_tree(tree, BlobDir(tmp_path / "blobs"), tmp_path / "out")
    assert (tmp_path / "out/s/b").read_bytes() == b"y"


def test_a_filesystem_that_shares_extents(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The clone is made, and what it holds is what is verified."""
    cloned: list[int] = []

    def clone(source_fd: int, target_fd: int) -> bool:
        size = os.fstat(source_fd).st_size
        os.copy_file_range(source_fd, target_fd, size, offset_src=0, offset_dst=0)
        cloned.append(size)
        return True

    monkeypatch.setattr("castfs.restore.copying.clone_file", clone)
    data = os.urandom(3 << 20)
    stored = store_files({b"big": data, b"small": b"x"}, tmp_path / "store")
    store_blobs(stored.depot, data)
    restore_tree(stored.tree, stored.blobs, tmp_path / "out")
    assert cloned == [len(data)]
    assert (tmp_path / "out/big").read_bytes() == data
