"""`castfs diff`: what changed between two snapshots, or a snapshot and a directory."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import click

from castfs.cli import output
from castfs.cli.documents import plain, print_document
from castfs.cli.invocation import Invocation, json_option, verb
from castfs.cli.ls import describe
from castfs.cli.progress import progress_bar
from castfs.cli.snapshot_word import snapshot_argument
from castfs.cli.units import format_size
from castfs.paths import RelPath, display
from castfs.repository.selecting import json_text

if TYPE_CHECKING:
    from castfs.diff import Change, DetailChange, DiffResult
    from castfs.manifest import Entry

EXIT_DIFFERENT = 1
_LETTERS = {"added": "A", "removed": "D", "changed": "M"}


@verb("diff")
@snapshot_argument("before")
@snapshot_argument("after")
@click.option("--exit-code", is_flag=True, help="Exit with 1 if there are differences.")
@click.option("--ignore-mtime", is_flag=True, help="Times of modification do not count.")
@click.option("-q", "--name-only", is_flag=True, help="Print the paths alone.")
@click.option("-0", "null", is_flag=True, help="With --name-only: end each path with NUL.")
@json_option
def command(
    invocation: Invocation,
    *,
    before: str,
    after: str,
    exit_code: bool,
    ignore_mtime: bool,
    name_only: bool,
    null: bool,
    as_json: bool,
) -> int:
    """Show what changed from BEFORE to AFTER: two snapshots, or directories written with a `/`.

    Each line is A (added), D (removed) or M (changed), the path, and in what it changed. Contents
    are compared by their digests; a directory is read for that, but nothing of it is stored. Of two
    recorded snapshots type, tags, metadata, message and references are compared, too: these lines
    begin with `=`, and do not count for --exit-code.

    \b
    Examples:
      castfs diff 0193a7c25d10 0193a7d00a3f
      castfs diff resnet:v1 resnet:v2
      castfs diff sensors:latest ./data --ignore-mtime
      castfs diff --exit-code -q ./run.json ./run/ > changed.txt
    """
    if null and not name_only:
        raise click.UsageError("-0 goes with --name-only")
    if as_json and name_only:
        raise click.UsageError("--json and --name-only exclude each other")
    from castfs.repository import compare

    with progress_bar() as progress:
        result = compare(
            before,
            after,
            store=invocation.store,
            ignore_mtime=ignore_mtime,
            progress=progress,
        )
    if as_json:
        print_document(document(result))
    elif name_only:
        for change in result.changes:
            path = change.path or b"."
            output.write_bytes(path + b"\0" if null else output.shown_name(path) + b"\n")
    else:
        output.lines(line(change) for change in result.changes)
        output.lines(output.one_line(detail_line(detail)) for detail in result.details)
        output.note(summarize(result))
    return EXIT_DIFFERENT if exit_code and result.changes else 0


def line(change: Change) -> str:
    """Unlike a list of names, this is text: no name may look like two lines."""
    what = f" ({', '.join(change.what)})" if change.what else ""
    return f"{_LETTERS[change.kind]} {display(change.path) or '.'}{what}"


def detail_line(detail: DetailChange) -> str:
    """`= metadata val_acc: 0.91 -> 0.95`; what there is not is `-`."""
    if detail.kind == "tag":
        return f"= tag {'added' if detail.after else 'removed'}: {detail.key}"
    before, after = (
        "-" if value is None else json_text(value) for value in (detail.before, detail.after)
    )
    return f"= {f'{detail.kind} {detail.key}'.strip()}: {before} -> {after}"


def summarize(result: DiffResult) -> str:
    if not result.changes:
        return "no differences"
    return (
        f"{result.added_count:,} added, {result.removed_count:,} removed, "
        f"{result.changed_count:,} changed; "
        f"+{format_size(result.added_bytes)}, -{format_size(result.removed_bytes)}"
    )


def document(result: DiffResult) -> dict[str, Any]:
    """The result with entries as `ls --json` has them: with their type, without what is unknown."""

    def entry(path: bytes, of: Entry | None) -> dict[str, Any] | None:
        return None if of is None else describe(RelPath(path), of)

    changes = [
        {
            "path": change.path,
            "kind": change.kind,
            "what": change.what,
            "before": entry(change.path, change.before),
            "after": entry(change.path, change.after),
        }
        for change in result.changes
    ]
    return {
        "added_count": result.added_count,
        "removed_count": result.removed_count,
        "changed_count": result.changed_count,
        "added_bytes": result.added_bytes,
        "removed_bytes": result.removed_bytes,
        "changes": plain(changes),
        "details": plain(result.details),
    }
