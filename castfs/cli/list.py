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
from castfs.repository.results import DeletedSnapshot

if TYPE_CHECKING:
    from collections.abc import Iterator

    from castfs.store import Record

#: Digits of an id that are shown: those of its time, to the millisecond.
ID_DIGITS = 12


@verb("list")
@click.option("--source", metavar="DIR", help="Only snapshots of this directory.")
@click.option("--name", type=TEXT, help="Only snapshots of this name.")
@click.option(
    "--tag", "tags", type=TEXT, multiple=True, help="Only those with this tag (repeatable)."
)
@click.option("--deleted", is_flag=True, help="List what is in the trash instead.")
@click.option("-n", "--limit", type=click.IntRange(min=1), help="Only the newest N.")
@click.option("-q", "--quiet", is_flag=True, help="Print the ids alone, whole.")
@json_option
def command(
    invocation: Invocation,
    *,
    source: str | None,
    name: str | None,
    tags: tuple[str, ...],
    deleted: bool,
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
      castfs list --deleted
    """
    refuse_both(as_json, quiet)
    store = invocation.open_store()
    damage: DamageError | None = None
    found: list[Record | DeletedSnapshot] = []
    try:
        listing: Iterator[Record | DeletedSnapshot] = (
            store.iter_deleted(source=source, name=name, tags=tags)
            if deleted
            else store.iter_snapshots(source=source, name=name, tags=tags)
        )
        for each in itertools.islice(listing, limit):
            found.append(each)  # those before the damage count
    except DamageError as exc:
        damage = exc
    if as_json:
        print_document(found)
    elif quiet:
        output.lines(each.id for each in found)
    elif found:
        print_snapshots(found)
    elif damage is None:
        such = "such " if source is not None or name is not None or tags else ""
        where = "the trash of " if deleted else ""
        output.note(f"no {such}snapshots in {where}{store.path}")
    if damage is not None:
        raise damage


def print_snapshots(listed: Sequence[Record | DeletedSnapshot]) -> None:
    deleted = isinstance(listed[0], DeletedSnapshot)
    digits = unique_digits([each.id for each in listed])
    titles = ["ID", "DATE", "NAME", ">FILES", ">SIZE", "MANIFEST", "SOURCE"]
    if deleted:
        titles.insert(2, "DELETED")
    print_table(titles, [row(each, digits) for each in listed])


def row(listed: Record | DeletedSnapshot, digits: int) -> list[str]:
    record = listed.record if isinstance(listed, DeletedSnapshot) else listed
    cells = [
        record.id[:digits],
        format_time(record.created_at),
        record.name or "",
        f"{record.file_count:,}",
        format_size(record.total_size_bytes),
        record.manifest[:ID_DIGITS],
        record.source,
    ]
    if isinstance(listed, DeletedSnapshot):
        cells.insert(2, format_time(listed.deleted_at))
    return cells


def unique_digits(ids: Sequence[str]) -> int:
    """Digits that tell these ids apart: more than usual where two were made in one millisecond."""
    digits = ID_DIGITS
    while len({each[:digits] for each in ids}) < len(set(ids)):
        digits += 1
    return digits
