"""Whatever breaks: every reader gets the right bytes or an errno, every process ends, and the mount
is gone or alive as it should be."""

from __future__ import annotations

import contextlib
import errno
import hashlib
import os
import random
import signal
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest

from castfs.mount import unmount
from tests.lane.serving import (
    Served,
    ask,
    finish,
    finish_readers,
    served,
    start,
    start_readers,
)
from tests.mount.conftest import PATIENCE, Mounter, kill_with_guard, wait_for_exit, wait_until
from tests.mount.snapshots import Snapshot
from tests.mount.trees import write

pytestmark = [pytest.mark.mounted, pytest.mark.needs_root]

BIG = random.Random(5).randbytes(4 << 20)
SMALL = b"small\n"
EIO = os.strerror(errno.EIO).encode()
#: What a reader of a mount that ends is told, according to when it comes.
GONE = {"ECONNABORTED", "ENOTCONN", "EIO"}


@pytest.fixture
def snapshot(mounter: Mounter) -> Snapshot:
    write(mounter.source / "big", BIG)
    write(mounter.source / "small", SMALL)
    (mounter.source / "directory").mkdir()
    for number in range(100):
        write(mounter.source / "directory" / f"{number}", b"%d" % number * 100)
    (mounter.source / "link").symlink_to("small")
    return mounter.take()


def assert_alive(mounter: Mounter) -> None:
    """It still answers what it has not been asked before, with what is right."""
    assert ask("cat", mounter.mountpoint / "small").out == SMALL
    assert ask("dd", "iflag=direct", f"if={mounter.mountpoint}/big", "bs=1M").out == BIG
    assert ask("stat", "-f", mounter.mountpoint).code == 0
    listed = ask("ls", "-f", mounter.mountpoint / "directory").out.split()
    assert len(listed) == 102


def assert_fails(*command: str | Path, words: bytes = EIO) -> None:
    finished = ask(*command)
    assert finished.code != 0
    assert words in finished.err


# Blobs -----------------------------------------------------------------------------------------


def _remove(blob: Path) -> None:
    blob.unlink()


def _shorten(blob: Path) -> None:
    blob.chmod(0o644)
    os.truncate(blob, 5000)


def _replace_by_short(blob: Path) -> None:
    write(blob.with_name("new"), BIG[:5000]).rename(blob)


def _replace_by_directory(blob: Path) -> None:
    blob.unlink()
    blob.mkdir()


@pytest.mark.parametrize("damage", [_remove, _shorten, _replace_by_short, _replace_by_directory])
def test_a_bad_blob(mounter: Mounter, snapshot: Snapshot, damage: Callable[[Path], None]) -> None:
    blob = snapshot.blob(b"big")
    mounter.start(snapshot)
    aside = blob.with_name("aside")
    aside.write_bytes(BIG)
    damage(blob)
    path = mounter.mountpoint / "big"
    assert_fails("cat", path)
    assert_fails("dd", "iflag=direct", f"if={path}", "bs=4k", "skip=700")
    assert_fails(sys.executable, "-c", f"import pathlib; pathlib.Path({str(path)!r}).read_bytes()")
    with contextlib.suppress(IsADirectoryError, FileNotFoundError):
        blob.unlink()
    if blob.is_dir():
        blob.rmdir()
    aside.rename(blob)
    assert_alive(mounter)


def test_a_blob_that_is_replaced_under_its_reader(mounter: Mounter, snapshot: Snapshot) -> None:
    """Whoever replaces one puts the same bytes there; what was open stays."""
    mounter.start(snapshot)
    blob = snapshot.blob(b"big")
    right = mounter.source / "big"
    readers = start_readers(mounter.mountpoint / "big", right, threads=8, rounds=100)
    for _ in range(20):
        write(blob.with_name("new"), BIG).rename(blob)
    assert finish_readers(readers) == {"right": 800}
    assert_alive(mounter)


# The index -------------------------------------------------------------------------------------


def index_of(snapshot: Snapshot) -> Path:
    (index,) = snapshot.depot.index_dir.glob("*.index")
    return index


def _overwrite(index: Path) -> None:
    with index.open("r+b") as file:
        file.write(bytes(index.stat().st_size))


