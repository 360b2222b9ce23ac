"""Shell completion: the scripts, and what they are answered."""

from __future__ import annotations

import subprocess
from pathlib import Path

import pytest

from tests.cli.conftest import Run


@pytest.mark.parametrize("shell", ["bash", "zsh", "fish"])
def test_script(castfs: Run, shell: str) -> None:
    text = castfs("completion", shell).text
    assert f"_CASTFS_COMPLETE={shell}_complete" in text


def test_bash_accepts_the_script(castfs: Run) -> None:
    script = castfs("completion", "bash").out
    subprocess.run(["bash", "-n"], input=script, check=True, timeout=20)


def complete(program: Run, words: str, at: int) -> list[str]:
    result = program(_CASTFS_COMPLETE="bash_complete", COMP_WORDS=words, COMP_CWORD=str(at))
    assert result.err == ""
    return [line.partition(",")[2] for line in result.text.splitlines() if line]


def test_verbs_are_completed(program: Run) -> None:
    assert complete(program, "castfs m", 1) == ["meta", "mount", "mounts"]
    assert "--reproducible" in complete(program, "castfs ingest --re", 2)


def test_snapshots_are_completed(
    castfs: Run, program: Run, taken: str, tree: Path, store: Path
) -> None:
    later = castfs("ingest", "-q", tree, "--name", "sensors").text.strip()
    assert complete(program, "castfs show ", 2) == [later[:12], "sensors", taken[:12]]
    assert complete(program, "castfs ls sen", 2) == ["sensors"]
    words = f"castfs --store {store} diff {taken} {taken[:12]}"
    assert complete(program, words, 5) == [taken[:12]]


def test_no_store_completes_nothing(program: Run) -> None:
    assert complete(program, "castfs show ", 2) == []
