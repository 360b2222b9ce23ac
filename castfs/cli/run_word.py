"""The argument RUN, and what a shell offers for it."""

from __future__ import annotations

import itertools

import click
from click.shell_completion import CompletionItem

from castfs.catalog import reading
from castfs.cli.invocation import Invocation
from castfs.cli.output import one_line
from castfs.cli.units import format_time
from castfs.cli.words import TextWord
from castfs.errors import CastfsError
from castfs.runs.finding import run_path_of

#: Runs that are read for one press of Tab.
_RUNS = 500


class RunWord(TextWord):
    """A run, by its id, the beginning of that, or `project/name`; resolved by the verb."""

    name = "run"

    def shell_complete(
        self, ctx: click.Context, param: click.Parameter, incomplete: str
    ) -> list[CompletionItem]:
        return complete_run(ctx, incomplete)


RUN = RunWord()


def complete_run(context: click.Context, incomplete: str) -> list[CompletionItem]:
    """Ids that begin with `incomplete`, newest first."""
    invocation = context.find_object(Invocation) or Invocation()
    try:
        with reading(invocation.open_store().depot) as catalog:
            runs = list(itertools.islice(catalog.iter_runs(), _RUNS))
    except (CastfsError, OSError):
        # A shell has no place for an error message; the command itself will give it.
        return []
    return [
        CompletionItem(run.id, help=one_line(f"{format_time(run.created_at)} {run_path_of(run)}"))
        for run in runs
        if run.id.startswith(incomplete)
    ]
