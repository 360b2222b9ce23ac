"""Reading a directory that a stranger may have made: nothing is followed, waited for or changed.

Every path is opened one component at a time below the root, none of them a symlink; what is no
regular file is never read. Sizes are looked at before the reading.
"""

from __future__ import annotations

import contextlib
import errno
import fcntl
import os
import stat
from collections import OrderedDict
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from types import TracebackType
from typing import Literal, Self

from castfs.errors import BusyError, NotFoundError
from castfs.paths import NAME_MAX, display

#: Directories that are kept open: files of one shard or version come together.
_OPEN_DIRECTORIES = 16
_DIRECTORY = os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW | os.O_CLOEXEC
_FILE = os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_NOCTTY | os.O_CLOEXEC

Kind = Literal["file", "directory", "symlink", "special"]


class Refused(Exception):
    """This cannot be taken; `reason` says why. `missing`: because it is not there."""

    def __init__(self, reason: str, *, missing: bool = False) -> None:
        super().__init__(reason)
        self.reason = reason
        self.missing = missing


MISSING = "it is missing"
#: What is wrong with an entry that should be a file or a directory.
WRONG_KIND: dict[Kind, str] = {
    "file": "it is a file, not a directory",
    "directory": "it is a directory, not a file",
    "symlink": "it is a symbolic link, which is not followed",
    "special": "it is no regular file",
}


@dataclass(frozen=True, slots=True)
class Seen:
    """An entry of a directory, not followed."""

    name: bytes
    kind: Kind
    size: int
    mtime_ns: int
    mode: int


def join(*parts: bytes) -> bytes:
    return b"/".join(part for part in parts if part)


def is_component(name: bytes) -> bool:
    """Can it be the name of an entry, so that it leads nowhere else?"""
    return (
        name not in (b"", b".", b"..")
        and b"/" not in name
        and b"\0" not in name
        and len(name) <= NAME_MAX
    )


