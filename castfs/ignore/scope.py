"""The rules in force in one directory of an ingest, handed down from its parent."""

from __future__ import annotations

import functools
import os
from collections.abc import Callable, Container, Iterable
from dataclasses import dataclass

from castfs.ignore.commandline import CommandLine
from castfs.ignore.rules import Rule, RuleList, Table, Verdict, parse_rules
from castfs.ignore.worktree import DOT_GIT, Root, WorkTree, find_git_directory
from castfs.paths import display

Read = Callable[[bytes], bytes | None]

GITIGNORE = b".gitignore"
_GIT_ITSELF = Rule(".git/", "built-in")


@dataclass(frozen=True, slots=True)
class Ingest:
    """What is the same in every directory of an ingest. Of several, the strongest comes first.

    `can_drop`: some directory may have a rule. `fixed_global_rules`: they were given, so that no
    repository's configuration is looked at.
    """

    root: Root
    shown: str
    command_line: CommandLine
    own_names: tuple[bytes, ...]
    git: bool
    global_rules: RuleList
    fixed_global_rules: bool
    can_drop: bool


#: For names that are not directories, and for names that are; the strongest first.
_Tables = tuple[tuple[Table, ...], tuple[Table, ...]]


class Scope:
    """The rules in force inside one directory.

    `keeps_all`: no entry of this directory can be dropped, so `judge` need not be asked.
    `needs_enter`: directories below may have other rules; if False, this scope serves them all.
    Scopes never change; threads may share them.
    """

    # Not a frozen dataclass: one is made for each directory, and that would take twice the time.
    __slots__ = (
        "_command_line",
        "_files",
        "_git",
        "_has_dot_git",
        "_ignored",
        "_included",
        "_ingest",
        "_own",
        "_path",
        "_work_tree",
        "keeps_all",
        "needs_enter",
    )

    def __init__(
        self,
        ingest: Ingest,
        path: bytes,
        own: tuple[RuleList, ...],
        git: tuple[RuleList, ...],
        work_tree: WorkTree | None,
        ignored: Verdict | None = None,
        *,
        included: bool,
        has_dot_git: bool,
    ) -> None:
        """`path` leads here from the ingested root: b"" or b"a/b/". `ignored` drops this directory,
        but for what is tracked or reached in it. `included`: --include matched this directory or
        one above, or is not given."""
        self._ingest = ingest
        self._path = path
        self._own = own
        self._git = git
        self._work_tree = work_tree
        self._ignored = ignored
        self._included = included
        self._has_dot_git = has_dot_git
        given = ingest.command_line
        self._command_line = _tables(given.patterns, path)
        in_files = own if ignored is not None else own + git
        self._files = _tables(given.ignore_files + in_files, path)
        has_rules = any(self._command_line) or any(self._files) or has_dot_git
        self.keeps_all = included and ignored is None and not has_rules
        self.needs_enter = ingest.can_drop

    def judge(self, name: bytes, is_dir: bool) -> Rule | None:
        """The rule that drops entry `name` of this directory, None to keep it. A symlink to a
        directory is no directory. SourceError: a git index cannot be read."""
        if self.keeps_all:
            return None
        if self._has_dot_git and name == DOT_GIT:
            return _GIT_ITSELF
        verdict = self._dropped(name, is_dir)
        if verdict is None or (verdict.of_git and self._tracks(name, is_dir)):
            return None
        return None if is_dir and self._leads_on(name) else verdict.rule

    def enter(self, name: bytes, entries: Container[bytes], read: Read) -> Scope:
        """The scope of child directory `name`, which `judge` has kept.

        `entries` are the names in it; `read(name)` is the content of a regular file in it, None if
        there is none or it cannot be read; it follows no symlink, as git reads no symlinked
        .gitignore. SourceError: a git index cannot be read.
        """
        if not self.needs_enter:
            return self
        ingest = self._ingest
        path = self._path + name + b"/"
        own, git, work_tree = self._own, self._git, self._work_tree
        ignored = None if self.keeps_all else self._dropped(name, True)
        has_dot_git = ingest.git and DOT_GIT in entries
        if has_dot_git and (nested := self._find_nested(path, ignored)):
            work_tree, ignored = nested, None
            git = work_tree_rules(ingest, nested, os.fsdecode(path), nested=True)
        if ingest.git and GITIGNORE in entries:
            git = read_rules((GITIGNORE,), path, entries, read, of_git=True) + git
        if any(name in entries for name in ingest.own_names):
            own = read_rules(ingest.own_names, path, entries, read) + own
        return Scope(
            ingest,
            path,
            own,
            git,
            work_tree,
            ignored,
            included=self._included or self._is_included(name),
            has_dot_git=has_dot_git,
        )

    def _dropped(self, name: bytes, is_dir: bool) -> Verdict | None:
        """What drops `name`, even if it is tracked or leads to what is kept."""
        verdict = _first(self._command_line[is_dir], name)
        if verdict is None:
            if not (is_dir or self._included):
                return self._ingest.command_line.not_included
            verdict = _first(self._files[is_dir], name)
        elif verdict.keeps and self._ignored is not None:
            reaching = _tables((self._ingest.command_line.reaching,), self._path)
            return None if _first(reaching[is_dir], name) else self._ignored
        return self._ignored if verdict is None or verdict.keeps else verdict

    def _leads_on(self, name: bytes) -> bool:
        """Whether directory `name`, which rule files drop, is on the way to what is kept."""
        if self._path + name + b"/" not in self._ingest.command_line.on_the_way:
            return False
        verdict = _first(self._command_line[True], name)
        return verdict is None or verdict.keeps

    def _tracks(self, name: bytes, is_dir: bool) -> bool:
        path = self._path + name + b"/" * is_dir
        return self._work_tree is not None and self._work_tree.tracks(path, is_dir)

    def _is_included(self, name: bytes) -> bool:
        table = self._ingest.command_line.include.tables(self._path)[True]
        return table is not None and table.find(name) is not None

    def _find_nested(self, path: bytes, ignored: Verdict | None) -> WorkTree | None:
        """The clone or submodule at `path`, if its rules count.

        A directory is none, for git, if the repository around it tracks files in it. An ignored
        clone is only walked on the way to something, which is no reason to take it whole, but an
        ignored submodule is tracked.
        """
        ingest, around = self._ingest, self._work_tree
        open_root = functools.partial(ingest.root.open, path)
        git = find_git_directory(open_root)
        if git is None or (around and around.tracks_below(path)):
            return None
        if ignored is not None and not (ignored.of_git and around and around.tracks(path, True)):
            return None
        shown = f"{ingest.shown}/{display(path)}"
        return WorkTree(open_root, git, shown, below=len(path), above=b"")


