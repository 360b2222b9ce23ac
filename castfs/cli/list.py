"""`castfs list`: the snapshots of a store."""

from __future__ import annotations

import itertools
from collections.abc import Iterable, Sequence
from typing import TYPE_CHECKING, Any, TypedDict, TypeVar

import click

from castfs.cli import output
from castfs.cli.documents import print_document
from castfs.cli.invocation import Invocation, json_option, refuse_both, verb
from castfs.cli.metadata import parse_metadata
from castfs.cli.snapshot_word import NAMES
from castfs.cli.tables import print_table
from castfs.cli.units import format_size, format_time
from castfs.cli.words import KEY_VALUE, TEXT, TYPE, WHEN
from castfs.errors import DamageError
from castfs.repository.naming import version_word
from castfs.repository.results import ArtifactInfo, DeletedSnapshot

if TYPE_CHECKING:
    from collections.abc import Iterator

    from castfs.store import Record

Item = TypeVar("Item")

#: Digits of an id that are shown: those of its time, to the millisecond.
ID_DIGITS = 12


@verb("list")
@click.argument("of_name", metavar="[NAME]", type=NAMES, required=False)
@click.option("--source", metavar="DIR", help="Only snapshots of this directory.")
@click.option("--name", type=TEXT, help="The same as NAME.")
@click.option("--type", "kind", type=TYPE, help="Only those of this type.")
@click.option(
    "--tag", "tags", type=TEXT, multiple=True, help="Only those with this tag (repeatable)."
)
@click.option("--since", type=WHEN, metavar="WHEN", help="Only what was taken since (7d, a date).")
@click.option(
    "--meta", type=KEY_VALUE, multiple=True, help="Only those with this value (repeatable)."
)
@click.option("--artifacts", is_flag=True, help="One line for each name; its latest counts.")
@click.option("--deleted", is_flag=True, help="List what is in the trash instead.")
@click.option("-n", "--limit", type=click.IntRange(min=1), help="Only the newest N.")
@click.option("-q", "--quiet", is_flag=True, help="Print the ids alone, whole.")
@json_option
def command(
    invocation: Invocation,
    *,
    of_name: str | None,
    source: str | None,
    name: str | None,
    kind: str | None,
    tags: tuple[str, ...],
    since: float | None,
    meta: tuple[str, ...],
    artifacts: bool,
    deleted: bool,
    limit: int | None,
    quiet: bool,
    as_json: bool,
) -> None:
    """List the snapshots in the store, or those of NAME (team/* matches several), newest first;
    with --artifacts the names, in their order.

    A record that cannot be read is reported, and the others are listed all the same; the exit code
    is 5 then.

    \b
    Examples:
      castfs list
      castfs list resnet
      castfs list --artifacts --type model
      castfs list --source ./repo -n 5
      castfs list --name 'team/*' --meta site=berlin --since 30d --json
      castfs show $(castfs list -q -n 1)
      castfs list --deleted
    """
    refuse_both(as_json, quiet)
    if artifacts and (deleted or source is not None):
        raise click.UsageError("--artifacts lists names: --deleted and --source are for snapshots")
    if of_name is not None and name is not None:
        raise click.UsageError("NAME and --name are the same; give one of them")
    name = of_name if name is None else name
    metadata = parse_metadata(meta)
    store = invocation.open_store()
    listing: Iterator[Record | DeletedSnapshot | ArtifactInfo]
    chosen = Chosen(name=name, type=kind, tags=tags, since=since, metadata=metadata)
    if artifacts:
        listing = store.iter_artifacts(**chosen)
    elif deleted:
        listing = store.iter_deleted(source=source, **chosen)
    else:
        listing = store.iter_snapshots(source=source, **chosen)
    found: list[Record | DeletedSnapshot | ArtifactInfo]
    found, damage = gathered(itertools.islice(listing, limit))
    if as_json:
        print_document(found)
    elif quiet:
        output.lines(each.name if isinstance(each, ArtifactInfo) else each.id for each in found)
    elif found:
        print_listed(found)
    elif damage is None:
        asked = source is not None or any(value not in (None, (), {}) for value in chosen.values())
        what = "names" if artifacts else "snapshots"
        where = "the trash of " if deleted else ""
        output.note(f"no {'such ' if asked else ''}{what} in {where}{store.path}")
    if damage is not None:
        raise damage


class Chosen(TypedDict):
    """What is asked of all that is listed."""

    name: str | None
    type: str | None
    tags: tuple[str, ...]
    since: float | None
    metadata: dict[str, Any]


def gathered(listing: Iterable[Item]) -> tuple[list[Item], DamageError | None]:
    """All of it, or what came before the damage, and that."""
    found: list[Item] = []
    try:
        for each in listing:
            found.append(each)
    except DamageError as exc:
        return found, exc
    return found, None


def print_listed(listed: Sequence[Record | DeletedSnapshot | ArtifactInfo]) -> None:
    names = [each for each in listed if isinstance(each, ArtifactInfo)]
    if names:
        print_artifacts(names)
    else:
        print_snapshots([each for each in listed if not isinstance(each, ArtifactInfo)])


def print_artifacts(names: Sequence[ArtifactInfo]) -> None:
    print_table(
        ("NAME", "TYPE", ">VERSIONS", ">SIZE", "LATEST", "TAGS", "ALIASES"),
        [
            (
                each.name,
                each.type or "",
                f"{each.version_count:,}",
                format_size(each.size_bytes),
                f"v{each.latest}" if each.latest is not None else "",
                ", ".join(each.tags),
                ", ".join(f"{alias}=v{version}" for alias, version in each.aliases.items()),
            )
            for each in names
        ],
    )


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
        version_word(record) if record.name is not None else "",
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
