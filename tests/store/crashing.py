"""A program: ingests that are killed at counted points, in one process for speed.

    crashing.py STORE SOURCE POINTS READERS

POINTS are numbers, comma-separated, or "count". For each point STORE is copied, an ingest of SOURCE
into the copy is forked and SIGKILLed just before its n-th operation on files (or, for a write, in
the middle of it), and one line tells what is left: the point, the copy, whether the ingest was
killed.
"""

from __future__ import annotations

import fcntl
import os
import shutil
import signal
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any, NoReturn

import castfs
from castfs import syscalls
from castfs.ingest import readers
from castfs.repository.taking import ingest as loaded

#: Each of them changes something, or separates what is before from what is after.
OPERATIONS = (
    "chmod", "close", "fchmod", "fsync", "link", "mkdir", "open", "rename", "replace", "rmdir",
    "unlink", "utime", "write",
)  # fmt: skip

#: Imported before the fork: importing is no operation that is to be counted.
LOADED = loaded


def die() -> NoReturn:
    os.kill(os.getpid(), signal.SIGKILL)
    raise AssertionError("still alive")


class Points:
    """Counts operations, and dies at the chosen one."""

    def __init__(self, fatal: int) -> None:
        self.count = 0
        self._fatal = fatal
        for name in OPERATIONS:
            self._wrap(os, name)
        self._wrap(fcntl, "flock")
        self._wrap(syscalls, "syncfs")

    def _wrap(self, module: Any, name: str) -> None:
        original: Callable[..., Any] = getattr(module, name)

        def call(*args: Any, **kwargs: Any) -> Any:
            self.count += 1
            if self.count == self._fatal:
                if name == "write":
                    original(args[0], memoryview(args[1])[: len(args[1]) // 2])
                die()
            return original(*args, **kwargs)

        setattr(module, name, call)


def ingest(store: Path, source: Path, fatal: int) -> int:
    """How many operations it took."""
    depot = castfs.open(store)
    points = Points(fatal)
    depot.ingest(source)
    return points.count


def run(store: Path, source: Path, point: int) -> None:
    copy = store.with_name(f"{store.name}-{point}")
    shutil.copytree(store, copy)
    pid = os.fork()
    if pid == 0:
        ingest(copy, source, point)
        os._exit(0)
    _, status = os.waitpid(pid, 0)
    # The readers of a dead ingest end by themselves: this process is their parent now.
    while True:
        try:
            os.wait()
        except ChildProcessError:
            break
    killed = os.WIFSIGNALED(status) and os.WTERMSIG(status) == signal.SIGKILL
    assert killed or status == 0, status
    os.write(1, f"{point} {copy} {int(killed)}\n".encode())


def main() -> None:
    store, source, points, with_readers = sys.argv[1:]
    if with_readers == "1":
        readers._ALONE_FILES = 0
    # PR_SET_CHILD_SUBREAPER (prctl(2)): orphans become children of this process.
    syscalls._libc().prctl(36, 1, 0, 0, 0)
    if points == "count":
        copy = Path(f"{store}-count")
        shutil.copytree(store, copy)
        pid = os.fork()
        if pid == 0:
            os.write(1, str(ingest(copy, Path(source), 0)).encode())
            os._exit(0)
        assert os.waitpid(pid, 0)[1] == 0
        return
    for point in points.split(","):
        run(Path(store), Path(source), int(point))


if __name__ == "__main__":
    main()