def _fill(index: Path) -> None:
    with index.open("r+b") as file:
        file.write(b"\xff" * index.stat().st_size)


def _garble(index: Path) -> None:
    """The pages alone: they come first."""
    with index.open("r+b") as file:
        file.seek(4096)
        file.write(b"\xff" * 4096)


def _cut(index: Path) -> None:
    os.truncate(index, 4096)


def _empty(index: Path) -> None:
    os.truncate(index, 0)


@pytest.mark.parametrize("damage", [_overwrite, _fill, _garble])
def test_an_index_that_is_overwritten(
    mounter: Mounter, snapshot: Snapshot, damage: Callable[[Path], None]
) -> None:
    """Nobody does that. What comes of it are errors, or names that are not there."""
    status = mounter.start(snapshot)
    assert ask("cat", mounter.mountpoint / "small").out == SMALL
    damage(index_of(snapshot))
    for _ in range(2):
        ask("ls", "-lR", mounter.mountpoint)
        assert_fails("cat", mounter.mountpoint / "big", words=b"big")
        assert_fails("cat", mounter.mountpoint / "directory" / "7", words=b"directory/7")
        assert_fails("readlink", "-v", mounter.mountpoint / "link", words=b"link")
    # What the kernel knows, it knows.
    assert ask("cat", mounter.mountpoint / "small").out == SMALL
    assert status.pid is not None
    assert Path(f"/proc/{status.pid}").exists()
    unmount(mounter.mountpoint)
    assert wait_for_exit(status.pid)


@pytest.mark.parametrize("damage", [_cut, _empty])
def test_an_index_that_is_cut_ends_the_mount(
    mounter: Mounter, snapshot: Snapshot, damage: Callable[[Path], None]
) -> None:
    """A map of what is not there any more ends its process (SIGBUS), and the guard its mount."""
    status = mounter.start(snapshot)
    damage(index_of(snapshot))
    assert ask("ls", "-lR", mounter.mountpoint).code != 0
    assert status.pid is not None
    assert wait_for_exit(status.pid)
    wait_until(lambda: mounter.mounts() == [])
    assert os.listdir(mounter.mountpoint) == []


@pytest.mark.parametrize("replace", [False, True], ids=["deleted", "replaced"])
def test_an_index_that_goes_away(mounter: Mounter, snapshot: Snapshot, replace: bool) -> None:
    mounter.start(snapshot)
    index = index_of(snapshot)
    index.unlink()
    if replace:
        write(index, b"something else")
    assert_alive(mounter)


# Descriptors -----------------------------------------------------------------------------------


@pytest.mark.parametrize("limit", [24, 28, 40])
def test_few_descriptors(mounter: Mounter, snapshot: Snapshot, limit: int) -> None:
    """Fewer than there are files. (The server itself has 19 to 21.)"""
    patch = f"import resource; resource.setrlimit(resource.RLIMIT_NOFILE, ({limit}, {limit}))"
    with served(mounter, snapshot, patch) as server:
        directory = mounter.mountpoint / "directory"
        found = ask("sh", "-c", f"cat {directory}/*; cat {mounter.mountpoint}/big | sha256sum")
        assert (found.code, found.err) == (0, b"")
        order = sorted(range(100), key=str)
        contents = b"".join(b"%d" % number * 100 for number in order)
        assert found.out == contents + b"%s  -\n" % hashlib.sha256(BIG).hexdigest().encode()
        unmount(mounter.mountpoint)
        assert server.finish() == 0, server.said


# Exceptions ------------------------------------------------------------------------------------

#: Raises it for a request about the name `trap`.
LANE_DIES = """
def answer(self, request, original=lane.FastLane._answer):
    if request[1:2] and request[4] == fuse.Opcode.LOOKUP and bytes(request[40:]) == b"trap\\0":
        raise {exception}
    original(self, request)
lane.FastLane._answer = answer
"""
#: Raises it in the thread that copies replies, at the next that comes.
COPIER_DIES = """
class Header:
    size, pack = fuse.OUT_HEADER.size, fuse.OUT_HEADER.pack
    @staticmethod
    def unpack_from(*arguments, original=fuse.OUT_HEADER.unpack_from):
        if os.path.exists(place + "/now"):
            raise {exception}
        return original(*arguments)
fuse.OUT_HEADER = Header
"""
#: Raises it in a thread that reads what is not in memory.
READS_DIE = """
def read(*arguments):
    raise {exception}
Contents.read = read
Contents.read_cached = lambda *arguments, original=Contents.read_cached: (
    -1 if os.path.exists(place + "/now") else original(*arguments))
"""
DYING = {"lane": LANE_DIES, "copier": COPIER_DIES, "reads": READS_DIE}
EXCEPTIONS = ["BaseException('a bug')", "SystemExit(0)"]
#: Opcode LSEEK goes to libfuse.
SEEK = "import os, sys; os.lseek(os.open(sys.argv[1], 0), 0, os.SEEK_DATA)"


