"""`castfs ingest`: what is recorded, what is left out."""

from __future__ import annotations

import json
import os
import shutil
import stat
import subprocess
from pathlib import Path
from typing import Any

import pytest

from tests.mount.conftest import run
from tests.mount.trees import make_varied_tree, write
from tests.semantics.conftest import PATIENCE, Word, World


def manifest(world: World, source: Path, *options: Word, code: int = 0) -> dict[str, Any]:
    """What an ingest of `source` records."""
    copy = world.directory() / "manifest.json"
    world.ingest(source, "-o", copy, *options, code=code)
    document = json.loads(copy.read_bytes())
    assert isinstance(document, dict)
    return document


def taken_files(world: World, source: Path, *options: Word) -> list[str]:
    return sorted(manifest(world, source, *options)["files"])


def git(source: Path, *words: str) -> str:
    environment = {**os.environ, "GIT_CONFIG_GLOBAL": os.devnull, "GIT_CONFIG_NOSYSTEM": "1"}
    flags = ["-c", "user.name=t", "-c", "user.email=t@example.org", "-C", source]
    return run("git", *flags, *words, env=environment)


def plant(source: Path, *names: str, content: bytes = b"x") -> None:
    for name in names:
        (source / name).parent.mkdir(parents=True, exist_ok=True)
        write(source / name, content)


@pytest.fixture(scope="module")
def varied(world: World) -> Path:
    source = world.directory("source")
    make_varied_tree(source)
    return source


@pytest.fixture(scope="module")
def recorded(world: World, varied: Path) -> dict[str, Any]:
    return manifest(world, varied)


@pytest.mark.semantics("I1", "I4")
@pytest.mark.needs_root
def test_what_is_recorded(varied: Path, recorded: dict[str, Any]) -> None:
    status = varied.stat()
    assert recorded["root"] == {"mode": status.st_mode & 0o7777, "mtime_ns": status.st_mtime_ns}
    assert set(recorded["dirs"]["nothing/in/here"]) == {"mode", "mtime_ns"}
    file = varied / "small"
    digest = run("sha256sum", file).split()[0]
    assert recorded["files"]["small"] == {
        "mode": 0o640,
        "mtime_ns": file.stat().st_mtime_ns,
        "sha256": digest,
        "size_bytes": 6,
    }
    link = varied / "links" / "dangling"
    assert recorded["symlinks"]["links/dangling"] == {
        "mtime_ns": link.lstat().st_mtime_ns,
        "target": "no/such/file",
    }
    listed = run("find", varied, "-mindepth", 1, "-printf", r"%y\0").split("\0")[:-1]
    counts = {"dirs": "d", "files": "f", "symlinks": "l"}
    assert {key: len(recorded[key]) for key in counts} == {
        key: listed.count(kind) for key, kind in counts.items()
    }


@pytest.mark.semantics("I2")
@pytest.mark.needs_root
def test_hard_links(recorded: dict[str, Any]) -> None:
    names = {path for path, file in recorded["files"].items() if "hardlink" in file}
    assert names == {"a second", "hard/b first", "hard/third"}
    assert {recorded["files"][name]["hardlink"] for name in names} == {"a second"}


@pytest.mark.semantics("I3")
@pytest.mark.needs_root
def test_on_request(world: World) -> None:
    source = world.directory("source")
    (source / "link").symlink_to("file")
    os.setxattr(write(source / "file"), "user.one", b"\xff")
    os.chown(source / "file", 12, 34)
    os.setxattr(source, "user.two", b"")
    os.setxattr(source / "link", "trusted.three", b"3", follow_symlinks=False)
    with_all = manifest(world, source, "--owner", "--xattrs")
    assert with_all["files"]["file"]["uid"] == 12
    assert with_all["files"]["file"]["gid"] == 34
    assert with_all["files"]["file"]["xattrs"] == {"user.one": "/w=="}
    assert with_all["root"]["xattrs"] == {"user.two": ""}
    assert with_all["symlinks"]["link"]["xattrs"] == {"trusted.three": "Mw=="}
    assert {"uid", "gid"} <= set(with_all["symlinks"]["link"])
    assert not {"uid", "gid", "xattrs"} & set(manifest(world, source)["files"]["file"])


