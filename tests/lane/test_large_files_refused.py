"""Large files that the kernel cannot read itself, or not any more: then the server reads them, and
nobody gets other bytes for it."""

from __future__ import annotations

import errno
import hashlib
import json
import os
import random
import sys
from collections import Counter
from collections.abc import Callable
from pathlib import Path

import pytest

from castfs.lane.passthrough import SIZE_MIN
from castfs.mount import unmount
from tests.lane.readers import is_passed_through, needs_passthrough, reading, stopped
from tests.lane.serving import ask, finish, served, start
from tests.mount.conftest import Mounter, run
from tests.mount.snapshots import Snapshot
from tests.mount.test_damage import log_lines
from tests.mount.trees import write

pytestmark = [pytest.mark.mounted, pytest.mark.needs_root, needs_passthrough]

BIG = random.Random(6).randbytes(3 << 20)
DIGEST = hashlib.sha256(BIG).hexdigest()
EIO = os.strerror(errno.EIO).encode()


@pytest.fixture
def snapshot(mounter: Mounter) -> Snapshot:
    write(mounter.source / "big", BIG)
    write(mounter.source / "small", b"small\n")
    return mounter.take()


# Blobs that are not as they should be ----------------------------------------------------------


def _remove(blob: Path) -> None:
    blob.unlink()


def _shorten(blob: Path) -> None:
    blob.chmod(0o644)
    os.truncate(blob, SIZE_MIN + 5)


def _lengthen(blob: Path) -> None:
    blob.chmod(0o644)
    os.truncate(blob, len(BIG) + 1)


def _replace(blob: Path) -> None:
    write(blob.with_name("new"), BIG[:-1]).rename(blob)


def _redirect(blob: Path) -> None:
    aside = blob.with_name("elsewhere")
    aside.write_bytes(BIG)
    blob.unlink()
    blob.symlink_to(aside)


@pytest.mark.parametrize("damage", [_remove, _shorten, _lengthen, _replace, _redirect])
def test_a_bad_blob(mounter: Mounter, snapshot: Snapshot, damage: Callable[[Path], None]) -> None:
    status = mounter.start(snapshot, "passthrough")
    blob, path = snapshot.blob(b"big"), mounter.mountpoint / "big"
    damage(blob)
    for command in (["cat"], ["dd", "iflag=direct", "bs=4k", "skip=600"]):
        finished = ask(*command, f"if={path}" if command[0] == "dd" else path)
        assert finished.code != 0
        assert EIO in finished.err
    assert len(log_lines(status)) == 1
    with reading(path) as reader:
        assert reader.read() == EIO.decode()
        write(blob.with_name("healed"), BIG).rename(blob)
        # It is open without passthrough, and so whoever else opens it must do without.
        with reading(path) as other:
            assert other.read() == DIGEST
        assert reader.read() == DIGEST
    assert status.pid is not None
    assert is_passed_through(status.pid, path)


def test_what_is_open_stays(mounter: Mounter, snapshot: Snapshot) -> None:
    """Whoever replaces or removes a blob has no effect on those who have it open."""
    mounter.start(snapshot, "passthrough")
    blob, path = snapshot.blob(b"big"), mounter.mountpoint / "big"
    with reading(path) as first:
        write(blob.with_name("new"), BIG).rename(blob)
        with reading(path) as second:
            assert first.read() == second.read() == DIGEST
            blob.unlink()
            with reading(path) as third:
                assert first.read() == second.read() == third.read() == DIGEST
            assert second.read() == DIGEST
    assert EIO in ask("cat", path).err


_OPENERS = """
import collections, json, os, sys
right, found = open(sys.argv[2], "rb").read(), collections.Counter()
for number in range(300):
    fd = os.open(sys.argv[1], os.O_RDONLY)  # never fails for its blob's sake
    try:
        found["right" if os.pread(fd, len(right) + 1, 0) == right else "wrong"] += 1
    except OSError as exc:
        found[exc.strerror] += 1
    os.posix_fadvise(fd, 0, 0, os.POSIX_FADV_DONTNEED)
    os.close(fd)
print(json.dumps(found))
"""


def test_a_blob_that_comes_and_goes(mounter: Mounter, snapshot: Snapshot) -> None:
    """Files that are opened and closed all the time, now with passthrough and now without: the
    kernel refuses to open one in both ways at once."""
    status = mounter.start(snapshot, "passthrough")
    blob, path = snapshot.blob(b"big"), mounter.mountpoint / "big"
    aside = blob.with_name("aside")
    command = (sys.executable, "-S", "-c", _OPENERS, path, mounter.source / "big")
    processes = [start(*command) for _ in range(2)]
    while any(process.poll() is None for process in processes):
        blob.rename(aside)
        ask("head", "-c1", path)  # meanwhile the others come by
        aside.rename(blob)
        ask("head", "-c1", path)
    found: Counter[str] = Counter()
    for process in processes:
        finished = finish(process)
        assert finished.code == 0, finished.err
        found.update(json.loads(finished.out))
    assert set(found) <= {"right", EIO.decode()}
    assert found.total() == 600
    assert status.pid is not None
    assert is_passed_through(status.pid, path)


