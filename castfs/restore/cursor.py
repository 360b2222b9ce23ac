"""A place in the target's tree, moved by one `openat` for each component."""

from __future__ import annotations

import os
from collections.abc import Callable
from types import TracebackType
from typing import Self

#: O_NOFOLLOW with O_DIRECTORY: a symlink gives ENOTDIR, whatever it points at.
DIRECTORY_FLAGS = os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW | os.O_CLOEXEC
#: Descriptors that a cursor holds: those of the deepest levels. Going up past them opens the path
#: from the root again, which at depth 5,000 makes about 40 opens for each level on the way.
WINDOW = 64

#: (descriptor of the parent, name, path) → descriptor of the directory
Opener = Callable[[int, bytes, bytes], int]


def open_existing(parent_fd: int, name: bytes, path: bytes) -> int:
    return os.open(name, DIRECTORY_FLAGS, dir_fd=parent_fd)


class Cursor:
    """Holds descriptors of the current directory and of at most WINDOW levels above it.

    Never uses `..`, which leads out of the tree once a directory was moved, nor a path of several
    components, which would follow symlinks and end at PATH_MAX.
    """

    def __init__(self, root_fd: int, opener: Opener = open_existing) -> None:
        self._root_fd = root_fd
        self._opener = opener
        self._path = b""
        self._names: list[bytes] = []
        #: One for each name; -1 where it was closed. The open ones are the last of the list.
        self._fds: list[int] = []

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        exc: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self._cut(0)

    def go(self, path: bytes) -> int:
        """The descriptor of directory `path`, which stays the cursor's: valid until it moves.

        What the opener raises is passed on; the cursor is then at the deepest directory that it
        reached.
        """
        if path != self._path:
            self._move(path)
        return self._fds[-1] if self._fds else self._root_fd

    def _move(self, path: bytes) -> None:
        if self._path and path.startswith(self._path + b"/"):
            rest = path[len(self._path) + 1 :].split(b"/")
        else:
            rest = path.split(b"/") if path else []
            shared = 0
            for ours, theirs in zip(self._names, rest, strict=False):
                if ours != theirs:
                    break
                shared += 1
            if 0 < shared < len(self._fds) and self._fds[shared - 1] < 0:
                shared = 0
            self._cut(shared)
            rest = rest[shared:]
        for name in rest:
            self._push(name)

    def _push(self, name: bytes) -> None:
        parent_fd = self._fds[-1] if self._fds else self._root_fd
        path = self._path + b"/" + name if self._path else name
        self._fds.append(self._opener(parent_fd, name, path))
        self._names.append(name)
        self._path = path
        outside = len(self._fds) - WINDOW - 1
        if outside >= 0 and self._fds[outside] >= 0:
            os.close(self._fds[outside])
            self._fds[outside] = -1

    def _cut(self, depth: int) -> None:
        for fd in self._fds[depth:]:
            if fd >= 0:
                os.close(fd)
        del self._fds[depth:]
        del self._names[depth:]
        self._path = b"/".join(self._names)
