"""A walk that uses scopes as an ingest does, and git's word on what it should find."""

from __future__ import annotations

import functools
import os
import stat
import subprocess
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path

from castfs.ignore import IgnoreOptions, Rule, Scope, open_root_scope

#: Before this, `foo**/bar` matched `foobar` (git's release notes for 2.52).
GIT_STARS_FIXED = (2, 52)


@dataclass
class Walk:
    """Paths below the root, directories with a '/' behind them."""

    kept: set[bytes] = field(default_factory=set)
    dropped: dict[bytes, Rule] = field(default_factory=dict)

    @property
    def files(self) -> set[bytes]:
        return {path for path in self.kept if not path.endswith(b"/")}

    def rule(self, path: bytes) -> Rule | None:
        """What dropped `path` or the directory above it that was not walked."""
        while path and path not in self.dropped:
            path = parent(path)
        return self.dropped.get(path)


def parent(path: bytes) -> bytes:
    head, slash, _ = path.rstrip(b"/").rpartition(b"/")
    return head + slash


def walk(root: Path, options: IgnoreOptions | None = None) -> Walk:
    found = Walk()
    fd = os.open(root, os.O_RDONLY | os.O_DIRECTORY)
    try:
        entries = names_in(fd)
        given = os.dup(fd)
        options = options or IgnoreOptions()
        scope = open_root_scope(given, os.fsencode(root), options, entries, reader(fd))
        os.close(given)
        walk_directory(fd, b"", entries, scope, found)
    finally:
        os.close(fd)
    return found


def walk_directory(fd: int, path: bytes, entries: set[bytes], scope: Scope, found: Walk) -> None:
    for name in sorted(entries):
        is_dir = stat.S_ISDIR(os.stat(name, dir_fd=fd, follow_symlinks=False).st_mode)
        shown = path + name + b"/" * is_dir
        rule = None if scope.keeps_all else scope.judge(name, is_dir)
        if rule is not None:
            found.dropped[shown] = rule
            continue
        found.kept.add(shown)
        if is_dir:
            child_fd = os.open(name, os.O_RDONLY | os.O_DIRECTORY, dir_fd=fd)
            try:
                below = names_in(child_fd)
                child = scope.enter(name, below, reader(child_fd)) if scope.needs_enter else scope
                walk_directory(child_fd, shown, below, child, found)
            finally:
                os.close(child_fd)


def names_in(fd: int) -> set[bytes]:
    return {os.fsencode(name) for name in os.listdir(fd)}


def reader(fd: int) -> Callable[[bytes], bytes | None]:
    def read(name: bytes) -> bytes | None:
        if not stat.S_ISREG(os.stat(name, dir_fd=fd, follow_symlinks=False).st_mode):
            return None
        try:
            with open(os.open(name, os.O_RDONLY, dir_fd=fd), "rb") as file:
                return file.read()
        except OSError:
            return None

    return read


def make(root: Path, *paths: bytes | str, content: bytes = b"x") -> None:
    """Files, and directories for paths that end in '/'."""
    for path in paths:
        whole = os.path.join(os.fsencode(root), os.fsencode(path))
        os.makedirs(os.path.dirname(whole), exist_ok=True)
        if not whole.endswith(b"/"):
            with open(whole, "wb") as file:
                file.write(content)


def git(root: Path, *arguments: str | bytes, stdin: bytes = b"", status: int = 0) -> bytes:
    command = ["git", "-c", "protocol.file.allow=always", *arguments]
    # Given here, and not by the isolation of a test, for fixtures of a whole module.
    alone = {"GIT_CONFIG_GLOBAL": os.devnull, "GIT_CONFIG_NOSYSTEM": "1", "HOME": "/nonexistent"}
    environment = {**os.environ, **alone}
    environment.pop("XDG_CONFIG_HOME", None)
    answer = subprocess.run(
        command, cwd=root, input=stdin, capture_output=True, timeout=60, env=environment
    )
    assert answer.returncode in (0, status), answer.stderr
    return answer.stdout


@functools.cache
def git_version() -> tuple[int, ...]:
    return tuple(int(part) for part in git(Path("/"), "version").split()[2].split(b".")[:2])


def init(root: Path, *arguments: str) -> Path:
    root.mkdir(parents=True, exist_ok=True)
    git(root, "init", "-q", *arguments)
    git(root, "config", "user.name", "nobody")
    git(root, "config", "user.email", "nobody@localhost")
    return root


def git_files(root: Path) -> set[bytes]:
    """Tracked files and those that are neither tracked nor ignored, in nested clones too."""
    files = set()
    tracked = git(root, "ls-files", "-z", "--stage")
    submodules = [e.partition(b"\t")[2] for e in tracked.split(b"\0") if e.startswith(b"160000")]
    listed = git(root, "ls-files", "-z", "-co", "--exclude-standard").split(b"\0")
    for path in {*listed, *(name + b"/" for name in submodules)} - {b"", *submodules}:
        whole = os.path.join(os.fsencode(root), path)
        if not path.endswith(b"/"):
            files |= {path} if os.path.lexists(whole) else set()
        elif os.path.lexists(whole + b".git"):
            files |= {path + below for below in git_files(Path(os.fsdecode(whole)))}
    return files


def git_rules(root: Path, paths: set[bytes]) -> dict[bytes, tuple[str, str]]:
    """For each path that a rule matches: (where, pattern), for `!` patterns too."""
    # With its slash a directory would be asked about as a name in itself.
    asked = b"\0".join(path.rstrip(b"/") for path in paths)
    said = git(
        root, "check-ignore", "-v", "-z", "--no-index", "--stdin", stdin=asked, status=1
    ).split(b"\0")
    rules = {}
    for source, line, pattern, path in zip(*(said[i::4] for i in range(4)), strict=False):
        rules[path] = (f"{os.fsdecode(source)}:{line.decode()}", os.fsdecode(pattern))
    return rules


def all_paths(root: Path) -> set[bytes]:
    everything = walk(root, IgnoreOptions(no_ignore=True)).kept
    return {path for path in everything if not (b"/" + path).find(b"/.git/") >= 0}


def check_against_git(root: Path) -> Walk:
    """The walk keeps the files that git lists."""
    walked = walk(root)
    assert walked.files == git_files(root)
    return walked
