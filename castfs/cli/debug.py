"""`castfs debug`: castfs's own files as text."""

from __future__ import annotations

import os
import struct
from pathlib import Path

import click

from castfs.cli import output
from castfs.cli.invocation import Invocation, verb
from castfs.cli.words import PATH
from castfs.errors import DamageError, NotFoundError
from castfs.paths import display


@verb("debug")
@click.argument("what", metavar="WHAT", type=click.Choice(["index"]))
@click.argument("file", metavar="FILE", type=PATH)
def command(invocation: Invocation, *, what: str, file: Path) -> None:
    """Show what a file of castfs's own holds, for those who work on it.

    WHAT is `index`: the tree index in FILE, a line for each directory and each entry.
    docs/FORMAT.md says what that is, and where indexes lie.

    \b
    Examples:
      castfs debug index ~/.cache/castfs/indexes/8d5e[…].index | less
      castfs debug index "$CASTFS_STORE"/cache/indexes/8d5e[…].index | grep README
    """
    from castfs.tree import BadIndexError
    from castfs.tree.dump import iter_dump
    from castfs.tree.index import map_index

    shown = display(os.fsencode(file))
    try:
        fd = os.open(file, os.O_RDONLY | os.O_CLOEXEC | os.O_NONBLOCK)
        try:
            index = map_index(fd)
        finally:
            os.close(fd)
    except OSError as exc:
        raise NotFoundError(f"cannot read {shown}: {exc.strerror}", hint="check the path") from exc
    except BadIndexError as exc:
        raise DamageError(
            f"{shown} cannot be used: {exc}", hint="delete it: the next mount makes it again"
        ) from exc
    try:
        for line in iter_dump(index):
            output.line(line)
    except (IndexError, ValueError, struct.error) as exc:
        raise DamageError(f"{shown} contradicts itself: {exc}", hint="delete it") from exc
