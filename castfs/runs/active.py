"""The runs of this process that are not finished."""

from __future__ import annotations

import threading
from typing import Protocol


class OpenRun(Protocol):
    """What is known of a run here."""

    id: str

    def finish(self) -> None: ...


_guard = threading.Lock()
#: The newest last.
_runs: list[OpenRun] = []


def add(run: OpenRun) -> None:
    with _guard:
        _runs.append(run)


def remove(run: OpenRun) -> None:
    with _guard:
        if run in _runs:
            _runs.remove(run)


def find(run_id: str) -> OpenRun | None:
    with _guard:
        return next((run for run in _runs if run.id == run_id), None)


def newest() -> OpenRun | None:
    with _guard:
        return _runs[-1] if _runs else None
