"""The rules that come with an ingest: --exclude, --include and --ignore-file."""

from __future__ import annotations

import os
import re
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path

from castfs.errors import UsageError
from castfs.ignore.pattern import Pattern, literal_directories, parse_pattern
from castfs.ignore.rules import Rule, RuleList, Verdict, parse_rules

#: What a shell's completion puts before a name; in a pattern it would match nothing.
_HERE = re.compile(rb"\A(!?)\./+")


@dataclass(frozen=True, slots=True)
class CommandLine:
    """`reaching` are those among the patterns that keep whose directories are literal, and
    `on_the_way` these directories: rule files that drop one do not stop the walk there."""

    patterns: tuple[RuleList, ...]  # of --exclude, then of --include
    include: RuleList
    ignore_files: tuple[RuleList, ...]  # the strongest first
    not_included: Verdict
    reaching: RuleList
    on_the_way: frozenset[bytes]

    def __bool__(self) -> bool:
        return bool(self.patterns or self.ignore_files)


def parse_command_line(
    exclude: Sequence[str], include: Sequence[str], ignore_files: Iterable[Path]
) -> CommandLine:
    """UsageError: a pattern that can match nothing, or a file that cannot be read."""
    excluding = [_parse_option("--exclude", text) for text in exclude]
    including = [_parse_option("--include", text) for text in include]
    excludes = RuleList([(pattern, verdict) for _, pattern, verdict in excluding])
    includes = RuleList([(pattern, verdict) for _, pattern, verdict in including])
    reaching: list[tuple[Pattern, Verdict]] = []
    on_the_way: set[bytes] = set()
    for raw, pattern, verdict in (*excluding, *including):
        directories = literal_directories(raw) if verdict.keeps else []
        on_the_way.update(directories)
        if directories:
            reaching.append((pattern, verdict))
    return CommandLine(
        patterns=tuple(rules for rules in (excludes, includes) if rules),
        include=includes,
        ignore_files=tuple(_read_ignore_file(path) for path in ignore_files)[::-1],
        not_included=Verdict(Rule(", ".join(include), "--include")),
        reaching=RuleList(reaching),
        on_the_way=frozenset(on_the_way),
    )


def _parse_option(option: str, text: str) -> tuple[bytes, Pattern, Verdict]:
    """--exclude drops, and with `!` before its pattern keeps; --include keeps."""
    raw = _HERE.sub(rb"\1/", os.fsencode(text))
    pattern = parse_pattern(raw)
    if pattern is None or not {b".", b".."}.isdisjoint(raw.split(b"/")):
        raise UsageError(
            f"{option} {text!r} matches no name",
            hint="patterns are those of .gitignore, relative to the ingested directory",
        )
    if option == "--include" and pattern.negated:
        raise UsageError(f"--include {text!r} begins with '!'", hint="use --exclude instead")
    keeps = option == "--include" or pattern.negated
    return raw, pattern, Verdict(Rule(text, option), keeps)


def _read_ignore_file(path: Path) -> RuleList:
    try:
        data = path.read_bytes()
    except (OSError, ValueError) as error:
        reason = error.strerror if isinstance(error, OSError) else str(error)
        raise UsageError(
            f"--ignore-file {str(path)!r} cannot be read: {reason}",
            hint="name a readable file with one pattern on each line",
        ) from None
    return parse_rules(data, str(path))
