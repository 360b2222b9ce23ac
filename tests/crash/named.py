"""Stores with names, aliases and runs, and what may be said of them after something was done by
half.
"""

from __future__ import annotations

import subprocess
import tempfile
from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import castfs
from castfs.bundles.exporting import export_bundle
from castfs.catalog import reading
from castfs.errors import NotFoundError
from castfs.repository import Store
from tests.crash.acting import DOINGS, FailedError, act
from tests.crash.afterwards import check_clean, check_verified
from tests.crash.scenarios import make_old
from tests.crash.stating import Statement, check_agreement, last_numbers, state
from tests.store.checking import check_store

Step = list[str]
EMPTY_ALL = castfs.GcOptions(grace_seconds=0, trash_age_seconds=0)


@dataclass(frozen=True)
class Named:
    """`states` is what the store says before the step and after each part of it that may be there
    without the next. With `apart` each version (alias, run) is as in any of them, whatever the
    others are, after a kill; after an error, too, unless the versions are there `all_or_none`.
    `again` is what completes the steps, by default they themselves. Of several steps, the first is
    done in the states from `ends[1]` on, and so forth. On a disk that fails names may not be
    `told` what becomes of versions: removing, which is there to help then, goes on without."""

    store: Path
    source: Path
    steps: list[Step]
    states: list[Statement]
    last: dict[str, int]
    apart: bool = False
    all_or_none: bool = False
    again: Sequence[Step] | None = None
    ends: Sequence[int] = ()
    told: bool = True
    unsynced: list[tuple[str, str]] = field(default_factory=list)

    def check(
        self, path: Path, done: int, *, failed: bool = False, disk_failed: bool = False
    ) -> None:
        """The store at `path`, after so many steps were done, and the next one has `failed`, or was
        killed. `disk_failed`: a call of one of them has."""
        ends = [*(self.ends or (0, len(self.states) - 1)), len(self.states) - 1]
        if disk_failed and not self.told:
            self.tell(castfs.open(path))
        found = state(path, self.last)
        self.check_state(found, self.states[ends[done] : ends[done + 1] + 1])
        if self.all_or_none and failed:
            assert found["versions"] in [each["versions"] for each in self.states]
        check_agreement(path)
        check_store(path)
        check_verified(path)
        store = castfs.open(path)
        self.complete(store)
        check_agreement(path)
        check_next_number(store, self.source)
        store.gc(EMPTY_ALL)
        check_agreement(path)
        check_clean(path)
        check_verified(path)

    def tell(self, store: Store) -> None:
        """As somebody would who sees an alias of what is gone."""
        aliases = state(store.path, self.last)["aliases"].keys()
        for alias in sorted(aliases - self.states[-1]["aliases"].keys()):
            act(store, "", ["castfs", "alias", "-d", alias])

    def complete(self, store: Store) -> None:
        for step in self.steps if self.again is None else self.again:
            try:
                act(store, str(self.source), step)
            except (NotFoundError, FailedError) as exc:
                # It was done, and its object is not there any more.
                if exc.exit_code != NotFoundError.exit_code:
                    raise
        if self.again is None or len(self.steps) == 1:
            assert state(store.path, self.last) == self.states[-1]

    def check_state(self, found: Statement, states: list[Statement]) -> None:
        if found in states:
            return
        assert self.apart, f"{found}\nis none of\n" + "\n".join(map(str, states))
        for room, said in found.items():
            keys = {key for each in states for key in each[room]}
            assert said.keys() <= keys
            for key in keys:
                assert said.get(key) in [each[room].get(key) for each in states], f"{room} {key}"


class NamedRun(Named):
    """Nobody goes on with a run that was killed."""

    def complete(self, store: Store) -> None:
        with reading(store.depot) as catalog:
            runs = [run.id for run in catalog.iter_runs()]
        for run_id in runs:
            castfs.find_run(run_id, store=store).finish()
        act(store, str(self.source), self.steps[0])
        assert store.resolve("made:newest").record == store.resolve("made:latest").record
        for run_id in runs:
            act(store, "", ["castfs", "runs", "rm", run_id])
        left = {path.name for path in (store.path / "runs").iterdir()}
        assert not {path for path in left if path.removesuffix(".json") in runs}
        for path in (store.path / "runs").iterdir():
            # One that was killed before it was recorded has nothing in its directory.
            assert path.suffix == ".json" or f"{path.name}.json" in left or not any(path.iterdir())


