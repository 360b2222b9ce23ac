"""From the command to mount to the last trace of the mount, however it ends."""

from __future__ import annotations

import contextlib
import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

from castfs import settings
from castfs.errors import MountBusyError, MountError, NotFoundError
from castfs.mount import run_in_mount, start_mount, unmount, unmount_all
from castfs.mount.mountinfo import find_mount
from tests.mount.conftest import (
    PATIENCE,
    Mounter,
    kill_with_guard,
    run,
    wait_for_exit,
    wait_until,
)
from tests.mount.snapshots import Snapshot
from tests.mount.trees import write

pytestmark = pytest.mark.mounted


@pytest.fixture
def snapshot(mounter: Mounter) -> Snapshot:
    write(mounter.source / "file", b"content")
    return mounter.take()


def leases(snapshot: Snapshot) -> list[str]:
    return sorted(os.listdir(snapshot.depot.leases_dir))


@pytest.mark.needs_root
def test_ready_means_that_it_answers(mounter: Mounter, snapshot: Snapshot) -> None:
    before = time.time()
    status = mounter.start(snapshot)
    assert (mounter.mountpoint / "file").read_bytes() == b"content"
    assert status.mountpoint == mounter.mountpoint
    assert status.manifest_id == snapshot.manifest.id
    assert status.record_id == snapshot.record_id
    assert status.label == "test"
    assert status.store == snapshot.depot.path
    assert status.engine == "fuse"
    assert status.state == "ok"
    assert status.warnings == ()
    assert status.since is not None
    assert before <= status.since <= time.time()
    assert status.options == "ro,nosuid,nodev,allow_other"
    assert mounter.listed() == [status]


@pytest.mark.needs_root
def test_the_kernel_shows_what_it_is(mounter: Mounter, snapshot: Snapshot) -> None:
    mounter.start(snapshot, "noexec")
    line = run("findmnt", "-n", "-o", "SOURCE,FSTYPE,OPTIONS", mounter.mountpoint).split()
    assert line[:2] == [f"castfs:{snapshot.manifest.id}", "fuse.castfs"]
    assert {"ro", "nosuid", "nodev", "noexec", "default_permissions", "allow_other"} <= set(
        line[2].split(",")
    )


@pytest.mark.needs_root
def test_read_ahead_is_raised(mounter: Mounter, snapshot: Snapshot) -> None:
    mounter.start(snapshot)
    device = mounter.mountpoint.stat().st_dev
    path = Path(f"/sys/class/bdi/{os.major(device)}:{os.minor(device)}/read_ahead_kb")
    assert path.read_text() == "1024\n"


def test_nothing_heavy_is_imported_to_launch(mounter: Mounter, snapshot: Snapshot) -> None:
    script = "import sys, castfs.mount; print({'pyfuse3', 'trio'} & set(sys.modules))"
    assert run(sys.executable, "-c", script, cwd=Path(__file__).parents[2]) == "set()\n"


@pytest.mark.semantics("L11")
def test_the_snapshot_is_pinned_while_it_is_mounted(mounter: Mounter, snapshot: Snapshot) -> None:
    mounter.start(snapshot)
    lease, manifest = reversed(leases(snapshot))
    assert lease.endswith(".lease")
    pinned = json.loads((snapshot.depot.leases_dir / manifest).read_text())
    assert pinned["id"] == snapshot.manifest.id
    header = json.loads((snapshot.depot.leases_dir / lease).read_bytes().split(b"\n")[0])
    assert header["pid"] == mounter.pids[0]
    assert str(mounter.mountpoint) in header["purpose"]
    unmount(mounter.mountpoint)
    assert leases(snapshot) == []


def test_unmount_leaves_no_trace(mounter: Mounter, snapshot: Snapshot) -> None:
    status = mounter.start(snapshot)
    ended = unmount(mounter.mountpoint)
    assert (ended.mountpoint, ended.manifest_id) == (mounter.mountpoint, snapshot.manifest.id)
    assert (ended.pid, ended.served) == (status.pid, False)
    assert leases(snapshot) == []
    assert wait_for_exit(mounter.pids[0])
    assert find_mount(mounter.mountpoint) is None
    assert mounter.listed() == []
    left = [path.suffix for path in (settings.state_dir() / "mounts").iterdir()]
    assert left == [".log"]
    with pytest.raises(NotFoundError, match="nothing is mounted at"):
        unmount(mounter.mountpoint)


