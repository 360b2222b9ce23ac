"""Servers of mounts that something is wrong with, and readers that must never wait for ever."""

from __future__ import annotations

import contextlib
import json
import os
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import pytest

from tests.mount.conftest import PATIENCE, Mounter, wait_for_exit
from tests.mount.snapshots import Snapshot

_SERVER = """
import errno, os, sys, time
sys.path.insert(0, {root!r})
from castfs import fuse
from castfs.errors import CastfsError
from castfs.lane import answers, files, lane
from castfs.mount import start_mount
from castfs.mount.request import MountRequest
from castfs.view import Contents
place = {place!r}
{patch}
request = MountRequest.decode(bytes.fromhex(sys.argv[1]))
def ready(status):
    print(*status.warnings, sep=chr(10), file=open(place + "/warnings", "w"))
    print("ready", flush=True)
try:
    start_mount(request, foreground=True, on_ready=ready)
except CastfsError as exc:
    print(exc)
    sys.exit(7)
"""


class Served:
    """A mount whose server is a child of this process. `place` is for what its patch needs."""

    def __init__(self, mounter: Mounter, process: subprocess.Popen[str], said: Path) -> None:
        self.mounter = mounter
        self.process = process
        self.place = mounter.base / "place"
        self._said = said

    def finish(self) -> int:
        """Its exit status. Nothing is mounted any more then."""
        try:
            code = self.process.wait(PATIENCE)
        except subprocess.TimeoutExpired:
            pytest.fail(f"the server hangs: {_states(self.process.pid)}")
        assert self.mounter.mounts() == []
        return code

    @property
    def warnings(self) -> list[str]:
        """What whoever asked for the mount was told."""
        return (self.place / "warnings").read_text().splitlines()

    @property
    def said(self) -> str:
        """What it wrote to stderr."""
        return self._said.read_text()


@contextlib.contextmanager
def served(
    mounter: Mounter, snapshot: Snapshot, patch: str = "", *, options: str = ""
) -> Iterator[Served]:
    """Mount with a server that runs `patch` first."""
    place = mounter.base / "place"
    place.mkdir(exist_ok=True)
    script = _SERVER.format(root=str(Path(__file__).parents[2]), place=str(place), patch=patch)
    request = snapshot.request(mounter.mountpoint, options).encode().hex()
    fd, said = tempfile.mkstemp(dir=mounter.base)
    process = subprocess.Popen(
        [sys.executable, "-c", script, request], stdout=subprocess.PIPE, stderr=fd, text=True
    )
    os.close(fd)
    mounter.pids.append(process.pid)
    try:
        assert process.stdout is not None
        assert process.stdout.readline() == "ready\n", Path(said).read_text()
        yield Served(mounter, process, Path(said))
    finally:
        if process.poll() is None:
            process.terminate()
            if not wait_for_exit(process.pid, 10.0):
                process.kill()  # which aborts the connection
        process.wait(PATIENCE)
        assert process.stdout is not None
        process.stdout.close()


@dataclass(frozen=True)
class Finished:
    code: int
    out: bytes
    err: bytes


def start(*command: str | Path) -> subprocess.Popen[bytes]:
    # Unbuffered: what follows a line that was read is left to `communicate`.
    return subprocess.Popen(command, bufsize=0, stdout=subprocess.PIPE, stderr=subprocess.PIPE)


def finish(process: subprocess.Popen[bytes], seconds: float = PATIENCE) -> Finished:
    """Wait for a program that touches a mount. It must end, whatever it is told there."""
    try:
        out, err = process.communicate(timeout=seconds)
    except subprocess.TimeoutExpired:
        states = _states(process.pid)
        process.kill()
        pytest.fail(f"{process.args!r} hangs: {states}")
    return Finished(process.returncode, out, err)


def ask(*command: str | Path) -> Finished:
    return finish(start(*command))


def _states(pid: int) -> dict[str, str]:
    """State (proc_pid_stat(5): D cannot be killed) and kernel function of each thread."""
    states = {}
    for task in Path(f"/proc/{pid}/task").iterdir():
        with contextlib.suppress(OSError):
            state = (task / "stat").read_text().rpartition(")")[2].split()[0]
            states[task.name] = f"{state} {(task / 'wchan').read_text()}"
    return states


# Many readers ----------------------------------------------------------------------------------

_READERS = """
import collections, errno, json, mmap, os, sys, threading
path, right, threads, rounds = sys.argv[1], sys.argv[2], int(sys.argv[3]), int(sys.argv[4])
right = open(right, "rb").read()
threading.stack_size(256 << 10)
found = collections.Counter()
fd = os.open(path, os.O_RDONLY | os.O_DIRECT)
begun = threading.Semaphore(0)
def read(number):
    buffer = mmap.mmap(-1, 1 << 16)
    begun.release()
    for again in range(rounds):
        offset = (number * 7919 + again * 104729) % (len(right) >> 16) << 16
        try:
            count = os.preadv(fd, [buffer], offset)
        except OSError as exc:
            found[errno.errorcode[exc.errno]] += 1
        else:
            same = buffer[:count] == right[offset : offset + (1 << 16)]
            found["right" if same else "wrong"] += 1
all = [threading.Thread(target=read, args=(number,)) for number in range(threads)]
for each in all:
    each.start()
for each in all:
    begun.acquire()
print("reading", flush=True)
for each in all:
    each.join()
print(json.dumps(found))
"""


def start_readers(path: Path, right: Path, *, threads: int, rounds: int) -> subprocess.Popen[bytes]:
    """A process whose threads read pieces of 64 KiB past the page cache, each by a READ of its own,
    and compare them with those of another file. Returns when all have begun."""
    process = start(sys.executable, "-S", "-c", _READERS, path, right, f"{threads}", f"{rounds}")
    assert process.stdout is not None
    assert process.stdout.readline() == b"reading\n"
    return process


def finish_readers(process: subprocess.Popen[bytes]) -> dict[str, int]:
    """How often each came about: "right", "wrong", or an errno's name."""
    finished = finish(process)
    assert finished.code == 0, finished.err
    found: dict[str, int] = json.loads(finished.out)
    return found
