"""The rules of one file or of the command line, and the fast answer to which of them decides."""

from __future__ import annotations

import os
import re
from collections.abc import Sequence
from dataclasses import dataclass

from castfs.ignore.pattern import Glob, Pattern, parse_lines, parse_pattern


@dataclass(frozen=True, slots=True)
class Rule:
    """One line of one rule file, or one option.

    `pattern` is as written, without trailing spaces; `origin` says where: ".gitignore:3",
    "sub/.castignore:1" (relative to the ingested root), ".git/info/exclude:2", "--exclude",
    "built-in". Both are surrogateescape-decoded.
    """

    pattern: str
    origin: str


@dataclass(frozen=True, slots=True)
class Verdict:
    """What a rule says of the entries that it matches. Tracked files are kept against git's rules
    alone."""

    rule: Rule
    keeps: bool = False
    of_git: bool = False


class Table:
    """The rules that can match a name in one directory. Names are compared in three ways, each one
    call into C whatever the number of rules: equal to, ends with, matches."""

    __slots__ = ("_base", "_by_glob", "_by_name", "_by_suffix", "_globs", "_suffixes", "_verdicts")

    def __init__(
        self,
        globs: Sequence[tuple[int, Glob]],
        verdicts: Sequence[Verdict],
        base: Table | None = None,
    ) -> None:
        """Each glob with the place of its verdict, the weakest first. `base` is about others."""
        self._base = base
        self._verdicts = verdicts
        self._by_name = {glob.literal: i for i, glob in globs if glob.literal is not None}
        self._by_suffix = [(g.suffix, i) for i, g in reversed(globs) if g.suffix is not None]
        self._suffixes = tuple({suffix for suffix, _ in self._by_suffix})
        others = [(g.regex, i) for i, g in reversed(globs) if g.literal is g.suffix is None]
        self._by_glob = [i for _, i in others]
        # The first alternative that matches is the strongest rule; its group tells which.
        either = b"|".join(b"(%s)" % regex for regex, _ in others)
        self._globs = re.compile(either).fullmatch if others else None

    def find(self, name: bytes) -> Verdict | None:
        """The verdict of the strongest rule that matches `name`."""
        best = self._find(name)
        return self._verdicts[best] if best >= 0 else None

    def _find(self, name: bytes) -> int:
        best = self._by_name.get(name, -1)
        if name.endswith(self._suffixes):
            found = next(i for suffix, i in self._by_suffix if name.endswith(suffix))
            best = max(best, found)
        if self._globs is not None and (match := self._globs(name)):
            best = max(best, self._by_glob[(match.lastindex or 1) - 1])
        return best if self._base is None else max(best, self._base._find(name))


#: Rules for names that are not directories, and for names that are; None where no rule can match.
Tables = tuple[Table | None, Table | None]


class RuleList:
    """Rules that are anchored at one directory, the weakest first: the last match wins."""

    __slots__ = (
        "_above",
        "_below",
        "_everywhere",
        "_exact",
        "_matched",
        "_rules",
        "_tables",
        "_verdicts",
    )

    def __init__(
        self, rules: Sequence[tuple[Pattern, Verdict]], *, below: int = 0, above: bytes = b""
    ) -> None:
        """Anchored `below` bytes into a path from the ingested root (b"a/b/" has 4), or at the
        directory from which `above` (b"repo/", say) leads down to that root."""
        self._rules = rules
        self._verdicts = [verdict for _, verdict in rules]
        self._below = below
        self._above = above
        self._exact: dict[bytes, tuple[int, ...]] = {}
        self._matched: list[tuple[int, re.Pattern[bytes], int | None]] = []
        everywhere = []
        for i, (pattern, _) in enumerate(rules):
            if pattern.dirs is None:
                everywhere.append(i)
            elif isinstance(pattern.dirs, bytes):
                self._exact[pattern.dirs] = (*self._exact.get(pattern.dirs, ()), i)
            else:
                self._matched.append((i, pattern.dirs, pattern.depth))
        self._everywhere = self._build(everywhere, (None, None))
        self._tables: dict[tuple[int, ...], Tables] = {(): self._everywhere}

    def __bool__(self) -> bool:
        return bool(self._rules)

    def moved(self, *, below: int, above: bytes) -> RuleList:
        """The same rules anchored elsewhere."""
        return RuleList(self._rules, below=below, above=above)

    def tables(self, path: bytes) -> Tables:
        """What of the rules can match in directory `path` (b"a/b/", b"" for the ingested root),
        which is the anchor or below it."""
        here = self._above + path[self._below :]
        active = self._exact.get(here, ())
        if self._matched:
            depth = here.count(b"/")
            active += tuple(
                i
                for i, dirs, wanted in self._matched
                if (wanted is None or wanted == depth) and dirs.fullmatch(here)
            )
        tables = self._tables.get(active)
        if tables is None:
            tables = self._tables[active] = self._build(sorted(active), self._everywhere)
        return tables

    def _build(self, chosen: Sequence[int], base: Tables) -> Tables:
        dirs = [(i, self._rules[i][0].name) for i in chosen]
        files = [(i, glob) for i, glob in dirs if not self._rules[i][0].dir_only]
        return (
            Table(files, self._verdicts, base[0]) if files else base[0],
            Table(dirs, self._verdicts, base[1]) if dirs else base[1],
        )


def parse_rules(
    data: bytes, origin: str, *, of_git: bool = False, below: int = 0, above: bytes = b""
) -> RuleList:
    """A rule file's content. `origin` names the file; each rule adds its line number."""
    rules = []
    for number, text in parse_lines(data):
        pattern = parse_pattern(text)
        if pattern is not None:
            rule = Rule(os.fsdecode(text), f"{origin}:{number}")
            rules.append((pattern, Verdict(rule, pattern.negated, of_git)))
    return RuleList(rules, below=below, above=above)
