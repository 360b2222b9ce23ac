"""`castfs catalog`: the database beside the files."""

from __future__ import annotations

import click

from castfs.cli import output
from castfs.cli.documents import print_document
from castfs.cli.invocation import Invocation, json_option, verb
from castfs.cli.units import format_count


@verb("catalog")
@click.argument("what", metavar="rebuild", required=False)
@json_option
def command(invocation: Invocation, *, what: str | None, as_json: bool) -> None:
    """Make the catalog's database (catalog.db) anew from the files of the store.

    It is only an index: records, names, notes and runs are small files, and nothing stands in the
    database that they do not say. It notices by itself when they were changed; this is for when you
    do not believe it. If a file cannot be read the exit code is 5; `castfs verify` lists them all.

    \b
    Examples:
      castfs catalog rebuild
      castfs --store /data/castfs catalog rebuild --json
    """
    if what != "rebuild":
        raise click.UsageError("say `castfs catalog rebuild`")
    from castfs.catalog import reading, rebuild

    store = invocation.open_store()
    count = rebuild(store.depot)
    with reading(store.depot) as catalog:
        damages = catalog.damages()
    if as_json:
        print_document({"store": store.path, "snapshot_count": count})
    else:
        output.line(f"the catalog of {store.path} knows {format_count(count, 'snapshot')}")
    if damages:
        raise damages[0]
