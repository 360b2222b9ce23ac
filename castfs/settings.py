"""Where castfs keeps things, from the environment: the only reader of it besides the command line.

Every function reads the environment when it is called, so that tests and long-running programs may
change it.
"""

from __future__ import annotations

import os
import sys
from pathlib import Path

import platformdirs

#: More gain nothing, and each is a process.
_THREADS_MAX = 256


def default_store() -> Path:
    """`$CASTFS_STORE`, else `castfs` in the user's XDG data directory."""
    value = os.environ.get("CASTFS_STORE")
    return Path(value) if value else platformdirs.user_data_path("castfs")


def cache_dir() -> Path:
    """What may be deleted at any time: the stat cache."""
    return platformdirs.user_cache_path("castfs")


def state_dir() -> Path:
    """What this user's mounts say of themselves, and their logs."""
    return platformdirs.user_state_path("castfs")


def git_global_excludes() -> Path:
    """Where git looks for a user's own ignore rules when core.excludesFile is not set."""
    return platformdirs.user_config_path("git") / "ignore"


def threads() -> int:
    """Reader processes of an ingest, threads of a restore: `$CASTFS_THREADS`, else as many as CPUs
    may be used."""
    value = os.environ.get("CASTFS_THREADS", "")
    if value.isascii() and value.isdigit() and int(value) > 0:
        return min(int(value), _THREADS_MAX)
    return len(os.sched_getaffinity(0))


def child_environment(**variables: str) -> dict[str, str]:
    """This process's environment with `variables`, for a command that is started."""
    return {**os.environ, **variables}


def interpreter_environment() -> dict[str, str]:
    """For a Python process of castfs's own: it must find this very castfs, however it came on the
    path here."""
    return child_environment(PYTHONPATH=os.pathsep.join(entry or "." for entry in sys.path))