class SourceTree:
    """Reads below `root`, which itself may be reached through symlinks. A context manager."""

    def __init__(self, root: Path) -> None:
        self.root = root
        self._open: OrderedDict[bytes, int] = OrderedDict()
        try:
            self._fd = os.open(root, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
        except OSError as exc:
            raise NotFoundError(
                f"cannot read {display(os.fsencode(root))}: {exc.strerror}", hint="check the path"
            ) from exc

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        exc: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self.close()

    def close(self) -> None:
        while self._open:
            os.close(self._open.popitem()[1])
        if self._fd >= 0:
            os.close(self._fd)
            self._fd = -1

    def lock(self) -> None:
        """Keep others from doing the same, until this is closed. BusyError if one does."""
        try:
            fcntl.flock(self._fd, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError as exc:
            raise BusyError(
                f"{display(os.fsencode(self.root))} is being imported by another process",
                hint="wait for it",
            ) from exc
        except OSError:
            pass  # NFS locks nothing that was opened for reading

    def path_of(self, path: bytes) -> Path:
        return self.root / os.fsdecode(path)

    def relative(self, source: Path) -> bytes:
        return os.fsencode(source.relative_to(self.root))

    def _directory(self, path: bytes) -> int:
        """A descriptor that stays this tree's. Refused."""
        _check(path)
        known = path
        while known and known not in self._open:
            known = known.rpartition(b"/")[0]
        at = self._fd
        if known:
            self._open.move_to_end(known)
            at = self._open[known]
        # Not by recursion: a path of 4 KiB has 2,000 levels.
        for name in path[len(known) :].split(b"/"):
            if not name:
                continue  # before the first
            try:
                fd = os.open(name, _DIRECTORY, dir_fd=at)
            except OSError as exc:
                raise self._refuse(at, name, exc) from exc
            known = join(known, name)
            at = self._open[known] = fd
            if len(self._open) > _OPEN_DIRECTORIES:
                os.close(self._open.popitem(last=False)[1])
        return at

    def _refuse(self, at: int, name: bytes, exc: OSError) -> Refused:
        """Why an entry did not open, said of what is there."""
        if exc.errno in (errno.EMFILE, errno.ENFILE, errno.ENOMEM):
            raise exc  # no entry's fault
        with contextlib.suppress(OSError):
            kind = _kind(os.stat(name, dir_fd=at, follow_symlinks=False).st_mode)
            if kind in ("symlink", "special") or exc.errno == errno.ENOTDIR:
                return Refused(WRONG_KIND[kind])
        missing = exc.errno in (errno.ENOENT, errno.ENOTDIR)
        return Refused(MISSING if missing else (exc.strerror or str(exc)), missing=missing)

    def look(self, path: bytes) -> Seen | None:
        """What is at `path`; None if nothing is. Refused if the way there leads through a link."""
        parent, _, name = path.rpartition(b"/")
        try:
            _check(name)
            at = self._directory(parent)
            status = os.stat(name or b".", dir_fd=at, follow_symlinks=False)
        except Refused as exc:
            if exc.missing:
                return None
            raise
        except (FileNotFoundError, NotADirectoryError):
            return None
        except OSError as exc:
            raise Refused(exc.strerror or str(exc)) from exc
        return _seen(name, status)

    def is_directory(self, path: bytes) -> bool:
        try:
            seen = self.look(path)
        except Refused:
            return False
        return seen is not None and seen.kind == "directory"

    def list(self, path: bytes) -> list[Seen]:
        """The entries of a directory, by name. Refused."""
        fd = self._directory(path)
        found = []
        try:
            for name in sorted(map(os.fsencode, os.listdir(fd))):
                with contextlib.suppress(FileNotFoundError):
                    found.append(_seen(name, os.stat(name, dir_fd=fd, follow_symlinks=False)))
        except OSError as exc:
            raise Refused(exc.strerror or str(exc)) from exc
        return found

    def open(self, path: bytes) -> int:
        """A descriptor of a regular file, which the caller closes. Refused."""
        parent, _, name = path.rpartition(b"/")
        _check(name)
        at = self._directory(parent)
        try:
            fd = os.open(name, _FILE, dir_fd=at)
        except OSError as exc:
            raise self._refuse(at, name, exc) from exc
        kind = _kind(os.fstat(fd).st_mode)
        if kind != "file":
            os.close(fd)
            raise Refused(WRONG_KIND[kind])
        return fd

    def read(self, path: bytes, limit: int) -> bytes:
        """A whole file of at most `limit` bytes. Refused."""
        fd = self.open(path)
        try:
            if os.fstat(fd).st_size > limit:
                raise Refused(f"it is longer than {limit} bytes, which no such file is")
            with open(fd, "rb", closefd=False) as file:
                data = file.read(limit + 1)
        except OSError as exc:
            raise Refused(exc.strerror or str(exc)) from exc
        finally:
            os.close(fd)
        if len(data) > limit:
            raise Refused(f"it is longer than {limit} bytes, which no such file is")
        return data

    @contextlib.contextmanager
    def held(self, source: Path) -> Iterator[Path]:
        """A path to the same file through the directory that was opened: whatever is swapped on
        the way there meanwhile, it leads to no other directory. Refused unless it is a file."""
        path = self.relative(source)
        parent, _, name = path.rpartition(b"/")
        os.close(self.open(path))
        fd = os.dup(self._directory(parent))
        try:
            yield Path(f"/proc/self/fd/{fd}", os.fsdecode(name))
        finally:
            os.close(fd)


def _check(path: bytes) -> None:
    """Callers make their paths of checked components; this is for the one that forgets."""
    if b"\0" in path or (b".." in path and b".." in path.split(b"/")):
        raise Refused("its path leads elsewhere")


def _kind(mode: int) -> Kind:
    if stat.S_ISREG(mode):
        return "file"
    if stat.S_ISDIR(mode):
        return "directory"
    return "symlink" if stat.S_ISLNK(mode) else "special"


def _seen(name: bytes, status: os.stat_result) -> Seen:
    return Seen(
        name,
        _kind(status.st_mode),
        status.st_size,
        status.st_mtime_ns,
        stat.S_IMODE(status.st_mode),
    )
