"""alias, tag, meta, search, log: what is said of snapshots."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from castfs.cli.metadata import parse_value
from tests.cli.conftest import Run, one_line
from tests.cli.test_completion import complete

HOSTILE = "\x1b[31mred\nx\u202e"


@pytest.fixture
def two(castfs: Run, tree: Path) -> None:
    """m:v1 and m:v2."""
    castfs("ingest", tree, "--name", "m")
    (tree / "a.txt").write_text("changed\n")
    castfs("ingest", tree, "--name", "m")


def test_alias(castfs: Run, two: None) -> None:
    assert one_line(castfs("alias", "m:v1", "best").err) == "m:best is v1\n".strip()
    assert one_line(castfs("alias", "m:latest", "best").err) == "m:best is v2; it was v1"
    assert one_line(castfs("alias", "m:v2", "best").err) == "m:best is v2 already"
    moved = castfs("alias", "--json", "m:best", "other").json
    assert moved == {"name": "m", "alias": "other", "before": None, "version": 2}
    listed, history = castfs("alias", "m").text.split("\n\n")
    assert [row.split() for row in listed.splitlines()] == [
        ["ALIAS", "VERSION"], ["best", "v2"], ["other", "v2"],
    ]  # fmt: skip
    assert [row.split()[2:5] for row in history.splitlines()[1:]] == [
        ["other", "-", "v2"], ["best", "v1", "v2"], ["best", "-", "v1"],
    ]  # fmt: skip
    assert one_line(castfs("alias", "-d", "m:best").err) == "m:best is gone; it was v2"
    document = castfs("alias", "--json", "m").json
    assert (document["latest"], document["aliases"]) == (2, {"other": 2})
    assert document["history"][0]["version"] is None


@pytest.mark.parametrize(
    ("args", "code"),
    [
        (["m:v1", "latest"], 2), (["m:v1", "v3"], 2), (["m:v9", "x"], 4), (["m", "x"], 4),
        (["-d", "m"], 2), (["-d", "m:none"], 4), (["-d", "m:x", "y"], 2), (["nosuch"], 4), ([], 2),
        (["m:v1"], 2),
    ],
)  # fmt: skip
def test_alias_mistakes(castfs: Run, two: None, args: list[str], code: int) -> None:
    assert ";" in one_line(castfs("alias", *args, code=code).err)
    assert castfs("alias", "--json", "m").json["aliases"] == {}


def test_tag(castfs: Run, two: None, taken: str) -> None:
    assert one_line(castfs("tag", "m:v1", "a", "b", "a").err) == "tags of m:v1: a, b"
    assert one_line(castfs("tag", "m:v1", "c").err) == "tags of m:v1: a, b, c"
    assert castfs("tag", "-d", "--json", "m:v1", "b").json["tags"] == ["a", "c"]
    castfs("tag", taken, "unnamed")
    assert castfs("list", "-q", "--tag", "unnamed").text.strip() == taken
    assert castfs("list", "-q", "--tag", "a", "--tag", "c").text.count("\n") == 1
    assert "no tag zzz" in one_line(castfs("tag", "-d", "m:v1", "zzz", code=4).err)
    castfs("tag", "m", "x", code=4)  # both have that name
    castfs("tag", "m:v1", code=2)
    castfs("tag", "m:v1", "", code=2)
    assert castfs("list", "-q", "--tag", "x").out == b""


def test_meta(castfs: Run, two: None) -> None:
    said = castfs("meta", "m:v1", "acc=0.95", "name=ResNet50", "ok=true", "none=null", "n=-3")
    assert [line.split() for line in said.text.splitlines()] == [
        ["acc", "0.95"], ["name", "ResNet50"], ["ok", "true"], ["none", "null"], ["n", "-3"],
    ]  # fmt: skip
    expected: dict[str, Any] = {
        "acc": 0.95, "name": "ResNet50", "ok": True, "none": None, "n": -3,
    }  # fmt: skip
    assert castfs("meta", "m:v1", "--json").json == expected
    del expected["ok"], expected["none"]
    castfs("meta", "m:v1", "acc=1", "--unset", "ok", "--unset", "none")
    assert castfs("show", "m:v1", "--json").json["record"]["metadata"] == {**expected, "acc": 1}
    for args, code in (
        (["k"], 2), (["=v"], 2), (["k=1", "k=2"], 2), (["--unset", "nokey"], 4),
        (["k=1", "--unset", "k"], 2),
    ):  # fmt: skip
        assert ";" in one_line(castfs("meta", "m:v1", *args, code=code).err)
    assert one_line(castfs("meta", "m:v2").err) == "no metadata"


@pytest.mark.parametrize(
    ("text", "value"),
    [
        ("5", 5), ("-5", -5), ("0.50", 0.5), ("1e-4", 1e-4), ("3E8", 3e8), ("1.5e+10", 1.5e10),
        ("true", True), ("false", False), ("null", None), ("True", "True"), ("", ""), ("01", "01"),
        ("1.", "1."), (".5", ".5"), ("NaN", "NaN"), ("Infinity", "Infinity"), ("1e999", "1e999"),
        ("12345e6", "12345e6"), ("9" * 30, "9" * 30), ('"5"', '"5"'), ("{}", "{}"),
    ],
)  # fmt: skip
def test_values(text: str, value: Any) -> None:
    parsed = parse_value(text)
    assert (parsed, type(parsed)) == (value, type(value))


def test_search(castfs: Run, tree: Path) -> None:
    one = castfs(
        "ingest", "-q", tree, "--name", "ResNet50", "--type", "model", "--tag", "prod",
        "--meta", "data=imagenet:v2", "--message", "Längerer Lauf",
    ).text.strip()  # fmt: skip
    other = castfs("ingest", "-q", tree / "sub").text.strip()

    def found(*words: str) -> list[str]:
        return castfs("search", "-q", *words).text.split()

    for word in ("resnet", "RESNET50:V1", "model", "prod", "data=imagenet:v2", "längerer lauf"):
        assert found(word) == [one], word
    assert found(str(tree)) == [other, one], "the source"
    assert found("resnet", "prod") == [one]
    assert found(str(tree), "-n", "1") == [other]
    assert castfs("search", "--json", "prod").json[0]["id"] == one
    assert castfs("search", "prod").text.splitlines()[1].split()[3] == "ResNet50:v1"
    assert one_line(castfs("search", "resnet", "nothing", code=4).err)
    castfs("alias", "ResNet50:v1", "shipped")
    assert found("shipped") == found("resnet", "SHIP") == [one]
    castfs("search", "", code=2)
    castfs("search", code=2)
    castfs("rm", "--force", one)
    castfs("search", "prod", code=4)


def test_log(castfs: Run, two: None, tree: Path) -> None:
    castfs("alias", "m:v1", "best")
    castfs("alias", "m:v2", "best")
    castfs("rm", "m:v1")
    castfs("undelete", "m:v1")
    castfs("rm", "--permanent", "--yes", "m:v1")
    castfs("alias", "-d", "m:best")
    unnamed = castfs("ingest", "-q", tree).text.strip()
    castfs("rm", unnamed)
    events = [(e["kind"], e["version"], e["alias"]) for e in castfs("log", "--json", "m").json]
    assert events == [
        ("unalias", 2, "best"), ("delete", 1, None), ("undelete", 1, None), ("remove", 1, None),
        ("alias", 2, "best"), ("alias", 1, "best"), ("version", 2, None), ("version", 1, None),
    ]  # fmt: skip
    text = castfs("log", "m").text
    assert "m:best = v2; was v1" in text
    assert len(text.splitlines()) == 9
    everything = castfs("log", "--json").json
    kinds = [(event["kind"], event["id"]) for event in everything if event["name"] is None]
    assert kinds == [("remove", unnamed), ("snapshot", unnamed)]
    assert castfs("log", "-n", "1", "--json", "m").json[0]["kind"] == "unalias"
    castfs("log", "nosuch", code=4)


def test_empty_log(castfs: Run) -> None:
    castfs("init")
    assert castfs("log", "--json").json == []
    assert one_line(castfs("log").err).startswith("nothing happened in ")


def test_hostile_text_is_one_line(castfs: Run, tree: Path) -> None:
    castfs(
        "ingest", tree, "--name", "m", "--tag", HOSTILE, "--meta", f"{HOSTILE}={HOSTILE}",
        "--message", HOSTILE, "--alias", "best",
    )  # fmt: skip
    castfs("ingest", tree, "--name", "m", "--new-version")
    castfs("reference", "r", "s3://b/x", "--message", HOSTILE, "--meta", f"k={HOSTILE}")
    for args in (
        ["list"], ["list", "--artifacts"], ["versions", "m"], ["show", "m:v1"], ["show", "r:v1"],
        ["meta", "m:v1"], ["log"], ["search", "red"], ["alias", "m"], ["stats"],
        ["diff", "m:v1", "m:v2"], ["tag", "m:v1", "more"], ["tag", "-d", "m:v1", HOSTILE],
    ):  # fmt: skip
        result = castfs(*args)
        lines = (result.text + result.err).splitlines()
        assert all(line.isprintable() for line in lines), args
    for args in (
        ["alias", "-d", f"m:{HOSTILE}"], ["tag", "-d", "m:v1", HOSTILE], ["search", f"{HOSTILE}y"],
        ["meta", "m:v1", "--unset", "no" + HOSTILE],
    ):  # fmt: skip
        one_line(castfs(*args, code=4).err)
    for args in (["versions", HOSTILE], ["log", HOSTILE], ["reference", "r", HOSTILE]):
        one_line(castfs(*args, code=2).err)


def test_names_and_aliases_are_completed(castfs: Run, program: Run, two: None) -> None:
    castfs("alias", "m:v1", "best")
    assert complete(program, "castfs versions ", 2) == ["m"]
    assert complete(program, "castfs log m", 2) == ["m"]
    assert complete(program, "castfs show m:", 2) == ["m:v2", "m:v1", "m:best"]
    assert complete(program, "castfs ingest --type mo", 3) == ["model"]


@pytest.mark.parametrize(
    "args",
    [
        ["versions", "m"], ["alias", "m"], ["alias", "m:v1", "x"], ["tag", "m", "x"],
        ["meta", "m", "k=1"], ["search", "x"], ["log"], ["catalog", "rebuild"],
    ],
    ids=" ".join,
)  # fmt: skip
def test_no_store(castfs: Run, store: Path, args: list[str]) -> None:
    assert ";" in one_line(castfs(*args, code=10).err)
    assert not store.exists()
