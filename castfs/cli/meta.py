"""`castfs meta`: what is said of a snapshot, by key."""

from __future__ import annotations

import click

from castfs.cli import output
from castfs.cli.documents import print_document
from castfs.cli.invocation import Invocation, json_option, verb
from castfs.cli.metadata import metadata_rows, parse_metadata
from castfs.cli.snapshot_word import snapshot_argument
from castfs.cli.tables import print_fields
from castfs.cli.words import KEY_VALUE, TEXT


@verb("meta")
@snapshot_argument()
@click.argument("values", metavar="[KEY=VALUE]...", type=KEY_VALUE, nargs=-1)
@click.option("--unset", metavar="KEY", type=TEXT, multiple=True, help="Take this key away.")
@json_option
def command(
    invocation: Invocation,
    *,
    snapshot: str,
    values: tuple[str, ...],
    unset: tuple[str, ...],
    as_json: bool,
) -> None:
    """Set values of SNAPSHOT's metadata, take keys away (repeatable), and print what there is then.

    Values that are numbers, true, false or null in JSON are that; all others are text. A value that
    names a version (dataset=sensors:v2) is a link to it. A word that means several snapshots is
    refused: write NAME:latest or NAME:v3.

    \b
    Examples:
      castfs meta resnet:v3 val_acc=0.95 dataset=sensors:v2
      castfs meta resnet:v3 --unset val_acc
      castfs meta resnet:latest --json
    """
    record = invocation.open_store().set_metadata(snapshot, parse_metadata(values), unset=unset)
    if as_json:
        print_document(record.metadata)
    elif record.metadata:
        print_fields(metadata_rows(record.metadata))
    else:
        output.note("no metadata")
