"""`castfs export`: a snapshot as an archive."""

from __future__ import annotations

from typing import TYPE_CHECKING, cast

import click

from castfs.cli import output
from castfs.cli.documents import print_document
from castfs.cli.invocation import Invocation, json_option, verb
from castfs.cli.progress import progress_bar
from castfs.cli.snapshot_word import snapshot_argument
from castfs.cli.units import format_count, format_size
from castfs.cli.words import PATH
from castfs.errors import UsageError

if TYPE_CHECKING:
    from castfs.archive import Format


@verb("export")
@snapshot_argument()
@click.argument("file", metavar="FILE|-", type=PATH)
@click.option("--format", "kind", type=click.Choice(["tar", "tar.zst", "zip"]),
              help="Instead of what FILE's suffix says. [default for -: tar]")  # fmt: skip
@click.option("--force", is_flag=True, help="Replace FILE if it is there.")
@json_option
def command(
    invocation: Invocation,
    *,
    snapshot: str,
    file: object,
    kind: str | None,
    force: bool,
    as_json: bool,
) -> None:
    """Write SNAPSHOT as an archive to FILE, or to stdout with `-`.

    The same tree gives the same bytes, on any machine. FILE appears when it is whole.

    \b
    Examples:
      castfs export 0193a7c25d10 run.tar.zst
      castfs export sensors:latest data.zip --force
      castfs export ./run.json - | ssh host tar x -C /srv/run
    """
    to_stdout = str(file) == "-"
    if to_stdout and as_json:
        raise click.UsageError("--json does not go with -: stdout holds the archive")
    if to_stdout and output.is_terminal():
        raise UsageError("an archive does not go to a terminal", hint="name a file, or redirect it")
    chosen = cast("Format | None", kind)
    found = invocation.find_snapshot(snapshot)
    with progress_bar() as progress:
        if to_stdout:
            found.export(output.binary_stdout(), format=chosen, progress=progress)
            return
        result = found.export(str(file), format=chosen, replace=force, progress=progress)
    if as_json:
        print_document(result)
    else:
        sizes = f"{format_count(result.file_count, 'file')}, {format_size(result.archive_bytes)}"
        output.line(output.one_line(f"exported {found.id} to {file}: {sizes}"))
