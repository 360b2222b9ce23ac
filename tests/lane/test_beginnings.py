"""A lane that cannot be set up: the mount goes on without it, says so, and ends as any other."""

from __future__ import annotations

import os

import pytest

from castfs.mount import unmount
from tests.lane.serving import ask, served
from tests.mount.conftest import Mounter
from tests.mount.snapshots import Snapshot
from tests.mount.trees import write

pytestmark = [pytest.mark.mounted, pytest.mark.needs_root]

CONTENT = bytes(range(256)) * 4096

#: Which step fails: what is put before the server.
STEPS = {
    "finding the device": """
from castfs.errors import MountError
from castfs.mount import serving
def fail(before):
    raise MountError("no such luck")
serving.intercept = fail
""",
    "making the socket": """
from castfs.lane import wiring
def fail(*arguments, original=wiring.socket.socketpair):
    if sys._getframe(1).f_code.co_filename == wiring.__file__:
        raise OSError(errno.EMFILE, "no such luck")
    return original(*arguments)
wiring.socket.socketpair = fail
""",
    "putting it in the device's place": """
def fail(*arguments, original=os.dup2, **options):
    if sys._getframe(1).f_code.co_name == "__init__":
        raise OSError(errno.EBUSY, "no such luck")
    return original(*arguments, **options)
os.dup2 = fail
""",
    "making a pipe": """
def fail(flags, original=os.pipe2):
    if sys._getframe(1).f_code.co_filename == lane.__file__:
        raise OSError(errno.EMFILE, "no such luck")
    return original(flags)
os.pipe2 = fail
""",
    "memory": """
def fail(*arguments, **options):
    raise MemoryError("no such luck")
lane.Files = fail
""",
    "starting the lane": """
import threading
def fail(thread, original=threading.Thread.start):
    if thread.name == "castfs lane":
        time.sleep(0.2)  # as late as it may be: the other one has run by then
        raise RuntimeError("no such luck")
    original(thread)
threading.Thread.start = fail
""",
    "starting the copier": """
import threading
def fail(thread, original=threading.Thread.start):
    if thread.name == "castfs replies":
        time.sleep(0.2)  # as late as it may be: the other one has run by then
        raise RuntimeError("no such luck")
    original(thread)
threading.Thread.start = fail
""",
}

#: Its descriptors of the device and of sockets, once it has mounted.
DESCRIPTORS = """
import os
from castfs.mount import serving
def start_lane(self, before, original=serving._Server._start_lane):
    original(self, before)
    targets = [os.readlink(f"/proc/self/fd/{name}") for name in os.listdir("/proc/self/fd")
               if os.path.exists(f"/proc/self/fd/{name}")]
    open(place + "/devices", "w").write(str(targets.count("/dev/fuse")))
serving._Server._start_lane = start_lane
"""


@pytest.fixture
def snapshot(mounter: Mounter) -> Snapshot:
    write(mounter.source / "file", CONTENT)
    write(mounter.source / "small", b"small\n")
    return mounter.take()


@pytest.mark.parametrize("step", STEPS)
@pytest.mark.parametrize("how", ["unmount", "SIGTERM"])
def test_a_step_that_fails(mounter: Mounter, snapshot: Snapshot, step: str, how: str) -> None:
    with served(mounter, snapshot, STEPS[step] + DESCRIPTORS) as server:
        assert ask("cat", mounter.mountpoint / "file").out == CONTENT
        assert ask("cat", mounter.mountpoint / "small").out == b"small\n"
        assert ask("ls", mounter.mountpoint).out == b"file\nsmall\n"
        assert ask("cat", mounter.mountpoint / "missing").code == 1
        (warning,) = server.warnings
        assert warning.startswith("without the fast lane, so reads are slower: ")
        assert warning.endswith("no such luck")
        assert server.said.splitlines() == [warning]
        # One more would keep readers waiting after the mount's end.
        assert (server.place / "devices").read_text() == "1"
        if how == "unmount":
            unmount(mounter.mountpoint)
        else:
            server.process.terminate()
        assert server.finish() == 0, server.said
        assert os.listdir(snapshot.depot.leases_dir) == []
