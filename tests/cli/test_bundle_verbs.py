"""`export` and `import` of bundles."""

from __future__ import annotations

import os
import subprocess
from pathlib import Path

import pytest

import castfs as api
from castfs import Store
from tests.cli.conftest import TIMEOUT, Run, command, environment


@pytest.fixture
def store(tmp_path: Path) -> Store:
    """The one that the commands use by default, with two versions of one name."""
    store = api.open(os.environ["CASTFS_STORE"], create=True)
    (tmp_path / "data").mkdir()
    for number in (1, 2):
        (tmp_path / "data" / "a.csv").write_text(f"{number}\n")
        store.ingest(tmp_path / "data", name="team/ds", aliases=["good"] if number == 1 else [])
    return store


@pytest.fixture
def other(tmp_path: Path) -> Path:
    return api.open(tmp_path / "other", create=True).path


@pytest.fixture
def bundle(castfs: Run, store: Store, tmp_path: Path) -> Path:
    bundle = tmp_path / "ds.castfs"
    assert "team/ds to " in castfs("export", "team/ds", bundle).text
    return bundle


def test_there_and_back(castfs: Run, bundle: Path, other: Path, tmp_path: Path) -> None:
    refused = castfs("export", "team/ds", bundle, code=1)
    assert "give --force" in refused.err
    assert "2 versions, 0 runs" in castfs("export", "team/ds", bundle, "--force").text
    said = castfs("import", bundle, "--store", other)
    assert said.text.splitlines()[:2] == ["new: team/ds:v1", "new: team/ds:v2"]
    assert said.err == ""
    again = castfs("import", "--json", bundle, "--store", other).json
    assert (again["added_versions"], again["added_count"]) == ([], 0)
    assert castfs("cat", "--store", other, "team/ds:good", "a.csv").text == "1\n"
    castfs("export", "nothing", tmp_path / "x.castfs", code=4)
    bundle.write_bytes(bundle.read_bytes()[:2000])
    assert castfs("import", bundle, "--store", other, code=5).err.count("\n") == 1


def test_ids_alone(castfs: Run, store: Store, bundle: Path, other: Path) -> None:
    ids = castfs("import", "-q", bundle, "--store", other).text.split()
    assert sorted(ids) == sorted(record.id for record in store.iter_snapshots())
    assert castfs("import", "-q", bundle, "--store", other).text == ""


def test_what_was_here(castfs: Run, bundle: Path, other: Path) -> None:
    castfs("import", bundle, "--store", other)
    castfs("tag", "team/ds:v2", "raw")
    castfs("meta", "team/ds:v2", "acc=1")
    castfs("alias", "team/ds:v2", "best")
    castfs("export", "team/ds", bundle, "--force")
    said = castfs("import", bundle, "--store", other)
    assert said.text.splitlines() == [
        "more of team/ds:v2: tag raw, acc",
        "new alias: team/ds:best",
        "0 new versions, 2 there before; 0 new runs; added 0 blobs, 0 B",
    ]
    castfs("meta", "team/ds:v2", "acc=2", "--store", other)
    castfs("alias", "team/ds:v1", "best", "--store", other)
    castfs("rm", "team/ds:v1", "--force", "--store", other)
    said = castfs("import", bundle, "--store", other)
    assert said.err.splitlines() == [
        "in the trash: team/ds:v1 (`castfs undelete team/ds:v1`)",
        "team/ds:v2 has another acc here, which stays",
        "the alias team/ds:best means another version here, and stays",
    ]
    told = castfs("import", bundle, "--json", "--store", other).json
    assert told["merged"] == [
        {"version": "team/ds:v2", "tags": [], "metadata": [], "kept": ["acc"]}
    ]
    assert (told["trashed_versions"], told["kept_aliases"]) == (["team/ds:v1"], ["team/ds:best"])
    castfs("rm", "--permanent", "--yes", "--force", "team/ds:v1", "--store", other)
    said = castfs("import", bundle, "--store", other)
    assert "deleted here before: team/ds:v1" in said.err
    assert "0 new versions, 1 there before" in said.text


def test_some_versions(castfs: Run, store: Store, other: Path, tmp_path: Path) -> None:
    bundle = tmp_path / "some.castfs"
    assert "1 version, " in castfs("export", "team/ds:v2", bundle).text
    assert castfs("import", bundle, "--store", other).text.splitlines()[0] == "new: team/ds:v2"
    both = castfs("export", "team/ds:good", "team/ds:v2", bundle, "--force", "--json").json
    assert (both["version_count"], both["left_out"]) == (2, [])
    castfs("export", "team/ds:v1", "team/ds:v2", tmp_path / "x.tar", code=2)
    runicorn = castfs("export", "--format", "runicorn", "team/ds:v1", "team/ds:v2", tmp_path / "r")
    assert "exported 2 versions" in runicorn.text


def test_through_a_pipe(castfs: Run, store: Store, other: Path) -> None:
    export = [*command("export", "team/ds", "-", "--format", "bundle")]
    with subprocess.Popen(export, env=environment(), stdout=subprocess.PIPE) as writer:
        done = subprocess.run(
            command("import", "-", "--store", other),
            env=environment(), stdin=writer.stdout, capture_output=True, timeout=TIMEOUT,
        )  # fmt: skip
        assert writer.wait(TIMEOUT) == 0
    assert (done.returncode, done.stderr) == (0, b"")
    assert b"2 new versions" in done.stdout
    empty = subprocess.run(
        command("import", "-", "--store", other),
        env=environment(), stdin=subprocess.DEVNULL, capture_output=True, timeout=TIMEOUT,
    )  # fmt: skip
    assert (empty.returncode, empty.stderr.count(b"\n")) == (5, 1)
    castfs("import", "-", "--format", "manifest", code=2)


def test_a_store_is_made(castfs: Run, bundle: Path, tmp_path: Path) -> None:
    """As by ingest; but not by a mistake."""
    place = tmp_path / "new"
    (tmp_path / "no.json").write_text("{")
    for word, code in (("nothing", 4), ("no.json", 5), ("data", 4), ("data/a.csv", 5)):
        refused = castfs("import", tmp_path / word, "--store", place, code=code)
        assert refused.err.count("\n") == 1
    assert not place.exists()
    assert castfs("import", bundle, "--store", place).err == f"created store at {place}\n"
    assert castfs("list", "-q", "--store", place).text.count("\n") == 2
