"""diff, restore, export: what they print and that their options arrive."""

from __future__ import annotations

import os
import stat
import subprocess
import tarfile
import zipfile
from pathlib import Path

import pytest

from castfs.paths import unescape
from tests.cli.conftest import HOSTILE_NAMES, Run, command, environment, one_line, run_on_terminal


@pytest.fixture
def changed(castfs: Run, tree: Path, taken: str) -> str:
    """A snapshot of the tree after a change of each kind."""
    (tree / "sub" / "b.txt").write_text("longer than beta\n")
    (tree / "a.txt").unlink()
    (tree / "new").write_text("new\n")
    (tree / "run.sh").chmod(0o700)
    return castfs("ingest", "-q", tree).text.strip()


def test_diff(castfs: Run, taken: str, changed: str) -> None:
    result = castfs("diff", "--ignore-mtime", taken, changed)
    assert result.text.splitlines() == [
        "D a.txt",
        "A new",
        "M run.sh (mode)",
        "M sub/b.txt (content)",
    ]
    assert one_line(result.err) == "1 added, 1 removed, 2 changed; +21 B, -11 B"
    names = castfs("diff", "--name-only", "--ignore-mtime", taken, changed)
    assert names.text.split() == ["a.txt", "new", "run.sh", "sub/b.txt"]
    assert names.err == ""
    assert castfs("diff", "-q0", "--ignore-mtime", taken, changed).text.count("\0") == 4
    assert "M run.sh (mode)" in castfs("diff", taken, changed).text
    assert castfs("diff", taken, taken).err == "no differences\n"


def test_diff_json(castfs: Run, taken: str, changed: str) -> None:
    found = castfs("diff", "--json", "--ignore-mtime", taken, changed).json
    assert (found["added_count"], found["removed_count"], found["changed_count"]) == (1, 1, 2)
    by_path = {change["path"]: change for change in found["changes"]}
    assert by_path["a.txt"]["after"] is None
    assert by_path["a.txt"]["before"]["type"] == "file"
    assert by_path["run.sh"]["what"] == ["mode"]
    assert by_path["run.sh"]["after"]["mode"] == 0o700


def test_diff_with_a_directory(castfs: Run, taken: str, tree: Path) -> None:
    assert castfs("diff", taken, f"{tree}/", "--exit-code").text == ""
    (tree / "a.txt").write_text("ALPHA\n")
    assert castfs("diff", f"{tree}/", taken).text.startswith("M a.txt (content, mtime)\n")


def test_diff_of_hostile_names(castfs: Run, hostile: Path, tmp_path: Path) -> None:
    (tmp_path / "nothing").mkdir()
    empty = castfs("ingest", "-q", tmp_path / "nothing").text.strip()
    full = castfs("ingest", "-q", hostile).text.strip()
    added = castfs("diff", "--ignore-mtime", empty, full).text.splitlines()
    assert len(added) - len(HOSTILE_NAMES) in (0, 1), "a line each, and perhaps the root's mode"
    raw = castfs("diff", "-q0", "--ignore-mtime", empty, full).out.split(b"\0")[:-1]
    assert set(raw) - {b"."} == set(HOSTILE_NAMES)
    changes = castfs("diff", "--json", "--ignore-mtime", empty, full).json["changes"]
    assert {unescape(change["path"]) for change in changes} - {b""} == set(HOSTILE_NAMES)


def test_restore(castfs: Run, taken: str, tree: Path, tmp_path: Path) -> None:
    target = tmp_path / "target"
    result = castfs("restore", taken, target)
    assert result.text == f"restored 4 files, 3 directories, 1 symlink, 32 B to {target}\n"
    assert subprocess.run(["diff", "-r", tree, target], check=False).returncode == 0
    assert stat.S_IMODE((target / "run.sh").stat().st_mode) == 0o755


def test_restore_of_what_exists(castfs: Run, taken: str, tmp_path: Path) -> None:
    target = tmp_path / "target"
    target.mkdir()
    (target / "a.txt").write_text("mine\n")
    one_line(castfs("restore", taken, target, code=1).err)
    assert os.listdir(target) == ["a.txt"]
    result = castfs("restore", taken, target, "--if-exists", "skip")
    assert one_line(result.err) == "kept a.txt, which was there"
    assert (target / "a.txt").read_text() == "mine\n"
    done = castfs("restore", taken, target, "--if-exists", "replace", "--json").json
    assert (done["file_count"], done["skipped_existing"]) == (4, [])
    assert (target / "a.txt").read_text() == "alpha\n"


def test_restore_of_a_part(castfs: Run, hostile: Path, taken: str, tmp_path: Path) -> None:
    castfs("restore", taken, tmp_path / "part", "sub/deep", "/a.txt")
    found = {str(p.relative_to(tmp_path / "part")) for p in (tmp_path / "part").rglob("*")}
    assert found == {"a.txt", "sub", "sub/deep", "sub/deep/c.py"}
    snapshot = castfs("ingest", "-q", hostile).text.strip()
    castfs("restore", snapshot, tmp_path / "h", "--", *map(os.fsdecode, HOSTILE_NAMES))
    assert set(os.listdir(os.fsencode(tmp_path / "h"))) == set(HOSTILE_NAMES)


def test_export(castfs: Run, taken: str, tmp_path: Path) -> None:
    file = tmp_path / "x.tar"
    line = castfs("export", taken, file).text
    assert line.startswith(f"exported {taken} to {file}: 4 files, ")
    with tarfile.open(file) as archive:
        assert "sub/deep/c.py" in {name.removeprefix("./") for name in archive.getnames()}
    one_line(castfs("export", taken, file, code=1).err)
    castfs("export", taken, file, "--force", "--format", "zip")
    assert zipfile.is_zipfile(file)
    castfs("export", taken, tmp_path / "x.rar", code=2)
    assert castfs("export", taken, tmp_path / "y.zip", "--json").json


@pytest.mark.parametrize("unbuffered", ["", "1"])
def test_export_to_a_pipe(castfs: Run, taken: str, tmp_path: Path, unbuffered: str) -> None:
    castfs("export", taken, tmp_path / "x.tar")
    done = subprocess.run(
        command("export", taken, "-"),
        capture_output=True,
        env=environment(PYTHONUNBUFFERED=unbuffered),
        check=True,
    )
    assert done.stdout == (tmp_path / "x.tar").read_bytes()
    assert done.stderr == b""


def test_export_refuses_a_terminal(taken: str, tmp_path: Path) -> None:
    code, text = run_on_terminal(command("export", taken, "-"), cwd=tmp_path)
    assert code == 2
    assert one_line(text).startswith("castfs: an archive does not go to a terminal; ")
