"""rm, undelete, list --deleted: what goes, what stays, what is said of it."""

from __future__ import annotations

import contextlib
import json
import os
import pty
import select
import shutil
import subprocess
from pathlib import Path

import pytest

from tests.cli.conftest import TIMEOUT, Run, command, environment, one_line


@pytest.fixture
def three(castfs: Run, tree: Path) -> list[str]:
    """Ids of three different snapshots, oldest first; the last two are called `run`."""
    ids = [castfs("ingest", "-q", tree).text.strip()]
    for content in ("second", "third"):
        (tree / "a.txt").write_text(content)
        ids.append(castfs("ingest", "-q", tree, "--name", "run").text.strip())
    return ids


def live(castfs: Run) -> list[str]:
    return castfs("list", "-q").text.split()


def trashed(castfs: Run) -> list[str]:
    return castfs("list", "-q", "--deleted").text.split()


def state(store: Path) -> dict[str, bytes]:
    """Every root that the store has."""
    return {
        str(path.relative_to(store)): path.read_bytes()
        for directory in ("snapshots", "trash")
        for path in (store / directory).iterdir()
    }


def backdate(store: Path, record_id: str) -> None:
    """As if it had been removed in 1970: two that go within a millisecond have no order."""
    [path] = (store / "trash").glob(f"*-{record_id}.json")
    path.rename(path.with_name(f"{1:012x}-{record_id}.json"))


def test_there_and_back(castfs: Run, taken: str, store: Path) -> None:
    record = store / "snapshots" / f"{taken}.json"
    before = record.read_bytes()
    result = castfs("rm", taken[:12])
    assert result.out == b""
    assert one_line(result.err).startswith(f"in the trash: {taken} ")
    assert (live(castfs), trashed(castfs)) == ([], [taken])
    [path] = (store / "trash").iterdir()
    assert path.read_bytes() == before
    castfs("show", taken, code=4)
    result = castfs("undelete", taken[:12])
    assert result.out == b""
    assert one_line(result.err).startswith(f"back: {taken} ")
    assert (live(castfs), trashed(castfs)) == ([taken], [])
    assert record.read_bytes() == before


def test_several_words(castfs: Run, three: list[str]) -> None:
    """Also several for the same one."""
    said = castfs("rm", three[0], "run:latest", three[2][:12], three[0]).err
    assert [line.split()[3] for line in said.splitlines()] == [three[0], three[2]]
    assert (live(castfs), set(trashed(castfs))) == ([three[1]], {three[0], three[2]})
    said = castfs("undelete", three[2], three[0]).err
    assert [line.split()[1] for line in said.splitlines()] == [three[2], three[0]]
    assert live(castfs) == three[::-1]


@pytest.mark.parametrize(
    "verb", [["rm"], ["rm", "--permanent", "--yes"], ["undelete"]], ids=" ".join
)
def test_all_or_nothing(castfs: Run, three: list[str], store: Path, verb: list[str]) -> None:
    if verb == ["undelete"]:
        castfs("rm", *three)
    before = state(store)
    line = one_line(castfs(*verb, three[0], "nothing", three[1], code=4).err)
    assert line.startswith("castfs: no snapshot nothing in ")
    one_line(castfs(*verb, three[0], "run", code=4).err)
    assert state(store) == before


@pytest.mark.parametrize(
    "verb", [["rm"], ["rm", "--permanent", "--yes"], ["undelete"]], ids=" ".join
)
def test_an_ambiguous_word_is_refused_with_its_list(
    castfs: Run, three: list[str], store: Path, verb: list[str]
) -> None:
    """A name that two have; digits that two have; a manifest that two have."""
    if verb == ["undelete"]:
        castfs("rm", *three)
    before = state(store)
    line = one_line(castfs(*verb, "run", code=4).err)
    assert line.startswith("castfs: run can mean 2 snapshots: ")
    assert line.index(three[2]) < line.index(three[1]), "newest first"
    assert three[0] not in line
    assert line.endswith("; give more digits, or NAME:latest for a name")
    twin = three[0][:20] + "0000"
    [path] = store.rglob(f"*{three[0]}.json")
    twin_path = path.with_name(path.name.replace(three[0], twin))
    twin_path.write_text(path.read_text().replace(three[0], twin))
    before = state(store)
    line = one_line(castfs(*verb, twin[:20], code=4).err)
    assert three[0] in line
    assert twin in line
    assert state(store) == before


