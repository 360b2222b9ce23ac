"""`castfs tag`: words that snapshots are found by."""

from __future__ import annotations

import click

from castfs.cli import output
from castfs.cli.documents import print_document
from castfs.cli.invocation import Invocation, json_option, verb
from castfs.cli.snapshot_word import snapshot_argument
from castfs.cli.words import TEXT
from castfs.repository.naming import version_word


@verb("tag")
@snapshot_argument()
@click.argument("tags", metavar="TAG...", type=TEXT, nargs=-1, required=True)
@click.option("-d", "--delete", is_flag=True, help="Take the tags away.")
@json_option
def command(
    invocation: Invocation, *, snapshot: str, tags: tuple[str, ...], delete: bool, as_json: bool
) -> None:
    """Add tags to SNAPSHOT, or take them away.

    A word that means several snapshots is refused: write NAME:latest or NAME:v3. `castfs list
    --tag` finds them again.

    \b
    Examples:
      castfs tag sensors:v3 raw checked
      castfs tag -d 0193a7c25d10 raw
    """
    store = invocation.open_store()
    record = (store.untag if delete else store.tag)(snapshot, *tags)
    if as_json:
        print_document(record)
    output.note(f"tags of {version_word(record)}: {', '.join(record.tags) or 'none'}")
