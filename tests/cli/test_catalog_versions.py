"""ingest, list, versions, show, rm, undelete, catalog: names and their versions."""

from __future__ import annotations

import re
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest

from tests.cli.conftest import Run, one_line


@pytest.fixture
def model(castfs: Run, tree: Path) -> list[str]:
    """The ids of resnet:v1 and v2."""
    first = castfs(
        "ingest", "-q", tree, "--name", "resnet", "--type", "model", "--alias", "production",
        "--alias", "best", "--meta", "val_acc=0.91", "--tag", "old",
    ).text.strip()  # fmt: skip
    (tree / "a.txt").write_text("changed\n")
    second = castfs(
        "ingest", "-q", tree, "--name", "resnet", "--meta", "val_acc=0.95", "--meta", "n=1e-4",
        "--message", "longer",
    ).text.strip()  # fmt: skip
    return [first, second]


def test_ingest_says_the_version(castfs: Run, tree: Path) -> None:
    said = castfs("ingest", tree, "--name", "team/data").text.splitlines()
    assert re.fullmatch(r"snapshot [0-9a-f]{24}", said[0])
    assert said[1] == "version team/data:v1"
    again = castfs("ingest", tree, "--name", "team/data").text.splitlines()
    assert again[:2] == [said[0], "unchanged: team/data:v1"]
    forced = castfs("ingest", tree, "--name", "team/data", "--new-version").text.splitlines()
    assert forced[1] == "version team/data:v2"
    document = castfs("ingest", "--json", tree, "--name", "team/data").json
    assert (document["name"], document["version"], document["unchanged"]) == ("team/data", 2, True)
    assert castfs("ingest", "-q", tree, "--name", "team/data").text.strip() == document["id"]
    assert "version" not in castfs("ingest", tree).text


def test_list(castfs: Run, model: list[str], tree: Path) -> None:
    data = castfs("ingest", "-q", tree, "--name", "team/data", "--type", "dataset").text.strip()

    def ids(*args: str) -> list[str]:
        return castfs("list", "-q", *args).text.split()

    assert ids("--type", "model") == model[::-1]
    assert ids("--name", "team/*") == ids("team/*") == ids("team/data") == [data]
    assert ids("resnet", "-n", "1") == model[1:]
    castfs("list", "resnet", "--name", "resnet", code=2)
    assert ids("--name", "res*", "--meta", "val_acc=0.95") == model[1:]
    assert ids("--meta", "val_acc=0.9") == []
    assert ids("--meta", "n=0.0001") == model[1:], "a number is a number, however it is written"
    assert ids("--since", "1h") == [data, *model[::-1]]
    tomorrow = (datetime.now(UTC) + timedelta(days=1)).isoformat()
    assert ids("--since", tomorrow) == []
    names = [row.split()[3] for row in castfs("list").text.splitlines()[1:]]
    assert names == ["team/data:v1", "resnet:v2", "resnet:v1"]


def test_list_of_artifacts(castfs: Run, model: list[str], tree: Path) -> None:
    castfs("ingest", tree, "--name", "data", "--type", "dataset", "--tag", "raw")
    castfs("ingest", tree)
    header, *rows = castfs("list", "--artifacts").text.splitlines()
    assert header.split() == ["NAME", "TYPE", "VERSIONS", "SIZE", "LATEST", "TAGS", "ALIASES"]
    assert [row.split() for row in rows] == [
        ["data", "dataset", "1", "34", "B", "v1", "raw", "-"],
        ["resnet", "model", "2", "34", "B", "v2", "-", "best=v1,", "production=v1"],
    ]
    assert castfs("list", "--artifacts", "-q", "--type", "model").text == "resnet\n"
    assert castfs("list", "--artifacts", "-q", "--meta", "val_acc=0.91").text == "", "of the latest"
    [document] = castfs("list", "--artifacts", "--json", "--name", "r*").json
    assert document["version_count"] == document["latest"] == 2
    assert document["aliases"] == {"best": 1, "production": 1}
    assert one_line(castfs("list", "--artifacts", "--tag", "none").err).startswith("no such names")
    castfs("list", "--artifacts", "--deleted", code=2)


def test_versions(castfs: Run, model: list[str]) -> None:
    castfs("rm", "resnet:v2")
    header, *rows = castfs("versions", "resnet").text.splitlines()
    assert header.split() == [
        "VERSION", "CREATED", "SIZE", "FILES", "RUN", "BY", "STATUS", "ALIASES", "ID",
    ]  # fmt: skip
    assert [(row.split()[0], row.split()[8]) for row in rows] == [
        ("v1", "ready"),
        ("v2", "deleted"),
    ]
    assert "best, production" in rows[0]
    assert castfs("versions", "-q", "resnet").text.split() == model
    first, second = castfs("versions", "--json", "resnet").json
    assert (first["status"], first["record"]["version"]) == ("ready", 1)
    assert (second["status"], second["deleted_at"] is None) == ("deleted", False)
    assert "nosuch" in one_line(castfs("versions", "nosuch", code=4).err)
    assert one_line(castfs("versions", "resnet:v1", code=2).err)


