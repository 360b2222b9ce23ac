"""Does a mount answer? Asked by a process of its own, because whoever asks one that hangs may wait
for ever, in a state in which not even SIGKILL ends it."""

from __future__ import annotations

import errno
import os
import subprocess
import sys
import time
from collections.abc import Iterable
from pathlib import Path

from castfs.mount.mountinfo import read_mounts

#: How long a mount may take to answer statfs before it is called hung, in seconds. The answer
#: comes from memory within a millisecond; the rest is for machines that are out of breath.
ANSWER_SECONDS = 3.0

#: The exit status is the errno, which is at most 133 on Linux.
_PROBE = """\
import os, sys
path, owner, group = sys.argv[1:]
if owner:
    os.setgroups([])
    os.setresgid(int(group), int(group), int(group))
    os.setresuid(int(owner), int(owner), int(owner))
try:
    os.statvfs(path)
except OSError as exc:
    sys.exit(exc.errno)
"""


def probe(paths: Iterable[Path]) -> dict[Path, int | None]:
    """What statvfs says of each path: 0 or an errno; None where there was no answer in time.

    All are asked at once, and have ANSWER_SECONDS. A process that does not come back is left alone:
    it ends when the mount answers or goes away. Root asks as the user who made the mount: for
    anybody else the kernel answers by itself, whatever has become of the mount.
    """
    owners = {
        mounted.mountpoint: (mounted.owner, mounted.group)
        for mounted in read_mounts()
        if os.geteuid() == 0 and mounted.owner and mounted.group is not None
    }
    running = {path: _ask(path, owners.get(path)) for path in paths}
    deadline = time.monotonic() + ANSWER_SECONDS
    return {path: _answer(process, deadline) for path, process in running.items()}


def probe_one(path: Path) -> int | None:
    return probe([path])[path]


def is_dead(answer: int | None) -> bool:
    """Is it the answer of a FUSE mount whose process has gone?"""
    return answer in (errno.ENOTCONN, errno.ECONNABORTED)


def _ask(path: Path, user: tuple[int | None, int | None] | None) -> subprocess.Popen[bytes]:
    owner, group = user or ("", "")
    return subprocess.Popen(
        [sys.executable, "-I", "-S", "-c", _PROBE, os.fsencode(path), f"{owner}", f"{group}"],
        stdin=subprocess.DEVNULL,
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
        cwd="/",
    )


def _answer(process: subprocess.Popen[bytes], deadline: float) -> int | None:
    try:
        return process.wait(max(0.0, deadline - time.monotonic()))
    except subprocess.TimeoutExpired:
        process.kill()
        _abandon(process)
        return None


def _abandon(process: subprocess.Popen[bytes]) -> None:
    """Reap it if SIGKILL is enough; else forget it, without Popen's complaint about that."""
    try:
        process.wait(0.2)
    except subprocess.TimeoutExpired:
        process.returncode = 0
