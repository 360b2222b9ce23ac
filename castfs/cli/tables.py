"""Tables: aligned columns in a pipe, nothing cut; rich's on a terminal."""

from __future__ import annotations

import sys
from collections.abc import Sequence

from castfs.cli import output

#: A column's title; a leading `>` aligns it to the right.
Title = str


def print_table(titles: Sequence[Title], rows: Sequence[Sequence[str]]) -> None:
    """Cells lose their control characters, so each row is one line (in a pipe)."""
    cells = [[output.one_line(cell) or "-" for cell in row] for row in rows]
    if output.is_terminal():
        _print_rich(titles, cells)
    else:
        output.lines(align(titles, cells))


def align(titles: Sequence[Title], rows: Sequence[Sequence[str]]) -> list[str]:
    """Lines with two spaces between columns; the last column is as long as it is."""
    names = [title.lstrip(">") for title in titles]
    widths = [
        max(len(name), *(len(row[i]) for row in rows)) if rows else len(name)
        for i, name in enumerate(names)
    ]
    right = [title.startswith(">") for title in titles]

    def render(row: Sequence[str]) -> str:
        parts = [
            cell.rjust(width) if to_right else cell.ljust(width)
            for cell, width, to_right in zip(row, widths, right, strict=True)
        ]
        return "  ".join(parts).rstrip()

    return [render(names), *(render(row) for row in rows)]


def _print_rich(titles: Sequence[Title], rows: Sequence[Sequence[str]]) -> None:
    # About 100 ms, so only where somebody looks.
    from rich.console import Console
    from rich.table import Table
    from rich.text import Text

    table = Table(box=None, pad_edge=False, padding=(0, 2, 0, 0), header_style="bold")
    for title in titles:
        table.add_column(
            title.lstrip(">"), justify="right" if title.startswith(">") else "left", no_wrap=True
        )
    for row in rows:
        table.add_row(*(Text(cell) for cell in row))
    output.flush()
    console = Console(file=sys.stdout, highlight=False)
    # The terminal wraps what is too long; rich would squeeze or cut columns that can be copied.
    console.width = max(console.width, *(len(line) + 2 for line in align(titles, rows)))
    console.print(table)
    output.flush()


def print_fields(fields: Sequence[tuple[str, str]]) -> None:
    """Names and values, a line each, without control characters."""
    names = [output.one_line(name) for name, _ in fields]
    width = max(map(len, names))
    output.lines(
        f"{name.ljust(width)}  {output.one_line(value)}"
        for name, (_, value) in zip(names, fields, strict=True)
    )
