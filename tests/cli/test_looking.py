"""list, show, ls, cat, find, stats: what they print, in a pipe, on a terminal and as JSON."""

from __future__ import annotations

import os
import re
import subprocess
from pathlib import Path
from typing import Any

import pytest

from castfs.paths import escape, unescape
from tests.cli.conftest import HOSTILE_NAMES, Run, command, run_on_terminal


@pytest.fixture
def hostile_id(castfs: Run, hostile: Path) -> str:
    return castfs("ingest", "-q", hostile).text.strip()


def test_list(castfs: Run, tree: Path) -> None:
    first = castfs("ingest", "-q", tree, "--name", "one", "--tag", "x").text.strip()
    (tree / "a.txt").write_text("changed\n")
    second = castfs("ingest", "-q", tree / "sub", "--name", "two").text.strip()
    assert castfs("list", "-q").text.split() == [second, first]
    assert castfs("list", "-q", "-n", "1").text.split() == [second]
    assert castfs("list", "-q", "--name", "one").text.split() == [first]
    assert castfs("list", "-q", "--tag", "x").text.split() == [first]
    assert castfs("list", "-q", "--source", tree).text.split() == [first]
    assert castfs("list", "-q", "--source", os.path.relpath(tree)).text.split() == [first]
    header, *rows = castfs("list").text.splitlines()
    assert header.split() == ["ID", "DATE", "NAME", "FILES", "SIZE", "MANIFEST", "SOURCE"]
    assert [row.split()[0] for row in rows] == [second[:12], first[:12]]
    assert [row.split()[3] for row in rows] == ["two:v1", "one:v1"]
    assert [
        row.endswith(f"  {source}") for row, source in zip(rows, (tree / "sub", tree), strict=True)
    ]
    records = castfs("list", "--json").json
    assert [record["id"] for record in records] == [second, first]
    assert records[1]["tags"] == ["x"]


def test_empty_list(castfs: Run) -> None:
    castfs("init")
    assert castfs("list", "--json").json == []
    assert castfs("list", "-q").out == b""
    result = castfs("list")
    assert result.out == b""
    assert result.err.startswith("no snapshots in ")


def test_list_on_a_terminal(taken: str, tmp_path: Path) -> None:
    code, text = run_on_terminal(command("list"), cwd=tmp_path)
    assert code == 0
    assert re.search(rf"^{taken[:12]} .* {re.escape(str(tmp_path))}", text, re.MULTILINE)


def test_ls(castfs: Run, taken: str) -> None:
    top = ["a.txt", "empty", "link", "run.sh", "sub"]
    assert castfs("ls", taken).text.splitlines() == top
    assert castfs("ls", taken, "/").text.splitlines() == top
    assert castfs("ls", taken, "sub/").text.splitlines() == ["b.txt", "deep"]
    assert castfs("ls", taken, "empty").out == b""
    assert castfs("ls", taken, "sub/b.txt").text == "sub/b.txt\n"
    below = ["sub/b.txt", "sub/deep", "sub/deep/c.py"]
    assert castfs("ls", "-R", taken, "sub").text.splitlines() == below
    assert castfs("ls", "-R", taken).text.splitlines() == [*top, *below]
    assert castfs("ls", "-R0", taken, "sub").text == "".join(f"{path}\0" for path in below)


def test_long_ls_agrees_with_ls(castfs: Run, tree: Path) -> None:
    os.link(tree / "a.txt", tree / "sub" / "hard")
    snapshot = castfs("ingest", "-q", tree, "--owner").text.strip()
    real = subprocess.run(
        ["ls", "-lnA", "--time-style=+%Y-%m-%d %H:%M:%S", tree],
        capture_output=True, text=True, check=True, env={**os.environ, "LC_ALL": "C"},
    )  # fmt: skip
    theirs = [line.split() for line in real.stdout.splitlines()[1:]]
    ours = [line.split() for line in castfs("ls", "-l", snapshot).text.splitlines()]
    for line in (line for line in theirs if line[0].startswith("d")):
        line[4] = "-"  # the size of a directory is the filesystem's affair
    assert ours == theirs


