"""Who sees what, and mounting without being root."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from tests.mount.conftest import PATIENCE, Mounter, run
from tests.mount.trees import write

pytestmark = pytest.mark.mounted

USER = 1000
OTHER = 1234
REPOSITORY = Path(__file__).parents[2]


def as_user(uid: int) -> list[str]:
    return ["setpriv", f"--reuid={uid}", f"--regid={uid}", "--clear-groups", "--inh-caps=-all"]


def can_read(uid: int, path: Path) -> bool:
    command = [*as_user(uid), "cat", str(path)]
    return (
        subprocess.run(command, capture_output=True, timeout=PATIENCE, check=False).returncode == 0
    )


@pytest.mark.semantics("M11")
@pytest.mark.needs_root
def test_roots_mounts_are_for_everybody_as_the_modes_say(public: Mounter) -> None:
    write(public.source / "open", b"x", mode=0o644)
    write(public.source / "private", b"x", mode=0o600)
    write(public.source / "of the user", b"x", mode=0o400)
    os.chown(public.source / "of the user", USER, USER)
    (public.source / "closed").mkdir(mode=0o700)
    write(public.source / "closed" / "file", b"x", mode=0o644)
    root = public.mount(owner=True)
    readable = {
        name: (can_read(USER, root / name), can_read(OTHER, root / name))
        for name in ("open", "private", "of the user", "closed/file")
    }
    assert readable == {
        "open": (True, True),
        "private": (False, False),
        "of the user": (True, False),
        "closed/file": (False, False),
    }


@pytest.mark.needs_root
def test_owners(public: Mounter) -> None:
    recorded = write(public.source / "recorded", mode=0o664)
    os.chown(recorded, 77, 88)
    without = public.take()
    recorded_too = public.take(owner=True)
    shown = {}
    for name, snapshot, options in (
        ("nobody's", without, ""),
        ("recorded", recorded_too, ""),
        ("given", without, "uid=5,gid=6"),
        ("overridden", recorded_too, "uid=5"),
        ("masked", recorded_too, "umask=027"),
    ):
        place = public.base / name
        place.mkdir()
        public.start(snapshot, options, at=place)
        status = (place / "recorded").stat()
        shown[name] = (status.st_uid, status.st_gid, oct(status.st_mode & 0o7777))
    assert shown == {
        "nobody's": (0, 0, "0o664"),
        "recorded": (77, 88, "0o664"),
        "given": (5, 6, "0o664"),
        "overridden": (5, 88, "0o664"),
        "masked": (77, 88, "0o640"),
    }


@pytest.mark.semantics("M13")
@pytest.mark.needs_root
def test_set_id_bits_are_shown_and_have_no_effect(public: Mounter) -> None:
    shutil.copy("/usr/bin/id", public.source / "id")
    (public.source / "id").chmod(0o4755)
    root = public.mount()
    assert (root / "id").stat().st_mode & 0o7777 == 0o4755
    assert run(*as_user(USER), root / "id", "-u") == f"{USER}\n"


@pytest.mark.semantics("M13")
@pytest.mark.needs_root
def test_set_id_bits_have_effect_if_root_wants_that(public: Mounter) -> None:
    shutil.copy("/usr/bin/id", public.source / "id")
    (public.source / "id").chmod(0o4755)
    root = public.mount("suid")
    assert run(*as_user(USER), root / "id", "-u") == "0\n"


@pytest.mark.semantics("L10")
@pytest.mark.parametrize("uid", [0, USER])
@pytest.mark.needs_root
def test_in_a_bubblewrap_sandbox(public: Mounter, uid: int) -> None:
    write(public.source / "file", b"from the sandbox\n")
    (public.source / "directory").mkdir()
    write(public.source / "directory" / "run", b"#!/bin/sh\nls -A /data\n", mode=0o755)
    root = public.mount()
    sandbox = [
        *(as_user(uid) if uid else []),
        *("bwrap", "--ro-bind", "/usr", "/usr", "--ro-bind", "/etc", "/etc"),
        *("--symlink", "usr/lib", "/lib", "--symlink", "usr/lib64", "/lib64"),
        *("--symlink", "usr/bin", "/bin", "--proc", "/proc", "--dev", "/dev"),
        *("--ro-bind", root, "/data", "--unshare-all"),
    ]
    assert run(*sandbox, "cat", "/data/file") == "from the sandbox\n"
    assert run(*sandbox, "/data/directory/run") == "directory\nfile\n"


# Without root -------------------------------------------------------------------------------

#: In namespaces of its own, where all its processes end with it.
NAMESPACE = ["unshare", "--mount", "--pid", "--fork", "--kill-child", "--mount-proc"]

#: There: a device that users may open, as most machines have it.
OPEN_DEVICE = """
mknod -m 666 fuse c 10 229
mount --bind fuse /dev/fuse
"""
SHARING_ALLOWED = """
echo user_allow_other > fuse.conf
mount --bind fuse.conf /etc/fuse.conf
"""


def make_reachable() -> str:
    """Shell commands that let users reach the interpreter and this repository, wherever they are
    (below /root on some machines): a directory that is closed to them is covered by an open one."""
    commands = []
    closed: dict[Path, list[Path]] = {}
    for path in {Path(sys.base_prefix).resolve(), Path(sys.prefix), REPOSITORY}:
        for parent in reversed(path.parents):
            if not parent.stat().st_mode & 0o001:
                closed.setdefault(parent, []).append(path)
                break
    for parent, paths in closed.items():
        for number, path in enumerate(paths):
            commands.append(f"mkdir keep{number}; mount --bind {path} keep{number}")
        commands.append(f"mount -t tmpfs -o mode=755 none {parent}")
        for number, path in enumerate(paths):
            commands.append(f"mkdir -p {path}; mount --bind keep{number} {path}")
    return "\n".join(commands)


PRELUDE = """
import json, os, subprocess, sys
from pathlib import Path
sys.path.insert(0, {repository!r})
base = Path({base!r})
from castfs.errors import CastfsError
from castfs.mount import list_mounts, parse_options, start_mount, unmount
from castfs.mount.mountinfo import find_mount
from tests.mount.snapshots import take_snapshot
(base / "mine").mkdir()
source, mnt = base / "mine" / "source", base / "mine" / "mnt"
source.mkdir(); mnt.mkdir()
(source / "file").write_bytes(b"of a user")
(source / "private").write_bytes(b"secret")
(source / "private").chmod(0o600)
snapshot = take_snapshot(source, base / "mine" / "store")
def attempt(options=""):
    try:
        return start_mount(snapshot.request(mnt, options), timeout=20)
    except CastfsError as exc:
        return str(exc)