@pytest.mark.parametrize("exception", EXCEPTIONS)
@pytest.mark.parametrize("thread", DYING)
def test_a_thread_that_dies_ends_the_mount(
    mounter: Mounter, snapshot: Snapshot, thread: str, exception: str
) -> None:
    with served(mounter, snapshot, DYING[thread].format(exception=exception)) as server:
        right = mounter.source / "big"
        readers = start_readers(mounter.mountpoint / "big", right, threads=20, rounds=2000)
        (server.place / "now").touch()
        if thread == "copier":
            trap = ask(sys.executable, "-c", SEEK, mounter.mountpoint / "small")
        else:
            trap = ask("cat", mounter.mountpoint / "trap")
        assert trap.code != 0
        found = finish_readers(readers)
        assert set(found) <= {"right", *GONE}
        assert server.finish() == 7
        assert "the fast lane has failed" in server.said
        assert os.listdir(mounter.mountpoint) == []
        assert os.listdir(snapshot.depot.leases_dir) == []


@pytest.mark.parametrize("exception", ["ValueError", "MemoryError", "KeyError", "RuntimeError"])
def test_an_exception_is_one_request_s(
    mounter: Mounter, snapshot: Snapshot, exception: str
) -> None:
    patch = f"""
def fail(*arguments):
    raise {exception}
answers.Answers._readlink = fail
files.Files.open = lambda self, ino, original=files.Files.open: (
    fail() if os.path.exists(place + "/now") else original(self, ino))
"""
    words = os.strerror(errno.ENOMEM if exception == "MemoryError" else errno.EIO).encode()
    with served(mounter, snapshot, patch) as server:
        assert_fails("readlink", "-v", mounter.mountpoint / "link", words=words)
        (server.place / "now").touch()
        assert_fails("cat", mounter.mountpoint / "small", words=words)
        (server.place / "now").unlink()
        assert_alive(mounter)
        unmount(mounter.mountpoint)
        assert server.finish() == 0, server.said
        assert ("Traceback" in server.said) == (exception != "MemoryError")


# Ends ------------------------------------------------------------------------------------------


def _end(mounter: Mounter, pid: int, how: str) -> None:
    if how.startswith("SIG"):
        os.kill(pid, getattr(signal, how))
    else:
        assert ask(*how.split(), mounter.mountpoint).code == 0


@pytest.mark.parametrize(
    "how", ["umount -l", "fusermount3 -uz", "SIGTERM", "SIGINT", "SIGKILL", "umount -f -l"]
)
def test_the_end_during_a_thousand_reads(mounter: Mounter, snapshot: Snapshot, how: str) -> None:
    status = mounter.start(snapshot)
    assert status.pid is not None
    right = mounter.source / "big"
    readers = start_readers(mounter.mountpoint / "big", right, threads=1000, rounds=3)
    _end(mounter, status.pid, how)
    found = finish_readers(readers)
    assert sum(found.values()) == 3000
    if how in ("umount -l", "fusermount3 -uz"):  # until the last reader has gone
        assert found == {"right": 3000}
    else:
        assert set(found) <= {"right", *GONE}
    assert wait_for_exit(status.pid)
    wait_until(lambda: mounter.mounts() == [])
    assert os.listdir(mounter.mountpoint) == []


def test_a_mount_in_use_is_not_unmounted(mounter: Mounter, snapshot: Snapshot) -> None:
    mounter.start(snapshot)
    right = mounter.source / "big"
    readers = start_readers(mounter.mountpoint / "big", right, threads=50, rounds=40)
    assert ask("umount", mounter.mountpoint).code != 0
    assert finish_readers(readers) == {"right": 2000}
    assert_alive(mounter)


