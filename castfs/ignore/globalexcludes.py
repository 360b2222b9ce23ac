"""Where the user's own ignore rules for git are: core.excludesFile, or git's default for it."""

from __future__ import annotations

import os
import subprocess
from pathlib import Path

from castfs import settings
from castfs.ignore.git import git_command

#: A credential helper or a hanging network home must not hang an ingest.
_SECONDS = 10


def find_global_excludes(root_path: bytes, fds: tuple[int, ...] = ()) -> Path:
    """The file that git would read in a work tree at `root_path`; it need not exist. `fds` are
    descriptors that the path goes through.

    Git itself is asked, because its configuration has includes and conditions. Without git on the
    machine nobody has configured it, and the default holds.
    """
    words = ("config", "--type=path", "--get", "core.excludesFile")
    try:
        done = subprocess.run(
            git_command(os.fsdecode(root_path), *words),
            pass_fds=fds,
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.DEVNULL,
            timeout=_SECONDS,
            check=False,
        )
    except (OSError, subprocess.TimeoutExpired):
        return settings.git_global_excludes()
    if done.returncode != 0:
        return settings.git_global_excludes()
    path = done.stdout.removesuffix(b"\n")
    # Configured to be empty means that there is none.
    return Path(os.fsdecode(root_path), os.fsdecode(path)) if path else Path(os.devnull)
