"""Workspaces as zip files: what is in them, what is not, and what is left alone."""

from __future__ import annotations

import os
import stat
import subprocess
import sys
import zipfile
from pathlib import Path
from typing import Any

import pytest

import castfs
import castfs.compat.runicorn as rn
from castfs.compat.runicorn import runs
from castfs.errors import CastfsError, UsageError
from tests.compat import older
from tests.ignore.walking import git, init
from tests.interop.conftest import Runicorn

THEIRS = "runicorn.assets.snapshot.snapshot_workspace"
PLAIN = {"train.py": b"print(1)\n", "src/model.py": b"class Model: ...\n" * 500, "src/ü": b"u"}
#: What Runicorn leaves out where there is no `.rnignore`.
DEFAULT = {
    ".git/HEAD": b"",
    ".venv/bin/python": b"",
    "a/__pycache__/x.py": b"",
    "a/b.pyc": b"",
    ".idea/x": b"",
    "a/node_modules/x/y.js": b"",
}


@pytest.fixture
def workspace(tmp_path: Path) -> Path:
    return older.write_files(tmp_path / "workspace", PLAIN)


def names(archive: Path) -> set[str]:
    """All but directories."""
    with zipfile.ZipFile(archive) as opened:
        assert opened.testzip() is None
        return {name for name in opened.namelist() if not name.endswith("/")}


def contents(archive: Path) -> dict[str, bytes]:
    with zipfile.ZipFile(archive) as opened:
        return {name: opened.read(name) for name in names(archive)}


def state(root: Path) -> list[tuple[str, int, int, int]]:
    paths = [root, *sorted(root.rglob("*"))]
    stats = [(str(path), path.lstat()) for path in paths]
    return [(name, st.st_mtime_ns, st.st_mode, st.st_ino) for name, st in stats]


def test_as_documented(workspace: Path, tmp_path: Path) -> None:
    before = state(workspace)
    result = rn.snapshot_workspace(root=workspace, out_zip=tmp_path / "new" / "code.zip")
    assert result == {
        "workspace_root": str(workspace),
        "archive_path": str(tmp_path / "new" / "code.zip"),
        "format": "zip",
        "file_count": 3,
        "total_bytes": sum(map(len, PLAIN.values())),
    }
    assert contents(tmp_path / "new" / "code.zip") == PLAIN
    assert state(workspace) == before
    assert os.listdir(tmp_path / "new") == ["code.zip"]


def test_as_their_package_does(workspace: Path, tmp_path: Path, runicorn: Runicorn) -> None:
    """Where its ignore rules are git's, the same files, and the same result but for the name."""
    older.write_files(workspace, DEFAULT)
    older.write_files(workspace, {".gitignore": b"*.tmp\nlogs/\n", "x.tmp": b"", "logs/l": b""})
    ours = rn.snapshot_workspace(workspace, tmp_path / "ours.zip", extra_excludes=["*.bin"])
    theirs = runicorn(THEIRS, workspace, tmp_path / "theirs.zip", extra_excludes=["*.bin"])
    assert contents(tmp_path / "ours.zip") == contents(tmp_path / "theirs.zip")
    assert {**ours, "archive_path": ""} == {**theirs, "archive_path": ""}


def test_default_excludes(workspace: Path, tmp_path: Path) -> None:
    older.write_files(workspace, DEFAULT)
    before = state(workspace)
    rn.snapshot_workspace(workspace, tmp_path / "code.zip")
    assert names(tmp_path / "code.zip") == set(PLAIN)
    assert state(workspace) == before
    assert not (workspace / ".rnignore").exists()


def test_own_rnignore_takes_the_place_of_the_defaults(workspace: Path, tmp_path: Path) -> None:
    older.write_files(workspace, {"a/b.pyc": b"", ".rnignore": b"src/\n"})
    rn.snapshot_workspace(workspace, tmp_path / "code.zip")
    assert names(tmp_path / "code.zip") == {"train.py", "a/b.pyc", ".rnignore"}


RULES = b"""# rules
*.log
!keep.log
/top.txt
data/*.csv
build/
!build/kept
**/deep/x
a\\ b
\\#c
d[0-9]
"""
RULED = [
    "x.log", "keep.log", "sub/keep.log", "sub/x.log", "top.txt", "sub/top.txt", "data/1.csv",
    "data/sub/1.csv", "sub/data/1.csv", "build/kept", "sub/build/y", "p/deep/x", "deep/x", "a b",
    "#c", "d1", "dx", "sub/d2", "plain",
]  # fmt: skip