@pytest.mark.semantics("I5")
def test_symlinks_are_not_followed(world: World) -> None:
    outside = world.directory("outside")
    plant(outside, "file")
    source = world.directory("source")
    (source / "link").symlink_to(outside)
    document = manifest(world, source)
    assert (document["files"], list(document["symlinks"])) == ({}, ["link"])
    assert taken_files(world, source / "link") == ["file"]


@pytest.mark.semantics("I6")
@pytest.mark.needs_root
def test_other_filesystems(world: World) -> None:
    source = world.directory("source")
    (source / "mounted").mkdir()
    run("mount", "-t", "tmpfs", "none", source / "mounted")
    try:
        plant(source, "mounted/file")
        assert taken_files(world, source) == ["mounted/file"]
    finally:
        run("umount", source / "mounted")


@pytest.mark.semantics("I7")
def test_a_regular_file(world: World) -> None:
    places = [world.directory("source"), world.directory("source")]
    places[1].chmod(0o700)
    for place in places:
        write(place / "file", b"alone", mode=0o600)
    documents = [manifest(world, place / "file") for place in places]
    assert list(documents[0]["files"]) == ["file"]
    assert documents[0]["id"] == documents[1]["id"]


@pytest.mark.semantics("I8")
def test_an_empty_directory(world: World) -> None:
    document = manifest(world, world.directory("source"))
    assert (document["files"], document["dirs"], document["symlinks"]) == ({}, {}, {})


@pytest.mark.semantics("I10")
@pytest.mark.needs_root
def test_the_id(world: World, varied: Path, recorded: dict[str, Any]) -> None:
    copy = world.base / "elsewhere"
    run("cp", "-a", varied, copy)
    other: list[Word] = ["--store", world.base / "second"]
    taken = world.castfs("ingest", "--json", copy, *other).json
    assert taken["manifest_id"] == recorded["id"]
    ids = {recorded["id"]}
    small = copy / "small"
    for change in (
        lambda: small.chmod(0o641),
        lambda: os.utime(small, ns=(0, 12345)),
        lambda: write(small, b"hellO\n", mode=0o641, mtime_ns=12345),
        lambda: small.rename(copy / "smaller"),
    ):
        mtime_ns = copy.stat().st_mtime_ns
        change()
        os.utime(copy, ns=(0, mtime_ns))
        ids.add(world.castfs("ingest", "--json", copy, *other).json["manifest_id"])
    assert len(ids) == 5


@pytest.mark.semantics("I11")
def test_reproducible(world: World) -> None:
    first = world.directory("source")
    git(first, "init", "-q")
    plant(first, "file", "tool", "directory/inner")
    (first / "tool").chmod(0o755)
    git(first, "add", ".")
    git(first, "commit", "-q", "-m", "first")
    second = world.base / "cloned"
    run("git", "clone", "-q", first, second)
    os.chmod(second / "file", 0o600)
    os.link(first / "file", first / "directory" / "linked")
    shutil.copy(first / "file", second / "directory" / "linked")
    os.setxattr(second / "file", "user.x", b"x")
    documents = [manifest(world, source, "--reproducible") for source in (first, second)]
    assert documents[0]["id"] == documents[1]["id"]
    files = documents[0]["files"]
    assert {name: file["mode"] for name, file in files.items()} == {
        "directory/inner": 0o644,
        "directory/linked": 0o644,
        "file": 0o644,
        "tool": 0o755,
    }
    assert len({file["mtime_ns"] for file in files.values()}) == 1
    assert documents[0]["root"]["mode"] == documents[0]["dirs"]["directory"]["mode"] == 0o755


@pytest.mark.semantics("I12")
@pytest.mark.needs_root
def test_special_files(world: World) -> None:
    source = world.directory("source")
    plant(source, "file")
    os.mkfifo(source / "a fifo")
    os.mknod(source / "device", stat.S_IFCHR | 0o666, os.makedev(1, 3))
    said = world.castfs("ingest", "-q", source, code=3)
    lines = said.err.splitlines()
    assert [line.split(":")[0] for line in lines] == ["skipped a fifo", "skipped device"]
    assert [
        item["path"]
        for item in world.castfs("show", "--json", said.out.strip()).json["record"]["skipped"]
    ] == ["a fifo", "device"]


