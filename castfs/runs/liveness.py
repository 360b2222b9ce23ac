"""Whether somebody is at work for a run: a lock that goes with its process, however that ends.

Each process that is at work for one holds a shared flock on `.castfs-alive` in the run's directory.
A child that was forked, and runs no other program, has it with its parent: it may still log. A run
whose file says `running`, and whose lock nobody holds, is `lost`: its process ended without a word.
The file goes on saying `running`; whoever looks says `lost`.
"""

from __future__ import annotations

import contextlib
import dataclasses
import errno
import fcntl
import logging
import os
import time
import weakref
from pathlib import Path

from castfs import atomic
from castfs.catalog import RunFile
from castfs.catalog.files import runs_dir
from castfs.repository.graph import Graph
from castfs.runs.claiming import is_claimed
from castfs.store import Depot
from castfs.store.locks import open_lock, try_flock

log = logging.getLogger("castfs.runs")

#: Not among the outputs that are kept by default.
ALIVE = ".castfs-alive"
LOST = "lost"

_POLL_SECONDS = 0.001
#: Who looks holds the lock for microseconds.
_PATIENCE_SECONDS = 1.0
_LOOKS = 3


class Hold:
    """The lock, held until it is let go of, or nobody has this object any more."""

    def __init__(self, fd: int) -> None:
        self._fd = fd
        # No unlocking: a child that is done with it must not end it for its parent.
        self._closing = weakref.finalize(self, os.close, fd)
        self._closing.atexit = False

    def let_go(self) -> None:
        """Said, and not left to the close: a child that was forked meanwhile has it open, too.
        Nothing the second time."""
        if self._closing.detach() is not None:
            with contextlib.suppress(OSError):
                fcntl.flock(self._fd, fcntl.LOCK_UN)
            os.close(self._fd)


def hold_run(depot: Depot, run_id: str) -> Hold | None:
    """Be at work for a run. None where that cannot be said (no locks there, a read-only medium): no
    reason not to go on."""
    place = runs_dir(depot) / run_id
    try:
        fd = _open(place, depot.file_mode)
    except OSError as exc:
        log.debug("cannot say that run %s goes on: %s", run_id, exc)
        return None
    try:
        end = time.monotonic() + _PATIENCE_SECONDS
        while not try_flock(fd, fcntl.LOCK_SH):
            if time.monotonic() > end:
                raise OSError(errno.EBUSY, os.strerror(errno.EBUSY))
            time.sleep(_POLL_SECONDS)
    except BaseException as exc:
        os.close(fd)
        if not isinstance(exc, OSError):
            raise
        log.debug("cannot say that run %s goes on: %s", run_id, exc)
        return None
    return Hold(fd)


def _open(place: Path, mode: int) -> int:
    with contextlib.suppress(FileExistsError):
        flags = os.O_RDWR | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC
        fd = os.open(place / ALIVE, flags, mode)
        with contextlib.suppress(OSError):
            atomic.give_to_owner_of(place, fd)
        return fd
    return open_lock(place / ALIVE)


def is_held(depot: Depot, run_id: str) -> bool | None:
    """Is anybody at work for a run, in this process or another one? None if nobody can tell."""
    place = runs_dir(depot) / run_id
    if place.is_symlink() and not is_claimed(depot, place, run_id):
        return None  # that directory is not here: on another machine it may be
    try:
        fd = open_lock(place / ALIVE)
    except (FileNotFoundError, NotADirectoryError):
        return False
    except OSError:
        return None
    try:
        for _ in range(_LOOKS):
            if try_flock(fd, fcntl.LOCK_EX):
                fcntl.flock(fd, fcntl.LOCK_UN)
                return False
            time.sleep(_POLL_SECONDS)  # it may be somebody else who looks
    except OSError:
        return None
    finally:
        os.close(fd)
    return True


def status_of(depot: Depot, run: RunFile) -> str:
    """What its file says, or `lost`."""
    if run.status == "running" and is_held(depot, run.id) is False:
        return LOST
    return run.status


class ShownRun(RunFile, frozen=True, kw_only=True):
    """A run for people to look at, with the status that it has by now. Never written."""

    status: str = ""  # type: ignore[assignment]  # `lost`, too, which no file says


def as_shown(depot: Depot, run: RunFile) -> ShownRun:
    said = {name: getattr(run, name) for name in run.__struct_fields__}
    return ShownRun(**{**said, "status": status_of(depot, run)})


def with_statuses(depot: Depot, graph: Graph) -> Graph:
    """A lineage whose runs have the status that they have by now."""
    nodes = dict(graph.nodes)
    for key, node in graph.nodes.items():
        if node.kind == "run" and node.detail.get("status") == "running":
            run_id = key.partition(":")[2]
            if is_held(depot, run_id) is False:
                nodes[key] = dataclasses.replace(node, detail={**node.detail, "status": LOST})
    return Graph(graph.root, nodes, graph.edges)
