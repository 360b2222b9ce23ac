"""Reading a file whose name may lead to something else: a FIFO, a device, a directory."""

from __future__ import annotations

import os
import stat
from pathlib import Path


def read_regular(
    path: str | bytes | Path, *, dir_fd: int | None = None, follow: bool = True
) -> bytes | None:
    """The content of a regular file; None for anything else, without waiting for it. OSError."""
    flags = os.O_RDONLY | os.O_NONBLOCK | os.O_CLOEXEC | (0 if follow else os.O_NOFOLLOW)
    fd = os.open(path, flags, dir_fd=dir_fd)
    try:
        # Looked at first: Python's `open` refuses the descriptor of a directory, and leaves it.
        if not stat.S_ISREG(os.fstat(fd).st_mode):
            return None
        with open(fd, "rb", closefd=False) as file:
            return file.read()
    finally:
        os.close(fd)