@pytest.mark.semantics("I15")
def test_the_store_itself(world: World) -> None:
    source = world.directory("source")
    plant(source, "file")
    inner = source / "the store"
    for _ in range(2):
        assert world.castfs("ingest", "--json", source, "--store", inner).json["file_count"] == 1
    said = world.castfs("ingest", inner / "blobs", "--store", inner, code=1)
    assert "lies in the store" in said.complaint


@pytest.fixture(scope="module")
def work_tree(world: World) -> Path:
    source = world.directory("source")
    git(source, "init", "-q")
    write(source / ".gitignore", b"*.o\n/build/\n!keep.o\n")
    plant(source, "main.c", "main.o", "keep.o", "build/out", "tracked.o", "sub/deep.o", "sub/x")
    write(source / "sub" / ".gitignore", b"x\n")
    (source / ".git" / "info" / "exclude").write_bytes(b"secret\n")
    plant(source, "secret")
    git(source, "add", "-f", "tracked.o", "main.c")
    git(source, "commit", "-q", "-m", "first")
    return source


@pytest.mark.semantics("I16")
def test_a_work_tree(world: World, work_tree: Path) -> None:
    listed = git(work_tree, "ls-files", "-z", "--cached", "--others", "--exclude-standard")
    expected = sorted(listed.split("\0")[:-1])
    assert "tracked.o" in expected
    assert "main.o" not in expected
    assert taken_files(world, work_tree) == expected


@pytest.mark.semantics("I17")
def test_no_work_tree(world: World, work_tree: Path) -> None:
    assert taken_files(world, work_tree / "sub") == [".gitignore", "deep.o", "x"]
    assert taken_files(world, work_tree / "sub", "--gitignore") == [".gitignore"]
    above = world.directory("source")
    shutil.copytree(work_tree, above / "inner")
    files = taken_files(world, above)
    assert "inner/main.o" in files
    assert "inner/.git/HEAD" in files


@pytest.mark.semantics("I18")
def test_own_rules(world: World, work_tree: Path) -> None:
    source = world.base / "with-rules"
    shutil.copytree(work_tree, source)
    write(source / ".castignore", b"*.c\n!main.o\n")
    write(source / "sub" / ".rnignore", b"!x\n")
    files = taken_files(world, source)
    assert "main.c" not in files
    assert {"main.o", "sub/x"} <= set(files)
    elsewhere = world.directory("source")
    plant(elsewhere, "a.c", "b", "deep/c.c")
    write(elsewhere / ".castignore", b"*.c\n")
    assert taken_files(world, elsewhere) == [".castignore", "b"]


@pytest.mark.semantics("I19")
def test_rules_of_the_command_line(world: World) -> None:
    source = world.directory("source")
    plant(source, "a.csv", "b.csv", "c.txt", "d.bin")
    write(source / ".castignore", b"a.csv\n")
    rules = write(world.directory() / "rules", b"!a.csv\nb.csv\n")

    def left(*options: Word) -> str:
        names = taken_files(world, source, *options)
        return " ".join(name[0] for name in names if name != ".castignore")

    assert left() == "b c d"
    assert left("--ignore-file", rules) == "a c d"
    assert left("--include", "*.csv") == "a b"
    assert left("--include", "*.csv", "--ignore-file", rules) == "a b"
    assert left("--include", "*.csv", "--exclude", "b.*") == "a"


@pytest.mark.semantics("I20")
def test_no_ignore(world: World, work_tree: Path) -> None:
    files = taken_files(world, work_tree, "--no-ignore")
    found = run("find", work_tree, "-type", "f", "-printf", r"%P\0").split("\0")[:-1]
    assert ".git/HEAD" in files
    assert files == sorted(found)


@pytest.mark.semantics("I21", "I22")
def test_what_rules_dropped(world: World) -> None:
    source = world.directory("source")
    plant(source, "small.a", content=b"x" * 10)
    plant(source, "dir/one", "dir/two", content=b"x" * 3000)
    write(source / ".castignore", b"*.a\ndir/\n")
    said = world.castfs("ingest", source)
    [line] = [text for text in said.out.splitlines() if text.startswith("ignored ")]
    assert line == (
        "ignored 4 entries, 5.87 KiB: `dir/` .castignore:2 (5.86 KiB, 3 entries), "
        "`*.a` .castignore:1 (10 B, 1 entry)"
    )
    records = world.records()
    said = world.castfs("ingest", source, "--exclude", "*", code=1)
    assert "everything in" in said.complaint
    assert "*" in said.complaint
    assert "--exclude" in said.complaint
    assert world.records() == records


