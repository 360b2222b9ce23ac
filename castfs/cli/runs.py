"""`castfs runs`: the runs of a store, one of them, and taking some away."""

from __future__ import annotations

from typing import TYPE_CHECKING

import click

from castfs.cli import output
from castfs.cli.documents import print_document
from castfs.cli.invocation import Invocation, json_option, verb
from castfs.cli.metadata import metadata_rows
from castfs.cli.run_word import RUN
from castfs.cli.tables import print_fields, print_table
from castfs.cli.units import format_count, format_size, format_time
from castfs.cli.words import TEXT

if TYPE_CHECKING:
    from castfs.catalog import RunFile
    from castfs.repository import Store
    from castfs.runs.removing import RunRemoval
    from castfs.runs.showing import MadeRecord

_ACTIONS = ("list", "show", "rm")


@verb("runs")
@click.argument("action", metavar="[list|show|rm]", default="list", type=click.Choice(_ACTIONS))
@click.argument("runs", metavar="[RUN...]", nargs=-1, type=RUN)
@click.option("--project", type=TEXT, help="List only the runs of this project.")
@click.option("-n", "--limit", type=click.IntRange(min=1), help="List only the newest N.")
@click.option("--dry-run", is_flag=True, help="Of rm: only say what would go and what would stay.")
@click.option("--force", is_flag=True, help="Of rm: also what is running.")
@json_option
def command(
    invocation: Invocation,
    *,
    action: str,
    runs: tuple[str, ...],
    project: str | None,
    limit: int | None,
    dry_run: bool,
    force: bool,
    as_json: bool,
) -> None:
    """List the runs, newest first; show one with what it used and made; take some away.

    RUN is a run's id, seven characters or more that only its id begins with, or project/name if
    only one run is called so. A run is `running`, `finished`, `failed`, or `lost`: its process
    ended without a word (it was killed, or the machine was).

    `rm` moves to the trash what the runs made and nobody else needs (no alias, no other run, no
    version that names it), and keeps the rest; their logs and directories are deleted. If one of
    them is running, nothing is done, unless --force is given.

    \b
    Examples:
      castfs runs --project vision -n 10
      castfs runs show 20260115_100000_abc123
      castfs runs show vision/resnet
      castfs runs rm --dry-run 20260115_10 20260115_11
    """
    check_count(action, len(runs))
    if (dry_run or force) and action != "rm":
        raise click.UsageError(f"--{'dry-run' if dry_run else 'force'} goes with rm")
    store = invocation.open_store()
    if action == "list":
        list_runs(store, project, limit, as_json)
    elif action == "show":
        show_run(store, runs[0], as_json)
    else:
        from castfs.runs.removing import remove_runs

        removal = remove_runs(store.depot, runs, dry_run=dry_run, force=force)
        if as_json:
            print_document(removal)
        else:
            output.lines(describe_removal(removal))
        for run in removal.runs if dry_run and not force else ():
            if run.status == "running":
                output.note(f"run {run.id} is running; it needs --force")


def check_count(action: str, count: int) -> None:
    wanted = {"list": "no RUN", "show": "one RUN", "rm": "a RUN"}[action]
    if not (count == 0 if action == "list" else count == 1 if action == "show" else count):
        raise click.UsageError(f"`castfs runs {action}` takes {wanted}")


def list_runs(store: Store, project: str | None, limit: int | None, as_json: bool) -> None:
    import itertools

    from castfs.catalog import reading
    from castfs.runs.finding import run_damages
    from castfs.runs.liveness import as_shown

    with reading(store.depot) as catalog:
        found = (run for run in catalog.iter_runs() if project in (None, run.project))
        runs = [as_shown(store.depot, run) for run in itertools.islice(found, limit)]
        damages = run_damages(catalog)
    if as_json:
        print_document(runs)
    elif runs:
        titles = ["RUN", "STARTED", "STATUS", "PROJECT", "NAME", ">USED", "HOST"]
        print_table(titles, [_row(run) for run in runs])
    else:
        output.note(f"no {'such ' if project else ''}runs in {store.path}")
    if damages:
        raise damages[0]


def _row(run: RunFile) -> list[str]:
    return [
        run.id, format_time(run.created_at), run.status, run.project or "", run.name or "",
        str(len(run.uses)), run.host,
    ]  # fmt: skip


def show_run(store: Store, word: str, as_json: bool) -> None:
    from castfs.runs.showing import describe_run

    shown = describe_run(store.depot, word)
    if as_json:
        print_document(shown)
        return
    run = shown.run
    where = f" on {run.host}" if run.host else ""
    rows = [("run", run.id), ("started", format_time(run.created_at) + where)]
    if run.finished_at:
        rows.append(("finished", format_time(run.finished_at)))
    rows.append(("status", run.status))
    if shown.path:
        rows.append(("path", shown.path))
    if run.directory:
        rows.append(("directory", run.directory))
    rows += [("meta", f"{key}={value}") for key, value in metadata_rows(run.metadata)]
    rows += [("summary", f"{key}={value}") for key, value in metadata_rows(shown.summary)]
    rows += [("used", word) for word in shown.used]
    rows += [("made", describe_made(each)) for each in shown.made]
    rows.append(("files", str(shown.run_dir)))
    print_fields(rows)


def describe_made(made: MadeRecord) -> str:
    """With what the run itself said of a version that was there already."""
    what = [made.type or "snapshot"]
    if made.was_there:
        what.append("was there already")
    if made.deleted:
        what.append("in the trash")
    said = [f"{key}={value}" for key, value in metadata_rows(made.metadata or {})]
    return " ".join([f"{made.word} ({', '.join(what)})", *said])


def describe_removal(removal: RunRemoval) -> list[str]:
    from castfs.repository.naming import version_word

    will = "would be " if removal.dry_run else ""
    size = sum(record.total_size_bytes for record in removal.removed)
    lines = [
        output.one_line(f"{will}in the trash: {version_word(record)} ({record.type or 'snapshot'})")
        for record in removal.removed
    ]
    lines += [
        output.one_line(f"kept: {version_word(each.record)}, used by {', '.join(each.reasons)}")
        for each in removal.kept
    ]
    count = format_count(len(removal.removed), "snapshot")
    kept = format_count(len(removal.kept), "snapshot")
    lines.append(
        f"{'run' if len(removal.runs) == 1 else 'runs'} {', '.join(run.id for run in removal.runs)}"
        f" {will}removed: {count}, {format_size(size)}, in the trash; {kept} kept"
    )
    return lines
