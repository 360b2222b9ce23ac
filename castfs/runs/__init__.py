"""Runs: what a program read and wrote while it ran, and what came of what."""

from castfs.runs.artifact import Artifact
from castfs.runs.managing import iter_runs, remove_run
from castfs.runs.opening import find_run, finish, get_active_run, init
from castfs.runs.run import Run

__all__ = [
    "Artifact",
    "Run",
    "find_run",
    "finish",
    "get_active_run",
    "init",
    "iter_runs",
    "remove_run",
]