def test_names_in_a_pipe_are_raw(program: Run, hostile_id: str) -> None:
    listed = program("ls", hostile_id).out
    assert listed == b"".join(name + b"\n" for name in sorted(HOSTILE_NAMES))
    assert program("ls", "-0", hostile_id).out.split(b"\0")[:-1] == sorted(HOSTILE_NAMES)
    for name in HOSTILE_NAMES:
        assert program("cat", "--", hostile_id, name).out == name


def test_names_on_a_terminal_are_harmless(hostile_id: str, tmp_path: Path) -> None:
    code, text = run_on_terminal(command("ls", hostile_id), cwd=tmp_path)
    assert code == 0
    assert sorted(text.splitlines()) == sorted(
        [" ", "-rf", "\\x1b[31mred", "a\\nb", "caf\\xe9", "␛"]
    )


def test_names_in_json_come_back(castfs: Run, hostile_id: str) -> None:
    def names(entries: list[dict[str, Any]]) -> set[bytes]:
        return {unescape(entry["path"]) for entry in entries}

    assert names(castfs("ls", "--json", hostile_id).json) == set(HOSTILE_NAMES)
    assert names(castfs("find", "--json", "*").json) == set(HOSTILE_NAMES)


def test_hostile_source(program: Run, tmp_path: Path) -> None:
    source = os.path.join(os.fsencode(tmp_path), b"caf\xe9\nx")
    os.mkdir(source)
    Path(os.fsdecode(source), "file").touch()
    assert program("ingest", "--json", source).json["source"] == escape(source)
    assert len(program("list").text.splitlines()) == 2, "a line for each snapshot"
    assert program("list", "--source", source, "--json").json[0]["source"] == escape(source)


def test_show(castfs: Run, taken: str, tree: Path) -> None:
    shown = castfs("show", "--json", taken).json
    assert shown["id"] == taken
    assert (shown["file_count"], shown["dir_count"], shown["symlink_count"]) == (4, 3, 1)
    assert shown["total_size_bytes"] == shown["content_bytes"] == 32
    assert shown["record"]["source"] == str(tree)
    text = castfs("show", taken[:12]).text
    assert re.search(rf"^manifest +{shown['manifest_id']}$", text, re.MULTILINE)
    assert re.search(r"^entries +4 files, 3 directories, 1 symlink$", text, re.MULTILINE)


def test_cat(castfs: Run, taken: str) -> None:
    assert castfs("cat", taken, "a.txt", "sub/b.txt").out == b"alpha\nbeta\n"
    assert castfs("cat", taken, "a.txt", "missing", code=4).out == b""


def test_cat_is_pinned(castfs: Run, taken: str, store: Path, monkeypatch: Any) -> None:
    """A lease keeps the collector away while it reads."""
    from castfs.cli import cat

    seen = []
    monkeypatch.setattr(cat, "copy_file", lambda *args: seen.append(os.listdir(store / "leases")))
    castfs("cat", taken, "a.txt")
    assert len(seen[0]) > 0
    assert os.listdir(store / "leases") == []


def test_find(castfs: Run, tree: Path, taken: str) -> None:
    digest = castfs("ls", "--json", taken, "a.txt").json[0]["sha256"]
    (tree / "a.txt").unlink()
    later = castfs("ingest", "-q", tree).text.strip()
    assert castfs("find", "a.txt").text.split() == [taken[:12], "6", "B", "a.txt"]
    assert castfs("find", digest[:9]).text.split()[-1] == "a.txt"
    assert castfs("find", "sub/*.txt", "--snapshot", taken).text.split()[0] == taken[:12]
    found = castfs("find", "--json", "b.txt").json
    assert {hit["snapshot"] for hit in found} == {taken, later}
    assert castfs("find", "--json", "nothing", code=4).json == []


def test_stats(castfs: Run, tree: Path, taken: str) -> None:
    (tree / "run.sh").unlink()
    castfs("ingest", tree)
    stats = castfs("stats", "--json").json
    assert (stats["snapshot_count"], stats["manifest_count"], stats["blob_count"]) == (2, 2, 4)
    assert stats["blob_bytes"] == 32
    assert stats["logical_bytes"] == 54
    assert stats["saved_bytes"] == 22
    assert re.search(r"^saved +22 B \(40\.7%\)$", castfs("stats").text, re.MULTILINE)
