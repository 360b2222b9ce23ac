"""Small files that cannot be read: who asks for what they may say is told so, and nothing is done
that they might forbid."""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest

import castfs
from castfs.bundles.exporting import export_bundle
from castfs.catalog import rebuild
from castfs.catalog.files import name_path, note_path, run_path
from castfs.errors import BusyError, DamageError
from castfs.verify import VerifyOptions
from tests.catalog.conftest import Versions
from tests.store.processes import python_environment


@pytest.fixture
def used(store: castfs.Store, versions: Versions) -> castfs.Store:
    """m:v1 with a tag, given to a run; m:v2."""
    versions.make(count=2)
    store.tag("m:v1", "good")
    with castfs.init("p", "user", store=store) as run:
        run.use_artifact("m:v1")
    return store


def spoil(path: Path) -> None:
    path.chmod(0o644)
    path.write_text("{")


def spoil_run(store: castfs.Store) -> None:
    [path] = (store.path / "runs").glob("*.json")
    spoil(path)


def spoil_note(store: castfs.Store) -> None:
    spoil(note_path(store.depot, store.resolve("m:v1").id))


def spoil_name(store: castfs.Store) -> None:
    spoil(name_path(store.depot, "m"))


def spoil_record(store: castfs.Store) -> None:
    spoil(store.depot.record_path(store.resolve("m:v2").id))


def run(store: castfs.Store, *words: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, "-m", "castfs", "--store", store.path, *words],
        env=python_environment(),
        capture_output=True,
        text=True,
        timeout=60,
    )


SPOILERS: list[Callable[[castfs.Store], None]] = [spoil_run, spoil_note, spoil_name, spoil_record]


@pytest.mark.parametrize("spoiler", SPOILERS)
def test_a_bundle_is_whole_or_not_at_all(
    used: castfs.Store, tmp_path: Path, spoiler: Callable[[castfs.Store], None]
) -> None:
    spoiler(used)
    with pytest.raises(DamageError, match="cannot be read"):
        export_bundle(used.depot, ["m"], tmp_path / "m.castfs")
    assert not (tmp_path / "m.castfs").exists()


@pytest.mark.parametrize("spoiler", SPOILERS)
def test_lineage_says_that_something_may_be_missing(
    used: castfs.Store, spoiler: Callable[[castfs.Store], None]
) -> None:
    assert len(used.lineage("m:v1").nodes) == 2
    spoiler(used)
    with pytest.raises(DamageError, match="cannot be read"):
        used.lineage("m:v1")
    drawn = run(used, "lineage", "m:v1")
    assert (drawn.returncode, drawn.stdout.count("m:v1")) == (5, 1)
    assert "cannot be read" in drawn.stderr


@pytest.mark.parametrize("spoiler", [spoil_run, spoil_name])
def test_what_may_be_used_is_not_removed(
    used: castfs.Store, spoiler: Callable[[castfs.Store], None]
) -> None:
    with pytest.raises(BusyError):
        used.remove("m:v1")
    spoiler(used)
    with pytest.raises(DamageError, match="cannot be read"):
        used.remove("m:v1")
    used.remove("m:v1", force=True)


@pytest.mark.parametrize("spoiler", [spoil_run, spoil_note, spoil_name])
def test_show_and_rebuild_say_it(
    used: castfs.Store, spoiler: Callable[[castfs.Store], None]
) -> None:
    assert run(used, "show", "m:v1").returncode == 0
    spoiler(used)
    for words in (["show", "m:v1"], ["show", "m:v1", "--json"], ["catalog", "rebuild"]):
        said = run(used, *words)
        assert (said.returncode, "Traceback" in said.stderr) == (5, False)
        assert said.stdout
        assert said.stderr.count("\n") == 1


def test_an_older_version_is_not_taken_for_the_latest(
    used: castfs.Store, versions: Versions
) -> None:
    """v2 cannot be read; the tree is what v1 was."""
    spoil_record(used)
    (versions.tree / "model.bin").write_text("content 1")
    taken = used.ingest(versions.tree, name="m")
    assert (taken.unchanged, taken.version) == (False, 3)


def test_content_that_is_not_what_the_record_says(used: castfs.Store, versions: Versions) -> None:
    """A record that a stranger wrote: its tree is another one's than `content` says."""
    path = used.depot.record_path(used.resolve("m:v2").id)
    (versions.tree / "model.bin").write_text("victim")
    victim = used.ingest(versions.tree, name="victim")
    content = victim_record(used, "victim").content
    assert content is not None
    path.chmod(0o644)
    path.write_text(path.read_text().replace(victim_record(used, "m:v2").content or "?", content))
    rebuild(used.depot)
    result = used.verify(options=VerifyOptions())
    assert [problem.message for problem in result.problems if "content" in problem.message]
    taken = used.ingest(versions.tree, name="m")
    assert not taken.unchanged
    assert taken.manifest_id == victim.manifest_id


def victim_record(store: castfs.Store, word: str) -> castfs.Record:
    record = store.resolve(word).record
    assert record is not None
    return record


def test_run_files_of_others(used: castfs.Store) -> None:
    """What is about one snapshot is said of that alone."""
    spoil_note(used)
    assert run(used, "show", "m:v2").returncode == 0
    assert not run_path(used.depot, "nobody").exists()
