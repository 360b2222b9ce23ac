"""`castfs restore`: a snapshot as files again."""

from __future__ import annotations

import os
from pathlib import Path
from typing import TYPE_CHECKING, cast

import click

from castfs.cli import output
from castfs.cli.documents import print_document
from castfs.cli.invocation import Invocation, json_option, verb
from castfs.cli.progress import progress_bar
from castfs.cli.snapshot_word import snapshot_argument
from castfs.cli.units import format_count, format_size
from castfs.cli.words import ENTRY, PATH
from castfs.paths import display

if TYPE_CHECKING:
    from castfs.restore import IfExists, RestoreResult

#: Existing files that are listed, at most.
_SKIPPED_SHOWN = 20


@verb("restore")
@snapshot_argument()
@click.argument("target", metavar="DIR", type=PATH)
@click.argument("paths", metavar="[PATH...]", nargs=-1, type=ENTRY)
@click.option(
    "--if-exists",
    type=click.Choice(["fail", "skip", "replace"]),
    default="fail",
    show_default=True,
    help="What happens to files that are there already.",
)
@click.option("--owner", is_flag=True, help="Restore owner and group where they are recorded.")
@json_option
def command(
    invocation: Invocation,
    *,
    snapshot: str,
    target: Path,
    paths: tuple[str, ...],
    if_exists: str,
    owner: bool,
    as_json: bool,
) -> None:
    """Recreate SNAPSHOT in directory DIR, or only the entries PATH with all that is below them.

    DIR is made if it is missing. Files in it that the snapshot does not have stay. Nothing is ever
    written outside DIR; every file is hashed while it is copied, and takes its name once it is
    whole.

    \b
    Examples:
      castfs restore 0193a7c25d10 ./again
      castfs restore sensors:latest ./data raw/2024 --if-exists skip
      castfs restore ./run.json /srv/app --if-exists replace --owner
    """
    found = invocation.find_snapshot(snapshot, read=False)
    with progress_bar() as progress:
        result = found.restore(
            target,
            [os.fsencode(path) for path in paths],
            if_exists=cast("IfExists", if_exists),
            owner=owner,
            progress=progress,
        )
    if as_json:
        print_document(result)
        return
    output.line(summarize(result))
    note_losses(result)


def summarize(result: RestoreResult) -> str:
    kinds = [
        format_count(result.file_count, "file"),
        format_count(result.dir_count, "directory", "directories"),
        format_count(result.symlink_count, "symlink"),
    ]
    size = format_size(result.total_size_bytes)
    return output.one_line(f"restored {', '.join(kinds)}, {size} to {result.target}")


def note_losses(result: RestoreResult) -> None:
    for path in result.skipped_existing[:_SKIPPED_SHOWN]:
        output.note(f"kept {display(path)}, which was there")
    more = len(result.skipped_existing) - _SKIPPED_SHOWN
    if more > 0:
        output.note(f"and {more:,} more that were there")
    for loss in result.not_set:
        others = f" and {loss.count - 1:,} more" if loss.count > 1 else ""
        output.note(f"{loss.what} not set on {display(loss.path) or '.'}{others}: {loss.reason}")
