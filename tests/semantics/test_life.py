"""From `castfs mount` to `castfs umount`, and every other end."""

from __future__ import annotations

import errno
import json
import os
import shutil
import signal
import subprocess
from collections.abc import Callable
from pathlib import Path

import pytest

from castfs.mount import unmount_all
from castfs.mount.mountinfo import Mounted, read_mounts
from tests.mount.conftest import kill_with_guard, wait_for_exit
from tests.mount.trees import write
from tests.semantics.conftest import PATIENCE, World

pytestmark = pytest.mark.mounted


@pytest.fixture(scope="module")
def taken(world: World) -> str:
    source = world.directory("source")
    write(source / "file", b"content")
    return world.ingest(source, "--name", "demo")


@pytest.mark.semantics("L1")
def test_ready_and_in_the_background(world: World, taken: str) -> None:
    place = world.directory("mnt")
    script = '"$@" > said && ls "$0"'
    done = subprocess.run(
        ["sh", "-c", script, place, *world.command("mount", "--json", taken, place)],
        capture_output=True,
        timeout=PATIENCE,
        cwd=world.base,
        env=world.environment,
        check=False,
    )
    assert (done.returncode, done.stdout, done.stderr) == (0, b"file\n", b"")
    status = world.status(place)
    assert status is not None
    world.pids[place] = status["pid"]
    assert os.getsid(status["pid"]) not in (os.getsid(0), 0)
    assert (place / "file").read_bytes() == b"content"


def _missing(world: World) -> Path:
    return world.base / "missing"


def _full(world: World) -> Path:
    return write(world.directory() / "in the way").parent


def _file(world: World) -> Path:
    return write(world.directory() / "file")


def _in_the_store(world: World) -> Path:
    place = world.store / "cache" / "mnt"
    place.mkdir(parents=True, exist_ok=True)
    return place


def _above_the_store(world: World) -> Path:
    return world.base


PLACES = [
    (_missing, "does not exist; make it with `mkdir -p"),
    (_full, "is not empty"),
    (_file, "is not a directory"),
    (_in_the_store, "lies inside the store"),
    (_above_the_store, "would hide the store"),
]


@pytest.mark.semantics("L2", "L3")
@pytest.mark.parametrize(("place", "words"), PLACES)
def test_bad_places(world: World, taken: str, place: Callable[[World], Path], words: str) -> None:
    where = place(world)
    said = world.castfs("mount", taken, where, code=1)
    assert words in said.complaint
    assert said.out == ""
    assert not os.path.ismount(where)


@pytest.mark.semantics("L2")
@pytest.mark.parametrize(
    ("snapshot", "code", "words"),
    [
        ("nonesuch", 4, "see `castfs list`"),
        ("./missing.json", 4, "missing.json"),
        ("./bad.json", 5, "bad manifest"),
    ],
)
def test_bad_snapshots(world: World, taken: str, snapshot: str, code: int, words: str) -> None:
    write(world.base / "bad.json", b"[]")
    place = world.directory()
    assert words in world.castfs("mount", snapshot, place, code=code).complaint
    assert not os.path.ismount(place)


@pytest.mark.semantics("L4")
def test_one_at_a_place_and_many_places(world: World, taken: str) -> None:
    first, second = world.mount(taken), world.mount(taken)
    assert "already mounted" in world.castfs("mount", taken, first, code=1).complaint
    assert (first / "file").read_bytes() == (second / "file").read_bytes() == b"content"


