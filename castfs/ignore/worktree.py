"""What git keeps beside `.gitignore` files: where the git directory of a work tree is, the excludes
in it, and which files are tracked."""

from __future__ import annotations

import contextlib
import errno
import os
import stat
import subprocess
from collections.abc import Callable, Iterator
from dataclasses import dataclass

from castfs.errors import SourceError
from castfs.ignore.git import git_command
from castfs.ignore.gitindex import PartialIndexError, Tracked, parse_index
from castfs.ignore.globalexcludes import find_global_excludes
from castfs.paths import display
from castfs.regular import read_regular

DOT_GIT = b".git"
_POINTER = b"gitdir: "
#: Seconds for `git ls-files`; a million entries take about one.
_GIT_TIMEOUT = 120

OpenDirectory = Callable[[], int]  # a new descriptor each time, for the caller to close


@dataclass(frozen=True, slots=True)
class GitDirectory:
    """`own` has the index; `common` is shared by the linked work trees of a repository. Paths are
    absolute or relative to the root of the work tree."""

    own: bytes
    common: bytes


def find_git_directory(open_root: OpenDirectory) -> GitDirectory | None:
    """The git directory of a work tree, which is `.git` in it or what that file points to. None if
    it is not one by git's own measure: it has HEAD, and its repository has objects/ and refs/."""
    try:
        with _opened(open_root) as root:
            own, common = _follow_pointers(root)
            os.lstat(own + b"/HEAD", dir_fd=root)  # in old repositories a symlink; it may dangle
            for name in (b"/objects", b"/refs"):
                if not stat.S_ISDIR(os.stat(common + name, dir_fd=root).st_mode):
                    return None
            return GitDirectory(own, common)
    except (OSError, ValueError):
        return None


def _follow_pointers(root: int) -> tuple[bytes, bytes]:
    """The git directory and that of its repository; ValueError: `.git` is another sort of file."""
    own = DOT_GIT
    pointer = read_file(DOT_GIT, root)
    if pointer is not None:
        if not pointer.startswith(_POINTER):
            raise ValueError(".git is a file, and no pointer")
        own = pointer.removeprefix(_POINTER).rstrip(b"\r\n")
    shared = read_file(own + b"/commondir", root)
    return own, own if shared is None else os.path.join(own, shared.rstrip(b"\r\n"))


@contextlib.contextmanager
def _opened(open_directory: OpenDirectory) -> Iterator[int]:
    fd = open_directory()
    try:
        yield fd
    finally:
        os.close(fd)


def read_file(path: bytes, directory: int | None = None, *, follow: bool = True) -> bytes | None:
    """The content of a regular file, None if it is anything else or cannot be read."""
    try:
        return _read(path, directory, follow)
    except (OSError, ValueError):
        return None


def _read(path: bytes, directory: int | None, follow: bool = True) -> bytes:
    content = read_regular(path, dir_fd=directory, follow=follow)
    if content is None:
        raise OSError(errno.EINVAL, "it is not a regular file")
    return content


class Root:
    """The ingested directory, open for as long as a scope may ask for something in it."""

    __slots__ = ("_fd",)

    def __init__(self, fd: int) -> None:
        """`fd` is this object's from now on."""
        self._fd = fd

    def __del__(self) -> None:
        os.close(self._fd)

    def open(self, path: bytes = b"") -> int:
        """Directory `path` (b"a/b/") below it, without following a symlink, however deep it is."""
        flags = os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW
        fd = os.dup(self._fd)
        for name in path.split(b"/")[:-1]:
            parent = fd
            try:
                fd = os.open(name, flags, dir_fd=parent)
            finally:
                os.close(parent)
        return fd


class WorkTree:
    """One work tree, of which the ingested tree is a part or that is a part of it.

    The index is read when a rule would first drop something, so a tree without rules never pays.
    """

    __slots__ = ("_git", "_open", "_tracked", "above", "below", "shown")

    def __init__(
        self,
        open_root: OpenDirectory,
        git: GitDirectory,
        shown: str,
        *,
        below: int,
        above: bytes,
    ) -> None:
        """`shown` is its root for messages. `below`, `above`: as for RuleList."""
        self._open = open_root
        self._git = git
        self._tracked: Tracked | None = None
        self.shown = shown
        self.below = below
        self.above = above

    def read_exclude(self) -> bytes | None:
        """info/exclude of the repository."""
        with contextlib.suppress(OSError), _opened(self._open) as root:
            return read_file(self._git.common + b"/info/exclude", root)
        return None

    def read_own_excludes(self) -> tuple[str, bytes] | None:
        """(name, content) of the core.excludesFile that this repository sets for itself."""
        with contextlib.suppress(OSError), _opened(self._open) as root:
            names = (self._git.common + b"/config", self._git.own + b"/config.worktree")
            config = b"".join(read_file(name, root) or b"" for name in names).lower()
            if b"excludesfile" in config or b"[include" in config:
                path = find_global_excludes(b"/proc/self/fd/%d" % root, (root,))
                return str(path), read_file(os.fsencode(path)) or b""
        return None

    def tracks(self, path: bytes, is_dir: bool) -> bool:
        """Whether git tracks the file at `path` below the ingested root; of a directory, which ends
        in '/', whether it is a submodule or has tracked files in it. SourceError: the index cannot
        be read."""
        if not is_dir:
            return self._index().has(self._inside(path))
        return self.tracks_below(path) or self._index().has_submodule(self._inside(path[:-1]))

    def tracks_below(self, directory: bytes) -> bool:
        return self._index().has_below(self._inside(directory))

    def _inside(self, path: bytes) -> bytes:
        return self.above + path[self.below :]

    def _index(self) -> Tracked:
        if self._tracked is None:
            try:
                with _opened(self._open) as root:
                    self._tracked = self._read_index(root)
            except OSError as error:
                raise self._unknown(error.strerror or str(error)) from None
        return self._tracked

    def _read_index(self, root: int) -> Tracked:
        try:
            data = _read(self._git.own + b"/index", root)
        except FileNotFoundError:
            return Tracked()
        try:
            return parse_index(data)
        except PartialIndexError as error:
            return self._ask_git(root, str(error))
        except ValueError as error:
            # git would read on: it verifies no checksum, and lists half of a truncated index.
            raise self._unknown(str(error)) from None

    def _ask_git(self, root: int, reason: str) -> Tracked:
        """The names as `git ls-files` puts them together."""
        try:
            answer = subprocess.run(
                git_command(f"/proc/self/fd/{root}", "ls-files", "-z", "--stage"),
                stdin=subprocess.DEVNULL,
                capture_output=True,
                pass_fds=(root,),
                timeout=_GIT_TIMEOUT,
                check=True,
            )
        except subprocess.CalledProcessError as error:
            said = display((error.stderr.strip().splitlines() or [b"nothing"])[0])
            raise self._unknown(f"{reason}; git says: {said}") from None
        except (OSError, subprocess.TimeoutExpired) as error:
            raise self._unknown(f"{reason}; {error}") from None
        entries = [entry.partition(b"\t") for entry in answer.stdout.split(b"\0") if entry]
        names = [name for _, _, name in entries]
        return Tracked(names, [name for mode, _, name in entries if mode.startswith(b"160000 ")])

    def _unknown(self, reason: str) -> SourceError:
        return SourceError(
            f"which files git tracks in {self.shown} cannot be read from its index: {reason}",
            hint="repair it (`git reset` writes a new one) or take everything with --no-ignore",
        )
