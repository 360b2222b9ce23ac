"""`castfs restore`: what comes back, and what is left alone."""

from __future__ import annotations

import os
import stat
import subprocess
from dataclasses import dataclass
from pathlib import Path

import pytest

from tests.mount.conftest import run
from tests.mount.trees import describe, make_varied_tree, write
from tests.semantics.conftest import PATIENCE, World


@dataclass(frozen=True)
class Taken:
    source: Path
    id: str


@pytest.fixture(scope="module")
def varied(world: World) -> Taken:
    source = world.directory("source")
    make_varied_tree(source)
    os.setxattr(source / "small", "user.comment", b"\x00\xff")
    os.utime(source, ns=(0, 77))
    return Taken(source, world.ingest(source, "--xattrs", "--owner"))


@pytest.fixture(scope="module")
def restored(world: World, varied: Taken) -> Path:
    target = world.base / "restored"
    world.castfs("restore", varied.id, target)
    return target


@pytest.fixture(scope="module")
def simple(world: World) -> Taken:
    """a, d/b, d/e/c."""
    source = world.directory("source")
    (source / "d" / "e").mkdir(parents=True)
    for name in ("a", "d/b", "d/e/c"):
        write(source / name, b"new " + name.encode())
    for path in (source / "d" / "e", source / "d"):
        path.chmod(0o750)
        os.utime(path, ns=(0, 5))
    return Taken(source, world.ingest(source))


def contents(root: Path) -> dict[str, bytes]:
    return {
        str(path.relative_to(root)): path.read_bytes() for path in root.rglob("*") if path.is_file()
    }


EVERYTHING = {"a": b"new a", "d/b": b"new d/b", "d/e/c": b"new d/e/c"}


@pytest.mark.semantics("R1")
@pytest.mark.needs_root
def test_everything_comes_back(world: World, varied: Taken, restored: Path) -> None:
    assert describe(restored) == describe(varied.source)
    flags = ["-aHXn", "--checksum", "--delete", "-i"]
    assert run("rsync", *flags, f"{varied.source}/", f"{restored}/") == ""
    ids = [
        world.castfs("ingest", "--json", "--xattrs", "--owner", root).json["manifest_id"]
        for root in (varied.source, restored)
    ]
    assert ids[0] == ids[1]


@pytest.mark.semantics("R2")
@pytest.mark.needs_root
def test_owners(world: World) -> None:
    source = world.directory("source")
    os.chown(write(source / "file"), 123, 456)
    taken = world.ingest(source, "--owner")
    plain, owned = world.directory(), world.directory()
    world.castfs("restore", taken, plain)
    world.castfs("restore", taken, owned, "--owner")
    assert ((plain / "file").stat().st_uid, (plain / "file").stat().st_gid) == (
        os.getuid(),
        os.getgid(),
    )
    assert ((owned / "file").stat().st_uid, (owned / "file").stat().st_gid) == (123, 456)


@pytest.mark.semantics("R3")
def test_other_times(world: World, simple: Taken) -> None:
    target = world.directory()
    world.castfs("restore", simple.id, target)
    status = (target / "a").stat()
    assert status.st_atime_ns == status.st_mtime_ns == 10**18
    assert status.st_ctime_ns >= simple.source.stat().st_ctime_ns


@pytest.mark.semantics("R5")
def test_zeros_become_holes(world: World) -> None:
    source = world.directory("source")
    write(source / "zeros", bytes(8 << 20))
    target = world.directory()
    world.castfs("restore", world.ingest(source), target)
    assert (target / "zeros").stat().st_size == 8 << 20
    assert (target / "zeros").stat().st_blocks * 512 < 8 << 20
    assert not any((target / "zeros").read_bytes())


@pytest.mark.semantics("R6")
def test_a_part(world: World, simple: Taken) -> None:
    target = world.directory()
    world.castfs("restore", simple.id, target, "d/e")
    assert contents(target) == {"d/e/c": b"new d/e/c"}
    other = world.directory()
    assert (
        "d/missing" in world.castfs("restore", simple.id, other, "a", "d/missing", code=4).complaint
    )
    assert list(other.iterdir()) == []


@pytest.mark.semantics("R7")
@pytest.mark.needs_root
def test_what_is_refused(world: World) -> None:
    source = world.directory("source")
    for name in ("one", "two"):
        os.setxattr(write(source / name), "user.comment", b"x")
    taken = world.ingest(source, "--xattrs")
    target = world.directory()
    run("mount", "-t", "ramfs", "none", target)  # which has no extended attributes
    try:
        said = world.castfs("restore", taken, target, "--owner")
        assert sorted(os.listdir(target)) == ["one", "two"]
    finally:
        run("umount", target)
    assert said.err.splitlines() == [
        "user.* extended attributes not set on one and 1 more: Operation not supported",
        "owner not set on .: the snapshot does not record owners",
    ]


