"""A shim over the calls that touch a store: everything that castfs does to it passes here first."""

from __future__ import annotations

import builtins
import errno
import fcntl
import io
import os
import sqlite3
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from castfs import syscalls

#: By their first argument: a path (or a descriptor) that `dir_fd` may go with; a descriptor; two
#: paths.
_ON_PATHS = (
    "access", "chmod", "listdir", "lstat", "mkdir", "open", "remove", "rmdir", "scandir", "stat",
    "unlink", "utime",
)  # fmt: skip
_ON_DESCRIPTORS = ("close", "fchmod", "fsync", "ftruncate", "pread", "read", "readv", "write")
_ON_PAIRS = ("link", "rename", "replace")

_LOCKS = {"gate", "store", "gc.lock", "catalog.lock"}
#: The database says what the files say, so a statement changes nothing.
_READING = {
    "access", "flock", "listdir", "lstat", "pread", "read", "readv", "scandir", "sql", "stat",
}  # fmt: skip
#: Of SQL, what looks and writes nothing.
_ASKING = ("SELECT", "ROLLBACK", "PRAGMA user_version", "PRAGMA database_list")
#: What a full disk refuses; of `open`, that which creates.
_FILLING = {
    "fsync", "ftruncate", "link", "mkdir", "rename", "replace", "syncfs", "utime", "write",
}  # fmt: skip


_TAKING = {"chmod", "fchmod", "remove", "rmdir", "unlink"}


def nothing() -> None:
    """What is done of most calls before they fail."""


def os_error(code: int) -> Exception:
    return OSError(code, os.strerror(code))


def sqlite_error(code: int) -> Exception:
    """What SQLite makes of a call's error (sqlite.org/rescode.html)."""
    full = code == errno.ENOSPC
    error = sqlite3.OperationalError("database or disk is full" if full else "disk I/O error")
    error.sqlite_errorcode = sqlite3.SQLITE_FULL if full else sqlite3.SQLITE_IOERR
    return error


@dataclass(frozen=True)
class Call:
    """A call that is about to be made. `path` is relative to the store, "" for the store itself."""

    name: str
    path: str
    fills: bool
    #: May the disk's errors show in it?
    fails: bool = True
    #: Does what such a call may have done when it fails: half of a write.
    half: Callable[[], object] = nothing
    #: What it raises, by the error's number.
    error: Callable[[int], Exception] = os_error

    @property
    def changes(self) -> bool:
        return self.name not in _READING

    @property
    def alters(self) -> bool:
        """Does it change what a next process finds? Whoever dies before any other leaves the same
        as who dies before the next that does."""
        return self.fills or self.name in _TAKING

    @property
    def kind(self) -> str:
        """The same for calls that do the same in the same room."""
        room = self.path.partition("/")[0]
        return f"{self.name}{'+' if self.fills else ''} {room} {self.path.count('/')}"


class Shim:
    """Once it is `installed`, `before` is called with every call on the store, and may raise."""

    def __init__(self, store: Path, before: Callable[[Call], None]) -> None:
        self._store = os.fspath(store)
        self._before = before
        self._readlink = os.readlink

    def install(self) -> None:
        for name in (*_ON_PATHS, *_ON_DESCRIPTORS, *_ON_PAIRS):
            self._wrap(os, name)
        self._wrap(fcntl, "flock")
        self._wrap(syscalls, "syncfs")
        self._wrap_database()
        opened = self._opener(io.open)
        io.open = opened
        builtins.open = opened

    def _wrap(self, module: Any, name: str) -> None:
        original: Callable[..., Any] = getattr(module, name)

        def call(*args: Any, **kwargs: Any) -> Any:
            path = self._find(args, kwargs)
            if path is not None:
                half: Callable[[], object] = nothing
                if name == "write":
                    half = lambda: original(args[0], memoryview(args[1])[: len(args[1]) // 2])  # noqa: E731
                elif name == "close":
                    half = lambda: original(args[0])  # noqa: E731
                fills = name in _FILLING or (name == "open" and bool(args[1] & os.O_CREAT))
                fails = name != "close" or _has_written(args[0], path)
                self._before(Call(name, path, fills, fails, half))
            return original(*args, **kwargs)

        setattr(module, name, call)

    def _wrap_database(self) -> None:
        """SQLite makes its calls in C: each statement counts as one of them."""
        shim = self

        class Connection(sqlite3.Connection):
            path: str | None = None

            def execute(self, sql: str, *args: Any) -> Any:
                self._tell(sql)
                return super().execute(sql, *args)

            def executemany(self, sql: str, *args: Any) -> Any:
                self._tell(sql)
                return super().executemany(sql, *args)

            def _tell(self, sql: str) -> None:
                if self.path is not None:
                    writes = not sql.startswith(_ASKING)
                    shim._before(Call("sql", self.path, writes, error=sqlite_error))

        original = sqlite3.connect

        def connect(database: Any, **kwargs: Any) -> Any:
            made = original(database, factory=Connection, **kwargs)
            if isinstance(database, Path):
                made.path = self._inside(database, None)
            return made

        sqlite3.connect = connect  # type: ignore[assignment]

    def _find(self, args: tuple[Any, ...], kwargs: dict[str, Any]) -> str | None:
        """What is called upon, relative to the store; None if it lies elsewhere."""
        at = kwargs.get("dir_fd", kwargs.get("src_dir_fd"))
        found = self._inside(args[0] if args else ".", at)
        if found is None and len(args) > 1 and isinstance(args[1], str | bytes | os.PathLike):
            found = self._inside(args[1], kwargs.get("dst_dir_fd"))
        return found

    def _inside(self, target: Any, dir_fd: int | None) -> str | None:
        try:
            if isinstance(target, int):
                path = self._readlink(f"/proc/self/fd/{target}")
            else:
                path = os.fsdecode(target)
                if dir_fd is not None:
                    path = os.path.join(self._readlink(f"/proc/self/fd/{dir_fd}"), path)
        except OSError:
            return None
        path = os.path.abspath(path)
        if path == self._store:
            return ""
        return path.removeprefix(f"{self._store}/") if path.startswith(f"{self._store}/") else None

    def _opener(self, original: Any) -> Any:
        """`open`, whose files make their calls in C otherwise."""

        def opened(
            file: Any, mode: str = "r", buffering: int = -1, *args: Any, **kwargs: Any
        ) -> Any:
            path = self._inside(file, None)
            if path is None or "b" not in mode:
                return original(file, mode, buffering, *args, **kwargs)
            writes = "r" not in mode
            if not isinstance(file, int):
                self._before(Call("open", path, writes))
            raw = _File(file, mode.replace("b", ""), closefd=kwargs.get("closefd", True))
            raw.before, raw.path = self._before, path
            return io.BufferedWriter(raw) if writes else io.BufferedReader(raw)

        return opened


def _has_written(fd: int, path: str) -> bool:
    """Only then can closing it tell of an error, on some network filesystems (close(2))."""
    return path not in _LOCKS and fcntl.fcntl(fd, fcntl.F_GETFL) & os.O_ACCMODE != os.O_RDONLY


class _File(io.FileIO):
    before: Callable[[Call], None]
    path: str

    def write(self, data: Any) -> int:
        size = memoryview(data).nbytes
        write = super().write
        half = lambda: write(memoryview(data)[: size // 2])  # noqa: E731
        self.before(Call("write", self.path, True, half=half))
        return write(data)

    def readinto(self, buffer: Any) -> int:
        self.before(Call("read", self.path, False))
        return super().readinto(buffer)

    def readall(self) -> bytes:
        self.before(Call("read", self.path, False))
        return super().readall()
