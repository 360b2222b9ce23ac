"""What goes wrong is one line on stderr, whatever the names are."""

from __future__ import annotations

import os
import subprocess
from pathlib import Path

import pytest

from castfs.errors import CastfsError, UnreadableError
from castfs.repository import Store
from tests.cli.conftest import TIMEOUT, Run, command, environment, one_line

HOSTILE = os.fsdecode(b"a\nb\r\x1b[31m\xff")


@pytest.mark.parametrize(
    "args",
    [
        ["ingest", f"./{HOSTILE}"],
        ["ingest", ".", f"--{HOSTILE}"],
        ["ingest", ".", "--max-bytes", HOSTILE],
        ["ingest", ".", "--exclude", HOSTILE, "--ignore-file", HOSTILE],
        ["--store", f"/nowhere/{HOSTILE}", "list"],
        ["show", HOSTILE],
        ["show", f"./{HOSTILE}"],
        ["show", f"{HOSTILE}.json"],
        ["cat", "{taken}", HOSTILE],
        ["find", HOSTILE],
        ["find", "x", "--snapshot", HOSTILE],
        ["diff", "{taken}", HOSTILE],
        ["restore", "{taken}", "./target", HOSTILE],
        ["export", "{taken}", f"/nowhere/{HOSTILE}.tar"],
        ["import", f"./{HOSTILE}"],
        ["mount", "{taken}", f"./{HOSTILE}"],
        ["mount", "{taken}", ".", "-o", HOSTILE],
        ["umount", HOSTILE],
        ["completion", HOSTILE],
        ["help", HOSTILE],
        [HOSTILE],
    ],
    ids=lambda args: args[0].encode("ascii", "ignore").decode().split("\n")[0],
)
def test_hostile_argument(
    castfs: Run, taken: str, args: list[str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    actual = main_code(castfs, [arg.replace("{taken}", taken) for arg in args])
    one_line(actual)


def main_code(castfs: Run, args: list[str]) -> str:
    """stderr of a command that fails, with whatever code."""
    for code in (1, 2, 4, 10):
        try:
            return castfs(*args, code=code).err
        except AssertionError as exc:
            last = exc
    raise last


def test_unreadable_entries_are_listed(castfs: Run, tree: Path) -> None:
    for name in ("a.txt", "x\ny"):
        (tree / name).touch()
        (tree / name).chmod(0)
    castfs("init")

    def ingest(*options: str) -> subprocess.CompletedProcess[str]:
        # Root without the capabilities to read everything.
        drop = ["setpriv", "--bounding-set=-dac_override,-dac_read_search"] * (os.geteuid() == 0)
        return subprocess.run(
            [*drop, *command("ingest", tree, *options)],
            capture_output=True, text=True, env=environment(), timeout=TIMEOUT,
        )  # fmt: skip

    done = ingest()
    assert (done.returncode, done.stdout) == (1, "")
    first, second, last = done.stderr.splitlines()
    assert first == "a.txt: Permission denied"
    assert second == "x\\ny: Permission denied"
    assert last.startswith("castfs: 2 entries could not be read")
    assert castfs("list", "-q").out == b""
    done = ingest("-q", "--skip-unreadable")
    assert done.returncode == 3
    assert done.stderr == "skipped a.txt: Permission denied\nskipped x\\ny: Permission denied\n"
    skipped = castfs("show", "--json", done.stdout.strip()).json["record"]["skipped"]
    assert [entry["path"] for entry in skipped] == ["a.txt", "x\ny"]


def test_unreadable_root_is_named(castfs: Run, tree: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def ingest(*args: object, **kwargs: object) -> None:
        raise UnreadableError("1 entry could not be read", [(b"", "never")])

    castfs("init")
    monkeypatch.setattr(Store, "ingest", ingest)
    lines = castfs("ingest", tree, code=1).err.splitlines()
    assert lines == [".: never", "castfs: 1 entry could not be read"]


def test_message_and_hint_are_one_line(
    castfs: Run, tree: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def ingest(*args: object, **kwargs: object) -> None:
        raise CastfsError("bad\nname \ud800 \udcff", hint="do\tthat")

    castfs("init")
    monkeypatch.setattr(Store, "ingest", ingest)
    line = one_line(castfs("ingest", tree, code=1).err)
    assert line == "castfs: bad\\nname \\ud800 \\udcff; do\\tthat"


def test_os_error_is_one_line(castfs: Run, tree: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def ingest(*args: object, **kwargs: object) -> None:
        raise PermissionError(13, "Permission denied", "/x\ny")

    castfs("init")
    monkeypatch.setattr(Store, "ingest", ingest)
    assert one_line(castfs("ingest", tree, code=1).err) == "castfs: /x\\ny: Permission denied"


def test_bug_prints_a_traceback(castfs: Run, tree: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def ingest(*args: object, **kwargs: object) -> None:
        raise ValueError("a bug")

    castfs("init")
    monkeypatch.setattr(Store, "ingest", ingest)
    err = castfs("ingest", tree, code=1).err
    assert err.startswith("Traceback")
    assert err.endswith("ValueError: a bug\n")
