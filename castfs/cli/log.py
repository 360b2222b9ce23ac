"""`castfs log`: what happened, to a name or to all."""

from __future__ import annotations

import itertools
from typing import TYPE_CHECKING

import click

from castfs.cli import output
from castfs.cli.documents import print_document
from castfs.cli.invocation import Invocation, json_option, verb
from castfs.cli.list import ID_DIGITS, gathered
from castfs.cli.snapshot_word import ARTIFACT
from castfs.cli.tables import print_table
from castfs.cli.units import format_time

if TYPE_CHECKING:
    from castfs.repository.results import LogEntry

_WORDS = {
    "version": "version",
    "snapshot": "ingest",
    "alias": "alias",
    "unalias": "alias gone",
    "remove": "to the trash",
    "undelete": "undeleted",
    "delete": "deleted",
}


@verb("log")
@click.argument("name", metavar="[NAME]", type=ARTIFACT, required=False)
@click.option("-n", "--limit", type=click.IntRange(min=1), help="Only the newest N.")
@json_option
def command(invocation: Invocation, *, name: str | None, limit: int | None, as_json: bool) -> None:
    """Show what happened to NAME, or to everything, newest first.

    That is: versions that were made, snapshots without a name that were ingested, what went to the
    trash, came back or was deleted for good, and what aliases meant.

    \b
    Examples:
      castfs log resnet
      castfs log -n 20 --json
    """
    store = invocation.open_store()
    found, damage = gathered(itertools.islice(store.log(name), limit))
    if as_json:
        print_document(found)
    elif found:
        print_table(("DATE", "EVENT", "WHAT", "BY"), [row(each) for each in found])
    elif damage is None:
        output.note(f"nothing happened in {store.path}")
    if damage is not None:
        raise damage


def row(entry: LogEntry) -> tuple[str, str, str, str]:
    return format_time(entry.at), _WORDS[entry.kind], describe(entry), entry.by


def describe(entry: LogEntry) -> str:
    version = "" if entry.version is None else f":v{entry.version}"
    what = f"{entry.name}{version}" if entry.name is not None else (entry.id or "")[:ID_DIGITS]
    if entry.kind == "alias":
        was = "" if entry.before is None else f"; was v{entry.before}"
        return f"{entry.name}:{entry.alias} = v{entry.version}{was}"
    if entry.kind == "unalias":
        return f"{entry.name}:{entry.alias}; was v{entry.before}"
    if entry.run is not None:
        what += f" by run {entry.run}"
    return f"{what}: {entry.message}" if entry.message else what