def test_show(castfs: Run, model: list[str], tree: Path) -> None:
    castfs("ingest", "-q", tree / "sub", "--name", "eval", "--meta", "model=resnet:v1")
    text = castfs("show", "resnet:v1").text
    for pattern in (
        r"^name +resnet:v1$", r"^type +model$", r"^status +ready$",
        r"^aliases +best, production$", r"^named by +eval:v1$", r"^tags +old$",
        r"^  val_acc  0\.91$", r"^files \(4\)\n  a\.txt \(6 B\)$",
    ):  # fmt: skip
        assert re.search(pattern, text, re.MULTILINE), pattern
    document = castfs("show", "--json", "resnet:v1").json
    assert document["record"]["metadata"] == {"val_acc": 0.91}
    assert document["aliases"] == ["best", "production"]
    assert {file["path"]: file["size_bytes"] for file in document["files"]} == {
        "a.txt": 6, "run.sh": 10, "sub/b.txt": 5, "sub/deep/c.py": 11,
    }  # fmt: skip
    assert castfs("show", "--json", "resnet:best").json == document
    assert castfs("show", "--json", "resnet").json["record"]["version"] == 2


def test_show_lists_the_first_files_alone(castfs: Run, tmp_path: Path) -> None:
    many = tmp_path / "many"
    many.mkdir()
    for number in range(30):
        (many / f"{number:02}").touch()
    snapshot = castfs("ingest", "-q", many).text.strip()
    text = castfs("show", snapshot).text
    assert text.count(" (0 B)") == 10
    assert f"and 20 more: castfs ls -R {snapshot[:12]}" in text
    assert len(castfs("show", "--json", snapshot).json["files"]) == 30


def test_rm_and_undelete(castfs: Run, model: list[str]) -> None:
    line = one_line(castfs("rm", "resnet:v1", code=11).err)
    assert "resnet:v1 is used by alias best, alias production" in line
    assert "--force" in line
    castfs("rm", "--all-versions", "resnet", code=11)
    assert castfs("list", "-q").text.split() == model[::-1], "nothing was removed"
    castfs("rm", "resnet", code=4)
    removed = castfs("rm", "--json", "--force", "--all-versions", "resnet").json
    assert sorted(record["version"] for record in removed) == [1, 2]
    castfs("show", "resnet:best", code=4)
    castfs("undelete", "resnet:v1")
    assert castfs("list", "-q").text.split() == model[:1]
    castfs("undelete", "--all-versions", "resnet")
    assert castfs("list", "-q").text.split() == model[::-1]
    castfs("rm", "--permanent", "--yes", "--all-versions", "resnet", code=11)
    castfs("rm", "--permanent", "--yes", "--all-versions", "--force", "resnet")
    assert "the last was v2" in one_line(castfs("versions", "resnet", code=4).err)
    castfs("undelete", "--all-versions", "resnet", code=4)


def test_catalog_rebuild(castfs: Run, model: list[str], store: Path) -> None:
    before = castfs("list", "--artifacts", "--json").json, castfs("log", "--json").json
    for file in store.glob("catalog.db*"):
        file.unlink()
    assert castfs("catalog", "rebuild").text == f"the catalog of {store} knows 2 snapshots\n"
    assert castfs("catalog", "rebuild", "--json").json["snapshot_count"] == 2
    assert (castfs("list", "--artifacts", "--json").json, castfs("log", "--json").json) == before
    castfs("catalog", "drop", code=2)


def test_diff_shows_what_is_said(castfs: Run, model: list[str]) -> None:
    result = castfs("diff", "resnet:v1", "resnet:v2")
    assert result.text.splitlines() == [
        "M a.txt (content, mtime)",
        "= tag removed: old",
        "= metadata n: - -> 0.0001",
        "= metadata val_acc: 0.91 -> 0.95",
        "= message: - -> longer",
    ]
    document = castfs("diff", "--json", "resnet:v1", "resnet:v2").json
    assert document["changed_count"] == 1
    assert {"kind": "metadata", "key": "val_acc", "before": 0.91, "after": 0.95} in document[
        "details"
    ]
    assert castfs("diff", "-q", "resnet:v1", "resnet:v2").text == "a.txt\n"
    castfs("meta", "resnet:v1", "val_acc=0.95")
    assert castfs("diff", "resnet:v1", "resnet:v1").out == b""


def test_what_differs_beside_the_tree_is_no_difference_of_it(castfs: Run, tree: Path) -> None:
    castfs("ingest", tree, "--name", "m")
    castfs("ingest", tree, "--name", "m", "--new-version", "--meta", "k=1")
    result = castfs("diff", "--exit-code", "m:v1", "m:v2")
    assert result.text == "= metadata k: - -> 1\n"


def test_a_mistake_makes_no_store(castfs: Run, tree: Path, store: Path) -> None:
    for args in (
        ["--alias", "x"], ["--new-version"], ["--name", "m", "--alias", "latest"],
        ["--name", "m", "--type", "a b"], ["--name", "m", "--meta", "k=1", "--meta", "k=2"],
    ):  # fmt: skip
        assert ";" in one_line(castfs("ingest", tree, *args, code=2).err)
    castfs("reference", "m", "", code=2)
    castfs("reference", "m", "s3://b/x", "--checksum", "sha256:12", code=2)
    castfs("list", "--artifacts", code=10)
    assert not store.exists()
