"""`castfs debug`: castfs's own files as text."""

from __future__ import annotations

import os
from pathlib import Path

import click

from castfs.cli import output
from castfs.cli.invocation import HELP_NAMES
from castfs.cli.words import PATH
from castfs.errors import DamageError, NotFoundError
from castfs.paths import display


@click.group("debug", context_settings=HELP_NAMES)
def command() -> None:
    """Show what castfs's own files hold, for those who work on it.

    \b
    Examples:
      castfs debug index ~/.cache/castfs/indexes/*.index | less
    """


@command.command("index", context_settings=HELP_NAMES)
@click.argument("file", metavar="FILE", type=PATH)
def index(*, file: Path) -> None:
    """Print the tree index in FILE: a line for each directory and each entry.

    docs/FORMAT.md says what an index is, and where they lie.

    \b
    Examples:
      castfs debug index ~/.cache/castfs/indexes/8d5e….o0-o0-000.v1.index
    """
    from castfs.tree import BadIndexError
    from castfs.tree.dump import iter_dump
    from castfs.tree.index import map_index

    shown = display(os.fsencode(file))
    try:
        fd = os.open(file, os.O_RDONLY | os.O_CLOEXEC | os.O_NONBLOCK)
        try:
            opened = map_index(fd)
        finally:
            os.close(fd)
    except OSError as exc:
        raise NotFoundError(f"cannot read {shown}: {exc.strerror}", hint="check the path") from exc
    except BadIndexError as exc:
        raise DamageError(
            f"{shown} cannot be used: {exc}", hint="delete it: the next mount makes it again"
        ) from exc
    for line in iter_dump(opened):
        output.line(line)