def check_next_number(store: Store, source: Path) -> None:
    known = last_numbers(store.path)
    known |= {r.name: max(known.get(r.name, 0), r.version)
              for r in store.iter_snapshots() if r.name and r.version}  # fmt: skip
    for name, last in known.items():
        taken = store.ingest(source, name=name, new_version=True)
        assert taken.version is not None
        assert taken.version > last


@dataclass(frozen=True)
class Base:
    """A store with names; `source` has changed since."""

    store: Store
    source: Path
    #: For whatever else a scenario needs.
    place: Path

    def scenario(
        self,
        step: Step,
        *parts: Step,
        apart: bool = False,
        all_or_none: bool = False,
        again: Sequence[Step] | None = None,
    ) -> Named:
        """`parts` are steps that do a part of it each, all of it in the end; by default itself."""
        last = last_numbers(self.store.path)
        states = [state(self.store.path, last)]
        place = Path(tempfile.mkdtemp(dir=self.place))
        for number, part in enumerate(parts or [step]):
            copy = place / f"part-{number}"
            # A run's parts each begin anew: it is another run.
            origin = copy.with_name(f"part-{number - 1}")
            if number == 0 or part[0] == "run":
                origin = self.store.path
            subprocess.run(["cp", "-a", origin, copy], check=True)
            act(castfs.open(copy), str(self.source), part)
            states.append(state(copy, last))
        kind = NamedRun if step[0] == "run" else Named
        return kind(self.store.path, self.source, [step], states, last, apart, all_or_none, again)


