"""Isolation: no test sees the user's home, store or git configuration, or leaves a mount."""

from __future__ import annotations

import os
import re
import signal
import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest
from hypothesis import settings

# "ci" gives the same examples on every machine; "all" (tools/test --all) looks for new ones.
# No deadline: a shared machine stalls for longer than any useful one.
settings.register_profile("ci", deadline=None, derandomize=True)
settings.register_profile("all", deadline=None, max_examples=1000, print_blob=True)
settings.load_profile("ci")

PRIVATE_DIRECTORIES = {
    "HOME": "home",
    "XDG_CACHE_HOME": "cache",
    "XDG_CONFIG_HOME": "config",
    "XDG_DATA_HOME": "data",
    "XDG_RUNTIME_DIR": "runtime",
    "XDG_STATE_HOME": "state",
}


# What is ignored stays so in each program that a test starts: `nohup tools/test` is the same as
# without.
signal.signal(signal.SIGHUP, signal.SIG_DFL)


def pytest_collection_modifyitems(config: pytest.Config, items: list[pytest.Item]) -> None:
    """Leave out what only root can do, and say so in the summary ("deselected")."""
    if os.geteuid() == 0:
        return
    for_root = [item for item in items if item.get_closest_marker("needs_root")]
    config.hook.pytest_deselected(items=for_root)
    items[:] = [item for item in items if item not in set(for_root)]


@pytest.fixture(autouse=True)
def isolated_environment(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Point every per-user location below `tmp_path/.user`, and castfs to a store not made yet."""
    private = tmp_path / ".user"
    private.mkdir()
    for variable, name in PRIVATE_DIRECTORIES.items():
        (private / name).mkdir(mode=0o700)
        monkeypatch.setenv(variable, str(private / name))
    monkeypatch.setenv("CASTFS_STORE", str(private / "store"))
    monkeypatch.setenv("GIT_CONFIG_GLOBAL", os.devnull)
    monkeypatch.setenv("GIT_CONFIG_NOSYSTEM", "1")
    monkeypatch.chdir(Path.cwd())  # undone at the end, so no test loses its directory to another
    return private


@pytest.fixture(scope="session", autouse=True)
def no_mount_is_left(tmp_path_factory: pytest.TempPathFactory) -> Iterator[None]:
    """Unmount what tests left mounted, and fail for it: the path names the test."""
    yield
    left = fuse_mounts_below(tmp_path_factory.getbasetemp())
    for mount_point in reversed(left):
        subprocess.run(["fusermount3", "-uz", mount_point], timeout=10, check=False)
    if left:
        pytest.fail(f"tests left these mounted: {[os.fsdecode(path) for path in left]}")


def fuse_mounts_below(directory: Path) -> list[bytes]:
    """Mount points of FUSE filesystems below `directory`, oldest first (proc_pid_mountinfo(5))."""
    below = os.fsencode(directory.resolve()) + b"/"
    found = []
    for line in Path("/proc/self/mountinfo").read_bytes().split(b"\n")[:-1]:
        fields, _, filesystem = line.partition(b" - ")
        mount_point = unescape_octal(fields.split(b" ")[4])
        if mount_point.startswith(below) and filesystem.startswith(b"fuse"):
            found.append(mount_point)
    return found


def unescape_octal(field: bytes) -> bytes:
    return re.sub(rb"\\([0-7]{3})", lambda match: bytes([int(match[1], 8)]), field)


@pytest.fixture
def small_disk(tmp_path: Path) -> Iterator[Path]:
    """A filesystem of 4 MiB."""
    path = tmp_path / "disk"
    path.mkdir()
    subprocess.run(["mount", "-t", "tmpfs", "-o", "size=4m", "tmpfs", path], check=True)
    try:
        yield path
    finally:
        subprocess.run(["umount", "-l", path], check=True, timeout=10)