"""


def run_as_user(base: Path, script: str, *setup: str, parse: bool = True) -> Any:
    """What `script` prints as JSON, run by USER after PRELUDE and root's `setup`."""
    base.joinpath("dev").mkdir(exist_ok=True)
    base.chmod(0o777)
    prepare = [
        f"set -e; mount -t tmpfs -o mode=755 none {base}/dev; cd {base}/dev",
        *(make_reachable(), *setup),
        'cd /; exec "$@"',
    ]
    prelude = PRELUDE.format(repository=str(REPOSITORY), base=str(base))
    private = ("HOME", "XDG_CACHE_HOME", "XDG_DATA_HOME", "XDG_STATE_HOME")
    environment = [f"{name}={base}/mine/{name.lower()}" for name in private]
    command = [*as_user(USER), "env", "-C", "/", *environment, sys.executable, "-B", "-c"]
    output = run(*NAMESPACE, "sh", "-c", "\n".join(prepare), "sh", *command, prelude + script)
    return json.loads(output.splitlines()[-1]) if parse else output


@pytest.mark.semantics("L9")
@pytest.mark.needs_root
def test_device_that_users_may_not_open(public: Mounter) -> None:
    assert Path("/dev/fuse").stat().st_mode & 0o777 == 0o600
    said = run_as_user(public.base, "print(json.dumps(attempt()))")
    assert said == "you may not open /dev/fuse (mode 600); as root: `chmod 666 /dev/fuse`"


@pytest.mark.semantics("M9", "L9")
@pytest.mark.needs_root
def test_a_user_mounts_and_unmounts(public: Mounter) -> None:
    script = """
status = attempt()
seen = {
    "content": (mnt / "file").read_text() + (mnt / "private").read_text(),
    "owner": [(mnt / "file").stat().st_uid, (mnt / "file").stat().st_gid],
    "alive": [s.state for s in list_mounts() if s.pid == status.pid],
    "options": status.options,
    "source": find_mount(mnt).source == "castfs:" + snapshot.manifest.id,
    "type": find_mount(mnt).filesystem,
}
sandbox = ["bwrap", "--ro-bind", "/", "/", "--ro-bind", mnt, "/mnt", "cat", "/mnt/file"]
seen["sandbox"] = subprocess.run(sandbox, capture_output=True, text=True, timeout=20).stdout
with (mnt / "file").open() as file:
    try:
        unmount(mnt)
    except CastfsError as exc:
        seen["busy"] = exc.message
seen["ended"] = not unmount(mnt).served
seen["left"] = os.listdir(snapshot.depot.leases_dir)
print(json.dumps(seen))
"""
    seen = run_as_user(public.base, script, OPEN_DEVICE)
    busy = seen.pop("busy")
    assert "in use by python" in busy
    assert "open files" in busy
    assert seen == {
        "content": "of a usersecret",
        "owner": [USER, USER],
        "alive": ["ok"],
        "options": "ro,nosuid,nodev",
        "source": True,
        "type": "fuse.castfs",
        "sandbox": "of a user",
        "ended": True,
        "left": [],
    }


