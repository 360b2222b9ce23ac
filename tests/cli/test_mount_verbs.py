"""mount, umount, mounts: real mounts, through the command line."""

from __future__ import annotations

import os
import signal
import subprocess
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.cli.conftest import TIMEOUT, Result, Run, command_to_signal, environment, one_line
from tests.conftest import fuse_mounts_below

pytestmark = pytest.mark.mounted


@pytest.fixture
def mountpoint(tmp_path: Path) -> Iterator[Path]:
    path = tmp_path / "mnt"
    path.mkdir()
    yield path
    if os.fsencode(path) in fuse_mounts_below(tmp_path):
        subprocess.run(["fusermount3", "-uz", path], timeout=TIMEOUT, check=False)


def wait_until_mounted(path: Path) -> None:
    deadline = time.monotonic() + TIMEOUT
    while os.fsencode(path) not in fuse_mounts_below(path.parent):
        assert time.monotonic() < deadline
        time.sleep(0.01)


def test_mount_and_umount(program: Run, taken: str, tree: Path, mountpoint: Path) -> None:
    result = program("mount", taken, mountpoint)
    assert result.text == f"mounted {taken} at {mountpoint}\n"
    assert result.err == ""
    assert (
        subprocess.run(["diff", "-r", tree, mountpoint], timeout=TIMEOUT, check=False).returncode
        == 0
    )
    [status] = [m for m in program("mounts", "--json").json if m["mountpoint"] == str(mountpoint)]
    assert (status["record_id"], status["state"], status["engine"]) == (taken, "ok", "fuse")
    rows = program("mounts").text.splitlines()
    assert rows[0].split() == ["MOUNTPOINT", "SNAPSHOT", "NAME", "SINCE", "ENGINE", "PID", "STATE"]
    [row] = [row.split() for row in rows if row.startswith(f"{mountpoint} ")]
    assert row[1] == taken[:12]
    assert row[-2:] == [str(status["pid"]), "ok"]
    one_line(program("mount", taken, mountpoint, code=1).err)
    result = program("umount", mountpoint)
    assert (result.out, result.err) == (b"", "")
    assert not os.listdir(mountpoint)
    assert one_line(program("umount", mountpoint, code=4).err).endswith("see `castfs mounts`")


def test_busy(program: Run, taken: str, mountpoint: Path) -> None:
    program("mount", "--json", taken, mountpoint)
    with open(mountpoint / "a.txt") as file:
        line = one_line(program("umount", mountpoint, code=11).err)
        assert str(os.getpid()) in line
        lazy = program("umount", "--lazy", mountpoint)
        assert "serves what is still in use" in one_line(lazy.err)
        assert file.read() == "alpha\n"


def test_umount_goes_on_after_a_failure(program: Run, taken: str, mountpoint: Path) -> None:
    program("mount", taken, mountpoint)
    result = program("umount", "--json", mountpoint.parent / "none", mountpoint, code=4)
    assert [done["mountpoint"] for done in result.json] == [str(mountpoint)]
    one_line(result.err)


def test_options_arrive(program: Run, taken: str, mountpoint: Path) -> None:
    program("mount", taken, mountpoint, "-o", "uid=4711", "-o", "noexec,gid=4712")
    status = (mountpoint / "a.txt").stat()
    assert (status.st_uid, status.st_gid) == (4711, 4712)
    with pytest.raises(PermissionError):
        subprocess.run([mountpoint / "run.sh"], timeout=TIMEOUT, check=False)
    program("umount", mountpoint)


def run_in(program: Run, taken: str, mountpoint: Path, script: str, *, code: int = 0) -> Result:
    return program("mount", taken, mountpoint, "--", "sh", "-c", script, code=code)


def test_mount_for_a_command(program: Run, taken: str, mountpoint: Path) -> None:
    result = run_in(program, taken, mountpoint, 'cat "$CASTFS_MOUNT/a.txt"; exit 7', code=7)
    assert (result.out, result.err) == (b"alpha\n", "")
    assert not os.listdir(mountpoint)
    assert run_in(program, taken, mountpoint, "kill -TERM $$", code=143).out == b""
    program("mount", taken, mountpoint, "--", "no-such-command", code=127)
    dashes = program("mount", taken, mountpoint, "--", "printf", "%s,", "-o", "--", "--json").text
    assert dashes == "-o,--,--json,"


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_foreground(taken: str, mountpoint: Path, number: signal.Signals) -> None:
    with subprocess.Popen(
        command_to_signal("mount", "-f", taken, mountpoint),
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        env=environment(),
    ) as process:
        assert process.stdout is not None
        assert process.stdout.readline() == f"mounted {taken} at {mountpoint}\n".encode()
        assert (mountpoint / "a.txt").read_text() == "alpha\n"
        process.send_signal(number)
        _, err = process.communicate(timeout=TIMEOUT)
    assert (process.returncode, err) == (0, b"")
    assert not os.listdir(mountpoint)


def test_manifest_file_that_is_not_recorded(
    program: Run, taken: str, store: Path, mountpoint: Path, tmp_path: Path
) -> None:
    copy = tmp_path / "m.json"
    copy.write_bytes(program("show", "--manifest", taken).out)
    assert program("mount", copy, mountpoint).err == ""
    program("umount", mountpoint)
    for path in (store / "snapshots" / f"{taken}.json", *(store / "manifests").glob("*/*")):
        path.unlink()
    line = one_line(program("mount", copy, mountpoint).err)
    assert f"`castfs import {copy}`" in line
    program("umount", mountpoint)
    program("import", copy)
    assert program("mount", copy, mountpoint).err == ""
    program("umount", mountpoint)


def test_mount_point_is_checked(program: Run, taken: str, tmp_path: Path, tree: Path) -> None:
    assert "mkdir -p" in one_line(program("mount", taken, tmp_path / "none", code=1).err)
    assert "not empty" in one_line(program("mount", taken, tree, code=1).err)


def test_signal_while_mounting_leaves_nothing(taken: str, mountpoint: Path, tmp_path: Path) -> None:
    with subprocess.Popen(
        command_to_signal("mount", taken, mountpoint, "--", "sleep", str(TIMEOUT)),
        stdout=subprocess.DEVNULL,
        stderr=subprocess.PIPE,
        env=environment(),
    ) as process:
        wait_until_mounted(mountpoint)
        process.send_signal(signal.SIGTERM)
        process.communicate(timeout=TIMEOUT)
    assert process.returncode == 143
    assert fuse_mounts_below(tmp_path) == []
