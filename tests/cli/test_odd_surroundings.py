"""Closed and full outputs, directories that are gone, words that mean nothing or too much."""

from __future__ import annotations

import os
import stat
import subprocess
from pathlib import Path

import pytest

from castfs.mount.mountinfo import find_mount
from tests.cli.conftest import TIMEOUT, Run, command, environment


def shell(script: str, *words: str | bytes | Path) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        ["sh", "-c", script, "sh", *words],
        capture_output=True,
        text=True,
        timeout=TIMEOUT,
        env=environment(),
        check=False,
    )


@pytest.mark.parametrize("path", ["./sub/b.txt", "/sub//b.txt", "sub/./b.txt/"])
def test_one_way_to_read_a_path_in_a_snapshot(
    castfs: Run, taken: str, tmp_path: Path, path: str
) -> None:
    content = castfs("cat", taken, "sub/b.txt").out
    assert content
    assert castfs("cat", taken, path).out == content
    assert castfs("ls", taken, path).text == "sub/b.txt\n"
    castfs("restore", taken, tmp_path / "target", path)
    assert (tmp_path / "target" / "sub" / "b.txt").read_bytes() == content


@pytest.mark.parametrize("verb", ["cat", "ls", "restore"])
def test_an_empty_path_is_an_unset_variable(
    castfs: Run, taken: str, tmp_path: Path, verb: str
) -> None:
    target = [tmp_path / "target"] if verb == "restore" else []
    assert "path is empty" in castfs(verb, taken, *target, "", code=2).err
    assert not (tmp_path / "target").exists()


@pytest.mark.parametrize("where", [">/dev/full", ">&-"])
@pytest.mark.parametrize("quiet", [[], ["-q"], ["--json"]])
def test_an_ingest_that_cannot_say_so_is_recorded(
    castfs: Run, tree: Path, where: str, quiet: list[str]
) -> None:
    castfs("init")
    done = shell(f'"$@" {where}', *command("ingest", *quiet, tree))
    assert done.returncode == 1
    [line] = done.stderr.splitlines()
    recorded = castfs("list", "-q").text.strip()
    assert f"snapshot {recorded} is recorded, but" in line


@pytest.mark.mounted
@pytest.mark.parametrize("where", [">/dev/full", ">&-"])
def test_a_mount_that_cannot_say_so_is_taken_back(
    castfs: Run, taken: str, tmp_path: Path, where: str
) -> None:
    place = tmp_path / "mnt"
    place.mkdir()
    done = shell(f'"$@" {where}', *command("mount", taken, place))
    assert done.returncode == 1
    assert len(done.stderr.splitlines()) == 1
    assert find_mount(place) is None


def sizes(store: Path) -> list[int]:
    """Of all files but what the mounts themselves may leave."""
    files = [path for path in store.rglob("*") if path.is_file()]
    return sorted(f.stat().st_size for f in files if not f.is_relative_to(store / "cache"))


@pytest.mark.mounted
def test_without_any_standard_descriptor(
    castfs: Run, taken: str, tree: Path, store: Path, tmp_path: Path
) -> None:
    """What would be written to them must not land in files of the store."""
    before = sizes(store)
    place = tmp_path / "mnt"
    place.mkdir()
    script = '"$@" 0<&- 1>&- 2>&-'
    mounted = shell(script, *command("mount", taken, place, "--", "cat", place / "a.txt"))
    assert mounted.returncode in (0, 1)  # cat's: it has no stdout
    assert find_mount(place) is None
    assert shell(script, *command("mount", taken, place)).returncode == 1
    assert find_mount(place) is None
    assert shell(script, *command("ls", taken)).returncode == 1
    assert sizes(store) == before


def test_a_directory_that_is_gone(castfs: Run, taken: str, tmp_path: Path) -> None:
    script = 'mkdir "$0" && cd "$0" && rmdir "$0" && "$@"'
    done = subprocess.run(
        ["sh", "-c", script, tmp_path / "gone", *command("ingest", "../x")],
        capture_output=True,
        text=True,
        timeout=TIMEOUT,
        env=environment(),
        check=False,
    )
    assert done.returncode == 1
    assert len(done.stderr.splitlines()) == 1


@pytest.mark.needs_root
def test_the_copy_of_a_manifest(castfs: Run, program: Run, tree: Path, tmp_path: Path) -> None:
    castfs("init")
    (tmp_path / "real.json").write_text("old")
    (tmp_path / "link.json").symlink_to("real.json")
    before = os.umask(0o077)
    try:
        program("ingest", tree, "-o", "link.json")
        program("ingest", tree, "-o", "new.json")
    finally:
        os.umask(before)
    assert (tmp_path / "link.json").is_symlink()
    assert (tmp_path / "real.json").read_text().startswith('{"created_at"')
    assert stat.S_IMODE((tmp_path / "new.json").stat().st_mode) == 0o600
    device = tmp_path / "null"
    os.mknod(device, 0o20666, os.makedev(1, 3))
    taken = program("ingest", "-q", tree, "-o", "null").text.strip()
    program("export", taken, "null", "--format", "tar", "--force")
    assert device.is_char_device()


def test_options_that_mean_nothing(castfs: Run, tree: Path) -> None:
    castfs("ingest", tree, "--no-ignore", "--gitignore", code=2)
    castfs("ingest", tree / "a.txt", "--exclude", "a.txt", code=2)
    said = castfs("ingest", tree, "--exclude", "*", code=1).err
    assert "--no-ignore" not in said
    assert "change that option" in said


def test_the_store_in_a_directory_is_no_difference(castfs: Run, tree: Path, tmp_path: Path) -> None:
    inside, copy = tree / "store", tmp_path / "m.json"
    castfs("ingest", tree, "--store", inside, "-o", copy)
    said = castfs("diff", "--store", inside, copy, f"{tree}/", "--json").json
    assert [change["path"] for change in said["changes"]] in ([], [""])


def test_tags_are_told_once(castfs: Run, tree: Path) -> None:
    taken = castfs("ingest", "-q", tree, "--tag", "a", "--tag", "b", "--tag", "a").text.strip()
    assert castfs("show", "--json", taken).json["record"]["tags"] == ["a", "b"]
    assert castfs("list", "--name", "", "--json").json == []


def test_names_are_characters(castfs: Run, tree: Path) -> None:
    (tree / "\u00e9.txt").write_text("x")
    (tree / "\udcff.bin").write_text("y")
    castfs("ingest", tree)
    assert castfs("find", "?.txt", "--json").json != []
    assert castfs("find", "?.bin").out.endswith(b"\xff.bin\n")
    assert {hit["path"] for hit in castfs("find", "\u00e9.txt", "--json").json} == {"\u00e9.txt"}
