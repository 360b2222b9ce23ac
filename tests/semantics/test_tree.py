"""The mounted tree: names, kinds, modes, times, sizes, numbers, listings, symlinks."""

from __future__ import annotations

import errno
import os
import socket
import stat
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import pytest

from tests.mount.conftest import run
from tests.mount.trees import NAMES, describe, make_varied_tree, write
from tests.semantics.conftest import World

pytestmark = pytest.mark.mounted


@dataclass(frozen=True)
class Pair:
    """A source and a mount of its snapshot."""

    source: Path
    mount: Path
    id: str


@pytest.fixture(scope="module")
def pair(world: World) -> Pair:
    source = world.directory("source")
    make_varied_tree(source)
    write(source / "Case", b"upper")
    write(source / "case", b"lower")
    taken = world.ingest(source)
    return Pair(source, world.mount(taken), taken)


def walk(root: Path) -> Iterator[tuple[bytes, os.stat_result]]:
    """Each path below `root` as bytes, relative to it, and its lstat."""
    top = os.fsencode(root)
    for where, dir_names, file_names in os.walk(top):
        for name in (*dir_names, *file_names):
            path = os.path.join(where, name)
            yield os.path.relpath(path, top), os.lstat(path)


@pytest.mark.semantics("M1")
@pytest.mark.parametrize("oracle", ["find", "rsync", "tar", "diff"])
@pytest.mark.needs_root
def test_no_difference(world: World, pair: Pair, oracle: str) -> None:
    source, mount = pair.source, pair.mount
    if oracle == "find":
        expected = describe(source)
        assert len(expected) > 60
        assert describe(mount) == expected
    elif oracle == "rsync":
        flags = ["-aHn", "--checksum", "--delete", "-i"]
        assert run("rsync", *flags, f"{source}/", f"{mount}/") == ""
        assert run("rsync", *flags, f"{mount}/", f"{source}/") == ""
    elif oracle == "tar":
        archive = world.directory() / "source.tar"
        run("tar", "--format=posix", "-C", source, "-cf", archive, ".")
        run("tar", "-C", mount, "--compare", "-f", archive)
    else:
        assert run("diff", "-r", "--no-dereference", source, mount) == ""


@pytest.mark.semantics("M2")
@pytest.mark.needs_root
def test_names(pair: Pair) -> None:
    assert sorted(os.listdir(os.fsencode(pair.mount / "names"))) == sorted(NAMES)
    assert {path for path, _ in walk(pair.mount)} == {path for path, _ in walk(pair.source)}
    for length, code in ((255, errno.ENOENT), (256, errno.ENAMETOOLONG)):
        with pytest.raises(OSError, match=os.strerror(code)):
            (pair.mount / ("n" * length)).stat()


@pytest.mark.semantics("M3")
@pytest.mark.needs_root
def test_names_are_bytes(pair: Pair) -> None:
    assert (pair.mount / "Case").read_bytes() == b"upper"
    assert (pair.mount / "case").read_bytes() == b"lower"
    composed, decomposed = (
        pair.mount / "names" / name for name in ("sm\u00f6rg\u00e5s", "smo\u0308rg\u00e5s")
    )
    assert composed.read_bytes() != decomposed.read_bytes()
    assert not (pair.mount / "CASE").exists()
    assert not (pair.mount / "names" / "smo\u0308rga\u030as").exists()


@pytest.mark.semantics("M4")
@pytest.mark.needs_root
def test_kinds(world: World, pair: Pair) -> None:
    assert {stat.S_IFMT(status.st_mode) for _, status in walk(pair.mount)} == {
        stat.S_IFDIR,
        stat.S_IFREG,
        stat.S_IFLNK,
    }
    source = world.directory("source")
    write(source / "file")
    os.mkfifo(source / "fifo")
    os.mknod(source / "device", stat.S_IFCHR | 0o666, os.makedev(1, 3))
    with socket.socket(socket.AF_UNIX) as unix:
        unix.bind(str(source / "socket"))
    mount = world.mount(world.ingest(source, code=3))
    assert os.listdir(mount) == ["file"]
    assert not (mount / "fifo").exists()