@pytest.mark.semantics("L5", "L6")
def test_where_blobs_are_found(world: World, taken: str) -> None:
    manifest = world.base / "copy.json"
    manifest.write_text(world.castfs("show", "--manifest", taken).out)
    elsewhere = world.base / "elsewhere"
    shutil.copytree(world.store, elsewhere)
    [inside] = (elsewhere / "manifests").glob(f"*/{_id_of(manifest)}.json")

    def mount(*words: str | Path, default: Path) -> str:
        place = world.directory("mnt")
        command = ["mount", "--json", *words[:-1], words[-1], place]
        said = world.castfs(*command, environment={"CASTFS_STORE": str(default)})
        world.pids[place] = said.json["pid"]
        assert (place / "file").read_bytes() == b"content"
        return str(said.json["store"])

    nowhere = world.base / "nowhere"
    assert mount("--store", elsewhere, manifest, default=world.store) == str(elsewhere)
    assert mount(inside, default=nowhere) == str(elsewhere)
    assert mount(manifest, default=world.store) == str(world.store)


@pytest.mark.semantics("L6")
def test_a_manifest_that_is_not_recorded(world: World) -> None:
    source = world.directory("source")
    write(source / "file", b"of no record")
    copy = source.parent / f"{source.name}.json"
    taken = world.ingest(source, "-o", copy)
    (world.store / "snapshots" / f"{taken}.json").unlink()
    [manifest] = (world.store / "manifests").glob(f"*/{_id_of(copy)}.json")
    manifest.unlink()
    place = world.directory("mnt")
    said = world.castfs("mount", "--json", copy, place)
    world.pids[place] = said.json["pid"]
    assert f"`castfs import {copy}` records it" in said.complaint
    world.blob(place, "file").unlink()
    other = world.directory()
    assert "file in" in world.castfs("mount", copy, other, code=5).complaint
    assert not os.path.ismount(other)


def _id_of(manifest: Path) -> str:
    return str(json.loads(manifest.read_bytes())["id"])


@pytest.mark.semantics("L11", "L15")
def test_pinned_until_it_ends(world: World, taken: str) -> None:
    before = world.leases()
    mount = world.mount(taken)
    assert len(world.leases()) > len(before)
    world.unmount(mount)
    assert wait_for_exit(world.pids[mount], 0)
    assert sorted(world.leases()) == sorted(before)
    assert not os.path.ismount(mount)


@pytest.mark.semantics("L12")
def test_mounts(world: World, taken: str) -> None:
    mount = world.mount(taken)
    status = world.status(mount)
    assert status is not None
    assert status["since"] > 0
    assert {key: status[key] for key in ("record_id", "label", "engine", "pid", "state")} == {
        "record_id": taken,
        "label": "demo",
        "engine": "fuse",
        "pid": world.pids[mount],
        "state": "ok",
    }
    table = world.castfs("mounts").out.splitlines()
    [row] = [line.split() for line in table if line.startswith(f"{mount} ")]
    assert [row[1], row[2], *row[-3:]] == [
        taken[:12], "demo", "fuse", str(world.pids[mount]), "ok",
    ]  # fmt: skip


@pytest.mark.semantics("L13")
def test_a_dead_mount(world: World, taken: str) -> None:
    mount = world.mount(taken)
    with subprocess.Popen(["sleep", str(PATIENCE)], cwd=mount) as within:
        try:
            for replaced in (True, False):
                kill_with_guard(world.pids[mount])
                with pytest.raises(OSError, match=os.strerror(errno.ENOTCONN)):
                    os.statvfs(mount)
                status = world.status(mount)
                assert status is not None
                assert status["state"] == "dead"
                if replaced:
                    said = world.castfs("mount", "--json", taken, mount)
                    world.pids[mount] = said.json["pid"]
                    assert "replaced the dead mount" in said.complaint
                    assert (mount / "file").read_bytes() == b"content"
                else:
                    world.unmount(mount)
        finally:
            within.kill()
    assert not os.path.ismount(mount)


@pytest.mark.semantics("L16")
@pytest.mark.parametrize("command", [["umount"], ["fusermount3", "-u"]])
def test_ended_by_others(world: World, taken: str, command: list[str]) -> None:
    before = sorted(world.leases())
    mount = world.mount(taken)
    subprocess.run([*command, mount], check=True, timeout=PATIENCE)
    assert wait_for_exit(world.pids[mount])
    assert sorted(world.leases()) == before
    assert world.status(mount) is None