@pytest.mark.parametrize("place", [".gitignore", ".rnignore", "other.rules", "conf/rules", "list"])
def test_rules_mean_what_git_means(place: str, tmp_path: Path) -> None:
    """The same rules as a `.gitignore`, judged by git itself."""
    judge = init(tmp_path / "judge")
    workspace = tmp_path / "workspace"
    for root in (judge, workspace):
        older.write_files(root, dict.fromkeys(RULED, b"x"))
    (judge / ".git" / "info" / "exclude").write_bytes(RULES)
    options: dict[str, Any] = {}
    if place == "list":
        options["extra_excludes"] = RULES.decode().splitlines()
    else:
        older.write_files(workspace, {place: RULES})
        if place != ".gitignore":
            options["ignore_file"] = place
    rn.snapshot_workspace(workspace, tmp_path / "code.zip", **options)
    listed = git(judge, "ls-files", "-z", "-o", "--exclude-standard").decode().split("\0")
    assert names(tmp_path / "code.zip") - {place} == {*listed} - {""}
    assert git(judge, "check-ignore", "top.txt", "sub/x.log").count(b"\n") == 2


def test_nested_rule_files(tmp_path: Path) -> None:
    workspace = init(tmp_path / "workspace")
    older.write_files(
        workspace,
        {
            ".gitignore": b"*.out\n",
            "sub/.gitignore": b"!kept.out\n/own\n",
            "sub/kept.out": b"",
            "kept.out": b"",
            "sub/own": b"",
            "own": b"",
            "tracked.out": b"",
        },
    )
    git(workspace, "add", "-f", "tracked.out")
    rn.snapshot_workspace(workspace, tmp_path / "code.zip")
    listed = git(workspace, "ls-files", "-z", "-co", "--exclude-standard").decode().split("\0")
    assert names(tmp_path / "code.zip") == {*listed} - {""}
    assert "tracked.out" in listed


def test_later_rules_are_stronger(tmp_path: Path) -> None:
    workspace = older.write_files(
        tmp_path / "workspace",
        {
            ".gitignore": b"*.a\n*.b\n*.c\n",
            ".rnignore": b"!*.b\n!*.c\n",
            "1.a": b"",
            "1.b": b"",
            "1.c": b"",
            "2.c": b"",
        },
    )
    rn.snapshot_workspace(
        workspace, tmp_path / "code.zip", extra_excludes=["*.c  ", "!2.c", "", "# nothing"]
    )
    assert names(tmp_path / "code.zip") == {".gitignore", ".rnignore", "1.b", "2.c"}


@pytest.mark.parametrize(
    ("limit", "message"),
    [
        ({"max_files": 2}, "code snapshot too large: too many files"),
        ({"max_total_bytes": 8000}, "code snapshot too large: total bytes exceeded"),
    ],
)
def test_limits(workspace: Path, tmp_path: Path, limit: dict[str, Any], message: str) -> None:
    target = tmp_path / "out" / "code.zip"
    older.write_files(tmp_path, {"out/code.zip": b"the one before"})
    with pytest.raises(ValueError, match=message) as caught:
        rn.snapshot_workspace(workspace, target, **limit)
    assert isinstance(caught.value, CastfsError)
    assert older.read_files(tmp_path / "out") == {"code.zip": b"the one before"}
    rn.snapshot_workspace(workspace, target, **limit, force_snapshot=True)
    assert contents(target) == PLAIN


def test_limits_are_inclusive(workspace: Path, tmp_path: Path, runicorn: Runicorn) -> None:
    limits: dict[str, Any] = {"max_files": 3, "max_total_bytes": sum(map(len, PLAIN.values()))}
    rn.snapshot_workspace(workspace, tmp_path / "ours.zip", **limits)
    runicorn(THEIRS, workspace, tmp_path / "theirs.zip", **limits)
    assert contents(tmp_path / "ours.zip") == contents(tmp_path / "theirs.zip")


def test_ignored_files_do_not_count(workspace: Path, tmp_path: Path) -> None:
    older.write_files(workspace, {"large.bin": b"x" * 100_000, ".rnignore": b"*.bin\n"})
    rn.snapshot_workspace(workspace, tmp_path / "code.zip", max_total_bytes=20_000)


def test_default_limit_of_bytes(workspace: Path, tmp_path: Path) -> None:
    with (workspace / "large").open("wb") as file:
        file.truncate(500 * 1024 * 1024)
    with pytest.raises(ValueError, match="total bytes exceeded"):
        rn.snapshot_workspace(workspace, tmp_path / "code.zip")


