"""`castfs watch`: how it ends, and what then lies in the store."""

from __future__ import annotations

import signal
import subprocess
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

import castfs
from castfs import GcOptions, Store
from castfs.runs.removing import remove_run
from tests.cli.conftest import TIMEOUT, command_to_signal, environment

TERM, INT = signal.SIGTERM, signal.SIGINT


@pytest.fixture
def outputs(tmp_path: Path) -> Path:
    (tmp_path / "out").mkdir()
    return tmp_path / "out"


@contextmanager
def watching(store: Store, *args: str | Path) -> Iterator[subprocess.Popen[bytes]]:
    with subprocess.Popen(
        command_to_signal("watch", "--store", store.path, *args),
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        env=environment(),
    ) as process:
        try:
            yield process
        finally:
            process.kill()


def end(process: subprocess.Popen[bytes], number: signal.Signals) -> int:
    """Again and again: two that come together are one request."""
    for _ in range(TIMEOUT * 20):
        process.send_signal(number)
        try:
            return process.wait(0.05)
        except subprocess.TimeoutExpired:
            continue
    raise AssertionError("it does not end")


def is_clean(store: Store) -> bool:
    """Is nothing half there? A signal may come between any two steps, also of clearing up: what is
    left then is a dead process's, which the collector takes."""
    store.gc(GcOptions(force=True))
    left = [*(store.path / "leases").iterdir(), *(store.path / "staging").iterdir()]
    return store.verify().problems == () and left == []


@pytest.mark.parametrize(("number", "code"), [(TERM, 143), (INT, 130)])
def test_a_second_signal_while_it_waits(
    store: Store, outputs: Path, number: signal.Signals, code: int
) -> None:
    (outputs / "a.pt").write_bytes(b"1")
    with watching(store, outputs, "--interval", "0.05s", "--min-age", "1h") as process:
        assert process.stderr is not None
        assert b"1 file not complete yet" in process.stderr.readline()
        assert end(process, number) == code
    assert list(store.iter_snapshots()) == []
    assert is_clean(store)


def test_a_second_signal_while_it_takes(store: Store, outputs: Path) -> None:
    for count in range(600):
        (outputs / f"{count}.pt").write_bytes(b"%d" % count)
    with watching(store, outputs, "--interval", "0.05s", "--min-age", "0") as process:
        assert process.stderr is not None
        assert b"600 files not complete yet" in process.stderr.readline()
        assert end(process, TERM) == 143
    taken = len(list(store.iter_snapshots()))
    assert taken < 600
    assert is_clean(store)
    with watching(store, outputs, "--once", "--min-age", "0") as process:
        out, err = process.communicate(timeout=TIMEOUT)
    # What was taken before the end is known; the one that was being taken may be there already.
    assert len(out.splitlines()) in (600 - taken, 600 - taken + 1), err
    assert len(list(store.iter_snapshots())) == 600


def test_a_run_that_is_removed(store: Store, outputs: Path) -> None:
    (outputs / "a.pt").write_bytes(b"1")
    run = castfs.init("p", store=store)
    arguments = (outputs, "--run", run.id, "--interval", "0.05s", "--min-age", "0")
    with watching(store, *arguments) as process:
        assert process.stdout is not None
        assert process.stdout.readline().startswith(b"a.pt")
        run.finish()
        remove_run(store.depot, run.id)
        (outputs / "b.pt").write_bytes(b"2")
        _, err = process.communicate(timeout=TIMEOUT)
    assert process.returncode == 4
    [line] = [line for line in err.decode().splitlines() if "not complete" not in line]
    assert run.id in line
    assert list(store.iter_snapshots()) == []
    assert not (store.path / "runs" / run.id).exists()