@pytest.mark.semantics("L12")
@pytest.mark.needs_root
def test_root_sees_that_a_users_mount_is_dead(public: Mounter) -> None:
    """Whom the kernel does not let in it answers by itself, dead or not."""
    script = """
from tests.mount.conftest import kill_with_guard
first = attempt()
kill_with_guard(first.pid)
print("killed")
"""
    ask = f"""
"$@"
PYTHONPATH={REPOSITORY} {sys.executable} -c '
from castfs.mount import list_mounts
for status in list_mounts(): print(status.mountpoint, status.state)'
exit
"""
    output = run_as_user(public.base, script, OPEN_DEVICE, ask, parse=False)
    # Tests that run at the same time have mounts, too.
    assert f"{public.base}/mine/mnt dead" in output.splitlines()


@pytest.mark.needs_root
def test_a_user_replaces_a_dead_mount(public: Mounter) -> None:
    script = """
from tests.mount.conftest import kill_with_guard
first = attempt()
kill_with_guard(first.pid)
states = [s.state for s in list_mounts() if s.mountpoint == mnt]
second = attempt()
print(json.dumps([states, second.state, (mnt / "file").read_text()]))
"""
    assert run_as_user(public.base, script, OPEN_DEVICE) == [["dead"], "ok", "of a user"]


@pytest.mark.semantics("M54")
@pytest.mark.needs_root
def test_sharing_needs_roots_permission(public: Mounter) -> None:
    said = run_as_user(public.base, "print(json.dumps(attempt('allow_other')))", OPEN_DEVICE)
    assert said == (
        "option allow_other is not allowed: /etc/fuse.conf has no line `user_allow_other`; "
        "leave the option away, or have root add that line"
    )


@pytest.mark.semantics("M54")
@pytest.mark.needs_root
def test_sharing_with_roots_permission(public: Mounter) -> None:
    # The namespaces' root then reads what the user has mounted.
    script = """
status = attempt("allow_other")
mnt = base / "mine" / "alone"
mnt.mkdir()
attempt()
print(json.dumps(status.options))
"""
    reader = """
"$@"
cat {0}/mine/mnt/file
cat {0}/mine/alone/file 2>&1 || true
exit
"""
    base = public.base
    output = run_as_user(
        base, script, OPEN_DEVICE, SHARING_ALLOWED, reader.format(base), parse=False
    )
    assert output.splitlines() == [
        '"ro,nosuid,nodev,allow_other"',
        f"of a usercat: {base}/mine/alone/file: Permission denied",
    ]


@pytest.mark.semantics("M55")
@pytest.mark.parametrize("option", ["suid", "dev"])
@pytest.mark.needs_root
def test_what_only_root_may(public: Mounter, option: str) -> None:
    said = run_as_user(public.base, f"print(json.dumps(attempt({option!r})))", OPEN_DEVICE)
    assert said == f"only root may mount with option {option}; leave it away"


@pytest.mark.needs_root
def test_passthrough_is_roots(public: Mounter) -> None:
    script = """
(source / "file").write_bytes(b"of a user" * 50_000)
snapshot = take_snapshot(source, base / "mine" / "store")
status = attempt("passthrough")
assert not isinstance(status, str), status
same = (mnt / "file").read_bytes() == (source / "file").read_bytes()
print(json.dumps([status.state, status.options, same, status.warnings]))
"""
    state, options, same, (warning,) = run_as_user(public.base, script, OPEN_DEVICE)
    assert (state, options, same) == ("ok", "ro,nosuid,nodev,passthrough", True)
    assert warning.startswith("without passthrough, which takes root, ")


@pytest.mark.needs_root
def test_a_mount_point_that_is_not_the_users(public: Mounter) -> None:
    public.mountpoint.chmod(0o755)
    script = f"mnt = Path({str(public.mountpoint)!r}); print(json.dumps(attempt()))"
    said = run_as_user(public.base, script, OPEN_DEVICE)
    assert said == (
        f"you may not write to the mount point {public.mountpoint}; choose a directory of your own"
    )


@pytest.mark.semantics("L9")
@pytest.mark.needs_root
def test_without_fusermount3(public: Mounter) -> None:
    script = "os.environ['PATH'] = '/nowhere'; print(json.dumps(attempt()))"
    said = run_as_user(public.base, script, OPEN_DEVICE)
    assert said == (
        "fusermount3 is not installed; only root can mount without it; install the package fuse3"
    )