def test_what_a_zip_of_theirs_loses(workspace: Path, tmp_path: Path) -> None:
    (workspace / "train.py").chmod(0o755)
    os.utime(workspace / "train.py", (1_000_000_001, 1_000_000_001))
    os.utime(workspace / "src" / "ü", (1, 1))  # before what DOS knows
    (workspace / "link").symlink_to("src/model.py")
    (workspace / "dangling").symlink_to("/nowhere")
    (workspace / "linked").symlink_to("src")
    (workspace / "void").mkdir()
    os.mkfifo(workspace / "fifo")
    result = rn.snapshot_workspace(workspace, tmp_path / "code.zip")
    assert result["file_count"] == 6
    with zipfile.ZipFile(tmp_path / "code.zip") as archive:
        modes = {info.filename: info.external_attr >> 16 for info in archive.infolist()}
        assert modes["train.py"] == stat.S_IFREG | 0o755
        assert stat.S_ISLNK(modes["link"])
        assert archive.read("link") == b"src/model.py"
        assert archive.read("dangling") == b"/nowhere"
        assert archive.read("linked") == b"src"
        assert stat.S_ISDIR(modes["void/"])
        assert "fifo" not in modes
        assert archive.getinfo("train.py").date_time == (2001, 9, 9, 1, 46, 40)


def test_same_tree_same_bytes(workspace: Path, tmp_path: Path) -> None:
    for name in ("one.zip", "two.zip"):
        rn.snapshot_workspace(workspace, tmp_path / name)
    assert (tmp_path / "one.zip").read_bytes() == (tmp_path / "two.zip").read_bytes()


@pytest.mark.parametrize("name", ["code.zip", "a [b] !*?.zip", "#x.zip", "out/code.zip", "end "])
def test_zip_in_the_workspace_never_holds_itself(workspace: Path, name: str) -> None:
    for _ in range(3):
        rn.snapshot_workspace(workspace, workspace / name)
        assert contents(workspace / name) == PLAIN


def test_other_runs_are_no_part_of_the_workspace(workspace: Path) -> None:
    storage = workspace / ".runicorn"
    first = older.write_run(storage, "20260115_100000_abc123", code=b"zip", datasets={"d": PLAIN})
    second = older.write_run(storage, "20260115_100001_abc124")
    older.write_files(workspace, {"runs/mine.py": b"", "archive/mine.py": b""})
    rn.snapshot_workspace(workspace, second / "code_snapshot.zip")
    assert first.exists()
    assert names(second / "code_snapshot.zip") == {*PLAIN, "runs/mine.py", "archive/mine.py"}


def test_what_only_looks_like_an_archive_is_kept(workspace: Path) -> None:
    run_dir = older.write_run(workspace, "20260115_100000_abc123")
    older.write_files(workspace, {"archive/mine.py": b""})
    rn.snapshot_workspace(workspace, run_dir / "code_snapshot.zip")
    assert names(run_dir / "code_snapshot.zip") == {*PLAIN, "archive/mine.py"}
    older.put_blob(workspace / "archive" / "blobs", b"blob")
    rn.snapshot_workspace(workspace, run_dir / "code_snapshot.zip")
    assert names(run_dir / "code_snapshot.zip") == set(PLAIN)