def make_base(store: Store, source: Path, place: Path) -> Base:
    place.mkdir()
    change(source, 0)
    store.ingest(source, name="data", type="dataset")
    make_versions(store, source, "named", 3)
    store.set_alias("named:v1", "best")
    store.set_alias("named:v2", "best")
    store.set_alias("named:v1", "first")
    store.tag("named:v1", "old")
    store.set_metadata("named:v2", {"acc": 0.25, "dropped": True})
    make_versions(store, source, "old", 3)
    store.set_alias("old:v2", "kept")
    store.remove("old", all_versions=True, force=True)
    store.ingest(source)
    (source / "a").write_bytes(b"last changed")
    (source / "new").mkdir()
    for number in range(3):
        (source / "new" / f"{number}").write_bytes(b"new %d" % (number // 2))
    make_old(store.path)
    return Base(store, source, place)


def change(source: Path, number: int) -> None:
    (source / "a").write_bytes(b"changed %d" % number)


def make_versions(store: Store, source: Path, name: str, count: int) -> None:
    for number in range(count):
        change(source, number)
        store.ingest(source, name=name)


# What is said of versions -------------------------------------------------------------------------


def move_alias(base: Base) -> Named:
    return base.scenario(["castfs", "alias", "named:v3", "best"])


def remove_alias(base: Base) -> Named:
    return base.scenario(["castfs", "alias", "-d", "named:best"])


def tag(base: Base) -> Named:
    return base.scenario(["castfs", "tag", "named:v1", "good", "checked"])


def tag_and_change_metadata(base: Base) -> Named:
    """By one who waits for each."""
    steps = [tag(base).steps[0], change_metadata(base).steps[0]]
    made = base.scenario(steps[1], *steps)
    return replace(made, steps=steps, ends=[0, 1, 2])


def untag(base: Base) -> Named:
    return base.scenario(["castfs", "tag", "-d", "named:v1", "old"])


def change_metadata(base: Base) -> Named:
    step = ["castfs", "meta", "named:v2", "acc=0.5", "data=data:v1", "--unset", "dropped"]
    return base.scenario(step)


# New versions -------------------------------------------------------------------------------------


def ingest(base: Base) -> Named:
    """A version, and then the alias that it is to have."""
    ingest = ["castfs", "ingest", str(base.source), "--name", "named", "--tag", "x"]
    step = [*ingest, "--alias", "best"]
    return base.scenario(step, ingest, step)


def ingest_and_move_alias(base: Base) -> Named:
    """By one who waits for each. Again, the alias would be moved to and fro."""
    ingested = ingest(base)
    steps = [*ingested.steps, ["castfs", "alias", "named:v3", "best"]]
    parts = [ingested.steps[0][:-2], *steps]
    made = base.scenario(steps[-1], *parts)
    return replace(made, steps=steps, ends=[0, 2, 3], again=steps[-1:])


def ingest_unchanged(base: Base) -> Named:
    """No version: the latest one gets what is said."""
    base.store.ingest(base.source, name="named")
    ingest = ["castfs", "ingest", str(base.source), "--name", "named", "--tag", "x"]
    step = [*ingest, "--alias", "best"]
    return base.scenario(step, ingest, step)


def refer(base: Base) -> Named:
    step = ["castfs", "reference", "raw", "s3://bucket/raw", "--size", "5", "--type", "dataset"]
    return base.scenario(step)


def import_manifest(base: Base) -> Named:
    """Its blobs are beside it, in another store."""
    other = castfs.open(base.place / "other", create=True)
    manifest = other.depot.manifest_path(other.ingest(base.source).manifest_id)
    return base.scenario(["castfs", "import", str(manifest)])


def import_bundle(base: Base) -> Named:
    """Of what is in it the store has the first versions, and another alias."""
    other = castfs.open(grown(base), create=False)
    with castfs.init("vision", "there", store=other) as run:
        run.use_artifact("named:v2")
        run.log_artifact(castfs.Artifact("made").add_file(base.source / "a"), aliases=["newest"])
        run.log_artifact(castfs.Artifact("made").add_file(base.source / "b"))
    bundle = base.place / "all.castfs"
    export_bundle(other.depot, ["named", "made"], bundle)
    return base.scenario(["castfs", "import", str(bundle)], apart=True, all_or_none=True)


def grown(base: Base) -> Path:
    """A copy of the store, in which there are more versions."""
    path = base.place / "grown"
    subprocess.run(["cp", "-a", base.store.path, path], check=True)
    other = castfs.open(path)
    for number in range(2):
        change(base.source, 10 + number)
        other.ingest(base.source, name="named", aliases=["newest"])
    return path


def import_archive(base: Base) -> Named:
    """Of an older system: each version by itself."""
    other = castfs.open(base.place / "other", create=True)
    make_versions(other, base.source, "theirs", 2)
    other.set_alias("theirs:v1", "best")
    archive = base.place / "archive"
    act(other, "", ["castfs", "export", "--format", "runicorn", "theirs", str(archive)])
    # Only one at a time may import an archive, and the next one is killed meanwhile.
    copy = base.place / "copy"
    subprocess.run(["cp", "-a", archive, copy], check=True)
    again = [["castfs", "import", str(copy)]]
    return base.scenario(["castfs", "import", str(archive)], apart=True, again=again)


# Away, and back -----------------------------------------------------------------------------------


def remove(base: Base) -> Named:
    step = ["castfs", "rm", "--all-versions", "--force", "named"]
    return base.scenario(step, apart=True, all_or_none=True)


def remove_for_good(base: Base) -> Named:
    """Also what is in the trash, and what an alias means."""
    words = ["named:v2", "old:v2", "named:v3"]
    step = ["castfs", "rm", "--permanent", "--yes", "--force"]
    made = base.scenario([*step, *words], apart=True, again=[[*step, word] for word in words])
    return replace(made, told=False)


def undelete(base: Base) -> Named:
    words = ["old:v1", "old:v3"]
    again = [["castfs", "undelete", word] for word in words]
    step = ["castfs", "undelete", *words]
    return base.scenario(step, apart=True, all_or_none=True, again=again)


def undelete_all(base: Base) -> Named:
    step = ["castfs", "undelete", "--all-versions", "old"]
    return base.scenario(step, apart=True, all_or_none=True)


# Runs ---------------------------------------------------------------------------------------------


def run(base: Base) -> Named:
    parts = [["run", *DOINGS[:count]] for count in range(1, len(DOINGS) + 1)]
    return base.scenario(parts[-1], *parts)


def remove_run(base: Base) -> Named:
    """It made what nobody needs, and what an alias means."""
    store = base.store
    with castfs.init("vision", "gone", store=store) as run:
        run.use_artifact("data:v1")
        for number in range(3):
            change(base.source, 20 + number)
            made = castfs.Artifact("made").add_file(base.source / "a")
            run.log_artifact(made, aliases=["best"] if number == 1 else [])
        run.store_blob(base.source / "b")
        (run.run_dir / "log.jsonl").write_text("{}\n")
    return base.scenario(["castfs", "runs", "rm", run.id], apart=True)


def as_said(answer: dict[str, Any]) -> str:
    return f"{answer['failure']} at point {answer['point']}: {answer['call']}: {answer}"
