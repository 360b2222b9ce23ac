"""Runs that nobody finishes end with their program: well, or by an exception that nobody caught.

What the exit code was, nobody tells a program that ends: `sys.exit(1)` outside of `with` counts as
well. In a child that was forked nothing is finished: the run is its parent's.
"""

from __future__ import annotations

import atexit
import functools
import logging
import sys

from castfs.catalog.files import RunStatus
from castfs.errors import CastfsError, NotFoundError
from castfs.runs import active
from castfs.runs.run import Run

log = logging.getLogger("castfs.runs")


@functools.cache
def finish_at_exit() -> None:
    """From now on; once is enough, also for children that are forked."""
    atexit.register(_finish_all, _last_exception())


def _finish_all(before: BaseException | None) -> None:
    last = _last_exception()
    # At a prompt an exception ends nothing.
    is_interactive = hasattr(sys, "ps1") or bool(sys.flags.interactive)
    has_crashed = last is not None and last is not before and not is_interactive
    for run in active.begun_here():
        _finish(run, "failed" if has_crashed else "finished")


def _finish(run: active.OpenRun, status: RunStatus) -> None:
    try:
        run.finish(status)
    except (CastfsError, OSError) as exc:
        # Somebody deleted it, or all of the store: that is no news at the end of a program.
        is_gone = isinstance(exc, NotFoundError) or (isinstance(run, Run) and not run.is_there())
        log.log(logging.DEBUG if is_gone else logging.WARNING, "run %s: %s", run.id, exc)
    except Exception:  # the others are to be finished, too
        log.exception("cannot finish run %s", run.id)


def _last_exception() -> BaseException | None:
    """The one that ended the program, or that a prompt has shown."""
    last: BaseException | None = getattr(sys, "last_exc", getattr(sys, "last_value", None))
    return last