def test_store_is_no_part_of_the_workspace(
    workspace: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("CASTFS_STORE", str(workspace / "store"))
    castfs.open(create=True).ingest(workspace / "src")
    rn.snapshot_workspace(workspace, tmp_path / "code.zip")
    assert names(tmp_path / "code.zip") == set(PLAIN)
    monkeypatch.delenv("CASTFS_STORE")
    target = workspace / "store" / "runs" / "x" / "code.zip"
    rn.snapshot_workspace(workspace, target)
    assert names(target) == set(PLAIN)


def test_own_runs_directory_is_kept(workspace: Path) -> None:
    """A directory of that name is no reason."""
    older.write_files(workspace, {"runs/one/train.py": b""})
    rn.snapshot_workspace(workspace, workspace / "runs" / "one" / "code.zip")
    assert names(workspace / "runs" / "one" / "code.zip") == {*PLAIN, "runs/one/train.py"}


def test_root_that_is_none(tmp_path: Path) -> None:
    (tmp_path / "file").write_bytes(b"")
    for name in ("missing", "file"):
        with pytest.raises(ValueError, match="is not a directory"):
            rn.snapshot_workspace(tmp_path / name, tmp_path / "code.zip")
    assert not (tmp_path / "code.zip").exists()


def test_from_the_directory_itself(
    workspace: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(workspace)
    result = rn.snapshot_workspace(Path("."), Path("code.zip"))
    assert result["workspace_root"] == str(workspace)
    assert contents(workspace / "code.zip") == PLAIN


def test_killed_while_it_writes(workspace: Path, tmp_path: Path) -> None:
    """The zip before stays, whole."""
    target = tmp_path / "out" / "code.zip"
    rn.snapshot_workspace(workspace, target)
    before = target.read_bytes()
    (workspace / "train.py").write_bytes(b"changed")
    program = (
        "import os, sys; from castfs.archive import zip\n"
        "zip._end = lambda *_: os.abort()\n"
        "import castfs.compat.runicorn as rn; rn.snapshot_workspace(sys.argv[1], sys.argv[2])"
    )
    result = subprocess.run(
        [sys.executable, "-c", program, workspace, target],
        capture_output=True,
        timeout=60,
        check=False,
    )
    assert result.returncode == -6, result.stderr
    assert target.read_bytes() == before


TAKEN = {"id": "1", "manifest_id": "2", "fingerprint": "3", "workspace_root": "/", "files": {}}


class FoundRun:
    """What is used of castfs's own run, which says what it was asked."""

    run_dir: Path
    store: castfs.Store

    def __init__(self, run_id: str) -> None:
        self.id = run_id

    def snapshot_workspace(self, root: Path, **words: Any) -> dict[str, Any]:
        return {**TAKEN, "run": self.id, "root": root, **words}


def let_runs_be_found(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(FoundRun, "run_dir", tmp_path, raising=False)
    store = castfs.open(tmp_path / "store", create=True)
    monkeypatch.setattr(FoundRun, "store", store, raising=False)
    monkeypatch.setattr(runs, "load", {"find_run": FoundRun}.__getitem__)


RUN_ID = "20260115_100000_abc123"


@pytest.mark.parametrize(
    ("args", "words", "expected"),
    [
        ((), {"run_id": RUN_ID}, {}),
        ((RUN_ID,), {}, {}),
        (("a run of another form",), {}, {"run": "a run of another form"}),
        ((RUN_ID, "src"), {}, {"root": Path("src")}),
        ((RUN_ID,), {"workspace_root": "src"}, {"root": Path("src")}),
        (
            (RUN_ID, "src", ["*.py"], ["*.pyc"]),
            {},
            {"root": Path("src"), "include": ("*.py",), "exclude": ("*.pyc",)},
        ),
        (
            (),
            {"run_id": RUN_ID, "include_patterns": ["*.py"], "exclude_patterns": ["a", "b"]},
            {"include": ("*.py",), "exclude": ("a", "b")},
        ),
    ],
)
def test_by_run(
    args: tuple[Any, ...],
    words: dict[str, Any],
    expected: dict[str, Any],
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """Arguments decide which of the two signatures is meant."""
    let_runs_be_found(tmp_path, monkeypatch)
    monkeypatch.chdir(tmp_path)
    for root in (tmp_path, tmp_path / "src"):
        older.write_files(root, {".rnignore": b""})
    found = rn.snapshot_workspace(*args, **words)
    default = {**TAKEN, "run": RUN_ID, "root": Path("."), "include": (), "exclude": ()}
    assert found == {**default, **expected}


def test_by_run_with_default_excludes(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    let_runs_be_found(tmp_path, monkeypatch)
    found = rn.snapshot_workspace(RUN_ID, str(tmp_path), exclude_patterns=["own"])
    assert found["exclude"] == (
        ".git/", ".venv/", "__pycache__/", "*.pyc", ".idea/", "node_modules/", "own",
    )  # fmt: skip


def test_two_texts_are_paths(workspace: Path, tmp_path: Path) -> None:
    """As the older package takes them, unless the first is a run's id."""
    result = rn.snapshot_workspace(str(workspace), str(tmp_path / "code.zip"))
    assert result["file_count"] == 3


def test_name_that_zip_cannot_hold(workspace: Path, tmp_path: Path) -> None:
    Path(workspace, os.fsdecode(b"\xff")).write_bytes(b"")
    with pytest.raises(UsageError, match="not UTF-8"):
        rn.snapshot_workspace(workspace, tmp_path / "code.zip")
    assert not (tmp_path / "code.zip").exists()
