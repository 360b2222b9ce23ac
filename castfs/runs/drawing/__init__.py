"""A lineage graph drawn: for a terminal, for graphviz, for programs, for a browser.

Every format draws any graph: of any depth, with cycles, with edges to what is not there, and with
any characters in its labels.
"""

from __future__ import annotations

from typing import Literal, get_args

from castfs.errors import UsageError
from castfs.repository.graph import Graph, with_all_ends
from castfs.runs.drawing.document import draw_json
from castfs.runs.drawing.dot import draw_dot
from castfs.runs.drawing.svg import draw_svg
from castfs.runs.drawing.text import draw_text

Format = Literal["text", "dot", "json", "svg"]
FORMATS: tuple[str, ...] = get_args(Format)

__all__ = ["FORMATS", "Format", "draw"]


def draw(graph: Graph, format: Format, *, ascii_only: bool = False) -> str:
    """`graph` in one of FORMATS, with a line feed at its end; always encodable as UTF-8.

    `ascii_only` is for terminals that show nothing else, and only for "text". UsageError.
    """
    whole = with_all_ends(graph)
    match format:
        case "text":
            return draw_text(whole, ascii_only=ascii_only)
        case "dot":
            return draw_dot(whole)
        case "json":
            return draw_json(whole)
        case "svg":
            return draw_svg(whole)
    raise UsageError(f"no such format: {format}", hint=f"one of {', '.join(FORMATS)}")
