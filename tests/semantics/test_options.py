"""`castfs mount -o`, and who may do what."""

from __future__ import annotations

import os
import shutil
import signal
import struct
import subprocess
from pathlib import Path

import pytest

from tests.lane.readers import passthrough_is_possible
from tests.mount.conftest import run
from tests.mount.trees import write
from tests.semantics.conftest import PATIENCE, World

pytestmark = pytest.mark.mounted


@pytest.fixture(scope="module")
def taken(world: World) -> str:
    """A snapshot with owners."""
    source = world.directory("source")
    os.chown(write(source / "file", b"content", mode=0o666), 77, 88)
    (source / "directory").mkdir()
    (source / "directory").chmod(0o775)
    (source / "link").symlink_to("file")
    shutil.copy("/bin/echo", source / "echo")
    return world.ingest(source, "--owner")


def kernel_line(mount: Path) -> list[str]:
    lines = [line.split() for line in Path("/proc/mounts").read_text().splitlines()]
    [found] = [line for line in lines if line[1] == str(mount)]
    return found


@pytest.mark.semantics("M51")
@pytest.mark.needs_root
def test_uid_and_gid(world: World, taken: str) -> None:
    mount = world.mount(taken, "uid=1000,gid=1001")
    assert set(run("find", mount, "-printf", r"%U:%G\n").split()) == {"1000:1001"}
    mount = world.mount(taken, "gid=5")
    assert ((mount / "file").stat().st_uid, (mount / "file").stat().st_gid) == (77, 5)


@pytest.mark.semantics("M52")
@pytest.mark.needs_root
def test_umask(world: World, taken: str) -> None:
    mount = world.mount(taken, "umask=027")
    modes = run("find", mount, "-mindepth", 1, "-printf", r"%P %m\n").splitlines()
    assert sorted(modes) == ["directory 750", "echo 750", "file 640", "link 777"]


@pytest.mark.semantics("M53")
@pytest.mark.needs_root
def test_noexec(world: World, taken: str) -> None:
    mount = world.mount(taken, "noexec")
    with pytest.raises(PermissionError):
        subprocess.run([mount / "echo"], timeout=PATIENCE, check=False)
    mount = world.mount(taken)
    assert run(mount / "echo", "runs") == "runs\n"


@pytest.mark.semantics("M54", "M55")
@pytest.mark.needs_root
def test_what_every_mount_has(world: World, taken: str) -> None:
    plain = set(kernel_line(world.mount(taken))[3].split(","))
    assert {"ro", "nosuid", "nodev", "default_permissions", "allow_other"} <= plain
    asked = set(kernel_line(world.mount(taken, "suid,dev"))[3].split(","))
    assert {"ro", "default_permissions"} <= asked
    assert not {"nosuid", "nodev"} & asked


@pytest.mark.semantics("M56")
@pytest.mark.parametrize(
    ("options", "named"), [("rw", "rw"), ("nonsense", "'nonsense'"), ("umask=9", "umask=9")]
)
@pytest.mark.needs_root
def test_refused_options(world: World, taken: str, options: str, named: str) -> None:
    place = world.directory()
    said = world.castfs("mount", taken, place, "-o", options, code=2)
    assert named in said.complaint
    assert not os.path.ismount(place)


@pytest.mark.semantics("M56")
@pytest.mark.needs_root
def test_the_last_option_counts(world: World, taken: str) -> None:
    place = world.directory("mnt")
    status = world.castfs(
        "mount", "--json", taken, place, "-o", "noexec,uid=1", "-o", "exec,uid=2"
    ).json
    world.pids[place] = status["pid"]
    assert (place / "file").stat().st_uid == 2
    assert run(place / "echo", "runs") == "runs\n"


@pytest.mark.semantics("M57")
@pytest.mark.needs_root
def test_in_proc_mounts(world: World, taken: str) -> None:
    manifest_id = world.castfs("show", "--json", taken).json["manifest_id"]
    assert kernel_line(world.mount(taken))[0:3:2] == [f"castfs:{manifest_id}", "fuse.castfs"]


@pytest.mark.semantics("M63")
@pytest.mark.needs_root
def test_passthrough(world: World) -> None:
    source = world.directory("source")
    content = os.urandom(3 << 20)
    write(source / "large", content)
    taken = world.ingest(source)
    for options in ("nopassthrough", "passthrough", ""):
        mount = world.mount(taken, options)
        with (mount / "large").open("rb", buffering=0) as file:
            passed = world.fast_lane and passthrough_is_possible() and options != "nopassthrough"
            if passed:
                os.kill(world.pids[mount], signal.SIGSTOP)
            try:
                assert os.pread(file.fileno(), len(content) + 1, 0) == content
            finally:
                os.kill(world.pids[mount], signal.SIGCONT)
            blob = world.blob(mount, "large")
            blob.rename(world.base / "aside")
            assert os.pread(file.fileno(), 4096, 1 << 20) == content[1 << 20 :][:4096]
            (world.base / "aside").rename(blob)
        world.unmount(mount)


def posix_acl(user: int) -> bytes:
    """acl(5) in its attribute (linux/posix_acl_xattr.h): owner rw, `user` r, group nothing."""
    nobody = 0xFFFFFFFF
    entries = [(0x01, 6, nobody), (0x02, 4, user), (0x04, 0, nobody), (0x10, 4, nobody)]
    entries.append((0x20, 0, nobody))
    return struct.pack("<I", 2) + b"".join(struct.pack("<HHI", *entry) for entry in entries)


@pytest.mark.semantics("M14")
@pytest.mark.parametrize("taken_with", [(), ("--xattrs",)])
@pytest.mark.needs_root
def test_acls_are_not_enforced(public_world: World, taken_with: tuple[str, ...]) -> None:
    world = public_world
    source = world.directory("source")
    source.chmod(0o755)
    os.setxattr(write(source / "file", b"x"), "system.posix_acl_access", posix_acl(1000))
    mount = world.show(source, taken_with=taken_with)

    def can_read(root: Path, user: int, group: int) -> bool:
        ids = [f"--reuid={user}", f"--regid={group}", "--clear-groups"]
        command = ["setpriv", *ids, "cat", str(root / "file")]
        done = subprocess.run(command, capture_output=True, timeout=PATIENCE, check=False)
        return done.returncode == 0

    assert (mount / "file").stat().st_mode & 0o777 == 0o640
    assert (can_read(source, 1000, 1000), can_read(source, 1234, 0)) == (True, False)
    assert (can_read(mount, 1000, 1000), can_read(mount, 1234, 0)) == (False, True)
