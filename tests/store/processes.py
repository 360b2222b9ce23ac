"""Other processes that use a store: ingests at once, and one that behaves like a collector."""

from __future__ import annotations

import os
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

from castfs.store.locks import find_holders

ROOT = Path(__file__).parents[2]


def python_environment(**variables: str) -> dict[str, str]:
    return {**os.environ, "PYTHONPATH": str(ROOT), **variables}


def run_python(code: str, *args: object, timeout: float = 60, **variables: str) -> str:
    """What the program `code` prints; an AssertionError with its stderr if it fails."""
    done = subprocess.run(
        [sys.executable, "-P", "-c", code, *map(str, args)],
        env=python_environment(**variables),
        capture_output=True,
        text=True,
        timeout=timeout,
    )
    assert done.returncode == 0, done.stderr
    assert done.stderr == ""
    return done.stdout


_HOLD = """
import contextlib, sys
from pathlib import Path
from castfs.store.locks import StoreLocks
locks = StoreLocks(Path(sys.argv[1]))
for line in sys.stdin:
    with getattr(locks, line.strip())():
        print("held", flush=True)
        sys.stdin.readline()
    print("free", flush=True)
"""


class Holder:
    """Another process that holds the store's lock when it is told to."""

    def __init__(self, process: subprocess.Popen[str]) -> None:
        self._process = process

    def hold(self, how: str = "exclusive") -> None:
        self._say(how, "held")

    def ask(self, how: str = "exclusive") -> None:
        """Without waiting until it is held; `wait_held` does."""
        self._write(how)

    def wait_held(self) -> None:
        assert self._process.stdout is not None
        assert self._process.stdout.readline().strip() == "held"

    def let_go(self) -> None:
        self._say("", "free")

    @property
    def pid(self) -> int:
        return self._process.pid

    def _write(self, word: str) -> None:
        assert self._process.stdin is not None
        self._process.stdin.write(f"{word}\n")
        self._process.stdin.flush()

    def _say(self, word: str, answer: str) -> None:
        self._write(word)
        assert self._process.stdout is not None
        assert self._process.stdout.readline().strip() == answer


@contextmanager
def lock_holder(store: Path) -> Iterator[Holder]:
    process = subprocess.Popen(
        [sys.executable, "-P", "-c", _HOLD, store],
        env=python_environment(),
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
    )
    with process:
        try:
            yield Holder(process)
        finally:
            process.kill()


def wait_until(condition: Callable[[], bool], what: str, seconds: float = 30) -> None:
    deadline = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < deadline, f"waited {seconds} s for {what}"
        os.sched_yield()


def is_waiting_for_flock(pid: int) -> bool:
    """proc_locks(5): a blocked request stands behind an arrow."""
    lines = Path("/proc/locks").read_text().splitlines()
    return any("-> FLOCK" in line and f" {pid} " in line for line in lines)


def is_waiting_for_others(store: Path, pid: int) -> bool:
    """Has it shut the gate, and not got the store yet? (Then it asks again and again.)"""
    return pid in find_holders(store / "gate") and pid not in find_holders(store / "store")