@pytest.mark.semantics("L18", "L19")
def test_busy_and_lazy(world: World, taken: str) -> None:
    mount = world.mount(taken)
    with (mount / "file").open("rb", buffering=0) as file:
        said = world.castfs("umount", mount, code=11)
        assert f"(pid {os.getpid()}: open files)" in said.complaint
        assert (mount / "file").exists()
        said = world.castfs("umount", "--lazy", mount)
        assert "serves what is still in use" in said.complaint
        assert os.listdir(mount) == []
        os.posix_fadvise(file.fileno(), 0, 0, os.POSIX_FADV_DONTNEED)
        assert file.read() == b"content"
        os.kill(world.pids[mount], 0)
    assert wait_for_exit(world.pids[mount])


@pytest.mark.semantics("L21")
@pytest.mark.needs_root
def test_what_is_not_ours(world: World) -> None:
    place = world.directory()
    assert "nothing is mounted" in world.castfs("umount", place, code=4).complaint
    subprocess.run(["mount", "-t", "tmpfs", "none", place], check=True, timeout=PATIENCE)
    try:
        assert "tmpfs is mounted" in world.castfs("umount", place, code=4).complaint
        assert os.path.ismount(place)
    finally:
        subprocess.run(["umount", place], check=True, timeout=PATIENCE)


@pytest.mark.semantics("L22")
@pytest.mark.parametrize("user", [0, 1000])
@pytest.mark.needs_root
def test_all_of_ones_own(
    world: World, taken: str, user: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    mount = world.mount(taken)

    def of_this_test() -> list[Mounted]:
        return [mounted for mounted in read_mounts() if mounted.mountpoint == mount]

    # In this process, so that the mounts of tests that run meanwhile are left out of it.
    monkeypatch.setattr("castfs.mount.unmounting.read_mounts", of_this_test)
    monkeypatch.setattr(os, "geteuid", lambda: user)
    ended, failed = unmount_all()
    assert ([item.mountpoint for item in ended], failed) == ([mount] if user == 0 else [], [])
    assert os.path.ismount(mount) == (user != 0)


@pytest.mark.semantics("L23")
@pytest.mark.parametrize("how", ["SIGINT", "SIGTERM", "umount"])
def test_in_the_foreground(world: World, taken: str, how: str) -> None:
    place = world.directory("mnt")
    with subprocess.Popen(
        world.command("mount", "-f", taken, place),
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        env=world.environment,
    ) as process:
        world.pids[place] = process.pid
        assert process.stdout is not None
        assert process.stdout.readline().startswith(b"mounted ")
        assert (place / "file").read_bytes() == b"content"
        if how == "umount":
            world.unmount(place)
        else:
            process.send_signal(getattr(signal, how))
        _, errors = process.communicate(timeout=PATIENCE)
    assert (process.returncode, errors) == (0, b"")
    assert not os.path.ismount(place)


@pytest.mark.semantics("L24")
@pytest.mark.parametrize(
    ("script", "code", "out"),
    [('cat "$CASTFS_MOUNT/file"; exit 7', 7, "content"), ("kill -TERM $$", 143, "")],
)
def test_for_a_command(world: World, taken: str, script: str, code: int, out: str) -> None:
    place = world.directory("mnt")
    said = world.castfs("mount", taken, place, "--", "sh", "-c", script, code=code)
    assert (said.out, said.err) == (out, "")
    assert not os.path.ismount(place)


@pytest.mark.semantics("L24")
@pytest.mark.parametrize(("program", "code"), [("no-such-program", 127), ("/etc/passwd", 126)])
def test_for_a_command_that_cannot_run(world: World, taken: str, program: str, code: int) -> None:
    place = world.directory("mnt")
    assert program in world.castfs("mount", taken, place, "--", program, code=code).complaint
    assert not os.path.ismount(place)
