"""Beginning a run, and finding one again."""

from __future__ import annotations

import os
import re
import secrets
import socket
import time
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from castfs import atomic
from castfs.catalog import RunFile, changing
from castfs.catalog.files import runs_dir, write_run
from castfs.catalog.words import show_word
from castfs.errors import NotFoundError, UsageError
from castfs.paths import escape
from castfs.repository.publishing import check_metadata
from castfs.repository.store import Store, open_store
from castfs.runs import active
from castfs.runs.run import Run
from castfs.store import Depot
from castfs.store.records import format_time

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
    there is none; `run_dir` is where the run's own files are to lie, by default in it."""
    if path is not None:
        if project is not None or name is not None:
            raise UsageError("give a path, or a project and a name", hint="not both")
        project, _, name = path.strip("/").partition("/")
    check_metadata(metadata or {})
    opened = store if isinstance(store, Store) else open_store(store, create=True)
    depot = opened.depot
    run = RunFile(
        id=_new_id(),
        project=project or None,
        name=name or None,
        created_at=format_time(time.time()),
        host=socket.gethostname(),
        directory=escape(os.fsencode(os.getcwd())),
        metadata=dict(metadata or {}),
    )
    with changing(depot) as change:
        _make_files_dir(depot, run.id, run_dir)
        change.touch_run(run.id)
        write_run(depot, run)
    made = Run(depot, run.id)
    active.add(made)
    return made


def _make_files_dir(depot: Depot, run_id: str, given: str | os.PathLike[str] | None) -> None:
    atomic.ensure_dir(runs_dir(depot), depot.dir_mode)
    place = runs_dir(depot) / run_id
    if given is None:
        atomic.ensure_dir(place, depot.dir_mode)
        return
    target = Path(given).absolute()
    target.mkdir(parents=True, exist_ok=True)
    place.symlink_to(target)


def _new_id() -> str:
    return f"{time.strftime('%Y%m%d_%H%M%S', time.gmtime())}_{secrets.token_hex(3)}"


def find_run(run_id: str, *, store: str | os.PathLike[str] | Store | None = None) -> Run:
    """A run by its id: one of this process, else of the store. NotFoundError."""
    if not _ID.fullmatch(run_id):
        raise NotFoundError(f"{show_word(run_id)} is no run's id", hint="see `castfs runs`")
    if store is None and isinstance(run := active.find(run_id), Run):
        return run
    opened = store if isinstance(store, Store) else open_store(store)
    return Run(opened.depot, run_id)


def get_active_run() -> Run | None:
    """The run of this process that was begun last and is not finished."""
    run = active.newest()
    return run if isinstance(run, Run) else None


def finish() -> None:
    """Finish that one. Nothing if there is none."""
    run = get_active_run()
    if run is not None:
        run.finish()
