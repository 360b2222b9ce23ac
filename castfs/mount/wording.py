"""Paths in messages."""

from __future__ import annotations

import os
import shlex
from pathlib import Path

from castfs.paths import display


def shown(path: Path) -> str:
    """`path` on one line, whatever bytes it is made of."""
    return display(os.fsencode(path))


def quoted(path: Path) -> str:
    """The same as a word of a command that a shell takes."""
    return shlex.quote(shown(path))
