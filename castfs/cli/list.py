"""`castfs list`: the snapshots of a store."""

from __future__ import annotations

import itertools
from collections.abc import Sequence
from typing import TYPE_CHECKING

import click

from castfs.cli import output
from castfs.cli.documents import print_document
from castfs.cli.invocation import Invocation, json_option, refuse_both, verb
from castfs.cli.tables import print_table
from castfs.cli.units import format_size, format_time
from castfs.cli.words import TEXT
from castfs.errors import DamageError

if TYPE_CHECKING:
    from castfs.store import Record

#: Digits of an id that are shown: those of its time, to the millisecond.
ID_DIGITS = 12


@verb("list")
@click.option("--source", metavar="DIR", help="Only snapshots of this directory.")
@click.option("--name", type=TEXT, help="Only snapshots of this name.")
@click.option(
    "--tag", "tags", type=TEXT, multiple=True, help="Only those with this tag (repeatable)."
)
@click.option("-n", "--limit", type=click.IntRange(min=1), help="Only the newest N.")
@click.option("-q", "--quiet", is_flag=True, help="Print the ids alone, whole.")
@json_option
def command(
    invocation: Invocation,
    *,
    source: str | None,
    name: str | None,
    tags: tuple[str, ...],
    limit: int | None,
    quiet: bool,
    as_json: bool,
) -> None:
    """List the snapshots in the store, newest first.

    A record that cannot be read is reported, and the others are listed all the same; the exit code
    is 5 then.

    \b
    Examples:
      castfs list
      castfs list --source ./repo -n 5
      castfs list --name sensors --json
      castfs show $(castfs list -q -n 1)
    """
    refuse_both(as_json, quiet)
    store = invocation.open_store()
    damage: DamageError | None = None
    records: list[Record] = []
    try:
        found = store.iter_snapshots(source=source, name=name, tags=tags)
        for record in itertools.islice(found, limit):
            records.append(record)  # those before the damage count
    except DamageError as exc:
        damage = exc
    if as_json:
        print_document(records)
    elif quiet:
        output.lines(record.id for record in records)
    elif records:
        print_records(records)
    elif damage is None:
        output.note(
            f"no such snapshots in {store.path}"
            if source is not None or name is not None or tags
            else f"no snapshots in {store.path}"
        )
    if damage is not None:
        raise damage


def print_records(records: Sequence[Record]) -> None:
    digits = unique_digits([record.id for record in records])
    print_table(
        ("ID", "DATE", "NAME", ">FILES", ">SIZE", "MANIFEST", "SOURCE"),
        [
            (
                record.id[:digits],
                format_time(record.created_at),
                record.name or "",
                f"{record.file_count:,}",
                format_size(record.total_size_bytes),
                record.manifest[:ID_DIGITS],
                record.source,
            )
            for record in records
        ],
    )


def unique_digits(ids: Sequence[str]) -> int:
    """Digits that tell these ids apart: more than usual where two were made in one millisecond."""
    digits = ID_DIGITS
    while len({each[:digits] for each in ids}) < len(set(ids)):
        digits += 1
    return digits
