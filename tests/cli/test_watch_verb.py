"""What `castfs watch` says: of stores that it makes, of what it took, of what it could not take."""

from __future__ import annotations

import os
from pathlib import Path

import msgspec
import pytest

import castfs as api
from castfs.errors import SourceError
from castfs.repository.publishing import Published
from castfs.runs import keeping
from tests.cli.conftest import Run


@pytest.fixture
def outputs(tmp_path: Path) -> Path:
    (tmp_path / "out").mkdir()
    for name in ("a.pt", "b.pt"):
        (tmp_path / "out" / name).write_text(name)
    return tmp_path / "out"


def test_a_store_that_is_made(castfs: Run, outputs: Path, store: Path) -> None:
    castfs("watch", outputs, "--once", "--run", "20260101_100000_aaaaaa", code=10)
    assert not store.exists()
    first = castfs("watch", outputs, "--once", "--min-age", "0")
    assert first.err == f"created store at {store}\n"
    assert castfs("watch", outputs, "--once", "--min-age", "0").err == ""


def test_a_store_that_a_run_makes(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    for _ in range(2):
        with caplog.at_level("INFO", "castfs.runs"), api.init(store=tmp_path / "made"):
            pass
    assert [record.getMessage() for record in caplog.records] == [
        f"created store at {tmp_path / 'made'}"
    ]


def test_versions_are_named(castfs: Run, outputs: Path) -> None:
    said = castfs("watch", outputs, "--once", "--min-age", "0", "--name", "mine").text
    assert sorted(said.splitlines()) == ["a.pt 4 B mine/a.pt:v1", "b.pt 4 B mine/b.pt:v1"]
    (outputs / "a.pt").write_text("changed")
    [line] = castfs(
        "watch", outputs, "--once", "--min-age", "0", "--name", "mine", "--json"
    ).out.splitlines()
    taken = msgspec.json.decode(line)
    assert (taken["key"], taken["word"]) == ("a.pt", "mine/a.pt:v2")
    assert taken["id"] == api.open(os.environ["CASTFS_STORE"]).resolve("mine/a.pt:v2").id
    said = " ".join(castfs("watch", "--help").text.split())
    assert "Print a line of JSON for each file" in said


def test_what_could_not_be_taken(
    castfs: Run, outputs: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    take = keeping.take_output

    def fail(depot: object, namespace: str, output: object, **more: object) -> Published:
        if output.key == "a.pt":  # type: ignore[attr-defined]
            raise SourceError("it cannot be read")
        return take(depot, namespace, output, **more)  # type: ignore[arg-type]

    with monkeypatch.context() as patch:
        patch.setattr("castfs.runs.watching.take_output", fail)
        failed = castfs("watch", outputs, "--once", "--min-age", "0", code=3)
    assert "not taken: a.pt: it cannot be read" in failed.err
    assert failed.text == "b.pt 4 B out/b.pt:v1\n"
    assert castfs("watch", outputs, "--once", "--min-age", "0").text == "a.pt 4 B out/a.pt:v1\n"
