"""What of a workspace is taken, in the words of castfs.ignore."""

from __future__ import annotations

import os
import re
from collections.abc import Iterable
from pathlib import Path

from castfs.ignore import IgnoreOptions
from castfs.ignore.pattern import parse_lines

#: In force where the workspace has no `.rnignore`. They are never written into it.
DEFAULT_RNIGNORE_PATTERNS = (
    ".git/",
    ".venv/",
    "__pycache__/",
    "*.pyc",
    ".idea/",
    "node_modules/",
)
_SPECIAL = re.compile(r"([\\*?\[])")


def workspace_options(
    root: Path,
    *,
    ignore_file: str = ".rnignore",
    extra_excludes: Iterable[str] | None = None,
    left_out: Iterable[Path] = (),
) -> IgnoreOptions:
    """`.gitignore`, then the ignore file, then `extra_excludes`; the later is stronger, and in each
    the last match decides. Patterns are gitignore's, and `!` keeps. `left_out` are files and
    directories that are never taken, if they lie below `root`.
    """
    path = root / ignore_file
    # A path is one file, anchored at the root; a name is that file in any directory.
    is_path = "/" in ignore_file
    return IgnoreOptions(
        gitignore=True,
        own_files=() if is_path else (ignore_file,),
        ignore_files=(path,) if is_path and path.is_file() else (),
        exclude=(
            *default_excludes(root, ignore_file),
            *_patterns(extra_excludes or ()),
            *_places(root, left_out),
        ),
    )


def default_excludes(root: Path, ignore_file: str = ".rnignore") -> tuple[str, ...]:
    """The patterns that stand in for an ignore file that is not there."""
    return () if (root / ignore_file).is_file() else DEFAULT_RNIGNORE_PATTERNS


def _patterns(lines: Iterable[str]) -> list[str]:
    """As a rule file's lines are read: without blank ones, comments and spaces at their ends."""
    text = "\n".join([lines] if isinstance(lines, str) else lines)
    return [os.fsdecode(line) for _, line in parse_lines(os.fsencode(text))]


def _places(root: Path, paths: Iterable[Path]) -> list[str]:
    """`/a/b` for each path below `root`, as a pattern that means nothing else."""
    found = []
    inside = os.path.realpath(root)
    for path in paths:
        # The last name may be a symlink: it is what lies in the workspace.
        parent = os.path.realpath(path.parent)
        relative = os.path.relpath(os.path.join(parent, path.name), inside)
        if relative != "." and relative.split(os.sep)[0] != "..":
            found.append("/" + _SPECIAL.sub(r"\\\1", relative))
    return found
