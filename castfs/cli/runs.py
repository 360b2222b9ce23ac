"""`castfs runs`: the runs of a store, one of them, and taking one away."""

from __future__ import annotations

from typing import TYPE_CHECKING

import click

from castfs.cli import output
from castfs.cli.documents import print_document
from castfs.cli.invocation import Invocation, json_option, verb
from castfs.cli.metadata import metadata_rows
from castfs.cli.tables import print_fields, print_table
from castfs.cli.units import format_count, format_size, format_time
from castfs.cli.words import TEXT

if TYPE_CHECKING:
    from castfs.catalog import RunFile
    from castfs.repository import Store
    from castfs.runs.removing import RunRemoval

_ACTIONS = ("list", "show", "rm")


@verb("runs")
@click.argument("action", metavar="[list|show|rm]", default="list", type=click.Choice(_ACTIONS))
@click.argument("run_id", metavar="[RUN]", required=False, type=TEXT)
@click.option("--project", type=TEXT, help="List only the runs of this project.")
@click.option("-n", "--limit", type=click.IntRange(min=1), help="List only the newest N.")
@click.option("--dry-run", is_flag=True, help="Of rm: only say what would go and what would stay.")
@json_option
def command(
    invocation: Invocation,
    *,
    action: str,
    run_id: str | None,
    project: str | None,
    limit: int | None,
    dry_run: bool,
    as_json: bool,
) -> None:
    """List the runs, newest first; show one with what it used and made; take one away.

    `rm` moves to the trash what the run made and nobody else needs (no alias, no other run, no
    version that names it), and keeps the rest; the run's log and directory are deleted.

    \b
    Examples:
      castfs runs --project vision -n 10
      castfs runs show 20260115_100000_abc123
      castfs runs rm --dry-run 20260115_100000_abc123
    """
    if (run_id is None) != (action == "list"):
        raise click.UsageError(f"`castfs runs {action}` takes {'no' if run_id else 'a'} RUN")
    if dry_run and action != "rm":
        raise click.UsageError("--dry-run goes with rm")
    store = invocation.open_store()
    if run_id is None:
        list_runs(store, project, limit, as_json)
    elif action == "show":
        show_run(store, run_id, as_json)
    else:
        from castfs.runs.removing import remove_run

        removal = remove_run(store.depot, run_id, dry_run=dry_run)
        if as_json:
            print_document(removal)
        else:
            output.lines(describe_removal(removal))


def list_runs(store: Store, project: str | None, limit: int | None, as_json: bool) -> None:
    import itertools

    from castfs.catalog import reading

    with reading(store.depot) as catalog:
        found = (run for run in catalog.iter_runs() if project in (None, run.project))
        runs = list(itertools.islice(found, limit))
        damages = catalog.damages("live")
    if as_json:
        print_document(runs)
    elif runs:
        titles = ["RUN", "STARTED", "STATUS", "PROJECT", "NAME", ">USED", "HOST"]
        print_table(titles, [_row(run) for run in runs])
    else:
        output.note(f"no {'such ' if project else ''}runs in {store.path}")
    if of_runs := [each for each in damages if "/runs/" in each.message]:
        raise of_runs[0]


def _row(run: RunFile) -> list[str]:
    return [
        run.id, format_time(run.created_at), run.status, run.project or "", run.name or "",
        str(len(run.uses)), run.host,
    ]  # fmt: skip


def show_run(store: Store, run_id: str, as_json: bool) -> None:
    from castfs.runs.showing import describe_run

    shown = describe_run(store.depot, run_id)
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
    rows += [("made", f"{each.word} ({each.type or 'snapshot'})") for each in shown.made]
    rows.append(("files", str(shown.run_dir)))
    print_fields(rows)


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
        f"run {removal.run.id} {will}removed: {count}, {format_size(size)}, in the trash; "
        f"{kept} kept"
    )
    return lines