def test_a_suspended_server(mounter: Mounter, snapshot: Snapshot) -> None:
    status = mounter.start(snapshot)
    assert status.pid is not None
    path = mounter.mountpoint / "big"
    readers = start_readers(path, mounter.source / "big", threads=20, rounds=100)
    for number in range(5):
        suspend(status.pid)
        with start("cat", mounter.mountpoint / "directory" / f"{number}") as waiting:
            with pytest.raises(subprocess.TimeoutExpired):
                waiting.communicate(timeout=0.02)
            os.kill(status.pid, signal.SIGCONT)
            assert finish(waiting).out == b"%d" % number * 100
    assert finish_readers(readers) == {"right": 2000}
    assert_alive(mounter)


def suspend(pid: int) -> None:
    """Returns when none of its threads runs any more."""
    os.kill(pid, signal.SIGSTOP)
    tasks = Path(f"/proc/{pid}/task")
    wait_until(lambda: all(") T " in (task / "stat").read_text() for task in tasks.iterdir()))


def test_a_suspended_server_that_is_killed(mounter: Mounter, snapshot: Snapshot) -> None:
    status = mounter.start(snapshot)
    assert status.pid is not None
    suspend(status.pid)
    waiting = start("cat", mounter.mountpoint / "small")
    kill_with_guard(status.pid)
    finished = finish(waiting)
    assert finished.code == 1
    assert_fails("stat", "-f", mounter.mountpoint, words=b"not connected")


# Readers ---------------------------------------------------------------------------------------

FORKING = """
import hashlib, os, sys
directory, wanted = sys.argv[1:]
def check():
    for number in range(100):
        fd = os.open(f"{directory}/directory/{number}", os.O_RDONLY)
        assert os.read(fd, 1000) == b"%d" % number * 100
        os.close(fd)
    with open(f"{directory}/big", "rb") as file:
        assert hashlib.sha256(file.read()).hexdigest() == wanted
pids = []
for number in range(60):
    pid = os.fork()
    if pid == 0:
        try:
            grandchild = os.fork()
            check()
            if grandchild == 0:
                os._exit(0)
            os._exit(os.waitstatus_to_exitcode(os.waitpid(grandchild, 0)[1]))
        finally:
            os._exit(1)
    pids.append(pid)
sys.exit(sum(os.waitpid(pid, 0)[1] != 0 for pid in pids))
"""


def test_readers_that_fork(mounter: Mounter, snapshot: Snapshot) -> None:
    mounter.start(snapshot)
    wanted = hashlib.sha256(BIG).hexdigest()
    finished = ask(sys.executable, "-S", "-c", FORKING, mounter.mountpoint, wanted)
    assert (finished.code, finished.err) == (0, b"")
    assert_alive(mounter)


THREADS = """
import hashlib, os, sys, threading
def read(number):
    if number % 2:
        with open(sys.argv[1], "rb") as file:
            while data := file.read(70_001):
                states[number].update(data)
    else:
        fd = os.open(sys.argv[1], os.O_RDONLY)
        os.posix_fadvise(fd, 0, 0, os.POSIX_FADV_DONTNEED)
        while data := os.read(fd, 300_000):
            states[number].update(data)
        os.close(fd)
states = [hashlib.sha256() for _ in range(64)]
threads = [threading.Thread(target=read, args=(number,)) for number in range(64)]
for thread in threads:
    thread.start()
for thread in threads:
    thread.join()
print(*{state.hexdigest() for state in states})
"""


def test_64_threads(mounter: Mounter, snapshot: Snapshot) -> None:
    mounter.start(snapshot)
    path = mounter.mountpoint / "big"
    (oracle,) = ask("sha256sum", mounter.source / "big").out.split()[:1]
    assert ask(sys.executable, "-S", "-c", THREADS, path).out.split() == [oracle]
    readers = start_readers(path, mounter.source / "big", threads=64, rounds=20)
    assert finish_readers(readers) == {"right": 1280}


