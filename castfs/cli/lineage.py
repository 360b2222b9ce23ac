"""`castfs lineage`: what a version came from, and what came from it."""

from __future__ import annotations

import sys
from typing import Literal, get_args

import click

from castfs.cli import output
from castfs.cli.invocation import Invocation, verb
from castfs.cli.snapshot_word import snapshot_argument
from castfs.runs.drawing import FORMATS, Format


@verb("lineage")
@snapshot_argument()
@click.option("--up", "direction", flag_value="up", help="Only what it came from.")
@click.option("--down", "direction", flag_value="down", help="Only what came from it.")
@click.option("--depth", type=click.IntRange(min=0), help="No more than so many steps away.")
@click.option(
    "--format", "format_", type=click.Choice(get_args(Format)), default="text",
    help="How to draw it. [default: text]",
)  # fmt: skip
def command(
    invocation: Invocation,
    *,
    snapshot: str,
    direction: Literal["up", "down"] | None,
    depth: int | None,
    format_: Format,
) -> None:
    """Draw the versions and runs that SNAPSHOT came from, and those that came from it.

    A run uses versions and produces others; a version whose metadata have a value like `data:v2`
    refers to that version. SNAPSHOT may also be a run's id. `dot` is for graphviz, `json` for
    programs, `svg` for a browser.

    \b
    Examples:
      castfs lineage my-model:v3
      castfs lineage --up --depth 2 my-model:production
      castfs lineage --format svg my-dataset:v1 > lineage.svg
    """
    from castfs.catalog import reading
    from castfs.runs.drawing import draw
    from castfs.runs.lineage import build_lineage

    assert format_ in FORMATS
    with reading(invocation.open_store().depot) as catalog:
        graph = build_lineage(catalog, snapshot, direction or "both", depth=depth)
    ascii_only = format_ == "text" and not _can_show(sys.stdout.encoding or "")
    output.write(draw(graph, format_, ascii_only=ascii_only).encode())


def _can_show(encoding: str) -> bool:
    return encoding.lower().replace("-", "") in ("utf8", "utf16", "utf32")