@pytest.mark.needs_root
def test_a_foreign_mount_is_not_touched(mounter: Mounter) -> None:
    run("mount", "-t", "tmpfs", "none", mounter.mountpoint)
    try:
        with pytest.raises(NotFoundError, match="no snapshot but tmpfs is mounted at"):
            unmount(mounter.mountpoint)
        assert mounter.listed() == []
    finally:
        run("umount", mounter.mountpoint)


@pytest.mark.semantics("L17")
@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT, signal.SIGHUP])
def test_signals_unmount(mounter: Mounter, snapshot: Snapshot, number: signal.Signals) -> None:
    status = mounter.start(snapshot)
    os.kill(mounter.pids[0], number)
    assert wait_for_exit(mounter.pids[0])
    assert find_mount(mounter.mountpoint) is None
    assert leases(snapshot) == []
    assert status.log is not None
    assert "ending by signal" in status.log.read_text()


@pytest.mark.semantics("L17")
def test_a_signal_ends_a_mount_in_use(mounter: Mounter, snapshot: Snapshot) -> None:
    mounter.start(snapshot)
    fd = os.open(mounter.mountpoint, os.O_RDONLY)
    os.kill(mounter.pids[0], signal.SIGTERM)
    assert wait_for_exit(mounter.pids[0])
    assert find_mount(mounter.mountpoint) is None
    with pytest.raises(OSError, match="not connected"):
        os.statvfs(fd)
    os.close(fd)


@pytest.mark.parametrize("command", [["umount"], ["fusermount3", "-u"]])
def test_unmounting_from_outside(mounter: Mounter, snapshot: Snapshot, command: list[str]) -> None:
    status = mounter.start(snapshot)
    run(*command, mounter.mountpoint)
    assert wait_for_exit(mounter.pids[0])
    assert leases(snapshot) == []
    assert status.log is not None
    assert "ERROR" not in status.log.read_text()


FOREGROUND = """
import sys
sys.path.insert(0, {root!r})
from castfs.mount import start_mount
from castfs.mount.request import MountRequest
request = MountRequest.decode(bytes.fromhex(sys.argv[1]))
start_mount(request, foreground=True, on_ready=lambda status: print("ready", flush=True))
print("ended")
"""


def start_in_foreground(request: bytes) -> subprocess.Popen[str]:
    script = FOREGROUND.format(root=str(Path(__file__).parents[2]))
    process = subprocess.Popen(
        [sys.executable, "-W", "error", "-c", script, request.hex()],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )
    assert process.stdout is not None
    assert process.stdout.readline() == "ready\n"
    return process


@pytest.mark.parametrize("how", ["SIGINT", "SIGTERM", "umount"])
def test_foreground(mounter: Mounter, snapshot: Snapshot, how: str) -> None:
    process = start_in_foreground(snapshot.request(mounter.mountpoint).encode())
    mounter.pids.append(process.pid)
    (status,) = mounter.listed()
    assert (status.pid, status.state) == (process.pid, "ok")
    if how == "umount":
        run("umount", mounter.mountpoint)
    else:
        process.send_signal(getattr(signal, how))
    output, errors = process.communicate(timeout=PATIENCE)
    assert (process.returncode, output, errors) == (0, "ended\n", "")
    assert find_mount(mounter.mountpoint) is None
    assert leases(snapshot) == []


def test_a_killed_mount_is_dead_and_replaced(mounter: Mounter, snapshot: Snapshot) -> None:
    mounter.start(snapshot)
    kill_with_guard(mounter.pids[0])
    with pytest.raises(OSError, match="not connected"):
        os.statvfs(mounter.mountpoint)
    (status,) = mounter.listed()
    assert (status.state, status.pid, status.label) == ("dead", None, "test")
    replaced = mounter.start(snapshot)
    assert replaced.warnings == (
        f"replaced the dead mount of castfs:{snapshot.manifest.id} at {mounter.mountpoint}",
    )
    assert (mounter.mountpoint / "file").read_bytes() == b"content"
    (status,) = mounter.listed()
    assert (status.state, status.pid) == ("ok", replaced.pid)