#: Reads of the large file say that they have begun and wait until they may go on.
SLOW = """
def read(self, file, *arguments, original=Contents.read):
    if file.size > 10000:
        open(place + "/begun", "w").close()
        while not os.path.exists(place + "/go on"):
            time.sleep(0.01)
    return original(self, file, *arguments)
def read_cached(self, file, *arguments, original=Contents.read_cached):
    return -1 if file.size > 10000 else original(self, file, *arguments)
Contents.read, Contents.read_cached = read, read_cached
"""

#: As each way of reading waits elsewhere in the kernel.
WAYS = {
    "direct": "os.preadv(os.open(path, os.O_RDONLY | os.O_DIRECT), [mmap.mmap(-1, 4096)], 0)",
    "buffered": "os.read(os.open(path, os.O_RDONLY), 4096)",
    "mapped, at random": "each = mmap.mmap(os.open(path, os.O_RDONLY), 4096, prot=mmap.PROT_READ)\n"
    "each.madvise(mmap.MADV_RANDOM); each[0]",
    "mapped": "mmap.mmap(os.open(path, os.O_RDONLY), 4096, prot=mmap.PROT_READ)[0]",
}
READING = """
import mmap, os, signal, sys
path = {path!r}
for number in (signal.SIGUSR1, signal.SIGALRM):
    signal.signal(number, lambda *_: None)
{way}
print("done")
"""


def start_slow_reader(server: Served, way: str) -> subprocess.Popen[bytes]:
    """Returns when its READ has come to the server."""
    path = str(server.mounter.mountpoint / "big")
    process = start(sys.executable, "-S", "-c", READING.format(path=path, way=WAYS[way]))
    wait_until(lambda: (server.place / "begun").exists())
    return process


@pytest.mark.parametrize("before", [(), (signal.SIGUSR1, signal.SIGALRM)], ids=["", "signalled"])
@pytest.mark.parametrize("way", WAYS)
def test_a_waiting_reader_can_be_killed(
    mounter: Mounter, snapshot: Snapshot, way: str, before: tuple[signal.Signals, ...]
) -> None:
    """Also one that has got signals before which it handles: the kernel tells of the first only."""
    with served(mounter, snapshot, SLOW) as server:
        process = start_slow_reader(server, way)
        for number in before:
            process.send_signal(number)
            assert ask("cat", mounter.mountpoint / "directory" / f"{number:d}").code == 0
        process.kill()
        assert finish(process).code == -signal.SIGKILL
        assert ask("cat", mounter.mountpoint / "small").out == SMALL
        (server.place / "go on").touch()
        assert_alive(mounter)
        unmount(mounter.mountpoint)
        assert server.finish() == 0, server.said
        assert server.said == ""


def test_other_signals_do_not_disturb_a_reader(mounter: Mounter, snapshot: Snapshot) -> None:
    script = """
import mmap, os, signal, sys
signal.signal(signal.SIGUSR1, lambda *_: None)
signal.signal(signal.SIGALRM, lambda *_: None)
signal.setitimer(signal.ITIMER_REAL, 0.005, 0.005)
buffer = mmap.mmap(-1, 1 << 22)
fd = os.open(sys.argv[1], os.O_RDONLY | os.O_DIRECT)
count = os.preadv(fd, [buffer], 0)
signal.setitimer(signal.ITIMER_REAL, 0)
os.write(1, buffer[:count])
"""
    with served(mounter, snapshot, SLOW) as server:
        process = start(sys.executable, "-S", "-c", script, mounter.mountpoint / "big")
        wait_until(lambda: (server.place / "begun").exists())
        for _ in range(20):
            process.send_signal(signal.SIGUSR1)
        (server.place / "go on").touch()
        finished = finish(process)
        assert (finished.code, finished.err) == (0, b"")
        assert finished.out == BIG
        assert server.said == ""


@pytest.mark.parametrize("how", ["SIGTERM", "SIGKILL", "umount -f -l"])
def test_the_end_while_a_reader_waits(mounter: Mounter, snapshot: Snapshot, how: str) -> None:
    with served(mounter, snapshot, SLOW) as server:
        process = start_slow_reader(server, "direct")
        _end(mounter, server.process.pid, how)
        finished = finish(process, PATIENCE)
        assert finished.code == 1
        assert b"Error: [Errno" in finished.err
        assert wait_for_exit(server.process.pid)
        wait_until(lambda: mounter.mounts() == [])
