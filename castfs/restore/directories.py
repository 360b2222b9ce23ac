"""Directories: made private for the time of the work, and given what is recorded at its end."""

from __future__ import annotations

import contextlib
import os
import stat
from pathlib import Path

from castfs.errors import TargetError
from castfs.restore.cursor import DIRECTORY_FLAGS, Cursor, open_existing
from castfs.restore.failures import disturbed, shown, target_errors
from castfs.restore.metadata import Metadata
from castfs.restore.plan import Plan
from castfs.restore.result import IfExists

_OWN = stat.S_IRWXU
#: Times that something else than a directory is found at a name and got rid of, before somebody who
#: puts it there again and again has won.
_ATTEMPTS = 16


class DirectoryMaker:
    """`make` is a cursor's opener. `finish` is called once everything is written."""

    def __init__(self, plan: Plan, target: Path, if_exists: IfExists) -> None:
        self._plan = plan
        self._target = target
        self._replace = if_exists == "replace"
        self._seen: set[bytes] = set()
        self._created: set[bytes] = set()
        #: Modes of existing directories that were opened to their owner meanwhile.
        self._changed: dict[bytes, int] = {}

    def make(self, parent_fd: int, name: bytes, path: bytes) -> int:
        with target_errors(self._target, path):
            if path in self._seen:
                return self._open_again(parent_fd, name, path)
            fd = self._open_first(parent_fd, name, path)
            self._seen.add(path)
            return fd

    def root_was_created(self) -> None:
        self._created.add(b"")

    def open_up_root(self, root_fd: int) -> None:
        if self._sets(b""):
            self._open_up_fd(root_fd, b"")

    def _open_again(self, parent_fd: int, name: bytes, path: bytes) -> int:
        try:
            return open_existing(parent_fd, name, path)
        except (FileNotFoundError, NotADirectoryError):
            raise disturbed(self._target, path) from None

    def _open_first(self, parent_fd: int, name: bytes, path: bytes) -> int:
        for _ in range(_ATTEMPTS):
            with contextlib.suppress(FileExistsError):
                os.mkdir(name, _OWN, dir_fd=parent_fd)
                self._created.add(path)
            try:
                return self._open(parent_fd, name, path)
            except FileNotFoundError:
                continue
            except NotADirectoryError:
                if not self._replace:
                    break
                with contextlib.suppress(FileNotFoundError, IsADirectoryError):
                    os.unlink(name, dir_fd=parent_fd)
        if self._replace:
            raise disturbed(self._target, path)
        raise TargetError(
            f"{shown(path)} is a directory in the snapshot and none in {self._target}",
            hint="move it away, or give --if-exists replace",
        )

    def _open(self, parent_fd: int, name: bytes, path: bytes) -> int:
        try:
            fd = open_existing(parent_fd, name, path)
        except PermissionError:
            if not self._sets(path):
                raise
            self._open_up(parent_fd, name, path)
            return open_existing(parent_fd, name, path)
        if self._sets(path):
            self._open_up_fd(fd, path)
        return fd

    def _sets(self, path: bytes) -> bool:
        """Does this directory get its recorded mode and time in the end?"""
        if path in self._created:
            return True
        return self._replace and path not in self._plan.passed

    def _open_up_fd(self, fd: int, path: bytes) -> None:
        """Let the owner of a directory write in it, if that is who we are. The umask can have taken
        that away from a new one."""
        status = os.fstat(fd)
        mode = stat.S_IMODE(status.st_mode)
        if mode & _OWN != _OWN and status.st_uid == os.geteuid():
            if path not in self._created:
                self._changed[path] = mode
            os.fchmod(fd, mode | _OWN)

    def _open_up(self, parent_fd: int, name: bytes, path: bytes) -> None:
        """The same for one that cannot even be opened, be it for its own mode or for the umask."""
        mode = _open_up_unread(os.fsdecode(name), parent_fd)
        if path not in self._created:
            self._changed[path] = mode

    def finish(self, root_fd: int, metadata: Metadata) -> None:
        """Owners, attributes, modes and times, deepest first: a mode may forbid to enter."""
        with Cursor(root_fd) as cursor:
            for path in reversed(self._plan.dirs):
                if self._sets(path):
                    with target_errors(self._target, path):
                        fd = self._go_again(cursor, path)
                        metadata.set(fd, path, self._plan.tree.dirs[path])
        if self._sets(b""):
            metadata.set(root_fd, b"", self._plan.tree.root)

    def _go_again(self, cursor: Cursor, path: bytes) -> int:
        try:
            return cursor.go(path)
        except (FileNotFoundError, NotADirectoryError):
            raise disturbed(self._target, path) from None

    def put_back(self, root_fd: int) -> None:
        """After a failure: the modes of the directories that are not ours, as far as possible."""
        with Cursor(root_fd) as cursor:
            for path, mode in sorted(self._changed.items(), reverse=True):
                with contextlib.suppress(OSError):
                    os.fchmod(cursor.go(path), mode)


def open_target(target: Path) -> int | None:
    """The target's descriptor; None if it is to be created. TargetError if that cannot work.

    The target itself may be a symlink to a directory: the caller named it.
    """
    flags = DIRECTORY_FLAGS & ~os.O_NOFOLLOW
    try:
        return os.open(target, flags)
    except FileNotFoundError:
        if target.parent.is_dir() and not target.is_symlink():
            return None
        raise TargetError(
            f"cannot create {target}: {target.parent} is not a directory"
            if not target.is_symlink()
            else f"{target} is a symlink that leads nowhere",
            hint="create the directory first (mkdir -p)",
        ) from None
    except NotADirectoryError:
        raise TargetError(
            f"cannot restore into {target}: not a directory", hint="name a directory"
        ) from None


def create_target(target: Path) -> int:
    with target_errors(target):
        os.mkdir(target, _OWN)
        try:
            return os.open(target, DIRECTORY_FLAGS)
        except PermissionError:
            _open_up_unread(str(target), None)
            return os.open(target, DIRECTORY_FLAGS)


def _open_up_unread(name: str, parent_fd: int | None) -> int:
    """Let the owner into a directory; returns its mode before. O_PATH needs no permission on it."""
    flags = os.O_PATH | os.O_NOFOLLOW | os.O_DIRECTORY | os.O_CLOEXEC
    fd = os.open(name, flags, dir_fd=parent_fd)
    try:
        mode = stat.S_IMODE(os.fstat(fd).st_mode)
        os.chmod(f"/proc/self/fd/{fd}", mode | _OWN)
        return mode
    finally:
        os.close(fd)
