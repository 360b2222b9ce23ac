"""Other people's tools see no difference between a mounted snapshot and its source."""

from __future__ import annotations

import ctypes
import os
import stat
import subprocess
from pathlib import Path

import pytest

from castfs.manifest import Directory, File, Tree, order_canonically
from castfs.store import WriteSession, ensure_depot
from tests.mount.conftest import Mounter, run
from tests.mount.snapshots import publish
from tests.mount.trees import describe, make_varied_tree, write

pytestmark = pytest.mark.mounted


@pytest.fixture
def varied(mounter: Mounter) -> Mounter:
    make_varied_tree(mounter.source)
    return mounter


@pytest.mark.needs_root
def test_find_sees_the_same(varied: Mounter) -> None:
    expected = describe(varied.source)
    assert len(expected) > 60
    assert describe(varied.mount()) == expected


@pytest.mark.needs_root
def test_rsync_finds_nothing_to_copy(varied: Mounter) -> None:
    mountpoint = varied.mount()
    for source, target in ((varied.source, mountpoint), (mountpoint, varied.source)):
        output = run("rsync", "-aHn", "--checksum", "--delete", "-i", f"{source}/", f"{target}/")
        assert output == ""


@pytest.mark.needs_root
def test_rsync_finds_the_owners_too(varied: Mounter) -> None:
    os.chown(varied.source / "small", 12345, 54321)
    os.chown(varied.source / "links" / "dangling", 1, 2, follow_symlinks=False)
    os.chown(varied.source / "modes", 3, 4)
    mountpoint = varied.mount(owner=True)
    assert run("rsync", "-aHn", "--delete", "-i", f"{varied.source}/", f"{mountpoint}/") == ""
    status = (mountpoint / "small").stat()
    assert (status.st_uid, status.st_gid) == (12345, 54321)


@pytest.mark.needs_root
def test_tar_compares_equal(varied: Mounter, tmp_path: Path) -> None:
    archive = tmp_path / "source.tar"
    run("tar", "--format=posix", "-C", varied.source, "-cf", archive, ".")
    run("tar", "-C", varied.mount(), "--compare", "-f", archive)


@pytest.mark.needs_root
def test_diff_finds_nothing(varied: Mounter) -> None:
    assert run("diff", "-r", "--no-dereference", varied.source, varied.mount()) == ""


@pytest.mark.needs_root
def test_ls_shows_the_same(varied: Mounter) -> None:
    command = ["ls", "-lAR", "--time-style=full-iso", "--quoting-style=c", "--hide-control-chars"]
    # Directories' own sizes and block totals are the filesystem's business.
    drop = r"/^total /d; s/^(d[^ ]+ +[0-9]+ +[^ ]+ +[^ ]+ +)[0-9]+/\1-/; s/ +/ /g"

    def listing(root: Path) -> str:
        shown = subprocess.run(command, cwd=root, capture_output=True, check=True, timeout=60)
        return run("sed", "-E", drop, input=shown.stdout)

    expected = listing(varied.source)
    assert "before 1970" in expected
    assert listing(varied.mount()) == expected


@pytest.mark.needs_root
def test_inodes_and_links(varied: Mounter) -> None:
    mountpoint = varied.mount()
    group = [
        mountpoint / "hard" / "b first",
        mountpoint / "hard" / "third",
        mountpoint / "a second",
    ]
    assert len({path.stat().st_ino for path in group}) == 1
    assert {path.stat().st_nlink for path in group} == {3}
    inodes: dict[int, list[str]] = {}
    for where, dir_names, file_names in os.walk(mountpoint):
        for name in (*dir_names, *file_names):
            path = os.path.join(where, name)
            inodes.setdefault(os.lstat(path).st_ino, []).append(path)
    assert mountpoint.stat().st_ino == 1
    assert 1 not in inodes
    assert sorted(len(paths) for paths in inodes.values() if len(paths) > 1) == [2, 3]
    with os.scandir(mountpoint) as entries:
        for entry in entries:
            assert entry.inode() == os.lstat(entry.path).st_ino


@pytest.mark.needs_root
def test_inodes_are_the_same_in_every_mount(varied: Mounter) -> None:
    snapshot = varied.take()
    other = varied.base / "other"
    other.mkdir()
    varied.start(snapshot)
    varied.start(snapshot, at=other)
    listings = [run("find", ".", "-printf", r"%i %p\0", cwd=p) for p in (varied.mountpoint, other)]
    assert listings[0] == listings[1]