@pytest.mark.semantics("M7")
@pytest.mark.needs_root
def test_modes(pair: Pair) -> None:
    for bits in (0o000, 0o200, 0o4755, 0o2755, 0o6711, 0o1644, 0o7777, 0o666):
        assert stat.S_IMODE((pair.mount / "modes" / f"{bits:o}").stat().st_mode) == bits
    for bits in (0o500, 0o777, 0o1777, 0o3777):
        assert stat.S_IMODE((pair.mount / "modes" / f"dir-{bits:o}").stat().st_mode) == bits
    assert not os.access(pair.mount / "modes" / "666", os.W_OK)


@pytest.mark.semantics("M8")
@pytest.mark.needs_root
def test_symlink_modes(pair: Pair) -> None:
    modes = {stat.S_IMODE(s.st_mode) for _, s in walk(pair.mount) if stat.S_ISLNK(s.st_mode)}
    assert modes == {0o777}


@pytest.mark.semantics("M9")
@pytest.mark.needs_root
def test_without_recorded_owners(world: World) -> None:
    source = world.directory("source")
    os.chown(write(source / "theirs"), 12345, 54321)
    mount = world.show(source)
    for path in (mount, mount / "theirs"):
        assert (path.stat().st_uid, path.stat().st_gid) == (os.getuid(), os.getgid())


@pytest.mark.semantics("M10")
@pytest.mark.needs_root
def test_recorded_owners(world: World) -> None:
    source = world.directory("source")
    os.chown(write(source / "theirs"), 12345, 54321)
    (source / "link").symlink_to("theirs")
    os.chown(source / "link", 1, 2, follow_symlinks=False)
    os.chown(source, 2**31 + 5, 3)
    mount = world.show(source, taken_with=("--owner",))
    assert run("rsync", "-aHn", "--delete", "-i", f"{source}/", f"{mount}/") == ""
    command = ["find", ".", "-printf", r"%P %U %G\n"]
    owners = run(*command, cwd=mount).splitlines()
    assert sorted(owners) == [" 2147483653 3", "link 1 2", "theirs 12345 54321"]


@pytest.mark.semantics("M15")
@pytest.mark.needs_root
def test_times_of_modification(pair: Pair) -> None:
    times = {path: status.st_mtime_ns for path, status in walk(pair.mount)}
    assert times == {path: status.st_mtime_ns for path, status in walk(pair.source)}
    assert times[b"times/before 1970"] == -1_234_567_890_123_456_789
    assert times[b"times/a ns before 1970"] == -1
    assert pair.mount.stat().st_mtime_ns == pair.source.stat().st_mtime_ns


@pytest.mark.semantics("M16")
@pytest.mark.needs_root
def test_other_times(pair: Pair) -> None:
    path = pair.mount / "small"
    before = path.stat()
    path.read_bytes()
    list(pair.mount.iterdir())
    for _, status in walk(pair.mount):
        assert status.st_atime_ns == status.st_ctime_ns == status.st_mtime_ns
    assert path.stat() == before
    assert run("stat", "-c", "%w", path) == "-\n"


@pytest.mark.semantics("M17")
@pytest.mark.needs_root
def test_sizes(pair: Pair) -> None:
    for path, status in walk(pair.mount):
        full = os.path.join(os.fsencode(pair.mount), path)
        if stat.S_ISDIR(status.st_mode):
            assert status.st_size == 0
        elif stat.S_ISLNK(status.st_mode):
            assert status.st_size == len(os.readlink(full))
        else:
            assert status.st_size == os.lstat(os.path.join(os.fsencode(pair.source), path)).st_size
    assert (pair.mount / "sparse").stat().st_size == 5_000_000


@pytest.mark.semantics("M18")
@pytest.mark.needs_root
def test_blocks(pair: Pair) -> None:
    for _, status in walk(pair.mount):
        assert status.st_blocks == (status.st_size + 511) // 512
    assert (pair.mount / "sparse").stat().st_blocks > (pair.source / "sparse").stat().st_blocks


