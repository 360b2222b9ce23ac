"""Which names are outputs, and which of them are logs."""

from __future__ import annotations

import os
import re
from collections.abc import Sequence

from castfs.errors import UsageError
from castfs.ignore.pattern import Glob, Pattern, parse_pattern
from castfs.paths import shown, split

DEFAULT_PATTERNS = (
    "*.pth", "*.pt", "*.ckpt", "*.onnx", "*.log", "*.json", "*.txt", "*.csv", "*.png",
)  # fmt: skip

_LOG_ENDINGS = (b".log", b".txt", b".jsonl", b".csv")


def is_log(name: bytes) -> bool:
    """Is it a file that a program goes on appending to?"""
    return name.lower().endswith(_LOG_ENDINGS) or b"tfevents" in name


class Patterns:
    """Paths are relative to an output directory."""

    def __init__(self, texts: Sequence[str]) -> None:
        """UsageError for a pattern that can match nothing."""
        parsed = [_parse(os.fsencode(text)) for text in texts]
        self._of_dirs = [pattern for pattern in reversed(parsed) if pattern.dir_only]
        self._of_files = [pattern for pattern in reversed(parsed) if not pattern.dir_only]

    def takes_dir(self, path: bytes) -> bool:
        return _decide(self._of_dirs, path)

    def takes_file(self, path: bytes) -> bool:
        return _decide(self._of_files, path)


def _parse(text: bytes) -> Pattern:
    pattern = parse_pattern(text)
    if pattern is None:
        raise UsageError(f"the pattern '{shown(text)}' can match nothing")
    return pattern


def _decide(patterns: Sequence[Pattern], path: bytes) -> bool:
    """`patterns`: the last one first."""
    if not patterns:
        return False
    parent, name = split(path)
    directory = parent + b"/" if parent else b""
    for pattern in patterns:
        if _names(pattern.name, name) and _is_in(pattern.dirs, directory):
            return not pattern.negated
    return False


def _names(glob: Glob, name: bytes) -> bool:
    if glob.literal is not None:
        return name == glob.literal
    if glob.suffix is not None:
        return name.endswith(glob.suffix)
    return re.fullmatch(glob.regex, name) is not None


def _is_in(dirs: bytes | re.Pattern[bytes] | None, directory: bytes) -> bool:
    if dirs is None:
        return True
    return dirs == directory if isinstance(dirs, bytes) else dirs.fullmatch(directory) is not None
