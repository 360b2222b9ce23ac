"""The runs of this process that are not finished."""

from __future__ import annotations

import os
import threading
from typing import Protocol

from castfs.catalog.files import RunStatus


class OpenRun(Protocol):
    """What is known of a run here."""

    id: str

    def finish(self, status: RunStatus = ...) -> None: ...


_guard = threading.Lock()
#: With the process that began each, which a child that was forked is not; the newest last.
_runs: list[tuple[int, OpenRun]] = []


def add(run: OpenRun) -> None:
    with _guard:
        _runs.append((os.getpid(), run))


def remove(run: OpenRun) -> None:
    with _guard:
        _runs[:] = [each for each in _runs if each[1] is not run]


def find(run_id: str) -> OpenRun | None:
    with _guard:
        return next((run for _, run in _runs if run.id == run_id), None)


def newest() -> OpenRun | None:
    with _guard:
        return _runs[-1][1] if _runs else None


def begun_here() -> list[OpenRun]:
    """Those that this process itself began, the newest first."""
    with _guard:
        return [run for pid, run in reversed(_runs) if pid == os.getpid()]