def test_latest_is_the_newest_also_in_the_trash(castfs: Run, three: list[str], store: Path) -> None:
    """Whichever went there last."""
    castfs("rm", three[2])
    backdate(store, three[2])
    castfs("rm", three[1])
    assert trashed(castfs) == [three[1], three[2]]
    castfs("undelete", "run:latest")
    assert live(castfs) == [three[2], three[0]]
    # Of a live one and one in the trash, it is the live one.
    castfs("rm", "--permanent", "--yes", "run:latest")
    assert (live(castfs), trashed(castfs)) == ([three[0]], [three[1]])


def test_a_name_that_one_has(castfs: Run, three: list[str]) -> None:
    castfs("rm", three[2])
    castfs("rm", "run")
    assert live(castfs) == [three[0]]
    assert "in the trash already" in one_line(castfs("rm", "run", code=4).err)
    castfs("undelete", f"run@{three[1][:20]}")
    castfs("undelete", "run")
    assert live(castfs) == three[::-1]


def test_a_manifest_file_stands_for_its_snapshot(
    castfs: Run, tree: Path, tmp_path: Path, store: Path
) -> None:
    copy = tmp_path / "m.json"
    taken = castfs("ingest", "-q", tree, "-o", copy).text.strip()
    before = copy.read_bytes()
    castfs("rm", copy)
    assert (live(castfs), trashed(castfs)) == ([], [taken])
    assert copy.read_bytes() == before
    line = one_line(castfs("rm", copy, code=4).err)
    assert "in the trash already" in line
    castfs("undelete", copy)
    assert live(castfs) == [taken]
    line = one_line(castfs("undelete", copy, code=4).err)
    assert line.endswith(f"in the trash of {store}; see `castfs list --deleted`")
    castfs("rm", "--permanent", "--yes", copy)
    assert (live(castfs), trashed(castfs)) == ([], [])
    assert copy.read_bytes() == before


def test_a_manifest_file_of_two_snapshots(castfs: Run, tree: Path, tmp_path: Path) -> None:
    copy = tmp_path / "m.json"
    ids = [castfs("ingest", "-q", tree, "-o", copy).text.strip() for _ in range(2)]
    line = one_line(castfs("rm", copy, code=4).err)
    assert all(each in line for each in ids)
    assert live(castfs) == ids[::-1]


@pytest.mark.parametrize("verb", ["rm", "undelete"])
def test_a_manifest_file_that_is_none(castfs: Run, taken: str, tmp_path: Path, verb: str) -> None:
    line = one_line(castfs(verb, tmp_path / "missing.json", code=4).err)
    assert line == f"castfs: no manifest file {tmp_path}/missing.json; see `castfs list`"
    (tmp_path / "bad.json").write_text("{}")
    assert "bad.json" in one_line(castfs(verb, tmp_path / "bad.json", code=5).err)
    assert live(castfs) == [taken]


def test_what_is_in_the_trash_is_hinted_at(castfs: Run, three: list[str]) -> None:
    """For the word that was not found, and only for that."""
    castfs("rm", three[0])
    line = one_line(castfs("rm", three[0][:13], code=4).err)
    assert line.endswith("it is in the trash already; see `castfs list --deleted`")
    line = one_line(castfs("rm", "nothing", three[0], code=4).err)
    assert line.endswith("see `castfs list`")
    line = one_line(castfs("undelete", three[1], code=4).err)
    assert line.endswith("see `castfs list --deleted`")
    assert (
        "seven" in one_line(castfs("rm", "abc", code=4).err)
        or "7" in castfs("rm", "abc", code=4).err
    )


def test_json(castfs: Run, three: list[str]) -> None:
    result = castfs("rm", "--json", three[0], "run:latest")
    assert [record["id"] for record in result.json] == [three[0], three[2]]
    assert result.json[1]["name"] == "run"
    newest = castfs("list", "--deleted", "--json").json[0]
    assert newest["record"]["id"] == three[2]
    assert newest["deleted_at"].endswith("+00:00")
    assert newest["deleted_at"] > newest["record"]["created_at"]
    result = castfs("undelete", "--json", three[0])
    assert [record["id"] for record in result.json] == [three[0]]
    result = castfs("rm", "--json", "--permanent", "--yes", three[2])
    assert [record["id"] for record in result.json] == [three[2]]


