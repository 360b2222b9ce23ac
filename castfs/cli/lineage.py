"""`castfs lineage`: what a version came from, and what came from it."""

from __future__ import annotations

import sys
from typing import TYPE_CHECKING, get_args

import click

from castfs.cli import output
from castfs.cli.invocation import Invocation, json_option, verb
from castfs.cli.snapshot_word import snapshot_argument
from castfs.runs.drawing import FORMATS, Format

if TYPE_CHECKING:
    from castfs.repository.lineage import Direction


@verb("lineage")
@snapshot_argument()
@click.option("--up", is_flag=True, help="Only what it came from.")
@click.option("--down", is_flag=True, help="Only what came from it.")
@click.option("--depth", type=click.IntRange(min=0), help="No more than so many steps away.")
@click.option(
    "--format", "format_", type=click.Choice(get_args(Format)), default="text",
    help="How to draw it. [default: text]",
)  # fmt: skip
@json_option
def command(
    invocation: Invocation,
    *,
    snapshot: str,
    up: bool,
    down: bool,
    depth: int | None,
    format_: Format,
    as_json: bool,
) -> None:
    """Draw the versions and runs that SNAPSHOT came from, and those that came from it.

    A run uses versions and produces others; a version whose metadata have a value like `data:v2`
    refers to that version. SNAPSHOT may also be a run's id. `dot` is for graphviz, `json` (as
    `--json`) for programs, `svg` for a browser.

    \b
    Examples:
      castfs lineage my-model:v3
      castfs lineage --up --depth 2 my-model:production
      castfs lineage --format svg my-dataset:v1 > lineage.svg
    """
    from castfs.catalog import reading
    from castfs.repository.lineage import build_lineage
    from castfs.runs.drawing import draw
    from castfs.runs.liveness import with_statuses

    assert format_ in FORMATS
    format_ = "json" if as_json else format_
    direction: Direction = "both" if up == down else "up" if up else "down"
    store = invocation.open_store()
    with reading(store.depot) as catalog:
        graph = build_lineage(catalog, snapshot, direction, depth=depth)
        damages = catalog.damages()
    graph = with_statuses(store.depot, graph)
    ascii_only = format_ == "text" and not _can_show(sys.stdout.encoding or "")
    output.write(draw(graph, format_, ascii_only=ascii_only).encode())
    if damages:
        raise damages[0]  # it may be a part of what was drawn


def _can_show(encoding: str) -> bool:
    return encoding.lower().replace("-", "") in ("utf8", "utf16", "utf32")
