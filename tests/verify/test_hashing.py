"""Many blobs are hashed by several processes: the same result, and nothing is left of them."""

from __future__ import annotations

import contextlib
import os
import signal
import subprocess
import sys
from pathlib import Path

import pytest

from castfs.errors import StoreError
from castfs.verify import hashing
from tests.store.checking import assert_idle
from tests.store.processes import python_environment, wait_until
from tests.verify.conftest import World, change, found

#: More than one process hashes alone.
COUNT = 2100
PATIENCE = 60.0


@pytest.fixture
def many(world: World, monkeypatch: pytest.MonkeyPatch) -> World:
    monkeypatch.setenv("CASTFS_THREADS", "2")
    for number in range(COUNT):
        blob = world.blob(b"%d" % number)
        blob.parent.mkdir(exist_ok=True)
        blob.write_bytes(b"%d" % number)
    return world


def test_several_processes(many: World, monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(*args: object) -> None:
        raise AssertionError("it was hashed here")

    monkeypatch.setattr(hashing, "hash_batch", refuse)
    result = many.verify(data=True)
    assert (result.status, result.hashed_count) == ("clean", COUNT + 5)
    change(many.blob(b"two"), b"owt")
    bad = [b"7", b"1000", b"2099"]
    for content in bad:
        change(many.blob(content), b"x")
    many.blob(b"17").unlink()
    many.blob(b"17").mkdir()
    result = many.verify(data=True)
    assert found(result) == many.hurt_by(b"two")
    assert {each.digest for each in result.bad_blobs} == {
        many.blob(content).name for content in [*bad, b"two", b"17"]
    }
    assert result.quarantine_count == 5
    assert result.hashed_count == COUNT + 5


@pytest.mark.parametrize("answers", [0, 1])
def test_a_process_that_is_killed(
    many: World, monkeypatch: pytest.MonkeyPatch, answers: int
) -> None:
    """At once, or after it has answered; as the kernel does when memory is short."""
    kill = "import os, signal, sys\n"
    kill += "from castfs.verify import hashing\n"
    kill += "hash_batch, seen = hashing.hash_batch, []\n"
    kill += "def dying(*args):\n"
    kill += f"    if len(seen) == {answers}: os.kill(os.getpid(), signal.SIGKILL)\n"
    kill += "    seen.append(args)\n"
    kill += "    return hash_batch(*args)\n"
    kill += "hashing.hash_batch = dying\n"
    kill += "hashing.main()\n"
    monkeypatch.setattr(hashing, "_START", kill)
    with pytest.raises(StoreError, match="CASTFS_THREADS=1"):
        many.verify(data=True)
    assert_idle(many.path)
    assert list((many.path / "quarantine").iterdir()) == []


def children(pid: int) -> list[int]:
    """Processes that `pid` started and that have not been waited for (proc(5))."""
    found: list[int] = []
    for task in Path(f"/proc/{pid}/task").iterdir():
        found += map(int, (task / "children").read_text().split())
    return found


def opened(pid: int) -> list[str]:
    """What a process has open. Nothing where it is gone, or does not run Python yet."""
    with contextlib.suppress(OSError):
        return [os.readlink(path) for path in Path(f"/proc/{pid}/fd").iterdir()]
    return []


@pytest.mark.parametrize(
    ("number", "group", "hashing"),
    [
        (signal.SIGINT, True, True),  # a terminal's Ctrl-C
        (signal.SIGINT, True, False),
        (signal.SIGINT, False, True),
        (signal.SIGTERM, False, True),
        (signal.SIGTERM, True, True),  # timeout(1)
    ],
)
def test_an_interrupt(world: World, number: signal.Signals, group: bool, hashing: bool) -> None:
    """To it alone or to its whole group, while both hash or are just being started."""
    blobs = [world.path / "blobs" / (digit * 2) / (digit * 64) for digit in "01"]
    for blob in blobs:
        blob.parent.mkdir(exist_ok=True)
        with blob.open("wb") as file:
            file.truncate(1 << 40)  # a hole; hashing it lasts minutes
    with subprocess.Popen(
        [sys.executable, "-m", "castfs", "verify", "--data"],
        env=python_environment(CASTFS_THREADS="2", CASTFS_STORE=str(world.path)),
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        start_new_session=True,
    ) as process:

        def ready() -> bool:
            seen = [opened(pid) for pid in children(process.pid)]
            return sum(any(str(blob) in fds for blob in blobs) or not hashing for fds in seen) == 2

        wait_until(ready, "two hashers", PATIENCE)
        started = children(process.pid)
        if hashing:  # what a terminal sends must not reach one that is still being loaded
            assert process.pid not in {os.getpgid(pid) for pid in started}
        (os.killpg if group else os.kill)(process.pid, number)
        out, err = process.communicate(timeout=PATIENCE)
    code = {signal.SIGINT: 130, signal.SIGTERM: 143}[number]
    assert (process.returncode, out) == (code, b"")
    assert len(err.splitlines()) == 1, err
    wait_until(lambda: not any(map(is_running, started)), "the hashers' end", PATIENCE)
    assert_idle(world.path)
    assert list((world.path / "quarantine").iterdir()) == []


def is_running(pid: int) -> bool:
    return Path(f"/proc/{pid}").exists()
