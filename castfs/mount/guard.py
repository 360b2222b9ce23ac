"""A small process that outlives the one that serves a mount, and takes the mount away if that was
killed.

The kernel keeps listings and attributes for ever and opens files by itself, so a mount whose
process has gone looks alive where it was looked at before. (fusermount3's auto_unmount would notice
by opening a directory, which the kernel does not pass on any more.)
"""

from __future__ import annotations

import contextlib
import json
import os
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

from castfs import settings
from castfs.errors import CastfsError, MountError
from castfs.mount.request import MountRequest

#: How long it may take to end when it is told to.
_END_SECONDS = 5.0
#: Waits before it imports anything: it costs 3 MiB and no time.
_START = """
import signal, sys
for each in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP, signal.SIGQUIT):
    signal.signal(each, signal.SIG_IGN)
said = b""
for line in sys.stdin.buffer:
    if line == b"end\\n":
        sys.exit()
    said = line
from castfs.mount.guard import take_away
take_away(sys.argv[1], sys.argv[2], said)
"""


class Guard:
    """The pipe to it."""

    def __init__(self, pipe: int) -> None:
        self._pipe = pipe

    def tell_device(self, device: tuple[int, int]) -> None:
        """What the mount can be known by, wherever it lies by then."""
        self._say(json.dumps(device))

    def end(self) -> None:
        """The mount has been seen to."""
        self._say("end")

    def _say(self, text: str) -> None:
        with contextlib.suppress(OSError):  # somebody has killed it
            os.write(self._pipe, f"{text}\n".encode())


@contextlib.contextmanager
def guarded(request: MountRequest) -> Iterator[Guard]:
    """Have a mount watched that is made now. MountError if no process can be started.

    Call it before there are threads. The guard ends when it is told to, and when this process does.
    """
    theirs, ours = os.pipe2(os.O_CLOEXEC)
    process = None
    try:
        try:
            process = subprocess.Popen(
                [sys.executable, "-P", "-S", "-c", _START, request.mountpoint, request.manifest_id],
                stdin=theirs,
                stdout=subprocess.DEVNULL,
                cwd="/",
                env=settings.interpreter_environment(),
                start_new_session=True,
            )
        except OSError as exc:
            raise MountError(f"no process can be started: {exc.strerror}") from exc
        finally:
            os.close(theirs)
        yield Guard(ours)
    finally:
        os.close(ours)
        if process is not None:
            # A process that this program has forked may have the pipe, too: no need to wait for it.
            with contextlib.suppress(subprocess.TimeoutExpired):
                process.wait(_END_SECONDS)


def take_away(mountpoint: str, manifest_id: str, said: bytes) -> None:
    """Remove the mounts that nobody serves any more among those that may be the one."""
    from castfs.mount.mountinfo import find_mount, read_mounts
    from castfs.mount.probing import is_dead, probe_one
    from castfs.mount.unmounting import detach_dead

    device = tuple(json.loads(said)) if said.strip() else None
    for mounted in read_mounts():
        if not mounted.is_castfs or mounted.manifest_id != manifest_id:
            continue
        same = mounted.mountpoint == Path(mountpoint) or mounted.device == device
        top = find_mount(mounted.mountpoint)
        if top is None or top.device != mounted.device:
            continue  # what was mounted over it would go instead
        if not same:
            continue
        answer = probe_one(mounted.mountpoint)
        with contextlib.suppress(CastfsError):
            # Without an answer, but surely ours: something is stuck in the kernel with it.
            if is_dead(answer) or (answer is None and mounted.device == device):
                detach_dead(mounted.mountpoint)
