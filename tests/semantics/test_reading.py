"""Reading a mount: contents, the page cache, blobs that are not as they should be."""

from __future__ import annotations

import contextlib
import errno
import fcntl
import json
import mmap
import os
import random
import signal
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import BinaryIO

import pytest

from tests.mount.conftest import wait_until
from tests.mount.trees import write
from tests.semantics.conftest import PATIENCE, World

pytestmark = pytest.mark.mounted

CONTENT = random.Random(3).randbytes(3_000_001)


@pytest.fixture(scope="module")
def mount(world: World) -> Path:
    source = world.directory("source")
    write(source / "large", CONTENT)
    write(source / "small", b"hello")
    with write(source / "holes").open("r+b") as file:
        file.truncate(4_000_000)
        file.seek(2_000_000)
        file.write(b"island")
    os.utime(source / "holes", ns=(0, 0))
    return world.show(source)


@pytest.mark.semantics("M28")
def test_every_range(mount: Path) -> None:
    generator = random.Random(4)
    holes = bytearray(4_000_000)
    holes[2_000_000:2_000_006] = b"island"
    for name, content in (("large", CONTENT), ("holes", bytes(holes))):
        fd = os.open(mount / name, os.O_RDONLY)
        try:
            for _ in range(100):
                offset = generator.randrange(len(content) + 5000)
                count = generator.choice([0, 1, 4096, 100_000, 2_000_000])
                assert os.pread(fd, count, offset) == content[offset : offset + count]
            assert os.pread(fd, 10, len(content)) == b""
        finally:
            os.close(fd)


@pytest.mark.semantics("M29")
def test_mappings(mount: Path) -> None:
    with (mount / "large").open("rb") as file:
        with mmap.mmap(file.fileno(), 0, prot=mmap.PROT_READ) as shared:
            assert shared[:] == CONTENT
        writable = mmap.PROT_READ | mmap.PROT_WRITE
        with mmap.mmap(file.fileno(), 0, flags=mmap.MAP_PRIVATE, prot=writable) as private:
            private[:6] = b"scribe"
            assert private[:8] == b"scribe" + CONTENT[6:8]
        with pytest.raises(PermissionError):
            mmap.mmap(file.fileno(), 0, flags=mmap.MAP_SHARED, prot=writable)
    assert (mount / "large").read_bytes() == CONTENT


@pytest.mark.semantics("M34")
def test_locks(mount: Path) -> None:
    other = "import fcntl, sys; fcntl.flock(open(sys.argv[1]), fcntl.LOCK_SH | fcntl.LOCK_NB)"
    path = mount / "small"
    with path.open("rb") as file:
        fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        refused = subprocess.run(
            [sys.executable, "-c", other, path], capture_output=True, timeout=PATIENCE, check=False
        )
        assert b"BlockingIOError" in refused.stderr
        fcntl.flock(file, fcntl.LOCK_UN)
        subprocess.run([sys.executable, "-c", other, path], timeout=PATIENCE, check=True)
        fcntl.lockf(file, fcntl.LOCK_SH | fcntl.LOCK_NB)
    assert path.read_bytes() == b"hello"


def small_mount(world: World, content: bytes = b"content") -> Path:
    """A mount with one file, whose blob no other test has."""
    source = world.directory("source")
    write(source / "file", content + os.fsencode(source.name))
    return world.show(source)


@pytest.mark.semantics("M35")
def test_many_open_files(world: World) -> None:
    source = world.directory("source")
    for number in range(80):
        write(source / f"{number}", b"%d" % number)
    place = world.directory("mnt")
    command = world.command("mount", "--json", world.ingest(source), place)
    mounted = subprocess.run(
        ["prlimit", "--nofile=32:72", *command],
        capture_output=True,
        timeout=PATIENCE,
        check=True,
        env=world.environment,
    )
    world.pids[place] = json.loads(mounted.stdout)["pid"]
    with contextlib.ExitStack() as stack:
        files: list[BinaryIO] = []

        def open_all() -> None:
            for number in range(80):
                files.append(stack.enter_context((place / f"{number}").open("rb")))

        if world.fast_lane:
            open_all()
            assert [file.read() for file in files] == [b"%d" % number for number in range(80)]
            return
        with pytest.raises(OSError, match=os.strerror(errno.ENFILE)):
            open_all()
        assert len(files) > 48
        assert [file.read() for file in files] == [b"%d" % number for number in range(len(files))]
        for file in files:
            file.close()
        last = (place / "79").read_bytes  # the kernel tells of closed files a little later
        wait_until(lambda: _succeeds(last))


