"""Running `crashing.py` from a test."""

from __future__ import annotations

import json
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from tests.store.processes import python_environment

_SCRIPT = Path(__file__).with_name("crashing.py")


def iter_answers(**job: object) -> Iterator[dict[str, Any]]:
    """Each as it comes: looking at one store goes on while the next one crashes."""
    yield from iter_answers_of(job)


def iter_answers_of(*jobs: dict[str, object]) -> Iterator[dict[str, Any]]:
    """One job after the other, by one process."""
    threads = "2" if any(job.get("with_readers") for job in jobs) else "1"
    with subprocess.Popen(
        [sys.executable, "-P", _SCRIPT, *map(json.dumps, jobs)],
        # Without a stat cache: with one, there is less to do once the files are two seconds old.
        env=python_environment(CASTFS_THREADS=threads, XDG_CACHE_HOME="/proc/none"),
        stdout=subprocess.PIPE,
        text=True,
    ) as process:
        assert process.stdout is not None
        try:
            for line in process.stdout:
                yield json.loads(line)
        except BaseException:  # nobody wants the others
            process.kill()
            raise
        if process.wait(timeout=60) != 0:
            raise AssertionError("crashing.py failed; see its stderr")