@pytest.mark.needs_root
def test_directory_links_count_subdirectories(varied: Mounter) -> None:
    mountpoint = varied.mount()
    for where, dir_names, _ in os.walk(mountpoint):
        inner = [name for name in dir_names if not os.path.islink(os.path.join(where, name))]
        assert os.stat(where).st_nlink == 2 + len(inner)


@pytest.mark.needs_root
def test_dots_are_listed_with_their_inodes(varied: Mounter) -> None:
    mountpoint = varied.mount()
    output = run("ls", "-fia", mountpoint / "nothing" / "in")
    inodes = {name: int(number) for number, name in (line.split() for line in output.splitlines())}
    assert inodes["."] == (mountpoint / "nothing" / "in").stat().st_ino
    assert inodes[".."] == (mountpoint / "nothing").stat().st_ino
    assert set(inodes) == {".", "..", "here"}


@pytest.mark.needs_root
def test_modes_times_and_sizes_are_exact(varied: Mounter) -> None:
    snapshot = varied.take()
    varied.start(snapshot)
    tree = snapshot.manifest.tree
    root = os.fsencode(varied.mountpoint)
    entries: list[tuple[bytes, File | Directory]] = [(b"", tree.root)]
    entries += [*tree.dirs.items(), *tree.files.items()]
    for path, entry in entries:
        status = os.lstat(root + b"/" + path)
        assert stat.S_IMODE(status.st_mode) == entry.mode
        assert status.st_mtime_ns == entry.mtime_ns
        assert status.st_ctime_ns == status.st_atime_ns == status.st_mtime_ns
    for path, file in tree.files.items():
        status = os.lstat(root + b"/" + path)
        assert status.st_size == file.size_bytes
        assert status.st_blocks == -(-file.size_bytes // 512)
        content = Path(os.fsdecode(root + b"/" + path)).read_bytes()
        assert content == (varied.source / os.fsdecode(path)).read_bytes()
    for path, link in tree.symlinks.items():
        status = os.lstat(root + b"/" + path)
        assert os.readlink(root + b"/" + path) == link.raw_target
        assert status.st_size == len(link.raw_target)
        assert stat.S_IMODE(status.st_mode) == 0o777
        assert status.st_mtime_ns == link.mtime_ns


@pytest.mark.semantics("M5")
def test_deeper_than_path_max(mounter: Mounter) -> None:
    name, depth = "d" * 200, 40
    fd = os.open(mounter.source, os.O_RDONLY)
    for _ in range(depth):
        os.mkdir(name, dir_fd=fd)
        inner = os.open(name, os.O_RDONLY, dir_fd=fd)
        os.close(fd)
        fd = inner
    os.close(os.open("bottom", os.O_CREAT | os.O_WRONLY, dir_fd=fd))
    os.close(fd)
    expected = describe(mounter.source)
    assert max(map(len, expected)) > 8000
    assert describe(mounter.mount()) == expected


@pytest.mark.semantics("M6")
@pytest.mark.parametrize("count", [100_000, pytest.param(1_000_000, marks=pytest.mark.slow)])
def test_a_directory_of_very_many_entries(mounter: Mounter, count: int) -> None:
    depot, _ = ensure_depot(mounter.store)
    with WriteSession(depot, purpose="test") as session:
        blob = session.stage_bytes(b"content")
        file = File(mode=0o644, mtime_ns=1, sha256=blob.digest, size_bytes=blob.size)
        names = [b"entry %07d" % number for number in range(count)]
        snapshot = publish(
            session,
            Tree(
                root=Directory(mode=0o755, mtime_ns=0),
                dirs={},
                files=order_canonically(dict.fromkeys(names, file)),
                symlinks={},
            ),
        )
    mounter.start(snapshot)
    assert sorted(os.listdir(os.fsencode(mounter.mountpoint))) == names
    assert (mounter.mountpoint / f"entry {count - 1:07}").read_bytes() == b"content"
    assert not (mounter.mountpoint / f"entry {count:07}").exists()


@pytest.mark.semantics("M24")
def test_listing_from_any_position(mounter: Mounter) -> None:
    """telldir and seekdir, which `rm -r`, NFS and some languages' walkers use."""
    for number in range(500):
        write(mounter.source / f"{number:03}")
    mountpoint = mounter.mount()
    libc = ctypes.CDLL(None, use_errno=True)
    libc.opendir.restype = ctypes.c_void_p
    libc.telldir.argtypes = [ctypes.c_void_p]
    libc.telldir.restype = ctypes.c_long
    libc.seekdir.argtypes = [ctypes.c_void_p, ctypes.c_long]
    libc.closedir.argtypes = [ctypes.c_void_p]
    libc.readdir.argtypes = [ctypes.c_void_p]
    libc.readdir.restype = ctypes.c_void_p

    def read_name() -> bytes | None:
        entry = libc.readdir(directory)
        # struct dirent64: ino, off, reclen, type, name (readdir(3))
        return ctypes.string_at(entry + 19) if entry else None

    directory = libc.opendir(os.fsencode(mountpoint))
    positions = []
    while True:
        position = libc.telldir(directory)
        name = read_name()
        if name is None:
            break
        positions.append((position, name))
    assert len(positions) == 502
    for position, name in reversed(positions):
        libc.seekdir(directory, position)
        assert read_name() == name
    libc.closedir(directory)


@pytest.mark.semantics("M48")
def test_totals(mounter: Mounter) -> None:
    write(mounter.source / "a", b"x" * 1000)
    write(mounter.source / "b", b"x" * 512)
    os.link(mounter.source / "b", mounter.source / "b too")
    (mounter.source / "directory").mkdir()
    totals = os.statvfs(mounter.mount())
    assert totals.f_blocks * totals.f_frsize == 1024 + 512
    assert totals.f_files == 4
    assert (totals.f_bfree, totals.f_bavail, totals.f_ffree, totals.f_favail) == (0, 0, 0, 0)
    assert totals.f_namemax == 255
    assert totals.f_flag & os.ST_RDONLY
    assert run("du", "-s", "-B1", mounter.mountpoint).split()[0] == "1536"
    assert run("df", "-B1", "--output=used", mounter.mountpoint).split()[1] == "1536"


@pytest.mark.semantics("M46")
def test_xattrs_are_shown(mounter: Mounter) -> None:
    file = write(mounter.source / "file", b"x")
    write(mounter.source / "without")
    os.setxattr(file, "user.one", b"\x00value\xff")
    os.setxattr(file, "user.two", b"")
    os.setxattr(mounter.source, "user.root", b"r")
    mountpoint = mounter.mount(xattrs=True)
    assert sorted(os.listxattr(mountpoint / "file")) == ["user.one", "user.two"]
    assert os.getxattr(mountpoint / "file", "user.one") == b"\x00value\xff"
    assert os.getxattr(mountpoint / "file", "user.two") == b""
    assert os.getxattr(mountpoint, "user.root") == b"r"
    assert os.listxattr(mountpoint / "without") == []
    with pytest.raises(OSError, match="No data available"):
        os.getxattr(mountpoint / "file", "user.three")


@pytest.mark.semantics("M47")
def test_xattrs_are_not_asked_for_where_there_are_none(mounter: Mounter) -> None:
    write(mounter.source / "file")
    mountpoint = mounter.mount()
    with pytest.raises(OSError, match="Operation not supported"):
        os.listxattr(mountpoint / "file")
    with pytest.raises(OSError, match="Operation not supported"):
        os.getxattr(mountpoint / "file", "user.one")


@pytest.mark.semantics("M25")
@pytest.mark.needs_root
def test_file_handles_survive_dropped_caches(mounter: Mounter) -> None:
    """name_to_handle_at(2), as NFS servers use it: the kernel looks up `.` of the inode."""
    write(mounter.source / "file", b"by handle")
    mountpoint = mounter.mount()
    libc = ctypes.CDLL(None, use_errno=True)
    handle = ctypes.create_string_buffer(8 + 128)
    ctypes.c_uint.from_buffer(handle).value = 128
    mount_id = ctypes.c_int()
    at_fdcwd = -100
    path = os.fsencode(mountpoint / "file")
    assert libc.name_to_handle_at(at_fdcwd, path, handle, ctypes.byref(mount_id), 0) == 0
    Path("/proc/sys/vm/drop_caches").write_text("2")
    mount_fd = os.open(mountpoint, os.O_RDONLY)
    try:
        fd = libc.open_by_handle_at(mount_fd, handle, os.O_RDONLY)
        assert fd >= 0, os.strerror(ctypes.get_errno())
        with open(fd, "rb") as file:
            assert file.read() == b"by handle"
    finally:
        os.close(mount_fd)
