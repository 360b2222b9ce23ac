"""`castfs init`: an empty store."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import click

from castfs.cli import output
from castfs.cli.documents import print_document
from castfs.cli.invocation import Invocation, json_option, verb
from castfs.cli.words import PATH, TEXT
from castfs.errors import StoreError


@dataclass(frozen=True, slots=True, kw_only=True)
class InitResult:
    """A store that is there now."""

    store: Path
    id: str
    created: bool
    group: str | None


@verb("init")
@click.argument("path", metavar="[DIR]", type=PATH, required=False)
@click.option("--shared", metavar="GROUP", type=TEXT, help="Let the members of GROUP use it.")
@json_option
def command(
    invocation: Invocation, *, path: Path | None, shared: str | None, as_json: bool
) -> None:
    """Create a store in directory DIR, else where --store or $CASTFS_STORE say.

    It is private to the user, or with --shared to a group, whose members then see all contents in
    it. Where a store is already, nothing changes.

    \b
    Examples:
      castfs init
      castfs init /data/castfs
      castfs init /srv/castfs --shared research
    """
    from castfs import settings
    from castfs.store import ensure_depot

    if path is not None and invocation.store is not None and path != invocation.store:
        raise click.UsageError("DIR and --store name different directories")
    place = path or invocation.store or settings.default_store()
    depot, created = ensure_depot(place, group=shared)
    group = depot.marker.group
    if shared is not None and group != shared:
        raise StoreError(
            f"the store at {depot.path} is there already and "
            + (f"shared with {group}" if group else "private"),
            hint="make a new one for the group",
        )
    result = InitResult(store=depot.path, id=depot.marker.id, created=created, group=group)
    if as_json:
        print_document(result)
    elif created:
        output.line(output.one_line(f"created store at {depot.path}"))
    else:
        output.line(output.one_line(f"there is a store at {depot.path} already"))
    if group and created:
        output.note(f"every member of group {group} can read all contents of this store")
