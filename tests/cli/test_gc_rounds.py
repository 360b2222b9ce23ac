"""`gc --every` as a process: rounds, failures in between, signals, the service manager."""

from __future__ import annotations

import contextlib
import fcntl
import os
import signal
import socket
import subprocess
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from tests.cli.conftest import TIMEOUT, Run, command, command_to_signal, environment, one_line
from tests.store.processes import is_waiting_for_others


class Service:
    """A running `castfs gc --every`."""

    def __init__(self, directory: Path, *args: str, **variables: str) -> None:
        self.out, self.err = directory / "out", directory / "err"
        with self.out.open("wb") as out, self.err.open("wb") as err:
            self.process = subprocess.Popen(
                command_to_signal("gc", *args), stdout=out, stderr=err, env=environment(**variables)
            )

    def rounds(self) -> int:
        return self.out.read_text().count("scanned ")

    def wait_until(self, condition: Callable[[], bool]) -> None:
        deadline = time.monotonic() + TIMEOUT
        while not condition():
            assert self.process.poll() is None, self.err.read_text()
            assert time.monotonic() < deadline
            time.sleep(0.01)

    def wait_for_round(self) -> None:
        """One more than there are."""
        before = self.rounds()
        self.wait_until(lambda: self.rounds() > before)

    def end(self, number: signal.Signals) -> str:
        """What it said on stderr. It must end with 0."""
        self.process.send_signal(number)
        assert self.process.wait(TIMEOUT) == 0, self.err.read_text()
        return self.err.read_text()


@contextlib.contextmanager
def service(directory: Path, *args: str, **variables: str) -> Iterator[Service]:
    running = Service(directory, *args, **variables)
    try:
        yield running
    finally:
        running.process.kill()
        running.process.wait(TIMEOUT)


def test_rounds_and_a_failure_in_between(taken: str, store: Path, tmp_path: Path) -> None:
    stranger = store / "snapshots" / "notes.txt"
    with service(tmp_path, "--every", "1s") as running:
        running.wait_for_round()
        running.wait_for_round()
        stranger.touch()
        running.wait_until(lambda: bool(running.err.read_text()))
        stranger.unlink()
        running.wait_for_round()
        said = running.end(signal.SIGTERM).splitlines()
    assert {line.startswith(f"castfs: {stranger} is no file of castfs") for line in said} == {True}


def test_a_store_that_comes_later(castfs: Run, store: Path, tmp_path: Path) -> None:
    """A disk that is not mounted yet."""
    with service(tmp_path, "--every", "1s") as running:
        running.wait_until(lambda: bool(running.err.read_text()))
        castfs("init")
        running.wait_for_round()
        said = running.end(signal.SIGINT).splitlines()
    assert {line.startswith("castfs: no store at ") for line in said} == {True}


@pytest.fixture(params=["path", "abstract"])
def manager(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[tuple[str, socket.socket]]:
    """A service manager's socket, and what $NOTIFY_SOCKET says of it (sd_notify(3))."""
    with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as sock:
        sock.settimeout(TIMEOUT)
        if request.param == "path":
            name = str(tmp_path / "notify")
            sock.bind(name)
        else:
            name = f"@castfs-test-{os.getpid()}"
            sock.bind("\0" + name[1:])
        yield name, sock


#: The longest pause that can be asked for is longer than a thread may wait.
@pytest.mark.parametrize("every", ["1h", "1000y"])
@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT, signal.SIGHUP])
def test_a_signal_while_it_waits(
    taken: str, tmp_path: Path, number: signal.Signals, every: str
) -> None:
    with service(tmp_path, "--every", every) as running:
        running.wait_for_round()
        assert running.end(number) == ""
        assert running.rounds() == 1


def test_the_service_manager_is_told(
    taken: str, store: Path, tmp_path: Path, manager: tuple[str, socket.socket]
) -> None:
    name, sock = manager
    stranger = store / "trash" / "strange\nfile"
    with service(tmp_path, "--every", "1s", NOTIFY_SOCKET=name) as running:
        assert sock.recv(1000) == b"READY=1"
        assert sock.recv(1000) == b"STATUS=waiting for the next round"
        stranger.touch()
        while (told := sock.recv(1000)) == b"STATUS=waiting for the next round":
            pass
        assert told.startswith(b"STATUS=the last round failed: ")
        assert b"\n" not in told, "a line would be another message"
        running.end(signal.SIGTERM)
    while told.startswith(b"STATUS="):
        told = sock.recv(1000)
    assert told == b"STOPPING=1"


@pytest.mark.parametrize("name", ["/nowhere/notify", "relative", "@castfs-nobody-listens"])
def test_a_service_manager_that_does_not_listen(taken: str, tmp_path: Path, name: str) -> None:
    with service(tmp_path, "--every", "1h", NOTIFY_SOCKET=name) as running:
        running.wait_for_round()
        assert running.end(signal.SIGTERM) == ""


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
def test_a_signal_in_the_middle_of_a_round(
    castfs: Run, taken: str, store: Path, tmp_path: Path, number: signal.Signals
) -> None:
    castfs("rm", "--permanent", "--yes", taken)
    with (store / "store").open("rb") as lock:
        fcntl.flock(lock, fcntl.LOCK_SH)
        args = ("--every", "1h", "--force", "--grace", "0s")
        with service(tmp_path, *args) as running:
            running.wait_until(lambda: is_waiting_for_others(store, running.process.pid))
            assert running.end(number) == ""
            assert running.rounds() == 0
    assert castfs("gc", "--force", "--grace", "0s", "--json").json["deleted"]["count"] == 4


def test_nobody_reads_on(taken: str) -> None:
    """It ends like any program in a pipe, and does not go on unseen."""
    with subprocess.Popen(
        command("gc", "--every", "1s"),
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        env=environment(),
    ) as process:
        assert process.stdout is not None
        assert process.stdout.readline()
        process.stdout.close()
        assert process.wait(TIMEOUT) == 141
        assert process.stderr is not None
        assert process.stderr.read() == b""


def test_json_is_a_document_for_each_round(taken: str, tmp_path: Path) -> None:
    with service(tmp_path, "--every", "1s", "--json") as running:
        running.wait_until(lambda: running.out.read_text().count("\n}\n") == 2)
        assert running.end(signal.SIGTERM) == ""
    assert running.out.read_text().startswith("{\n")


def test_a_round_beside_another_collector(taken: str, store: Path, tmp_path: Path) -> None:
    with (store / "gc.lock").open("rb") as lock, service(tmp_path, "--every", "1s") as running:
        fcntl.flock(lock, fcntl.LOCK_EX)
        running.wait_until(lambda: "another collector" in running.err.read_text())
        fcntl.flock(lock, fcntl.LOCK_UN)
        running.wait_for_round()
        one_line(running.end(signal.SIGTERM).splitlines(keepends=True)[-1])
