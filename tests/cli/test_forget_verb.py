"""forget: what is asked for, what is said, and what goes to the trash."""

from __future__ import annotations

import json
import re
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest

from tests.cli.conftest import Run, one_line


@pytest.fixture
def history(castfs: Run, tree: Path, store: Path) -> list[str]:
    """Ids of four snapshots of `tree`, a day apart, oldest first; the second has tags x and y."""
    ids = []
    for number in range(4):
        (tree / "a.txt").write_text(f"content {number}")
        tags = ["--tag", "x", "--tag", "y"] if number == 1 else []
        ids.append(castfs("ingest", "-q", tree, *tags).text.strip())
        day = datetime(2024, 5, 10, 12, tzinfo=UTC) + timedelta(days=number)
        rewrite(store, ids[-1], created_at=day.isoformat())
    return ids


def rewrite(store: Path, record_id: str, **changes: str) -> None:
    path = store / "snapshots" / f"{record_id}.json"
    record = json.loads(path.read_text())
    path.chmod(0o644)
    path.write_text(json.dumps({**record, **changes}))


def live(castfs: Run) -> list[str]:
    return castfs("list", "-q").text.split()


def test_to_the_trash(castfs: Run, history: list[str], tree: Path) -> None:
    result = castfs("forget", "--keep-last", "1", "--keep-tag", "x,y")
    rows = result.text.splitlines()
    assert re.fullmatch(rf"{re.escape(str(tree))} on \S+: 2 kept, 2 removed", rows[0])
    assert rows[1].split() == ["VERSION", "ID", "DATE", "KEPT", "BY"]
    assert [(*row.split()[:3], row.split()[-1]) for row in rows[2:]] == [
        ("keep", "-", history[3][:12], "last"),
        ("remove", "-", history[2][:12], "-"),
        ("keep", "-", history[1][:12], "tag"),
        ("remove", "-", history[0][:12], "-"),
    ]
    assert one_line(result.err).startswith("2 snapshots went to the trash; `castfs undelete` ")
    assert live(castfs) == [history[3], history[1]]
    castfs("undelete", history[0], history[2])
    assert live(castfs) == history[::-1]


def test_dry_run_says_what_the_real_one_does(castfs: Run, history: list[str], store: Path) -> None:
    keep = ["forget", "--keep-within", "1d", "--json"]
    planned = castfs(*keep, "--dry-run").json
    assert live(castfs) == history[::-1]
    castfs("forget", "--keep-within", "1d", "-n", "--gc")
    assert live(castfs) == history[::-1]
    done = castfs(*keep).json
    assert (planned.pop("dry_run"), done.pop("dry_run")) == (True, False)
    assert planned == done
    [group] = done["groups"]
    assert [each["record"]["id"] for each in group["kept"]] == [history[3], history[2]]
    assert [each["id"] for each in group["removed"]] == [history[1], history[0]]
    assert live(castfs) == [history[3], history[2]]
    assert "1 snapshot would go" in castfs("forget", "--keep-last", "1", "-n").err


def test_gc_follows(castfs: Run, history: list[str]) -> None:
    """What was forgotten is in the trash, so its contents stay."""
    result = castfs("forget", "--keep-last", "1", "--gc", "--json").json
    assert result["gc"]["kept"]["trash"]["count"] == 3
    assert result["gc"]["deleted"]["count"] == 0
    assert len(result["forget"]["groups"][0]["removed"]) == 3
    text = castfs("forget", "--keep-last", "1", "--gc").text
    assert text.index("1 kept, 0 removed") < text.index("kept by trash")


def test_what_was_forgotten_is_told_even_if_gc_fails(
    castfs: Run, history: list[str], store: Path
) -> None:
    (store / "leases" / "stranger").touch()
    result = castfs("forget", "--keep-last", "1", "--gc", code=5)
    assert "1 kept, 3 removed" in result.text
    assert "3 snapshots went to the trash" in result.err
    assert "stranger" in result.err.splitlines()[-1]


