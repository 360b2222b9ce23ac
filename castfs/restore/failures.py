"""What the target's filesystem says, as one line that says what to do."""

from __future__ import annotations

import contextlib
import errno
from collections.abc import Iterator
from pathlib import Path

from castfs.errors import TargetError
from castfs.paths import display

_AGAIN = "run it again with --if-exists replace"
_HINTS = {
    errno.ENOSPC: f"free some space and {_AGAIN}",
    errno.EDQUOT: f"free some of your quota and {_AGAIN}",
    errno.EROFS: "it is on a read-only filesystem",
    errno.EACCES: "you may not write there",
    errno.EPERM: "you may not write there",
    errno.EIO: "the disk reports errors",
    errno.ENAMETOOLONG: "that filesystem has shorter names",
    errno.EINVAL: "that filesystem does not take such a name or file",
    errno.EILSEQ: "that filesystem takes UTF-8 names only",
    errno.EFBIG: "that filesystem has a limit of file sizes",
    errno.EMFILE: "raise the limit of open files (`ulimit -n`)",
}
#: Longest path that a message shows whole.
_SHOWN = 300


def shown(path: bytes) -> str:
    return display(path if len(path) <= _SHOWN else path[:40] + b"..." + path[-200:])


def explain(exc: OSError, target: Path, path: bytes = b"") -> TargetError:
    where = f"{shown(path)} in {target}" if path else str(target)
    reason = exc.strerror or str(exc)
    return TargetError(f"cannot restore {where}: {reason}", hint=_HINTS.get(exc.errno or 0))


def disturbed(target: Path, path: bytes) -> TargetError:
    return TargetError(
        f"{shown(path)} in {target} was changed by somebody else during the restore",
        hint=f"stop that and {_AGAIN}",
    )


@contextlib.contextmanager
def target_errors(target: Path, path: bytes = b"") -> Iterator[None]:
    try:
        yield
    except OSError as exc:
        raise explain(exc, target, path) from exc
