"""Where the rules of an ingest begin: its options, and the git repository that its root is in."""

from __future__ import annotations

import functools
import os
from collections.abc import Container
from dataclasses import dataclass
from pathlib import Path

from castfs.errors import SourceError
from castfs.ignore.commandline import parse_command_line
from castfs.ignore.globalexcludes import find_global_excludes
from castfs.ignore.rules import RuleList, parse_rules
from castfs.ignore.scope import (
    GITIGNORE,
    Ingest,
    Read,
    Scope,
    read_rules,
    work_tree_rules,
)
from castfs.ignore.worktree import DOT_GIT, Root, WorkTree, find_git_directory, read_file
from castfs.paths import display


@dataclass(frozen=True, slots=True)
class IgnoreOptions:
    """What decides which entries of a directory are taken; castfs.ignore documents the order.

    `gitignore`: git's rules apply; None: if the ingested root is the root of a work tree.
    `no_ignore`: no rule file is looked for, and `.git` is taken; the other options still count.
    `include`, `exclude`: patterns, anchored at the ingested root.
    `ignore_files`: rule files anchored there, a later one stronger than an earlier.
    `own_files`: names of castfs's own rule files, likewise.
    `global_excludes`: the user's own rules for git; None: where git is configured to find them.
    """

    gitignore: bool | None = None
    no_ignore: bool = False
    include: tuple[str, ...] = ()
    exclude: tuple[str, ...] = ()
    ignore_files: tuple[Path, ...] = ()
    own_files: tuple[str, ...] = (".castignore", ".rnignore")
    global_excludes: Path | None = None


def open_root_scope(
    root_fd: int, root_path: bytes, options: IgnoreOptions, entries: Container[bytes], read: Read
) -> Scope:
    """The scope of an ingested directory. `root_fd` may be closed afterwards: it is duplicated.

    `entries` and `read` as for Scope.enter. UsageError: a pattern that can match nothing, a rule
    file that cannot be read. SourceError: `.git` points nowhere, or a git index cannot be read.
    """
    root = Root(os.dup(root_fd))
    tree = None
    git = False
    if not options.no_ignore and options.gitignore is not False and DOT_GIT in entries:
        tree = _open_work_tree(root, root_path, read)
        git = tree is not None
    git = git or bool(options.gitignore and not options.no_ignore)
    command_line = parse_command_line(options.exclude, options.include, options.ignore_files)
    own_names = () if options.no_ignore else _own_names(options)
    ingest = Ingest(
        root=root,
        shown=display(root_path).rstrip("/"),
        command_line=command_line,
        own_names=own_names,
        git=git,
        global_rules=_read_global(options, root_path) if git else RuleList(()),
        fixed_global_rules=options.global_excludes is not None,
        can_drop=bool(command_line or own_names or git),
    )
    git_rules: tuple[RuleList, ...] = ()
    if git:
        here = read_rules((GITIGNORE,), b"", entries, read, of_git=True)
        if tree is not None:
            outside = work_tree_rules(ingest, tree, "")
        else:
            tree, outside = _enclosing_rules(ingest, root_path)
        git_rules = here + outside
    return Scope(
        ingest,
        b"",
        read_rules(own_names, b"", entries, read),
        git_rules,
        tree,
        included=not options.include,
        has_dot_git=git and DOT_GIT in entries,
    )


def _own_names(options: IgnoreOptions) -> tuple[bytes, ...]:
    return tuple(os.fsencode(name) for name in reversed(options.own_files))


def _read_global(options: IgnoreOptions, root_path: bytes) -> RuleList:
    path = options.global_excludes or find_global_excludes(root_path)
    return parse_rules(read_file(os.fsencode(path)) or b"", str(path), of_git=True)


def _open_work_tree(root: Root, root_path: bytes, read: Read) -> WorkTree | None:
    """The work tree whose root is ingested; None if `.git` is a directory but no git directory."""
    git = find_git_directory(root.open)
    if git is None:
        if read(DOT_GIT) is not None:
            raise SourceError(
                f"{display(root_path)}/.git points to no git directory",
                hint="repair it (`git worktree repair`) or take everything with --no-ignore",
            )
        return None
    return WorkTree(root.open, git, display(root_path), below=0, above=b"")


def _enclosing_rules(
    ingest: Ingest, root_path: bytes
) -> tuple[WorkTree | None, tuple[RuleList, ...]]:
    """The work tree around the ingested root, and git's rules between its root and ours. As git
    does, it is not looked for on another filesystem."""
    lists: list[RuleList] = []
    inside = os.path.realpath(root_path)
    device = os.stat(inside).st_dev
    above, place = b"", ""
    while inside != b"/":
        inside, name = os.path.split(inside)
        if os.stat(inside).st_dev != device:
            break
        above = name + b"/" + above
        place += "../"
        rules = read_file(os.path.join(inside, GITIGNORE), follow=False) or b""
        lists.append(parse_rules(rules, f"{place}.gitignore", of_git=True, above=above))
        open_root = functools.partial(os.open, inside, os.O_RDONLY | os.O_DIRECTORY)
        git = find_git_directory(open_root)
        if git is not None:
            tree = WorkTree(open_root, git, display(inside), below=0, above=above)
            outside = work_tree_rules(ingest, tree, place)
            return tree, (*(rules for rules in lists if rules), *outside)
    return None, (ingest.global_rules,) if ingest.global_rules else ()