@pytest.mark.semantics("M19")
@pytest.mark.needs_root
def test_hard_links(pair: Pair) -> None:
    names = [pair.mount / name for name in ("hard/b first", "hard/third", "a second")]
    assert [path.stat().st_nlink for path in names] == [3, 3, 3]
    assert os.path.samefile(names[0], names[1])
    assert os.path.samefile(names[0], names[2])
    links = [pair.mount / "links" / "odd", pair.mount / "hard" / "odd too"]
    assert [path.lstat().st_nlink for path in links] == [2, 2]
    assert links[0].lstat().st_ino == links[1].lstat().st_ino
    assert (pair.mount / "small").stat().st_nlink == 1


@pytest.mark.semantics("M20")
@pytest.mark.needs_root
def test_links_of_directories(pair: Pair) -> None:
    for where, _, _, fd in os.fwalk(pair.mount):
        with os.scandir(fd) as entries:
            inner = sum(entry.is_dir(follow_symlinks=False) for entry in entries)
        assert os.fstat(fd).st_nlink == 2 + inner, where


@pytest.mark.semantics("M21")
@pytest.mark.needs_root
def test_inode_numbers(world: World, pair: Pair) -> None:
    assert pair.mount.stat().st_ino == 1
    numbers = {path: status.st_ino for path, status in walk(pair.mount)}
    linked = {b"hard/b first", b"hard/third", b"a second", b"links/odd", b"hard/odd too"}
    others = [number for path, number in numbers.items() if path not in linked]
    assert len({1, *others}) == 1 + len(others)
    again = world.mount(pair.id)
    assert {path: status.st_ino for path, status in walk(again)} == numbers


@pytest.mark.semantics("M22")
@pytest.mark.needs_root
def test_order_of_listings(pair: Pair) -> None:
    # -f: as the directory gives them; a name with a newline makes two lines here and there.
    names = sorted(os.fsencode(name) for name in os.listdir(pair.source / "names"))
    expected = b"\n".join([b".", b"..", *names, b""])
    for _ in range(2):
        listing = run("ls", "-f", "-N", pair.mount / "names")
        assert os.fsencode(listing) == expected


@pytest.mark.semantics("M23")
@pytest.mark.needs_root
def test_listings_agree_with_lstat(pair: Pair) -> None:
    for where, _, _, fd in os.fwalk(os.fsencode(pair.mount)):
        with os.scandir(fd) as entries:
            for entry in entries:
                status = os.stat(entry.name, dir_fd=fd, follow_symlinks=False)
                assert entry.inode() == status.st_ino, where
                assert entry.is_dir(follow_symlinks=False) == stat.S_ISDIR(status.st_mode)
                assert entry.is_symlink() == stat.S_ISLNK(status.st_mode)


@pytest.mark.semantics("M26")
@pytest.mark.needs_root
def test_targets(world: World, pair: Pair) -> None:
    for path, status in walk(pair.source):
        if stat.S_ISLNK(status.st_mode):
            shown, real = (os.path.join(os.fsencode(p), path) for p in (pair.mount, pair.source))
            assert os.readlink(shown) == os.readlink(real)
    source = world.directory("source")
    longest = "x/" * 2047 + "x"
    (source / "longest").symlink_to(longest)
    assert os.readlink(world.show(source) / "longest") == longest


@pytest.mark.semantics("M27")
def test_where_links_lead(world: World) -> None:
    source = world.directory("source")
    (source / "directory").mkdir()
    write(source / "file", b"of the snapshot")
    (source / "directory" / "within").symlink_to("../file")
    (source / "absolute").symlink_to(source / "file")
    (source / "climbing").symlink_to(f"../{source.name}/file")
    (source / "nowhere").symlink_to("missing")
    (source / "circle").symlink_to("circle")
    mount = world.show(source)
    write(source / "file", b"of the system")
    assert (mount / "directory" / "within").read_bytes() == b"of the snapshot"
    assert (mount / "absolute").read_bytes() == b"of the system"
    assert (mount / "climbing").read_bytes() == b"of the system"
    with pytest.raises(FileNotFoundError):
        (mount / "nowhere").read_bytes()
    with pytest.raises(OSError, match=os.strerror(errno.ELOOP)):
        (mount / "circle").read_bytes()
    (source / "file").unlink()
    with pytest.raises(FileNotFoundError):
        (mount / "climbing").read_bytes()