def test_list_deleted(castfs: Run, three: list[str], tree: Path, store: Path) -> None:
    assert one_line(castfs("list", "--deleted").err).startswith("no snapshots in the trash of ")
    castfs("rm", three[2])
    backdate(store, three[2])
    castfs("rm", three[0])
    rows = [line.split() for line in castfs("list", "--deleted").text.splitlines()]
    titles = ["ID", "DATE", "DELETED", "NAME", "FILES", "SIZE", "MANIFEST", "SOURCE"]
    assert rows[0] == titles
    assert [row[0] for row in rows[1:]] == [three[0][:12], three[2][:12]], "the last deleted first"
    assert castfs("list", "--deleted", "-q", "-n", "1").text.split() == [three[0]]
    assert castfs("list", "--deleted", "-q", "--name", "run").text.split() == [three[2]]
    assert castfs("list", "--deleted", "-q", "--source", tree).text.split() == [three[0], three[2]]
    assert "no such snapshots in the trash" in castfs("list", "--deleted", "--tag", "x").err


# For good ---------------------------------------------------------------------------------------


CTRL_C = "\x03"


def answer(tmp_path: Path, typed: str, *args: str) -> tuple[int, str]:
    """What `castfs rm --permanent` does on a terminal of its own where `typed` is typed once it
    asks. Returns its exit code and all it printed."""
    parent, child = pty.openpty()
    process = subprocess.Popen(
        ["setsid", "--ctty", "--wait", *command("rm", "--permanent", *args)],
        stdin=child,
        stdout=child,
        stderr=child,
        cwd=tmp_path,
        env=environment(TERM="xterm"),
    )
    os.close(child)
    printed = b""
    with process, open(parent, "r+b", buffering=0) as terminal:
        with contextlib.suppress(OSError):  # EIO: the last process that had the terminal is gone
            asked = False
            while True:
                if select.select([terminal], [], [], 0.2)[0]:
                    printed += terminal.read(65536)
                elif typed == CTRL_C and asked:
                    # It came between Python's last look at signals and its read(2).
                    terminal.write(typed.encode())
                if not asked and b"[y/N]" in printed:
                    terminal.write(typed.encode())
                    asked = True
        code = process.wait(TIMEOUT)
    return code, printed.decode().replace("\r\n", "\n")


def test_permanent_asks(castfs: Run, three: list[str], tmp_path: Path) -> None:
    castfs("rm", three[0])
    code, text = answer(tmp_path, "n\n", three[0], three[1])
    assert code == 1
    assert three[0] in text
    assert three[1] in text
    assert "Delete 2 snapshots for good? [y/N]" in text
    assert "Traceback" not in text
    assert (len(live(castfs)), len(trashed(castfs))) == (2, 1)
    code, _ = answer(tmp_path, "\n", three[0])
    assert code == 1, "no is the default"
    assert trashed(castfs) == [three[0]]
    code, text = answer(tmp_path, "y\n", three[0], three[1])
    assert code == 0
    assert text.count("deleted: ") == 2
    assert (live(castfs), trashed(castfs)) == ([three[2]], [])


@pytest.mark.parametrize("typed", [CTRL_C, "\x04"], ids=["ctrl-c", "ctrl-d"])
def test_permanent_is_not_answered(castfs: Run, taken: str, tmp_path: Path, typed: str) -> None:
    code, text = answer(tmp_path, typed, taken)
    assert code == (130 if typed == CTRL_C else 1)
    assert "Traceback" not in text
    assert live(castfs) == [taken]


def test_permanent_without_a_terminal(castfs: Run, program: Run, three: list[str]) -> None:
    """The program's stdin is no terminal."""
    result = program("rm", "--permanent", three[0], code=2)
    assert "--yes" in result.err.splitlines()[-1]
    assert live(castfs) == three[::-1]
    said = program("rm", "--permanent", "-y", three[0]).err.splitlines()
    assert said[0].startswith(f"deleted: {three[0]} ")
    assert "castfs gc" in said[1]
    assert (live(castfs), trashed(castfs)) == (three[:0:-1], [])
    assert "see `castfs list`" in program("rm", "--permanent", "-y", three[0], code=4).err


# Damage -----------------------------------------------------------------------------------------


