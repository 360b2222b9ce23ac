"""The runs of a store, and taking them away: what `castfs runs` does, from Python."""

from __future__ import annotations

import os
from collections.abc import Iterator

from castfs.catalog import reading
from castfs.repository.store import Store
from castfs.runs import removing
from castfs.runs.checking import as_text
from castfs.runs.liveness import ShownRun, as_shown
from castfs.runs.opening import open_or_given
from castfs.runs.removing import RunRemoval


def iter_runs(
    *, store: str | os.PathLike[str] | Store | None = None, project: str | None = None
) -> Iterator[ShownRun]:
    """What is recorded of each run (of one project), newest first: `id`, `project`, `name`,
    `created_at`, `finished_at`, `status` (as `Run.status`), `host`, `uses`, …; those that cannot be
    read are left out, `castfs runs` names them. `find_run(run.id)` gives the run itself."""
    if project is not None:
        as_text(project, "the project")
    depot = open_or_given(store).depot
    with reading(depot) as catalog:
        # At one moment: they may be read slowly, or never to their end.
        runs = [run for run in catalog.iter_runs() if project in (None, run.project)]
    return (as_shown(depot, run) for run in runs)


def remove_run(
    run_id: str,
    *,
    store: str | os.PathLike[str] | Store | None = None,
    dry_run: bool = False,
    force: bool = False,
) -> RunRemoval:
    """Take a run away with what only it needed: that goes to the trash (`castfs undelete`), its log
    and directory are deleted. It is named by its id, the beginning of that, or `project/name`; with
    `dry_run` nothing is touched. BusyError if it is running, unless it is forced; NotFoundError,
    AmbiguousError; StoreError; DamageError if something cannot be read, and then nothing is
    removed."""
    word = as_text(run_id, "the run")
    depot = open_or_given(store).depot
    return removing.remove_runs(depot, [word], dry_run=dry_run, force=force)
