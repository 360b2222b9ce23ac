"""docs/MIGRATING.md: each of its commands and programs, in order, prints what it shows; and what
it names exists."""

from __future__ import annotations

import importlib
import os
import re
from pathlib import Path

import pytest

import castfs
from castfs.cli.verbs import VERBS
from castfs.compat.runicorn import archive_dir
from castfs.older import import_archive
from tests.transcripts import ROOT, Command, Program, Session, read_steps

MIGRATING = ROOT / "docs" / "MIGRATING.md"
STEPS = list(read_steps(MIGRATING.read_text()))


def mounts(step: Program | Command) -> bool:
    return isinstance(step, Command) and step.text.startswith("castfs mount ")


def do(steps: list[Program | Command], base: Path) -> None:
    session = Session(base)
    try:
        for step in steps:
            session.do(step)
    finally:
        session.clean_up()


def test_the_commands(tmp_path: Path) -> None:
    steps = [step for step in STEPS if not mounts(step)]
    assert sum(isinstance(step, Command) for step in steps) > 20
    do(steps, tmp_path)


@pytest.mark.mounted
@pytest.mark.needs_root
def test_with_the_mounts(tmp_path: Path) -> None:
    assert any(map(mounts, STEPS))
    do(STEPS, tmp_path)


def test_verbs_that_it_names() -> None:
    named = set(re.findall(r"`castfs ([a-z]+)", MIGRATING.read_text()))
    assert len(named) > 15
    assert named <= VERBS.keys()


def test_functions_of_runicorn_that_it_names() -> None:
    """The part on its assets names them in the first column, without a module."""
    assets = MIGRATING.read_text().partition("## Runicorn's artifacts")[0]
    compat = importlib.import_module("castfs.compat.runicorn")
    rows = [line.split("|")[1] for line in assets.splitlines() if line.startswith("| ")]
    named = {name for row in rows for name in re.findall(r"`([a-z0-9]+_[a-z0-9_]+)[`(]", row)}
    assert len(named) > 12
    assert [name for name in named if not hasattr(compat, name)] == []


def test_modes_and_times_of_manifests_that_have_them(tmp_path: Path) -> None:
    """Runicorn's have none; those that castfs.compat.runicorn writes in their place do."""
    source = tmp_path / "data"
    source.mkdir()
    (source / "run.sh").write_text("#!/bin/sh\n")
    (source / "run.sh").chmod(0o755)
    os.utime(source / "run.sh", ns=(0, 1_000_000_000_123_456_789))
    archive_dir(source, tmp_path / "runicorn" / "archive", category="datasets")
    store = castfs.open(tmp_path / "store", create=True)
    report = import_archive(store.depot, tmp_path / "runicorn")
    assert (len(report.versions), report.damage) == (1, ())
    [file] = store.resolve("data:v1").manifest.tree.files.values()
    assert (file.mode, file.mtime_ns) == (0o755, 1_000_000_000_123_456_789)