@pytest.mark.parametrize("renamed", [False, True], ids=["in place", "renamed"])
def test_a_killed_mount_goes_away(mounter: Mounter, snapshot: Snapshot, renamed: bool) -> None:
    """Else it looks alive where the kernel remembers it, and fails where it does not."""
    place = mounter.base / "above" / "mnt"
    place.mkdir(parents=True)
    mounter.start(snapshot, at=place)
    other = mounter.mountpoint
    mounter.start(snapshot, at=other)
    assert os.listdir(place) == ["file"]
    if renamed:
        place.parent.rename(mounter.base / "moved")
    fd = os.open(mounter.base / ("moved" if renamed else "above") / "mnt" / "file", os.O_RDONLY)
    try:
        os.kill(mounter.pids[0], signal.SIGKILL)
        wait_until(lambda: [mount.mountpoint for mount in mounter.mounts()] == [other])
        with pytest.raises(OSError, match="not connected"):
            os.read(fd, 10)
    finally:
        with contextlib.suppress(OSError):  # FLUSH
            os.close(fd)
    assert (other / "file").read_bytes() == b"content"


def test_a_dead_mount_with_somebody_in_it(mounter: Mounter, snapshot: Snapshot) -> None:
    mounter.start(snapshot)
    with subprocess.Popen(["sleep", "60"], cwd=mounter.mountpoint) as sleeper:
        try:
            kill_with_guard(mounter.pids[0])
            unmount(mounter.mountpoint)
            assert find_mount(mounter.mountpoint) is None
        finally:
            sleeper.kill()