# Where it is refused ---------------------------------------------------------------------------

_REFUSE = """
import fcntl
original = fcntl.ioctl
def ioctl(fd, request, *rest):
    if request == fuse.DEV_IOC_BACKING_OPEN and not os.path.exists(place + "/grant"):
        raise OSError({code}, "refused")
    return original(fd, request, *rest)
fcntl.ioctl = ioctl
"""


def assert_opened_without_server(pid: int, path: Path) -> None:
    # The first keeps the name known, whatever else this machine is short of.
    with reading(path) as first:
        with stopped(pid), reading(path):
            pass
        assert first.read() == DIGEST


@pytest.mark.parametrize("code", [errno.EPERM, errno.ELOOP, errno.EOPNOTSUPP])
def test_refused(mounter: Mounter, snapshot: Snapshot, code: int) -> None:
    """As without: opening takes no server any more."""
    root = mounter.mountpoint
    with served(mounter, snapshot, _REFUSE.format(code=code), options="passthrough") as server:
        pid = server.process.pid
        with reading(root / "small") as small:
            assert not is_passed_through(pid, root / "big")
            assert_opened_without_server(pid, root / "big")
            assert small.read() == hashlib.sha256(b"small\n").hexdigest()
        unmount(root)
        assert server.finish() == 0


def test_refused_later(mounter: Mounter, snapshot: Snapshot) -> None:
    """After one success others may be refused, and granted again."""
    write(mounter.source / "other", BIG[::-1])
    right = hashlib.sha256(BIG[::-1]).hexdigest()
    snapshot = mounter.take()
    root = mounter.mountpoint
    patch = _REFUSE.format(code=errno.ELOOP)
    grant = mounter.base / "place" / "grant"
    grant.parent.mkdir()
    grant.touch()
    with served(mounter, snapshot, patch, options="passthrough") as server:
        pid = server.process.pid
        with reading(root / "big") as first:
            grant.unlink()
            assert not is_passed_through(pid, root / "other")
            assert is_passed_through(pid, root / "big")  # by the same backing
            with reading(root / "other") as second:
                grant.touch()
                with reading(root / "other") as third:
                    assert second.read() == third.read() == right
                assert first.read() == DIGEST
            assert is_passed_through(pid, root / "other")
        unmount(root)
        assert server.finish() == 0


def overlay(mounter: Mounter, name: str, lower: Path) -> Path:
    for part in ("upper", "work", name):
        (mounter.base / f"{name} {part}" if part != name else mounter.base / name).mkdir()
    upper, work = (mounter.base / f"{name} {part}" for part in ("upper", "work"))
    options = f"lowerdir={lower},upperdir={upper},workdir={work}"
    run("mount", "-t", "overlay", "castfs-test", "-o", options, mounter.base / name)
    return mounter.base / name


def test_a_store_on_an_overlay(mounter: Mounter) -> None:
    """The kernel says ELOOP."""
    below = mounter.base / "below"
    below.mkdir()
    mounter.store = overlay(mounter, "over", below) / "store"
    write(mounter.source / "big", BIG)
    write(mounter.source / "small")
    status = mounter.start(mounter.take(), "passthrough")
    assert status.pid is not None
    assert not is_passed_through(status.pid, mounter.mountpoint / "big")
    assert_opened_without_server(status.pid, mounter.mountpoint / "big")
    unmount(mounter.mountpoint)


def test_a_store_without_direct_reads(mounter: Mounter) -> None:
    """Whoever opens a file with O_DIRECT must not be refused for its blob's filesystem."""
    place = mounter.base / "ramfs"
    place.mkdir()
    run("mount", "-t", "ramfs", "castfs-test", place)
    try:
        mounter.store = place / "store"
        write(mounter.source / "big", BIG)
        status = mounter.start(mounter.take(), "passthrough")
        big = mounter.mountpoint / "big"
        direct = ask("dd", f"if={big}", "iflag=direct", "bs=1M", "status=none")
        assert (direct.code, direct.out) == (0, BIG)
        assert status.pid is not None
        assert not is_passed_through(status.pid, big)
        unmount(mounter.mountpoint)
    finally:
        run("umount", place)


def test_below_an_overlay(mounter: Mounter, snapshot: Snapshot) -> None:
    """As a container's image is."""
    status = mounter.start(snapshot, "passthrough")
    top = overlay(mounter, "over", mounter.mountpoint)
    assert ask("diff", "-r", mounter.source, top).code == 0
    assert status.pid is not None
    with (top / "big").open("ab") as file:
        file.write(b"more")
    assert (top / "big").read_bytes() == BIG + b"more"
    assert ask("cmp", mounter.source / "big", mounter.mountpoint / "big").code == 0
    run("umount", top)
    unmount(mounter.mountpoint)