@pytest.mark.semantics("I23", "I29")
@pytest.mark.parametrize("limit", [("--max-files", "2"), ("--max-bytes", "5")])
def test_limits(world: World, limit: tuple[str, str]) -> None:
    source = world.directory("source")
    plant(source, "one", "two", "three", content=os.fsencode(source.name))
    blobs, records = world.blobs(), world.records()
    assert "nothing was stored" in world.castfs("ingest", source, *limit, code=1).complaint
    assert (world.blobs(), world.records()) == (blobs, records)
    assert os.listdir(world.store / "staging") == []


@pytest.mark.semantics("I32")
def test_the_source_is_left_alone(world: World, work_tree: Path) -> None:
    def look() -> str:
        return run("find", work_tree, "-printf", r"%P %y %s %m %n %U %G %i %T@ %C@\0")

    before = look()
    world.ingest(work_tree)
    world.ingest(work_tree, "--no-ignore", "--rehash", "--owner", "--xattrs")
    assert look() == before


@pytest.mark.semantics("I33")
def test_an_ingest_of_a_mount_has_the_id_of_its_snapshot(world: World) -> None:
    """Also after another one was mounted, and ingested, at the same place: device, inodes, sizes
    and all times are those of the first."""
    source, mountpoint = world.directory("source"), world.directory("mnt")
    for content in (b"first", b"other"):
        plant(source, "file", "sub/file", content=content)
        for path in (*source.rglob("*"), source):
            os.utime(path, (10**9, 10**9))
        snapshot = world.castfs("ingest", "--json", source).json
        world.mount(snapshot["id"], at=mountpoint)
        for _ in range(2):
            again = world.castfs("ingest", "--json", mountpoint).json
            assert again["manifest_id"] == snapshot["manifest_id"]
        world.unmount(mountpoint)


@pytest.mark.semantics("I26")
def test_once(world: World) -> None:
    source = world.directory("source")
    plant(source, "one", "two", content=b"the same in both")
    first = world.castfs("ingest", "--json", source).json
    assert (first["added_count"], first["deduplicated_count"]) == (1, 1)
    copy = world.directory("source")
    plant(copy, "three", content=b"the same in both")
    assert world.castfs("ingest", "--json", copy).json["added_count"] == 0
    assert len([path for path in world.blobs() if path.read_bytes() == b"the same in both"]) == 1


@pytest.mark.semantics("I28")
@pytest.mark.parametrize("damage", ["missing", "short", "flipped"])
def test_healing(world: World, damage: str) -> None:
    source = world.directory("source")
    content = f"to be {damage}".encode()
    plant(source, "file", content=content)
    world.ingest(source)
    [blob] = [path for path in world.blobs() if path.read_bytes() == content]
    blob.chmod(0o644)
    if damage == "missing":
        blob.unlink()
    else:
        blob.write_bytes(content[:-1] + (b"" if damage == "short" else b"X"))
    world.ingest(source)
    assert (blob.read_bytes() == content) == (damage != "flipped")
    world.ingest(source, "--check-existing")
    assert blob.read_bytes() == content


@pytest.mark.semantics("I30")
@pytest.mark.parametrize("kind", ["missing", "fifo"])
def test_no_source(world: World, kind: str) -> None:
    source = world.base / f"no-source-{kind}"
    if kind == "fifo":
        os.mkfifo(source)
    store = world.base / f"no-store-{kind}"
    assert world.castfs("ingest", source, "--store", store, code=1).complaint
    assert not store.exists()


@pytest.mark.semantics("I9")
def test_deep_trees(world: World) -> None:
    source = world.directory("source")
    make = 'cd "$0"; for i in $(seq 60); do mkdir "$1"; cd -P "./$1"; done; echo x > bottom'
    subprocess.run(
        ["sh", "-c", make, source, "d" * 100], check=True, timeout=PATIENCE, capture_output=True
    )
    document = manifest(world, source)
    [path] = document["files"]
    assert len(path) > 4096
    assert path.endswith("/bottom")
