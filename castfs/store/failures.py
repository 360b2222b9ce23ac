"""What a disk says when the store is written, as one line that says what to do."""

from __future__ import annotations

import contextlib
import errno
from collections.abc import Iterator
from pathlib import Path

from castfs.errors import StoreError

_HINTS = {
    errno.ENOSPC: "free some space (perhaps with `castfs gc`) and run the command again; "
    "nothing was lost",
    errno.EDQUOT: "free some of your quota (perhaps with `castfs gc`) and run the command again; "
    "nothing was lost",
    errno.EROFS: "the store is on a read-only filesystem",
    errno.EACCES: "you may not write there",
    errno.EPERM: "you may not write there",
    errno.EISDIR: "a directory lies where a file belongs; `castfs verify` says where",
    errno.EIO: "the disk reports errors; nothing was committed",
}

#: Of this process, or of the whole machine.
_TOO_MANY_FILES = (errno.EMFILE, errno.ENFILE)


def hint_for(exc: OSError, otherwise: str) -> str:
    """What to do where something could not be opened."""
    if exc.errno in _TOO_MANY_FILES:
        return "raise the limit of open files (`ulimit -n`), or close some mounts or readers"
    return otherwise


@contextlib.contextmanager
def store_errors(path: Path) -> Iterator[None]:
    """Turn what the disk says into one line that says what to do."""
    try:
        yield
    except OSError as exc:
        if error := as_store_error(exc, path):
            raise error from exc
        raise


def as_store_error(exc: OSError, path: Path) -> StoreError | None:
    """None for what is no failure of a disk, but of the program."""
    hint = _HINTS.get(exc.errno or 0)
    if hint is None:
        return None
    return StoreError(f"cannot write the store at {path}: {exc.strerror}", hint=hint)