def test_a_damaged_record(castfs: Run, three: list[str], store: Path) -> None:
    """It is in nobody's way who says an id, but might be what a name means."""
    path = store / "snapshots" / f"{three[1]}.json"
    path.write_text("{")
    assert three[1] in one_line(castfs("rm", three[1], code=5).err)
    assert three[1] in one_line(castfs("rm", "run", code=5).err)
    assert three[1] in one_line(castfs("forget", "--keep-last", "1", code=5).err)
    assert len(list((store / "snapshots").iterdir())) == 3
    castfs("rm", three[0])
    castfs("undelete", three[0])
    castfs("rm", "--permanent", "--yes", three[0])
    assert castfs("list", "-q", code=5).text.split() == [three[2]]


def test_a_damaged_entry_of_the_trash(castfs: Run, three: list[str], store: Path) -> None:
    castfs("rm", *three)
    [path] = (store / "trash").glob(f"*-{three[1]}.json")
    path.chmod(0o644)
    path.write_text("{")
    result = castfs("list", "--deleted", "-q", code=5)
    assert result.text.split() == [three[2], three[0]]
    assert path.name in one_line(result.err)
    assert path.name in one_line(castfs("undelete", "run:latest", code=5).err)
    castfs("undelete", three[0])
    assert live(castfs) == [three[0]]
    castfs("rm", three[0])  # nothing to do with the other


def test_a_store_without_a_trash_directory(castfs: Run, taken: str, store: Path) -> None:
    """Tools that copy a store may leave out what is empty."""
    (store / "trash").rmdir()
    assert live(castfs) == [taken]
    assert trashed(castfs) == []
    one_line(castfs("rm", taken, code=1).err)
    assert live(castfs) == [taken]


def test_the_same_record_in_both_places(castfs: Run, taken: str, store: Path) -> None:
    """A backup of `snapshots` that was put back."""
    record = store / "snapshots" / f"{taken}.json"
    shutil.copy(record, store.parent / "backup")
    castfs("rm", taken)
    # A clock tick ago: two in one tick are the same file.
    [first] = (store / "trash").iterdir()
    first.rename(first.with_name(f"{int(first.name[:12], 16) - 10:012x}{first.name[12:]}"))
    shutil.copy(store.parent / "backup", record)
    castfs("rm", taken)
    assert (live(castfs), trashed(castfs)) == ([], [taken, taken])
    castfs("undelete", taken)
    assert live(castfs) == [taken]
    castfs("rm", "--permanent", "--yes", taken)
    assert (live(castfs), trashed(castfs)) == ([], [])


def test_names_that_would_break_a_line(castfs: Run, tree: Path, store: Path) -> None:
    odd = tree.parent / "odd\n\x1b[31m"
    tree.rename(odd)
    taken = castfs("ingest", "-q", odd).text.strip()
    line = one_line(castfs("rm", taken).err)
    assert taken in line
    assert castfs("undelete", "--json", taken).json[0]["source"] == str(odd)
    record = json.loads((store / "snapshots" / f"{taken}.json").read_text())
    assert record["source"] == str(odd)


# Who completes words ----------------------------------------------------------------------------


def complete(program: Run, words: str, at: int) -> list[str]:
    result = program(_CASTFS_COMPLETE="bash_complete", COMP_WORDS=words, COMP_CWORD=str(at))
    assert result.err == ""
    return [line.partition(",")[2] for line in result.text.splitlines() if line]


def test_completion(castfs: Run, program: Run, three: list[str]) -> None:
    castfs("rm", three[1])
    assert complete(program, "castfs rm ", 2) == [three[2][:12], "run", three[0][:12]]
    assert complete(program, "castfs undelete ", 2) == [three[1][:12], "run"]
    assert complete(program, f"castfs rm {three[0]} r", 3) == ["run"]
    assert complete(program, "castfs verify r", 2) == ["run"]
    castfs("undelete", three[1])
    assert complete(program, "castfs undelete ", 2) == []


USAGE = [
    ["rm"],
    ["rm", ""],
    ["rm", "--yes"],
    ["rm", "--permanently", "x"],
    ["undelete"],
    ["undelete", ""],
    ["list", "--deleted", "-q", "--json"],
]


@pytest.mark.parametrize("args", USAGE, ids=" ".join)
def test_usage(castfs: Run, taken: str, args: list[str]) -> None:
    result = castfs(*args, code=2)
    assert result.out == b""
    assert ";" in one_line(result.err), "no hint"


@pytest.mark.parametrize("verb", ["rm", "undelete"])
def test_no_store(castfs: Run, store: Path, verb: str) -> None:
    one_line(castfs(verb, "0123456789", code=10).err)
    assert not store.exists()
