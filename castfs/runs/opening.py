"""Beginning a run, and finding one again."""

from __future__ import annotations

import contextlib
import logging
import os
import re
import secrets
import socket
import time
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from castfs import atomic
from castfs.catalog import Change, RunFile, changing
from castfs.catalog.files import run_path, runs_dir, write_run
from castfs.catalog.words import show_word
from castfs.errors import NotFoundError, UsageError
from castfs.paths import display, escape
from castfs.repository.store import Store, open_store
from castfs.runs import active
from castfs.runs.checking import as_metadata, as_path, as_text
from castfs.runs.claiming import claim_dir, release_dir
from castfs.runs.ending import finish_at_exit
from castfs.runs.liveness import hold_run
from castfs.runs.run import Run
from castfs.store import Depot
from castfs.store.records import format_time

log = logging.getLogger("castfs.runs")

_ID = re.compile(r"[0-9A-Za-z][0-9A-Za-z_.-]{0,199}")


def init(
    project: str | None = None,
    name: str | None = None,
    path: str | None = None,
    *,
    store: str | os.PathLike[str] | Store | None = None,
    run_dir: str | os.PathLike[str] | None = None,
    metadata: Mapping[str, Any] | None = None,
) -> Run:
    """Begin a run. `path` (`training/resnet`) stands for project and name. The store is made if
    there is none; `run_dir` is where the run's own files are to lie, by default in it: no two runs
    share one. UsageError, TargetError, StoreError."""
    if path is not None:
        if project is not None or name is not None:
            raise UsageError("give a path, or a project and a name", hint="not both")
        project, _, name = as_text(path, "the path").strip("/").partition("/")
    for word, what in ((project, "the project"), (name, "the name")):
        if word is not None:
            as_text(word, what)
    said = as_metadata(metadata, "the metadata") if metadata is not None else {}
    target = as_path(run_dir, "run_dir").absolute() if run_dir is not None else None
    opened = open_or_given(store, create=True)
    if opened.created and not isinstance(store, Store):
        log.info("created store at %s", display(os.fsencode(opened.path)))
    depot = opened.depot
    run = RunFile(
        id=_new_id(),
        project=project or None,
        name=name or None,
        created_at=format_time(time.time()),
        host=socket.gethostname(),
        directory=escape(os.fsencode(os.getcwd())),
        metadata=dict(said),
    )
    with changing(depot) as change:
        place = runs_dir(depot) / run.id
        try:
            _make_files_dir(change, place, target)
            change.touch_run(run.id)
            write_run(depot, run)
        except BaseException:
            _remove_files_dir(depot, place, target)
            raise
        # Not before: one that was killed until here has left nothing in its directory.
        hold = hold_run(depot, run.id)
    made = Run(depot, run.id, hold=hold)
    active.add(made)
    finish_at_exit()
    return made


def _make_files_dir(change: Change, place: Path, target: Path | None) -> None:
    atomic.ensure_dir(place.parent, change.depot.dir_mode)
    if target is None:
        atomic.ensure_dir(place, change.depot.dir_mode)
    else:
        claim_dir(change, target, place.name)
        place.symlink_to(target)


def _remove_files_dir(depot: Depot, place: Path, target: Path | None) -> None:
    """Of a run that could not begin. What somebody named stays."""
    with contextlib.suppress(OSError):
        run_path(depot, place.name).unlink(missing_ok=True)
        if target is None:
            place.rmdir()
        else:
            release_dir(depot, target, place.name)
            place.unlink(missing_ok=True)


def open_or_given(store: str | os.PathLike[str] | Store | None, *, create: bool = False) -> Store:
    if isinstance(store, Store):
        return store
    place = as_path(store, "the store") if store is not None else None
    return open_store(place, create=create)


def _new_id() -> str:
    return f"{time.strftime('%Y%m%d_%H%M%S', time.gmtime())}_{secrets.token_hex(3)}"


def find_run(run_id: str, *, store: str | os.PathLike[str] | Store | None = None) -> Run:
    """A run by its id: one of this process, else of the store. NotFoundError."""
    as_text(run_id, "the run's id")
    if not _ID.fullmatch(run_id):
        raise NotFoundError(f"{show_word(run_id)} is no run's id", hint="see `castfs runs`")
    if store is None and isinstance(run := active.find(run_id), Run):
        return run
    return Run(open_or_given(store).depot, run_id)


def get_active_run() -> Run | None:
    """The run of this process that was begun last and is not finished."""
    run = active.newest()
    return run if isinstance(run, Run) else None


def finish() -> None:
    """Finish that one. Nothing if there is none."""
    run = get_active_run()
    if run is not None:
        run.finish()
