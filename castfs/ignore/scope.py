"""The rules in force in one directory of an ingest, handed down from its parent."""

from __future__ import annotations

import functools
import os
from collections.abc import Callable, Container, Iterable
from dataclasses import dataclass

from castfs.ignore.commandline import CommandLine
from castfs.ignore.rules import Rule, RuleList, Table, Verdict, parse_rules
from castfs.ignore.worktree import DOT_GIT, WorkTree, find_git_directory, open_below
from castfs.paths import display

Read = Callable[[bytes], bytes | None]

GITIGNORE = b".gitignore"
_GIT_ITSELF = Rule(".git/", "built-in")


@dataclass(frozen=True, slots=True)
class Ingest:
    """What is the same in every directory of an ingest. Of several, the strongest comes first."""

    root: int
    shown: str
    command_line: CommandLine
    own_names: tuple[bytes, ...]
    git: bool
    global_rules: RuleList

    @property
    def can_drop(self) -> bool:
        """Whether any directory may have a rule."""
        return bool(self.command_line or self.own_names or self.git)


#: For names that are not directories, and for names that are; the strongest first.
_Tables = tuple[tuple[Table, ...], tuple[Table, ...]]


@dataclass(frozen=True, slots=True)
class Scope:
    """The rules in force inside one directory.

    `keeps_all`: no entry of this directory can be dropped, so `judge` need not be asked.
    `needs_enter`: directories below may have other rules; if False, this scope serves them all.
    Scopes never change; threads may share them.
    """

    keeps_all: bool
    needs_enter: bool
    _ingest: Ingest
    _path: bytes  # from the ingested root: b"" or b"a/b/"
    _own: tuple[RuleList, ...]
    _git: tuple[RuleList, ...]
    _work_tree: WorkTree | None
    _ignored: Verdict | None  # drops this directory, but for what is tracked or reached in it
    _included: bool  # --include matched this directory or one above
    _has_dot_git: bool
    _command_line: _Tables
    _files: _Tables

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
        ignored = None if self.keeps_all else self._dropped(name, True)
        git, work_tree = self._git, self._work_tree
        if ingest.git:
            nested = self._find_nested(path) if DOT_GIT in entries else None
            if nested is not None:
                work_tree, git = nested, work_tree_rules(ingest, nested, os.fsdecode(path))
                if ignored is not None and ignored.of_git and self._tracks(name, True):
                    ignored = None  # a submodule: the tree around it wants it whole
            git = (*read_rules((GITIGNORE,), path, entries, read, of_git=True), *git)
        return make_scope(
            ingest,
            path,
            own=(*read_rules(ingest.own_names, path, entries, read), *self._own),
            git=git,
            work_tree=work_tree,
            ignored=ignored,
            included=self._included or self._is_included(name),
            has_dot_git=ingest.git and DOT_GIT in entries,
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
        on_the_way = self._path + name + b"/" in self._ingest.command_line.on_the_way
        return on_the_way and _first(self._command_line[True], name) is None

    def _tracks(self, name: bytes, is_dir: bool) -> bool:
        return self._work_tree is not None and self._work_tree.tracks(self._path + name, is_dir)

    def _is_included(self, name: bytes) -> bool:
        table = self._ingest.command_line.include.tables(self._path)[True]
        return table is not None and table.find(name) is not None

    def _find_nested(self, path: bytes) -> WorkTree | None:
        """The clone or submodule at `path`. A directory is none, for git, if files in it are
        tracked by the repository around it."""
        ingest = self._ingest
        open_root = functools.partial(open_below, ingest.root, path)
        fd = open_root()
        try:
            git = find_git_directory(fd)
        finally:
            os.close(fd)
        if git is None or (self._work_tree and self._work_tree.tracks_below(path[:-1])):
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


def work_tree_rules(ingest: Ingest, tree: WorkTree, place: str) -> tuple[RuleList, ...]:
    """What git obeys in the whole of a work tree, whose root is `place` ("sub/", "../", "")."""
    origin = f"{place}.git/info/exclude"
    data = tree.read_exclude() or b""
    lists = (
        parse_rules(data, origin, of_git=True, below=tree.below, above=tree.above),
        ingest.global_rules.moved(below=tree.below, above=tree.above),
    )
    return tuple(rules for rules in lists if rules)


def make_scope(
    ingest: Ingest,
    path: bytes,
    *,
    own: tuple[RuleList, ...] = (),
    git: tuple[RuleList, ...] = (),
    work_tree: WorkTree | None = None,
    ignored: Verdict | None = None,
    included: bool,
    has_dot_git: bool = False,
) -> Scope:
    given = ingest.command_line
    command_line = _tables((given.exclude, given.include), path)
    files = _tables((*given.ignore_files, *own, *(git if ignored is None else ())), path)
    has_rules = any(command_line) or any(files) or has_dot_git
    return Scope(
        keeps_all=included and ignored is None and not has_rules,
        needs_enter=ingest.can_drop,
        _ingest=ingest,
        _path=path,
        _own=own,
        _git=git,
        _work_tree=work_tree,
        _ignored=ignored,
        _included=included,
        _has_dot_git=has_dot_git,
        _command_line=command_line,
        _files=files,
    )


def _tables(lists: tuple[RuleList, ...], path: bytes) -> _Tables:
    found = [rules.tables(path) for rules in lists]
    files = tuple(table for table, _ in found if table is not None)
    return files, tuple(table for _, table in found if table is not None)


def _first(tables: tuple[Table, ...], name: bytes) -> Verdict | None:
    for table in tables:
        verdict = table.find(name)
        if verdict is not None:
            return verdict
    return None
