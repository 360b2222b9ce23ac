"""Commands as processes that take a few milliseconds to start, and that are slow where it hurts."""

from __future__ import annotations

import contextlib
import importlib
import os
import pkgutil
import random
import signal
import subprocess
import sys
import time
import traceback
import types
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any, NoReturn

from castfs import syscalls
from castfs.cli.process import run as run_command
from castfs.store.locks import StoreLocks

#: Naps after a sync.
_SYNC_NAPS = 4


def load_commands() -> None:
    """Here, once, what every process would import."""
    for room in ("castfs.cli", "castfs.repository", "castfs.gc", "castfs.ingest", "castfs.verify"):
        package = importlib.import_module(room)
        for module in pkgutil.iter_modules(package.__path__):
            importlib.import_module(f"{room}.{module.name}")
    for room in ("castfs.archive", "castfs.mount", "castfs.restore"):
        importlib.import_module(room)


def adopt_orphans() -> None:
    """PR_SET_CHILD_SUBREAPER (prctl(2)): mount daemons and readers of killed ingests become
    children of this process."""
    syscalls._libc().prctl(36, 1, 0, 0, 0)


@dataclass(frozen=True, kw_only=True)
class Shake:
    """How a process differs from an undisturbed one, within what a scheduler may do to it.

    `pause`: mean of the naps before and after each hold of the store's lock, in seconds; several
    follow each sync, as on a slow disk. `batch`: length of a collector's batches. `aged`: files
    need not be two seconds old to be remembered. `readers`: an ingest starts reader processes at
    once.
    """

    seed: int = 0
    pause: float = 0.0
    batch: float | None = None
    aged: bool = False
    readers: bool = False

    def apply(self) -> None:
        if self.pause:
            self._nap_at_locks()
        if self.batch is not None:
            _set("castfs.gc.holds", "BATCH_SECONDS", self.batch)
        if self.readers:
            _set("castfs.ingest.readers", "_ALONE_FILES", 0)
        if self.aged:
            ahead = types.SimpleNamespace(**vars(time))
            ahead.time_ns = lambda: time.time_ns() + 3600 * 10**9
            for module in ("castfs.ingest.intake", "castfs.ingest.scan"):
                _set(module, "time", ahead)

    def _nap_at_locks(self) -> None:
        rng = random.Random(self.seed)
        real = StoreLocks._held

        def nap() -> None:
            if rng.random() < 0.5:
                time.sleep(min(rng.expovariate(1 / self.pause), 20 * self.pause))

        @contextlib.contextmanager
        def held(locks: StoreLocks, operation: int) -> Iterator[None]:
            nap()
            with real(locks, operation):
                yield
            nap()

        sync = syscalls.syncfs

        def slow_sync(fd: int) -> None:
            sync(fd)
            for _ in range(_SYNC_NAPS):
                nap()

        syscalls.syncfs = slow_sync
        StoreLocks._held = held  # type: ignore[assignment,method-assign]


def _set(module: str, name: str, value: Any) -> None:
    setattr(importlib.import_module(module), name, value)


@dataclass
class Child:
    """A process that was started, and where its output is."""

    pid: int
    out: Path
    err: Path
    started: float
    signalled: int = 0

    @property
    def output(self) -> str:
        return self.out.read_text(errors="replace")

    @property
    def errors(self) -> str:
        return self.err.read_text(errors="replace")

    def send(self, number: int) -> None:
        self.signalled = number
        with contextlib.suppress(ProcessLookupError):
            os.kill(self.pid, number)


def start(place: Path, call: Callable[[], int], shake: Shake) -> Child:
    """`call` in a process of its own; its result is the exit code. `place` gets .out and .err."""
    out, err = place.with_suffix(".out"), place.with_suffix(".err")
    for path in (out, err):
        path.touch()  # here: a process may be killed before it gets that far
    # This process's handler is not the child's.
    mask = signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGTERM})
    pid = os.fork()
    if pid == 0:
        signal.signal(signal.SIGTERM, signal.SIG_DFL)
        signal.pthread_sigmask(signal.SIG_SETMASK, mask)
        _become(out, err, call, shake)
    signal.pthread_sigmask(signal.SIG_SETMASK, mask)
    return Child(pid, out, err, time.monotonic())


def _become(out: Path, err: Path, call: Callable[[], int], shake: Shake) -> NoReturn:
    code = 70
    try:
        for fd, path in ((1, out), (2, err)):
            os.dup2(os.open(path, os.O_WRONLY | os.O_CREAT | os.O_APPEND, 0o600), fd)
        os.dup2(os.open(os.devnull, os.O_RDONLY), 0)
        shake.apply()
        code = call()
        sys.stdout.flush()
        sys.stderr.flush()
    except BaseException:
        os.write(2, traceback.format_exc().encode())
    finally:
        os._exit(code)


def command(*args: object) -> Callable[[], int]:
    """`castfs ARGS`."""
    return lambda: run_command([str(arg) for arg in args])


def reap() -> Iterator[tuple[int, int]]:
    """(pid, exit code or -signal) of every child that has ended."""
    while True:
        try:
            pid, status = os.waitpid(-1, os.WNOHANG)
        except ChildProcessError:
            return
        if pid == 0:
            return
        yield pid, os.waitstatus_to_exitcode(status)


def children() -> list[int]:
    """Pids of all children, adopted ones too."""
    found = []
    for path in Path("/proc").glob("[0-9]*/stat"):
        with contextlib.suppress(OSError):
            if int(path.read_text().rpartition(")")[2].split()[1]) == os.getpid():
                found.append(int(path.parent.name))
    return found


def detach_all(base: Path) -> None:
    """Take away whatever is mounted below `base`."""
    for line in reversed(Path("/proc/self/mountinfo").read_text().splitlines()):
        if line.split()[4].startswith(f"{base}/"):
            detach(Path(line.split()[4]))


def detach(mountpoint: Path) -> None:
    subprocess.run(["fusermount3", "-uz", mountpoint], timeout=20, check=False, capture_output=True)