def test_groups_and_filters(castfs: Run, history: list[str], tree: Path, tmp_path: Path) -> None:
    """By name wherever it came from, else by host and source; filters leave the others alone."""
    other = tmp_path / "other"
    other.mkdir()
    (other / "file").write_text("1")
    named = [castfs("ingest", "-q", place, "--name", "run").text.strip() for place in (tree, other)]
    elsewhere = [castfs("ingest", "-q", other).text.strip() for _ in range(2)]
    groups = castfs("forget", "--keep-last", "1", "--dry-run", "--json").json["groups"]
    found = {group["name"] or group["source"]: group for group in groups}
    assert set(found) == {"run", str(tree), str(other)}
    assert [each["id"] for each in found["run"]["removed"]] == [named[0]]
    assert found["run"]["host"] is None
    assert len(found[str(tree)]["removed"]) == 3
    castfs("forget", "--keep-last", "1", "--name", "run")
    assert live(castfs) == [*elsewhere[::-1], named[1], *history[::-1]]
    castfs("forget", "--keep-last", "1", "--source", other)
    # One of that source has a name, and is a group of its own.
    assert live(castfs) == [elsewhere[1], named[1], *history[::-1]]
    assert castfs("forget", "--keep-last", "1", "--name", "nobody").text == ""


def test_hosts_are_apart(castfs: Run, history: list[str], store: Path) -> None:
    rewrite(store, history[0], host="elsewhere")
    castfs("forget", "--keep-last", "1")
    assert live(castfs) == [history[3], history[0]]


def test_a_record_without_a_time(castfs: Run, history: list[str], store: Path) -> None:
    rewrite(store, history[0], created_at="yesterday")
    assert history[0] in one_line(castfs("forget", "--keep-daily", "1", code=5).err)
    assert live(castfs) == history[::-1]


USAGE = [
    [],
    ["--dry-run"],
    ["--name", "x", "--gc"],
    ["--keep-last", "0"],
    ["--keep-last", "-1"],
    ["--keep-last", "many"],
    ["--keep-within", "30"],
    ["--keep-within", "-1d"],
    ["--keep-within", ""],
    ["--keep-within", "6m"],
    ["--keep-within", "1y5m7d"],
    ["--keep-tag", ""],
    ["--keep-tag", "a,"],
]


@pytest.mark.parametrize("args", USAGE, ids=" ".join)
def test_usage(castfs: Run, taken: str, args: list[str]) -> None:
    """Months of restic are refused, not taken for minutes; so is a shell's unset variable."""
    result = castfs("forget", *args, code=2)
    assert result.out == b""
    assert ";" in one_line(result.err), "no hint"
    assert live(castfs) == [taken]


@pytest.mark.parametrize("more", [[], ["--dry-run"], ["--gc"], ["--json"]], ids=" ".join)
def test_a_policy_that_would_keep_nothing_of_a_group(
    castfs: Run, history: list[str], tree: Path, more: list[str]
) -> None:
    """A tag that nobody has, or that only snapshots of another group have: none is moved, of no
    group."""
    named = castfs("ingest", "-q", tree, "--name", "run").text.strip()
    for tag, group in (("missing", ""), ("x", "run")):
        result = castfs("forget", "--keep-tag", tag, *more, code=2)
        assert result.out == b""
        assert group in one_line(result.err)
        assert "--keep-last 1" in result.err
        assert live(castfs) == [named, *history[::-1]]
    castfs("forget", "--keep-tag", "x", "--keep-last", "1")
    assert live(castfs) == [named, history[3], history[1]]


@pytest.mark.parametrize("age", ["90min", "1y5d7h", "2w", "0", "1.5d", "1000y"])
def test_ages(castfs: Run, taken: str, age: str) -> None:
    castfs("forget", "--keep-within", age)
    assert live(castfs) == [taken]


def test_no_store(castfs: Run, store: Path) -> None:
    one_line(castfs("forget", "--keep-last", "1", code=10).err)
    assert not store.exists()


def test_versions_are_named(castfs: Run, tree: Path) -> None:
    for content in "12":
        (tree / "a.txt").write_text(content)
        castfs("ingest", "-q", tree, "--name", "m")
    rows = castfs("forget", "--name", "m", "--keep-last", "1", "--dry-run").text.splitlines()
    assert [row.split()[:2] for row in rows[2:]] == [["keep", "v2"], ["remove", "v1"]]
