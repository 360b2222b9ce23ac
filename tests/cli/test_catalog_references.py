"""reference, verify, stats: what is too large to take."""

from __future__ import annotations

import hashlib
import re
from pathlib import Path

import pytest

from castfs.repository.referencing import local_path
from tests.cli.conftest import Run, one_line


def checksum(path: Path) -> str:
    return f"sha256:{hashlib.sha256(path.read_bytes()).hexdigest()}"


def test_reference(castfs: Run, store: Path) -> None:
    result = castfs(
        "reference", "imagenet", "s3://bucket/imagenet", "--size", "150GB", "--type", "dataset",
        "--checksum", "sha256:" + "AB" * 32, "--tag", "big", "--meta", "n=5", "--alias", "full",
    )  # fmt: skip
    assert one_line(result.err) == f"created store at {store}"
    assert result.text.splitlines()[1] == "version imagenet:v1"
    shown = castfs("show", "--json", "imagenet:full").json
    [reference] = shown["record"]["references"]
    assert reference["uri"] == "s3://bucket/imagenet"
    assert reference["checksum"] == "sha256:" + "ab" * 32
    assert reference["size_bytes"] == 150_000_000_000
    assert shown["record"]["total_size_bytes"] == shown["record"]["file_count"] == 0
    [path] = castfs("ls", "imagenet").text.splitlines()
    assert '"uri": "s3://bucket/imagenet"' in castfs("cat", "imagenet", path).text
    assert re.search(
        r"^references\n  .* s3://bucket/imagenet, ", castfs("show", "imagenet").text, re.M
    )
    assert castfs("list", "--artifacts", "-q", "--type", "dataset").text == "imagenet\n"


def test_the_same_is_no_version(castfs: Run) -> None:
    args = ("reference", "r", "s3://b/x", "--size", "1K")
    first = castfs(*args, "-q").text
    again = castfs(*args)
    assert again.text.splitlines()[1] == "unchanged: r:v1"
    assert castfs(*args, "-q").text == first
    assert castfs(*args, "--new-version").text.splitlines()[1] == "version r:v2"
    other = castfs("reference", "r", "s3://b/x", "--size", "2K", "--json").json
    assert (other["version"], other["unchanged"]) == (3, False)


@pytest.mark.parametrize(
    "args",
    [
        ["r", ""], ["r", "s3://a\nb"], ["r", "x", "--checksum", "abc"], ["a:b", "x"],
        ["r", "x", "--checksum", "sha256:12"], ["r", "x", "--size", "-1"], ["deadbeef", "x"],
        ["r", "x", "--alias", "v1"], ["r"],
    ],
)  # fmt: skip
def test_mistakes(castfs: Run, store: Path, args: list[str]) -> None:
    assert ";" in one_line(castfs("reference", *args, code=2).err)
    assert not store.exists()


@pytest.mark.parametrize("how", ["path", "relative", "uri"])
def test_verify_looks_at_local_files(
    castfs: Run, tmp_path: Path, how: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    data = tmp_path / "large data"
    data.write_bytes(b"12345")
    monkeypatch.chdir(tmp_path)
    uri = {"path": str(data), "relative": "large data", "uri": data.as_uri()}[how]
    castfs("reference", "r", uri, "--size", "5", "--checksum", checksum(data))
    assert castfs("verify").text.endswith("\nclean\n")
    assert "1 reference" in castfs("verify", "--data").text
    data.write_bytes(b"54321")
    castfs("verify")  # its size is right
    said = castfs("verify", "--data", code=5).text
    assert "which r:v1 refers to, has the checksum " in said
    data.write_bytes(b"123456")
    [problem] = castfs("verify", "--json", code=5).json["problems"]
    assert "has 6 bytes instead of 5" in problem["message"]
    data.unlink()
    assert "cannot be read: No such file" in castfs("verify", "r:v1", code=5).text
    castfs("ingest", tmp_path / ".user" / "config", "--name", "other")
    castfs("verify", "other:v1")  # others are not asked about


def test_verify_does_not_wait_for_a_fifo(castfs: Run, tmp_path: Path) -> None:
    import os

    os.mkfifo(tmp_path / "fifo")
    castfs("reference", "r", tmp_path / "fifo", "--size", "5")
    assert "is no file" in castfs("verify", "--data", code=5).text


def test_verify_leaves_alone_what_is_elsewhere(castfs: Run, tmp_path: Path) -> None:
    for uri in ("s3://b/x", "https://example.invalid/x", "file://host/x"):
        castfs("reference", "r", uri, "--size", "5")
    castfs("reference", "d", tmp_path)  # a directory is only there or not
    castfs("reference", "md5", "s3://b/y", "--checksum", "md5:0123")
    assert castfs("verify", "--data").text.endswith("\nclean\n")


def test_local_path() -> None:
    assert local_path("/a/b%20c") == Path("/a/b%20c")
    assert local_path("file:///a/b%20c") == Path("/a/b c")
    assert local_path("file:/a") == local_path("FILE://localhost/a") == Path("/a")
    for elsewhere in ("s3://a/b", "file://host/a", "file:a", "file:///a%00b", "a/b"):
        assert local_path(elsewhere) is None


def test_stats_by_type(castfs: Run, tree: Path) -> None:
    castfs("ingest", tree, "--name", "m", "--type", "model")
    castfs("ingest", tree, "--name", "m", "--new-version")
    castfs("ingest", tree)
    before = castfs("stats", "--json").json
    assert (before["name_count"], before["version_count"], before["snapshot_count"]) == (1, 2, 3)
    assert before["saved_bytes"] == 64
    assert before["saved_ratio"] == pytest.approx(2 / 3)
    assert before["types"] == [
        {"type": "model", "name_count": 1, "snapshot_count": 2, "size_bytes": 64},
        {"type": None, "name_count": 0, "snapshot_count": 1, "size_bytes": 32},
    ]
    text = castfs("stats").text
    assert re.search(r"^saved +64 B \(66\.7%\)$", text, re.MULTILINE)
    rows = [line.split() for line in text.split("\n\n")[1].splitlines()]
    assert rows == [
        ["TYPE", "NAMES", "SNAPSHOTS", "SIZE"],
        ["model", "1", "2", "64", "B"],
        ["-", "0", "1", "32", "B"],
    ]


def test_references_do_not_distort_the_ratio(castfs: Run, tmp_path: Path) -> None:
    big = tmp_path / "big"
    big.mkdir()
    (big / "file").write_bytes(bytes(1_000_000))
    castfs("ingest", big, "--name", "m", "--type", "model")
    castfs("ingest", big, "--name", "m", "--new-version")
    before = castfs("stats", "--json").json
    assert before["saved_ratio"] == 0.5
    castfs("reference", "far", "s3://b/x", "--size", "150GB", "--type", "dataset")
    after = castfs("stats", "--json").json
    assert after["saved_ratio"] == pytest.approx(0.5, abs=0.001)
    assert after["logical_bytes"] == before["logical_bytes"]
    assert (after["reference_count"], after["reference_bytes"]) == (1, 150_000_000_000)
    assert re.search(r"^references +1, 140 GiB elsewhere$", castfs("stats").text, re.MULTILINE)
