"""`castfs find`: which snapshots hold a path or a content."""

from __future__ import annotations

from typing import TYPE_CHECKING

import click

from castfs.cli import output
from castfs.cli.documents import print_document
from castfs.cli.invocation import Invocation, json_option, verb
from castfs.cli.list import ID_DIGITS
from castfs.cli.snapshot_word import SNAPSHOT
from castfs.cli.units import format_size
from castfs.errors import DamageError, NotFoundError

if TYPE_CHECKING:
    from castfs.repository.results import Found


@verb("find")
@click.argument("what", metavar="PATTERN|DIGEST")
@click.option(
    "--snapshot", "snapshots", metavar="SNAPSHOT", type=SNAPSHOT, multiple=True,
    help="Look in this one only (repeatable).",
)  # fmt: skip
@json_option
def command(
    invocation: Invocation, *, what: str, snapshots: tuple[str, ...], as_json: bool
) -> None:
    """Find paths in the snapshots of the store, newest first.

    PATTERN is compared with whole paths if it has a `/`, else with last names: `*` matches
    anything, `?` one character, `[ab]` one of these. DIGEST is the SHA-256 of a content, or its
    first digits (seven at least). Each line is a snapshot, the size, and the path. If nothing is
    found the exit code is 4; if a snapshot is damaged the others are searched, and it is 5.

    \b
    Examples:
      castfs find '*.ckpt'
      castfs find src/main.py --snapshot 0193a7c25d10
      castfs find $(sha256sum < model.bin | cut -c 1-64)
    """
    store = invocation.open_store()
    found: list[Found] = []
    count = 0
    damage: DamageError | None = None
    try:
        for hit in store.find(what, snapshots=snapshots):
            count += 1
            if as_json:
                found.append(hit)
            else:
                # As they come: a search through many snapshots takes a while.
                front = f"{hit.snapshot[:ID_DIGITS]}  {format_size(hit.size_bytes):>10}  "
                output.line(front.encode() + output.shown_name(hit.path))
    except DamageError as exc:
        damage = exc
    if as_json:
        print_document(found)
    if damage is not None:
        raise damage
    if not count:
        raise NotFoundError(f"nothing matches {what}", hint="see `castfs find --help`")
