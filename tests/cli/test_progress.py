"""The bar: on a terminal, for what takes long, and nowhere else."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

from castfs.progress import SILENT
from tests.cli.conftest import TIMEOUT, Run, environment, run_on_terminal

#: An operation that goes on until its bar is seen, or has waited in vain.
OPERATION = """
import sys, time
from castfs.cli import progress
progress._DELAY = {delay}
started = time.monotonic()
with progress.progress_bar() as bar:
    bar.phase("reading", total=1000)
    bar.advance(5, 4096)
    while getattr(bar, "_rich", None) is None and time.monotonic() - started < {patience}:
        bar.advance(0)
    bar.advance(1, 1024)
    bar.phase("writing", total=2048, unit="bytes")
    bar.advance(1, 1024)
    if getattr(bar, "_rich", None):
        bar._rich.refresh()
print("rich" in sys.modules, "done")
"""


def operation(*, delay: float, patience: float) -> list[str]:
    script = OPERATION.format(delay=delay, patience=patience)
    return [sys.executable, "-W", "error", "-c", script]


def test_bar_on_a_terminal(tmp_path: Path) -> None:
    code, text = run_on_terminal(operation(delay=0.0, patience=TIMEOUT), cwd=tmp_path)
    assert code == 0
    assert "reading" in text
    assert "writing" in text
    assert "1.00 KiB" in text
    assert text.endswith("True done\n")


def test_no_bar_for_what_is_quick(tmp_path: Path) -> None:
    code, text = run_on_terminal(operation(delay=TIMEOUT, patience=0.0), cwd=tmp_path)
    assert (code, text) == (0, "False done\n")


def test_no_bar_in_a_pipe(tmp_path: Path) -> None:
    done = subprocess.run(
        operation(delay=0.0, patience=0.2), capture_output=True, env=environment(), timeout=TIMEOUT
    )
    assert (done.returncode, done.stdout, done.stderr) == (0, b"False done\n", b"")


def test_no_bar_when_quiet() -> None:
    from castfs.cli.progress import progress_bar

    with progress_bar(quiet=True) as progress:
        assert progress is SILENT


def test_ingest_in_a_pipe_prints_nothing_else(program: Run, tree: Path) -> None:
    program("init")
    assert program("ingest", tree).err == ""
