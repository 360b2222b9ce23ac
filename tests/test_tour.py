"""docs/TOUR-ML.md: each of its commands and programs, in order, prints what it shows."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.transcripts import ROOT, Command, Session, read_steps

TOUR = ROOT / "docs" / "TOUR-ML.md"


@pytest.mark.mounted
@pytest.mark.needs_root
def test_the_tour(tmp_path: Path) -> None:
    steps = list(read_steps(TOUR.read_text()))
    assert sum(isinstance(step, Command) for step in steps) > 30
    session = Session(tmp_path)
    try:
        for step in steps:
            session.do(step)
    finally:
        session.clean_up()