@pytest.mark.semantics("R9")
def test_the_target(world: World, simple: Taken) -> None:
    target = world.base / "made"
    world.castfs("restore", simple.id, target)
    assert contents(target) == EVERYTHING
    link = world.base / "link to a directory"
    link.symlink_to(world.directory())
    world.castfs("restore", simple.id, link)
    assert contents(link.resolve()) == EVERYTHING
    missing = world.base / "missing"
    assert "mkdir -p" in world.castfs("restore", simple.id, missing / "x", code=1).complaint
    assert not missing.exists()


def half_full(world: World) -> Path:
    """A target that has one of the files, another one, and a directory with another mode."""
    target = world.directory()
    (target / "d").mkdir(mode=0o700)
    write(target / "d" / "b", b"old")
    write(target / "extra", b"extra")
    return target


@pytest.mark.semantics("R10", "R13")
def test_fail(world: World, simple: Taken) -> None:
    target = half_full(world)
    said = world.castfs("restore", simple.id, target, code=1)
    assert "d/b exists" in said.complaint
    assert contents(target) == {"d/b": b"old", "extra": b"extra"}


@pytest.mark.semantics("R11", "R13", "R14")
def test_skip(world: World, simple: Taken) -> None:
    target = half_full(world)
    said = world.castfs("restore", simple.id, target, "--if-exists", "skip")
    assert said.complaint == "kept d/b, which was there"
    assert contents(target) == {**EVERYTHING, "d/b": b"old", "extra": b"extra"}
    assert stat.S_IMODE((target / "d").stat().st_mode) == 0o700
    assert stat.S_IMODE((target / "d" / "e").stat().st_mode) == 0o750


@pytest.mark.semantics("R12", "R13", "R14")
def test_replace(world: World, simple: Taken) -> None:
    target = half_full(world)
    with (target / "d" / "b").open("rb") as old:
        world.castfs("restore", simple.id, target, "--if-exists", "replace")
        assert old.read() == b"old"
    assert contents(target) == {**EVERYTHING, "extra": b"extra"}
    status = (target / "d").stat()
    assert (stat.S_IMODE(status.st_mode), status.st_mtime_ns) == (0o750, 5)
    target = half_full(world)
    world.castfs("restore", simple.id, target, "d/e", "--if-exists", "replace")
    assert stat.S_IMODE((target / "d").stat().st_mode) == 0o700


@pytest.mark.semantics("R15")
@pytest.mark.parametrize("policy", ["fail", "skip", "replace"])
def test_files_and_directories(world: World, simple: Taken, policy: str) -> None:
    target = world.directory()
    (target / "a").mkdir()
    said = world.castfs("restore", simple.id, target, "--if-exists", policy, code=1)
    assert "a is a directory in" in said.complaint
    assert list(target.rglob("*")) == [target / "a"]
    target = world.directory()
    write(target / "d", b"a file")
    code = 0 if policy == "replace" else 1
    world.castfs("restore", simple.id, target, "--if-exists", policy, code=code)
    assert contents(target) == (EVERYTHING if policy == "replace" else {"d": b"a file"})


@pytest.mark.semantics("R16")
@pytest.mark.parametrize("policy", ["fail", "skip", "replace"])
def test_symlinks_lead_nowhere(world: World, simple: Taken, policy: str) -> None:
    outside, target = world.directory("outside"), world.directory()
    (target / "d").symlink_to(outside)
    code = 0 if policy == "replace" else 1
    world.castfs("restore", simple.id, target, "--if-exists", policy, code=code)
    assert list(outside.iterdir()) == []
    assert (target / "d").is_symlink() == (policy != "replace")


@pytest.mark.semantics("R17", "R18")
@pytest.mark.parametrize("damage", ["missing", "short", "flipped"])
def test_damage(world: World, damage: str) -> None:
    source = world.directory("source")
    content = f"to be {damage}, restored".encode()
    write(source / "bad", content)
    write(source / "a good one", b"good")
    taken = world.ingest(source)
    [blob] = [path for path in world.blobs() if path.read_bytes() == content]
    blob.chmod(0o644)
    if damage == "missing":
        blob.unlink()
    else:
        blob.write_bytes(content[:-1] + (b"" if damage == "short" else b"X"))
    target = world.directory()
    said = world.castfs("restore", taken, target, code=5)
    assert blob.name in said.complaint
    names = sorted(path.name for path in target.iterdir())
    assert names == (["a good one"] if damage == "flipped" else [])


@pytest.mark.semantics("R4")
@pytest.mark.needs_root
def test_umask(world: World, varied: Taken) -> None:
    target = world.base / "masked"
    subprocess.run(
        ["sh", "-c", 'umask 0777; exec "$@"', "sh", *world.command("restore", varied.id, target)],
        check=True,
        capture_output=True,
        timeout=PATIENCE,
        cwd=world.base,
        env=world.environment,
    )
    assert describe(target) == describe(varied.source)
