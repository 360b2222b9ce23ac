"""`castfs mount SNAPSHOT DIRECTORY -- COMMAND`: a mount for the time of a command."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
from pathlib import Path

import pytest

from castfs.mount.mountinfo import find_mount
from tests.mount.conftest import PATIENCE, Mounter
from tests.mount.snapshots import Snapshot
from tests.mount.trees import write

pytestmark = pytest.mark.mounted

SCRIPT = f"""
import sys
sys.path.insert(0, {str(Path(__file__).parents[2])!r})
from castfs.mount import run_in_mount
from castfs.mount.request import MountRequest
sys.exit(run_in_mount(MountRequest.decode(bytes.fromhex(sys.argv[1])), sys.argv[2:]))
"""


@pytest.fixture
def snapshot(mounter: Mounter) -> Snapshot:
    write(mounter.source / "file", b"content")
    return mounter.take()


def start(mounter: Mounter, snapshot: Snapshot, *argv: str) -> subprocess.Popen[str]:
    request = snapshot.request(mounter.mountpoint).encode().hex()
    return subprocess.Popen(
        [sys.executable, "-W", "error", "-c", SCRIPT, request, *argv],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        cwd=mounter.base,
    )


def finish(mounter: Mounter, process: subprocess.Popen[str]) -> tuple[int, str, str]:
    output, errors = process.communicate(timeout=PATIENCE)
    assert find_mount(mounter.mountpoint) is None
    return process.returncode, output, errors


def test_the_command_sees_the_mount(mounter: Mounter, snapshot: Snapshot) -> None:
    process = start(mounter, snapshot, "sh", "-c", 'cat "$CASTFS_MOUNT/file"; echo; pwd')
    assert finish(mounter, process) == (0, f"content\n{mounter.base}\n", "")
    assert os.listdir(snapshot.depot.leases_dir) == []


@pytest.mark.parametrize(
    ("script", "status"), [("exit 0", 0), ("exit 42", 42), ("kill -9 $$", 137)]
)
def test_its_exit_status(mounter: Mounter, snapshot: Snapshot, script: str, status: int) -> None:
    assert finish(mounter, start(mounter, snapshot, "sh", "-c", script)) == (status, "", "")


def test_it_has_the_signals_of_a_shell(mounter: Mounter, snapshot: Snapshot) -> None:
    """Python ignores SIGPIPE; without it `yes | head` ends with a complaint."""
    result = finish(mounter, start(mounter, snapshot, "grep", "SigIgn", "/proc/self/status"))
    assert (result[0], result[2]) == (0, "")
    ignored = int(result[1].split()[1], 16)
    for number in (signal.SIGPIPE, signal.SIGXFSZ):
        assert not ignored & 1 << (number - 1)


def test_a_command_without_a_name(mounter: Mounter, snapshot: Snapshot) -> None:
    result = finish(mounter, start(mounter, snapshot, ""))
    assert result[0] == 127
    assert result[2].startswith("castfs: ")


def test_not_found(mounter: Mounter, snapshot: Snapshot) -> None:
    result = finish(mounter, start(mounter, snapshot, "no-such-command"))
    assert result == (127, "", "castfs: cannot run no-such-command: No such file or directory\n")


def test_not_executable(mounter: Mounter, snapshot: Snapshot) -> None:
    result = finish(mounter, start(mounter, snapshot, "/etc/passwd"))
    assert result == (126, "", "castfs: cannot run /etc/passwd: Permission denied\n")


@pytest.mark.semantics("L25")
@pytest.mark.parametrize("name", ["SIGTERM", "SIGINT", "SIGHUP", "SIGQUIT"])
def test_signals_are_passed_on(mounter: Mounter, snapshot: Snapshot, name: str) -> None:
    trap = f"trap 'echo got {name}; exit 7' {name.removeprefix('SIG')}"
    process = start(
        mounter, snapshot, "sh", "-c", f"{trap}; echo ready; while :; do sleep 0.05; done"
    )
    assert process.stdout is not None
    assert process.stdout.readline() == "ready\n"
    process.send_signal(getattr(signal, name))
    assert finish(mounter, process) == (7, f"got {name}\n", "")


def test_the_commands_signals_are_not_blocked(mounter: Mounter, snapshot: Snapshot) -> None:
    script = "import signal; print(signal.pthread_sigmask(signal.SIG_BLOCK, []))"
    process = start(mounter, snapshot, sys.executable, "-c", script)
    assert finish(mounter, process) == (0, "set()\n", "")


@pytest.mark.semantics("L25")
def test_what_it_leaves_running_does_not_keep_the_mount(
    mounter: Mounter, snapshot: Snapshot
) -> None:
    process = start(
        mounter, snapshot, "sh", "-c", 'cd "$CASTFS_MOUNT"; sleep 5 >/dev/null 2>&1 & echo $!'
    )
    status, output, errors = finish(mounter, process)
    os.kill(int(output), signal.SIGKILL)
    assert (status, errors) == (0, "")


def test_it_may_unmount_itself(mounter: Mounter, snapshot: Snapshot) -> None:
    process = start(mounter, snapshot, "sh", "-c", 'umount "$CASTFS_MOUNT"')
    assert finish(mounter, process) == (0, "", "")
