"""`castfs search`: snapshots by what is said of them."""

from __future__ import annotations

import itertools

import click

from castfs.cli import output
from castfs.cli.documents import print_document
from castfs.cli.invocation import Invocation, json_option, refuse_both, verb
from castfs.cli.list import gathered, print_snapshots
from castfs.cli.words import TEXT
from castfs.errors import NotFoundError


@verb("search")
@click.argument("words", metavar="WORD...", type=TEXT, nargs=-1, required=True)
@click.option("-n", "--limit", type=click.IntRange(min=1), help="Only the newest N.")
@click.option("-q", "--quiet", is_flag=True, help="Print the ids alone, whole.")
@json_option
def command(
    invocation: Invocation,
    *,
    words: tuple[str, ...],
    limit: int | None,
    quiet: bool,
    as_json: bool,
) -> None:
    """Find the snapshots that every WORD is found in, newest first.

    Looked at are name (NAME:v3), aliases, type, tags, message, source, and metadata (KEY=VALUE);
    part of a word is enough, and capitals do not matter. `castfs find` looks into the trees. If
    nothing is found the exit code is 4.

    \b
    Examples:
      castfs search resnet production
      castfs search dataset=sensors:v2 --json
    """
    refuse_both(as_json, quiet)
    matches = invocation.open_store().search(*words)
    found, damage = gathered(itertools.islice(matches, limit))
    if as_json:
        print_document(found)
    elif quiet:
        output.lines(record.id for record in found)
    elif found:
        print_snapshots(found)
    if damage is not None:
        raise damage
    if not found:
        raise NotFoundError(f"nothing says {' '.join(words)}", hint="see `castfs search --help`")
