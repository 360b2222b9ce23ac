"""Whose a directory of a run's own files is, where somebody named it: a file in it says so.

Two runs in one directory would write one summary and one log, and take each other's outputs for
their own.
"""

from __future__ import annotations

import contextlib
import os
from pathlib import Path

import msgspec

from castfs.catalog import Change
from castfs.errors import TargetError, UsageError
from castfs.paths import display
from castfs.regular import read_regular
from castfs.store import Depot

#: Not among the outputs that are kept by default.
CLAIM = ".castfs-run"


class Claim(msgspec.Struct, frozen=True):
    """What the file says: a run, and the id of its store."""

    run: str
    store: str


def claim_dir(change: Change, target: Path, run_id: str) -> None:
    """Make `target` the directory of a run. UsageError if it is another's, or in the store;
    TargetError if it cannot be made."""
    depot, shown = change.depot, display(os.fsencode(target))
    try:
        if Path(os.path.realpath(target)).is_relative_to(os.path.realpath(depot.path)):
            raise UsageError(f"{shown} lies in the store {depot.path}", hint="name another run_dir")
        target.mkdir(parents=True, exist_ok=True)
        if not _try_to_write(target, Claim(run_id, depot.marker.id)):
            owner = _read(target)
            if owner is None or owner.store != depot.marker.id or change.run(owner.run) is not None:
                raise _taken(target, depot, owner)
            # It was removed, or never begun: nobody else may begin one here meanwhile.
            (target / CLAIM).unlink()
            _try_to_write(target, Claim(run_id, depot.marker.id))
    except (OSError, ValueError) as exc:
        reason = exc.strerror if isinstance(exc, OSError) else str(exc)
        raise TargetError(
            f"{shown} cannot be the directory of a run: {reason}",
            hint="name a directory that you may write to",
        ) from exc


def _try_to_write(target: Path, claim: Claim) -> bool:
    """False if there is one."""
    flags = os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC
    try:
        fd = os.open(target / CLAIM, flags, 0o666)
    except FileExistsError:
        return False
    try:
        os.write(fd, msgspec.json.encode(claim) + b"\n")
    finally:
        os.close(fd)
    return True


def _read(target: Path) -> Claim | None:
    with contextlib.suppress(OSError, ValueError, RecursionError):
        return msgspec.json.decode(read_regular(target / CLAIM) or b"", type=Claim)
    return None


def _taken(target: Path, depot: Depot, owner: Claim | None) -> UsageError:
    if owner is None:
        who = "another run"
    elif owner.store == depot.marker.id:
        who = f"run {display(owner.run.encode(errors='backslashreplace'))}"
    else:
        who = f"run {display(owner.run.encode(errors='backslashreplace'))} of another store"
    return UsageError(
        f"{display(os.fsencode(target))} is the directory of {who}",
        hint="name another run_dir, or go on with that run (castfs.find_run)"
        if owner is not None
        else f"name another run_dir, or delete {CLAIM} in it if there is no such run",
    )


def is_claimed(depot: Depot, target: Path, run_id: str) -> bool:
    """Is it the directory of that run, and can that be seen from here?"""
    return _read(target) == Claim(run_id, depot.marker.id)


def release_dir(depot: Depot, target: Path, run_id: str) -> None:
    """The directory is free again: the run was removed, or could not begin."""
    if is_claimed(depot, target, run_id):
        with contextlib.suppress(OSError):
            (target / CLAIM).unlink()