def _succeeds(action: Callable[[], object]) -> bool:
    try:
        action()
    except OSError:
        return False
    return True


@pytest.mark.semantics("M36")
def test_pages_are_kept(world: World) -> None:
    mount = small_mount(world)
    content = (mount / "file").read_bytes()
    world.blob(mount, "file").unlink()
    assert (mount / "file").read_bytes() == content
    with (mount / "file").open("rb") as file:
        os.posix_fadvise(file.fileno(), 0, 0, os.POSIX_FADV_DONTNEED)
        if world.fast_lane:  # it keeps the descriptor for a while
            assert file.read() == content
            return
        with pytest.raises(OSError, match=os.strerror(errno.EIO)):
            file.read()


@pytest.mark.semantics("M37")
def test_open_files_keep_their_blob(world: World) -> None:
    mount = small_mount(world)
    blob = world.blob(mount, "file")
    with (mount / "file").open("rb", buffering=0) as file:
        os.posix_fadvise(file.fileno(), 0, 0, os.POSIX_FADV_DONTNEED)
        blob.unlink()
        assert file.read().startswith(b"content")


@pytest.mark.semantics("M38", "M39")
def test_a_missing_blob(world: World) -> None:
    source = world.directory("source")
    write(source / "a name\nof two lines", b"to be lost")
    write(source / "good", b"to be kept")
    taken = world.ingest(source)
    [lost] = [path for path in world.blobs() if path.read_bytes() == b"to be lost"]
    lost.unlink()
    mount = world.mount(taken)
    bad = mount / "a name\nof two lines"
    assert sorted(path.name for path in mount.iterdir()) == [bad.name, "good"]
    assert bad.stat().st_size == 10
    for _ in range(2):
        with bad.open("rb") as file, pytest.raises(OSError, match=os.strerror(errno.EIO)):
            file.read()
    copied = subprocess.run(["cat", bad], capture_output=True, timeout=PATIENCE, check=False)
    assert (copied.returncode, copied.stdout) == (1, b"")
    assert (mount / "good").read_bytes() == b"to be kept"
    status = world.status(mount)
    assert status is not None
    [line] = [text for text in Path(status["log"]).read_text().splitlines() if "ERROR" in text]
    assert lost.name in line
    assert "of two lines" in line


@pytest.mark.semantics("M40", "M41")
@pytest.mark.parametrize("verify", [False, True])
def test_damage_of_equal_size(world: World, verify: bool) -> None:
    source = world.directory("source")
    write(source / "file", b"v%d" % verify * 100_000)
    taken = world.ingest(source)
    [blob] = [path for path in world.blobs() if path.read_bytes()[:2] == b"v%d" % verify]
    blob.chmod(0o644)
    with blob.open("r+b") as raw:
        raw.seek(150_000)
        raw.write(b"X")
    mount = world.mount(taken, "verify" if verify else "")
    with (mount / "file").open("rb", buffering=0) as file:
        if verify:
            for offset in (0, 100, 199_999):
                with pytest.raises(OSError, match=os.strerror(errno.EIO)):
                    os.pread(file.fileno(), 1, offset)
        else:
            assert os.pread(file.fileno(), 3, 149_999) == (b"v0" * 100_000)[
                149_999:150_002
            ].replace(b"v", b"X")


@pytest.mark.semantics("M49")
def test_a_snapshot_never_changes(world: World) -> None:
    source = world.directory("source")
    write(source / "file", b"before")
    (source / "directory").mkdir()
    os.utime(source, ns=(0, 0))
    mount = world.show(source)
    first = mount.stat()
    write(source / "file", b"after it")
    write(source / "new")
    (source / "directory").rmdir()
    world.ingest(source)
    assert sorted(os.listdir(mount)) == ["directory", "file"]
    assert (mount / "file").read_bytes() == b"before"
    assert mount.stat() == first


LOOK = """
import os, sys
os.chdir("/")
print(os.stat(sys.argv[1]).st_size, os.path.exists(sys.argv[2]))
"""


@pytest.mark.semantics("M50")
def test_the_kernel_remembers(world: World) -> None:
    mount = small_mount(world, b"")
    size = (mount / "file").stat().st_size
    assert not (mount / "absent").exists()
    os.kill(world.pids[mount], signal.SIGSTOP)
    try:
        seen = subprocess.run(
            [sys.executable, "-I", "-S", "-c", LOOK, mount / "file", mount / "absent"],
            capture_output=True,
            text=True,
            timeout=PATIENCE,
            check=True,
        )
    finally:
        os.kill(world.pids[mount], signal.SIGCONT)
    assert seen.stdout == f"{size} False\n"
