"""`castfs undelete`: snapshots out of the trash."""

from __future__ import annotations

import click

from castfs.cli import output
from castfs.cli.documents import print_document
from castfs.cli.invocation import Invocation, json_option, verb
from castfs.cli.snapshot_word import snapshot_arguments
from castfs.repository.naming import describe_record


@verb("undelete")
@snapshot_arguments(deleted=True)
@click.option("--all-versions", is_flag=True, help="All that the names have there, each.")
@json_option
def command(
    invocation: Invocation, *, snapshots: tuple[str, ...], all_versions: bool, as_json: bool
) -> None:
    """Take snapshots out of the trash. `castfs list --deleted` shows what is in it.

    A version has its number, its tags and its aliases as before.

    \b
    Examples:
      castfs undelete 0193a7c25d10
      castfs undelete sensors:v3
      castfs undelete --all-versions old-model
    """
    records = invocation.open_store().undelete(*snapshots, all_versions=all_versions)
    if as_json:
        print_document(records)
    for record in records:
        output.note(f"back: {describe_record(record)}")
