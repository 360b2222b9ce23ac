"""The lane's end while what it has started waits in the kernel."""

from __future__ import annotations

import contextlib
import os
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from castfs.lane.lane import _GRACE_SECONDS
from tests.lane.serving import Finished, Served, ask, finish, served, start
from tests.mount.conftest import PATIENCE, Mounter, children_of, wait_until
from tests.mount.trees import write

pytestmark = [pytest.mark.mounted, pytest.mark.needs_root]


#: What stores ahead has file 03 in hand and waits until a reader has asked for it; that
#: READ waits for a disk that never answers.
WAITING_FOR_A_PAGE = """
from castfs.lane import storing
def is_it(size):
    return size == 1003
def read_small(self, ino, limit, original=Contents.read_small):
    data = original(self, ino, limit)
    if is_it(len(data)):
        open(place + "/storing", "w").close()
        while not os.path.exists(place + "/asked"):
            time.sleep(0.01)
        time.sleep(0.05)
    return data
def read_cached(self, file, *arguments, original=Contents.read_cached):
    return -1 if is_it(file.size) else original(self, file, *arguments)
def read(self, file, *arguments, original=Contents.read):
    if is_it(file.size):
        open(place + "/asked", "w").close()
        while not os.path.exists(place + "/go on"):
            time.sleep(0.01)
    return original(self, file, *arguments)
Contents.read_small, Contents.read_cached, Contents.read = read_small, read_cached, read
# What keeps the two apart where it can be known.
storing.Storing.was_asked_for = lambda self, ino: None
"""


#: And nothing takes the reader's page from it.
NO_REQUEST_IS_GIVEN_UP = """
from castfs.lane import lane
lane.FastLane._give_up_reads = lambda self: None
lane._GRACE_SECONDS = 0.5
"""


def waits_in_the_kernel(pid: int) -> bool:
    """Is a child of a process in a state that no signal ends (proc_pid_stat(5))?"""
    return any(") D " in Path(f"/proc/{child}/stat").read_text() for child in children_of(pid))


def assert_error_or_right(reader: Finished) -> None:
    """It may find what was stored when the error had given the page free."""
    assert reader.code == 1 or reader.out == b"3" * 1003


@contextlib.contextmanager
def storing_a_page_of(
    mounter: Mounter, more: str = ""
) -> Iterator[tuple[Served, subprocess.Popen[bytes]]]:
    """A server whose process that stores ahead waits for a page, and the reader who has it."""
    for number in range(20):
        size = 1003 if number == 3 else 1000
        write(mounter.source / f"{number:02}", b"%d" % (number % 10) * size)
    with served(mounter, mounter.take(), WAITING_FOR_A_PAGE + more) as server:
        assert ask("ls", "-l", mounter.mountpoint).code == 0  # it takes only what it knows
        first = ask("cat", *[mounter.mountpoint / f"{number:02}" for number in range(3)])
        assert first.out == b"".join(b"%d" % number * 1000 for number in range(3))
        wait_until(lambda: (server.place / "storing").exists())
        reader = start("cat", mounter.mountpoint / "03")
        wait_until(lambda: waits_in_the_kernel(server.process.pid))
        yield server, reader


def test_the_server_is_killed_meanwhile(mounter: Mounter) -> None:
    """What stores ahead cannot be killed then, and keeps the connection: the guard ends it."""
    with storing_a_page_of(mounter) as (server, reader):
        server.process.kill()
        assert_error_or_right(finish(reader))
        wait_until(lambda: mounter.mounts() == [])
        server.process.wait(PATIENCE)


def test_all_are_killed_meanwhile(mounter: Mounter) -> None:
    """As a container's end does. Unmounting ends the connection, and would itself wait for ever."""
    with storing_a_page_of(mounter) as (server, reader):
        for pid in (*children_of(server.process.pid), server.process.pid):
            os.kill(pid, signal.SIGKILL)
        server.process.wait(PATIENCE)
        unmounted = ask(sys.executable, "-m", "castfs", "umount", mounter.mountpoint)
        assert unmounted.code == 0, unmounted.err
        assert_error_or_right(finish(reader))
        assert mounter.mounts() == []


@pytest.mark.parametrize("answered", [False, True], ids=["to the end", "for a while"])
def test_storing_ahead_waits_for_a_page_of_a_reader(mounter: Mounter, answered: bool) -> None:
    """A NOTIFY_STORE waits for the page's lock, which is the reader's until its READ is answered;
    and who waits in the kernel keeps the device open."""
    with storing_a_page_of(mounter) as (server, reader):
        if answered:
            (server.place / "go on").touch()
            assert finish(reader).out == b"3" * 1003
        begun = time.monotonic()
        server.process.terminate()
        assert server.finish() == 0, server.said
        assert time.monotonic() - begun < _GRACE_SECONDS
        if not answered:
            assert_error_or_right(finish(reader))
        assert server.said == ""


def test_storing_ahead_outlives_sigkill(mounter: Mounter) -> None:
    """As where its page waits for a disk: only ending the connection sets all of them free."""
    with storing_a_page_of(mounter, NO_REQUEST_IS_GIVEN_UP) as (server, reader):
        server.process.terminate()
        assert server.finish() == 0, server.said
        assert_error_or_right(finish(reader))
        assert mounter.mounts() == []
        assert server.said == ""