@pytest.mark.semantics("L12", "L14")
def test_a_stopped_mount_is_hung(
    mounter: Mounter, snapshot: Snapshot, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("castfs.mount.probing.ANSWER_SECONDS", 0.5)
    mounter.start(snapshot)
    other = mounter.base / "other"
    other.mkdir()
    mounter.start(snapshot, at=other)
    os.kill(mounter.pids[0], signal.SIGSTOP)
    states = {status.mountpoint: status.state for status in mounter.listed()}
    assert states == {mounter.mountpoint: "hung", other: "ok"}
    with pytest.raises(MountError, match="does not answer within"):
        start_mount(snapshot.request(mounter.mountpoint))
    ended = unmount(mounter.mountpoint, lazy=True)
    assert ended.served
    os.kill(mounter.pids[0], signal.SIGCONT)
    assert wait_for_exit(mounter.pids[0])


@pytest.mark.semantics("L14")
@pytest.mark.timeout(60)
def test_a_path_through_a_hung_mount(
    mounter: Mounter, snapshot: Snapshot, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Whoever asks for what is below waits in a state that SIGKILL does not end."""
    monkeypatch.setattr("castfs.mount.probing.ANSWER_SECONDS", 0.5)
    mounter.start(snapshot)
    (mounter.base / "way").symlink_to(mounter.mountpoint)
    os.kill(mounter.pids[0], signal.SIGSTOP)
    for path in (mounter.mountpoint / "file", mounter.base / "way" / "a" / "b"):
        with pytest.raises(MountError, match="leads through, does not answer"):
            start_mount(snapshot.request(path))
        with pytest.raises(MountError, match="leads through, does not answer"):
            unmount(path)
    kill_with_guard(mounter.pids[0])
    with pytest.raises(MountError, match="has died"):
        start_mount(snapshot.request(mounter.mountpoint / "file"))


@pytest.mark.needs_root
def test_a_stranger_with_an_odd_name(mounter: Mounter, snapshot: Snapshot) -> None:
    """The kernel escapes newlines in its table, but no carriage returns."""
    odd = mounter.base / "cr\rx\x0b\x0c\x1c\x85"
    odd.mkdir()
    run("mount", "-t", "tmpfs", "none", odd)
    try:
        mounter.start(snapshot)
        assert [status.state for status in mounter.listed()] == ["ok"]
        unmount(mounter.mountpoint)
    finally:
        run("umount", "-l", odd)
    mounter.start(snapshot, at=odd)
    assert [status.mountpoint for status in mounter.listed()] == [odd]
    unmount(odd)


@pytest.mark.parametrize("how", ["signal", "command"])
def test_the_directory_above_is_renamed(mounter: Mounter, snapshot: Snapshot, how: str) -> None:
    above = mounter.base / "above"
    place = above / "mnt"
    place.mkdir(parents=True)
    moved = above.with_name("moved")
    if how == "signal":
        mounter.start(snapshot, at=place)
        above.rename(moved)
        os.kill(mounter.pids[0], signal.SIGTERM)
        assert wait_for_exit(mounter.pids[0])
    else:
        code = run_in_mount(snapshot.request(place), ["mv", str(above), str(moved)])
        assert code == 0
    assert mounter.mounts() == []
    assert os.listdir(moved / "mnt") == []
    assert leases(snapshot) == []


def test_nothing_is_left_if_it_cannot_be_told(mounter: Mounter, snapshot: Snapshot) -> None:
    def fail(status: object) -> None:
        raise OSError(28, "No space left on device")

    with pytest.raises(OSError, match="No space left"):
        start_mount(snapshot.request(mounter.mountpoint), on_ready=fail)
    assert mounter.mounts() == []
    assert leases(snapshot) == []


@pytest.mark.parametrize("ignored", [True, False])
def test_a_hangup_that_is_ignored(mounter: Mounter, snapshot: Snapshot, ignored: bool) -> None:
    """As under nohup."""
    script = f"""
import signal, sys
sys.path.insert(0, {str(Path(__file__).parents[2])!r})
signal.signal(signal.SIGHUP, signal.SIG_IGN if {ignored} else signal.SIG_DFL)
from castfs.mount import start_mount
from castfs.mount.request import MountRequest
request = MountRequest.decode(bytes.fromhex(sys.argv[1]))
start_mount(request, foreground=True, on_ready=lambda _: print("ready", flush=True))
"""
    request = snapshot.request(mounter.mountpoint).encode().hex()
    with subprocess.Popen(
        [sys.executable, "-c", script, request], stdout=subprocess.PIPE, text=True
    ) as process:
        assert process.stdout is not None
        assert process.stdout.readline() == "ready\n"
        process.send_signal(signal.SIGHUP)
        if ignored:
            assert (mounter.mountpoint / "file").read_bytes() == b"content"
            process.send_signal(signal.SIGQUIT)
        assert process.wait(PATIENCE) == 0
    assert mounter.mounts() == []


BUSY = {
    "working directory": ("cd {0}; echo ready; read x", "working directory"),
    "open file": ("exec 7< {0}/file; echo ready; read x", "open files"),
    "open directory": ("exec 7< {0}; echo ready; read x", "open files"),
    "program": ("{0}/sh -c 'echo ready; read x; :'", "the program itself"),
}


@pytest.mark.semantics("L18")
@pytest.mark.parametrize(("command", "use"), BUSY.values(), ids=BUSY.keys())
def test_busy_says_who(mounter: Mounter, command: str, use: str) -> None:
    write(mounter.source / "file", b"content")
    write(mounter.source / "sh", Path("/bin/sh").read_bytes(), mode=0o755)
    mountpoint = mounter.mount()
    process = subprocess.Popen(
        ["sh", "-c", command.format(mountpoint)], stdin=subprocess.PIPE, stdout=subprocess.PIPE
    )
    assert process.stdin is not None
    assert process.stdout is not None
    try:
        assert process.stdout.readline() == b"ready\n"
        with pytest.raises(MountBusyError) as caught:
            unmount(mountpoint)
        assert use in caught.value.message
        assert "sh (pid " in caught.value.message
        assert caught.value.exit_code == 11
        assert (mountpoint / "file").read_bytes() == b"content"
    finally:
        process.communicate(b"\n", timeout=PATIENCE)
    assert not unmount(mountpoint).served


@pytest.mark.semantics("L18")
def test_busy_with_a_mapped_file(mounter: Mounter) -> None:
    write(mounter.source / "file", b"x" * 5000)
    mountpoint = mounter.mount()
    script = (
        "import mmap, sys; f = open(sys.argv[1], 'rb'); m = mmap.mmap(f.fileno(), 0, prot=1);"
        "f.close(); import os; [os.close(n) for n in range(3, 20) if os.path.exists(f'/proc/self/"
        "fd/{n}')]; print('ready', flush=True); sys.stdin.read()"
    )
    process = subprocess.Popen(
        [sys.executable, "-c", script, mountpoint / "file"],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
    )
    assert process.stdout is not None
    try:
        assert process.stdout.readline() == b"ready\n"
        with pytest.raises(MountBusyError, match=rf"pid {process.pid}: mapped files"):
            unmount(mountpoint)
    finally:
        process.communicate(timeout=PATIENCE)


@pytest.mark.semantics("L18")
@pytest.mark.needs_root
def test_busy_with_another_mount_on_it(mounter: Mounter) -> None:
    (mounter.source / "inner").mkdir()
    mountpoint = mounter.mount()
    run("mount", "-t", "tmpfs", "none", mountpoint / "inner")
    with pytest.raises(MountBusyError, match=f"another mount at {mountpoint}/inner"):
        unmount(mountpoint)
    run("umount", mountpoint / "inner")
    unmount(mountpoint)


@pytest.mark.semantics("L20")
def test_a_later_mount_at_the_same_place_is_left_alone(
    mounter: Mounter, snapshot: Snapshot
) -> None:
    """After a lazy unmount the old process lives while a file is open; its end must not unmount
    what was mounted there since."""
    mounter.start(snapshot)
    with (mounter.mountpoint / "file").open("rb"):
        unmount(mounter.mountpoint, lazy=True)
        second = mounter.start(snapshot)
        os.kill(mounter.pids[0], signal.SIGTERM)
        assert wait_for_exit(mounter.pids[0])
    assert (mounter.mountpoint / "file").read_bytes() == b"content"
    assert mounter.listed() == [second]


@pytest.mark.semantics("L20")
@pytest.mark.needs_root
def test_what_lies_beneath_is_left_alone(mounter: Mounter, snapshot: Snapshot) -> None:
    run("mount", "-t", "tmpfs", "none", mounter.mountpoint)
    try:
        mounter.start(snapshot)
        run("umount", mounter.mountpoint)
        assert wait_for_exit(mounter.pids[0])
        beneath = find_mount(mounter.mountpoint)
        assert beneath is not None
        assert beneath.filesystem == "tmpfs"
    finally:
        run("umount", mounter.mountpoint)


@pytest.mark.semantics("L22")
def test_all_at_once(mounter: Mounter, snapshot: Snapshot, monkeypatch: pytest.MonkeyPatch) -> None:
    # Other tests, which run at the same time, keep theirs.
    monkeypatch.setattr("castfs.mount.unmounting.read_mounts", mounter.mounts)
    places = [mounter.base / name for name in ("one", "two", "three")]
    for place in places:
        place.mkdir()
        mounter.start(snapshot, at=place)
    assert [status.mountpoint for status in mounter.listed()] == places
    with (places[1] / "file").open("rb"):
        ended, failed = unmount_all()
        assert [item.mountpoint for item in ended] == [places[2], places[0]]
        assert [type(error) for error in failed] == [MountBusyError]
    assert [status.mountpoint for status in mounter.listed()] == [places[1]]
    assert len(unmount_all()[0]) == 1
    assert mounter.listed() == []


@pytest.mark.semantics("L3")
@pytest.mark.parametrize(
    "name",
    [
        "with space",
        "new\nline",
        "-dash",
        "back\\slash",
        "\udcff not utf-8",
        "a,b",
        "x" * 255,
        "#~$",
    ],
)
def test_awkward_mount_points(mounter: Mounter, snapshot: Snapshot, name: str) -> None:
    place = mounter.base / name
    place.mkdir()
    status = mounter.start(snapshot, at=place)
    assert (place / "file").read_bytes() == b"content"
    assert mounter.listed() == [status]
    assert status.log is not None
    assert len(status.log.read_text(errors="strict").splitlines()) == 1
    unmount(place)
    assert mounter.listed() == []


@pytest.mark.semantics("L3")
def test_a_symlink_to_the_mount_point(mounter: Mounter, snapshot: Snapshot) -> None:
    link = mounter.base / "link"
    link.symlink_to("mnt")
    status = mounter.start(snapshot, at=link)
    assert status.mountpoint == mounter.mountpoint
    unmount(link)
    assert find_mount(mounter.mountpoint) is None


@pytest.mark.semantics("L3")
def test_a_relative_mount_point(
    mounter: Mounter, snapshot: Snapshot, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(mounter.base)
    status = mounter.start(snapshot, at=Path("mnt"))
    assert status.mountpoint == mounter.mountpoint
    unmount(Path("mnt/../mnt"))
    assert mounter.listed() == []


@pytest.mark.semantics("L3")
@pytest.mark.needs_root
def test_a_mount_point_on_a_read_only_filesystem(mounter: Mounter, snapshot: Snapshot) -> None:
    run("mount", "--bind", mounter.base, mounter.base)
    run("mount", "-o", "remount,bind,ro", mounter.base)
    try:
        request = snapshot.request(mounter.mountpoint)
        real = mounter.source.parent / "store"
        assert not os.access(real, os.W_OK)
        status = start_mount(request)
        assert status.pid is not None
        mounter.pids.append(status.pid)
        assert (mounter.mountpoint / "file").read_bytes() == b"content"
        unmount(mounter.mountpoint)
    finally:
        run("umount", mounter.base)


@pytest.mark.semantics("M45")
@pytest.mark.needs_root
def test_an_overlay_on_top(mounter: Mounter, monkeypatch: pytest.MonkeyPatch) -> None:
    """The way to a writable tree: it needs statfs, stable inodes and the w bits."""
    monkeypatch.setattr("castfs.mount.unmounting.EXIT_SECONDS", 0.5)
    (mounter.source / "directory").mkdir()
    write(mounter.source / "directory" / "file", b"below")
    mountpoint = mounter.mount()
    upper, work, top = (mounter.base / name for name in ("upper", "work", "top"))
    for path in (upper, work, top):
        path.mkdir()
    run("mount", "-t", "overlay", "none", top, "-o",
        f"lowerdir={mountpoint},upperdir={upper},workdir={work}")  # fmt: skip
    try:
        write(top / "directory" / "new", b"above")
        with (top / "directory" / "file").open("ab") as file:
            file.write(b" and above")
        assert (top / "directory" / "file").read_bytes() == b"below and above"
        assert (mountpoint / "directory" / "file").read_bytes() == b"below"
        # The overlay has the filesystem to itself, so the mount is not busy; but it is served on.
        assert unmount(mountpoint).served
        assert (top / "directory" / "file").read_bytes() == b"below and above"
    finally:
        run("umount", top)
    assert wait_for_exit(mounter.pids[0])


def test_without_a_registry_entry(mounter: Mounter, snapshot: Snapshot) -> None:
    """As another user's mount is seen."""
    mounter.start(snapshot)
    for path in (settings.state_dir() / "mounts").glob("*.json"):
        path.unlink()
    (status,) = mounter.listed()
    assert status.mountpoint == mounter.mountpoint
    assert status.manifest_id == snapshot.manifest.id
    assert (status.pid, status.store, status.since) == (None, None, None)
    assert status.state == "ok"
    assert unmount(mounter.mountpoint).pid is None
    assert wait_for_exit(mounter.pids[0])


@pytest.mark.semantics("L4")
def test_two_mounts_of_one_place_at_once(mounter: Mounter, snapshot: Snapshot) -> None:
    request = snapshot.request(mounter.mountpoint).encode().hex()
    script = FOREGROUND.format(root=str(Path(__file__).parents[2])).replace(
        "foreground=True", "foreground=False"
    )
    processes = [
        subprocess.Popen(
            [sys.executable, "-c", script, request],
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
        )
        for _ in range(4)
    ]
    results = [process.communicate(timeout=60) for process in processes]
    assert [process.returncode for process in processes].count(0) == 1
    for process, (_, errors) in zip(processes, results, strict=True):
        if process.returncode != 0:
            last = errors.strip().splitlines()[-1]
            assert "is just being mounted" in last or "is already mounted" in last
    (status,) = mounter.listed()
    assert status.pid is not None
    mounter.pids.append(status.pid)


def test_nobody_waits_any_more(mounter: Mounter, snapshot: Snapshot) -> None:
    """Ctrl-C while a mount is being made: nothing is left mounted."""
    script = FOREGROUND.format(root=str(Path(__file__).parents[2])).replace(
        "foreground=True", "foreground=False"
    )
    script = script.replace(
        "start_mount(request",
        "import castfs.mount.launching as l, os, time\n"
        "l._wait_until_ready = lambda *a: os._exit(9)\n"
        "start_mount(request",
    )
    result = subprocess.run(
        [sys.executable, "-c", script, snapshot.request(mounter.mountpoint).encode().hex()],
        timeout=PATIENCE,
        check=False,
    )
    assert result.returncode == 9
    logs = settings.state_dir() / "mounts"
    wait_until(lambda: any("has gone" in path.read_text() for path in logs.glob("*.log")))
    wait_until(lambda: find_mount(mounter.mountpoint) is None)
    wait_until(lambda: leases(snapshot) == [])


def test_a_mount_that_is_not_ready_in_time(mounter: Mounter, snapshot: Snapshot) -> None:
    with pytest.raises(MountError, match="was not ready after 0 s"):
        start_mount(snapshot.request(mounter.mountpoint), timeout=0.001)
    wait_until(lambda: find_mount(mounter.mountpoint) is None)
    wait_until(lambda: leases(snapshot) == [])
