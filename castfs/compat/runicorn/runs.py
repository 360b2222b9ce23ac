"""The way to castfs's own runs, which `run_id`, `rn.init` and the like mean."""

from __future__ import annotations

import importlib
from collections.abc import Sequence
from pathlib import Path
from typing import Any, Protocol

from castfs.errors import UsageError
from castfs.repository import Store

#: What `import castfs.compat.runicorn as rn` offers of castfs.runs.
PUBLIC = ("Artifact", "Run", "finish", "get_active_run", "init")


class Run(Protocol):
    """What is used here of a run."""

    @property
    def run_dir(self) -> Path: ...

    @property
    def store(self) -> Store: ...

    def snapshot_workspace(
        self, root: Path, *, include: Sequence[str] = (), exclude: Sequence[str] = ()
    ) -> dict[str, Any]: ...

    def store_blob(self, file_path: str) -> str: ...

    def get_blob_path(self, blob_id: str) -> Path: ...


def load(name: str) -> Any:
    """One of PUBLIC. AttributeError."""
    return getattr(importlib.import_module("castfs.runs"), name)


def find_run(run_id: str) -> Run:
    """The run of that id, open or finished. NotFoundError."""
    run: Run = load("find_run")(run_id)
    return run


def active_run() -> Run:
    """The run that was begun last and is not finished. UsageError."""
    run: Run | None = load("get_active_run")()
    if run is None:
        raise UsageError(
            "no run is open, and no blob_root is given",
            hint="call rn.init() first, or name the directory of blobs",
        )
    return run