def read_rules(
    names: Iterable[bytes],
    path: bytes,
    entries: Container[bytes],
    read: Read,
    *,
    of_git: bool = False,
) -> tuple[RuleList, ...]:
    """The rule files among `names` that are in directory `path`."""
    lists = []
    for name in names:
        data = read(name) if name in entries else None
        if data:
            origin = os.fsdecode(path + name)
            lists.append(parse_rules(data, origin, of_git=of_git, below=len(path)))
    return tuple(rules for rules in lists if rules)


def work_tree_rules(
    ingest: Ingest, tree: WorkTree, place: str, *, nested: bool = False
) -> tuple[RuleList, ...]:
    """What git obeys in the whole of a work tree, whose root is `place` ("sub/", "../", "").

    The user's own rules are those of the ingested tree, unless a `nested` one has set others.
    """
    origin = f"{place}.git/info/exclude"
    data = tree.read_exclude() or b""
    own = tree.read_own_excludes() if nested and not ingest.fixed_global_rules else None
    if own is None:
        global_rules = ingest.global_rules.moved(below=tree.below, above=tree.above)
    else:
        name, content = own
        global_rules = parse_rules(content, name, of_git=True, below=tree.below, above=tree.above)
    lists = (
        parse_rules(data, origin, of_git=True, below=tree.below, above=tree.above),
        global_rules,
    )
    return tuple(rules for rules in lists if rules)


def _tables(lists: tuple[RuleList, ...], path: bytes) -> _Tables:
    if not lists:
        return (), ()
    found = [rules.tables(path) for rules in lists]
    files = tuple([table for table, _ in found if table is not None])
    return files, tuple([table for _, table in found if table is not None])


def _first(tables: tuple[Table, ...], name: bytes) -> Verdict | None:
    for table in tables:
        verdict = table.find(name)
        if verdict is not None:
            return verdict
    return None
