"""The thread that scans: its start, its end, and what goes wrong in between."""

from __future__ import annotations

import logging
import os
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from castfs.errors import UsageError
from castfs.runs.outputs import Output, OutputScanner, OutputWatcher
from tests.runs.rolling import PATIENCE, run_python


def wait_until(condition: Callable[[], bool]) -> None:
    end = time.monotonic() + PATIENCE
    while not condition():
        assert time.monotonic() < end
        time.sleep(0.005)


class Watched:
    def __init__(self, root: Path) -> None:
        self.root = root
        (root / "out").mkdir()
        self.taken: list[tuple[str, bytes]] = []
        self.before_take: Callable[[], object] = lambda: None
        self.scans = 0
        self.watchers: list[OutputWatcher] = []

    def watch(self, interval_sec: float = 0.01, **options: object) -> OutputWatcher:
        scanner = OutputScanner(
            self.root,
            ["out"],
            state_file=self.root / "state",
            take=self._take,
            **{"min_age_sec": 0.0, **options},  # type: ignore[arg-type]
        )
        scan_once = scanner.scan_once

        def counted(**told: object) -> object:
            self.scans += 1
            return scan_once(**told)  # type: ignore[arg-type]

        scanner.scan_once = counted  # type: ignore[method-assign,assignment]
        self.watchers.append(OutputWatcher(scanner, interval_sec))
        return self.watchers[-1]

    def write(self, name: str, data: bytes = b"x") -> None:
        (self.root / "out" / name).write_bytes(data)

    def _take(self, output: Output) -> str:
        self.before_take()
        self.taken.append((output.key, output.path.read_bytes()))
        return "id"


@pytest.fixture
def watched(tmp_path: Path) -> Iterator[Watched]:
    root = tmp_path / "work"
    root.mkdir()
    watched = Watched(root)
    yield watched
    watched.before_take = lambda: None
    for watcher in watched.watchers:
        assert watcher.stop(PATIENCE)
    wait_until(lambda: not any(t.name == "castfs-outputs" for t in threading.enumerate()))


def test_it_takes_what_comes(watched: Watched) -> None:
    watcher = watched.watch()
    assert not watcher.is_running
    watcher.start()
    assert watcher.is_running
    for name in ("a.pt", "b.pt"):
        watched.write(name)
        wait_until(lambda name=name: (f"out/{name}", b"x") in watched.taken)
    assert watcher.stop()
    assert not watcher.is_running
    scans = watched.scans
    watched.write("c.pt")
    assert watcher.stop()
    assert (watched.scans, len(watched.taken)) == (scans, 2)


def test_the_last_scan_takes_what_was_just_written(watched: Watched) -> None:
    """Though the rules ask for two scans, and the next would come in an hour."""
    watcher = watched.watch(3600, min_age_sec=0.1)
    watched.write("a.log", b"1")
    watcher.start()
    wait_until(lambda: watched.taken == [("out/a.log", b"1")])
    watched.write("a.log", b"12")
    watched.write("final.pt", b"weights")
    assert watcher.stop()
    assert watched.taken[1:] == [("out/a.log", b"12"), ("out/final.pt", b"weights")]


def test_the_last_scan_does_not_wait_for_ever(watched: Watched) -> None:
    """For what somebody goes on writing."""
    written = 0

    def write_on(**_: object) -> object:
        nonlocal written
        written += 1
        watched.write("a.pt", b"x" * written)
        return scan_once()

    watcher = watched.watch(3600)
    scan_once = watcher._scanner.scan_once
    watcher._scanner.scan_once = write_on  # type: ignore[method-assign,assignment]
    watcher.start()
    assert watcher.stop(PATIENCE)
    assert watched.taken == []
    assert written <= 5


def test_started_twice_and_again(watched: Watched) -> None:
    watcher = watched.watch()
    watcher.start()
    watcher.start()
    assert sum(t.name == "castfs-outputs" for t in threading.enumerate()) == 1
    assert watcher.stop()
    watched.write("a.pt")
    watcher.start()
    wait_until(lambda: len(watched.taken) == 1)


def test_an_exception_does_not_end_it(watched: Watched, caplog: pytest.LogCaptureFixture) -> None:
    (watched.root / "state").mkdir()
    watcher = watched.watch()
    watcher.start()
    wait_until(lambda: watched.scans > 3)
    (watched.root / "state").rmdir()
    watched.before_take = lambda: 1 / 0
    watched.write("a.pt")
    scans = watched.scans
    wait_until(lambda: watched.scans > scans + 5)
    watched.before_take = lambda: None
    wait_until(lambda: len(watched.taken) == 1)
    said = [record.getMessage() for record in caplog.records if record.levelno == logging.WARNING]
    assert [line.partition(": ")[0] for line in said] == [
        "cannot scan the outputs",
        "cannot take out/a.pt",
    ]


def test_an_error_with_a_name_of_any_bytes_does_not_end_it(
    watched: Watched, caplog: pytest.LogCaptureFixture
) -> None:
    watcher = watched.watch()

    def fail(**_: object) -> object:
        watched.scans += 1
        raise FileNotFoundError(2, "No such file or directory", "\udcff\n")

    watcher._scanner.scan_once = fail  # type: ignore[method-assign,assignment]
    watcher.start()
    wait_until(lambda: watched.scans > 2)
    assert watcher.is_running
    assert len(caplog.records) == 1


def test_a_bug_does_not_end_it(watched: Watched, caplog: pytest.LogCaptureFixture) -> None:
    watcher = watched.watch()
    scanner = watcher._scanner
    working = scanner.scan_once
    calls = []

    def fail(**_: object) -> object:
        calls.append(1)
        raise ZeroDivisionError

    scanner.scan_once = fail  # type: ignore[method-assign,assignment]
    watcher.start()
    wait_until(lambda: len(calls) > 2)
    scanner.scan_once = working  # type: ignore[method-assign]
    watched.write("a.pt")
    wait_until(lambda: len(watched.taken) == 1)
    assert "ZeroDivisionError" in caplog.text


def test_stop_gives_up_in_the_end(watched: Watched, caplog: pytest.LogCaptureFixture) -> None:
    """The thread ends after the output that it is taking, and the rest is for a later scan."""
    reached, go_on = threading.Event(), threading.Event()

    def hang() -> None:
        reached.set()
        assert go_on.wait(PATIENCE)

    watched.before_take = hang
    watched.write("a.pt")
    watched.write("b.pt")
    watcher = watched.watch()
    watcher.start()
    assert reached.wait(PATIENCE)
    assert not watcher.stop(0.05)
    assert not watcher.is_running
    assert "not waiting" in caplog.text
    go_on.set()
    wait_until(lambda: not any(t.name == "castfs-outputs" for t in threading.enumerate()))
    assert watched.taken == [("out/a.pt", b"x")]
    later = watched.watch()
    later.start()
    wait_until(lambda: len(watched.taken) == 2)


def test_an_interval_that_makes_no_sense(watched: Watched) -> None:
    for interval in (0, -1, float("nan")):
        with pytest.raises(UsageError):
            watched.watch(interval)
    watched.watch(float("inf")).start()


def test_a_forked_child_has_no_watcher(tmp_path: Path) -> None:
    """And can scan, also if the thread was in the middle of a scan, and make a watcher."""
    code = """
import os, sys, threading
from pathlib import Path
from castfs.runs.outputs import OutputScanner, OutputWatcher

root = Path(sys.argv[1])
(root / "out").mkdir()
(root / "out" / "a.pt").write_text("x")
parent = os.getpid()
scanning, go_on = threading.Event(), threading.Event()

def take(output):
    if os.getpid() == parent:
        scanning.set()
        go_on.wait(30)
    return "id"

scanner = OutputScanner(root, "out", state_file=root / "state", take=take, min_age_sec=0)
watcher = OutputWatcher(scanner, 0.01)
watcher.start()
assert scanning.wait(30)
child = os.fork()
if child == 0:
    assert not watcher.is_running
    assert watcher.stop(0)
    assert len(scanner.scan_once().taken) == 1
    watcher.start()
    assert watcher.is_running
    assert watcher.stop(30)
    os._exit(7)
assert os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == 7
assert watcher.is_running
go_on.set()
assert watcher.stop(30)
print("done")
"""
    assert run_python(code, tmp_path) == "done\n"


def test_a_watcher_that_is_not_stopped_does_not_keep_the_program(tmp_path: Path) -> None:
    code = """
import sys
from pathlib import Path
from castfs.runs.outputs import OutputScanner, OutputWatcher

root = Path(sys.argv[1])
scanner = OutputScanner(root, "out", state_file=root / "state", take=lambda output: "id")
OutputWatcher(scanner, 3600).start()
print(1)
"""
    start = time.monotonic()
    assert run_python(code, tmp_path) == "1\n"
    assert time.monotonic() - start < PATIENCE
    assert os.listdir(tmp_path) == [".user"]
