"""The graph in graphviz's language (https://graphviz.org/doc/info/lang.html)."""

from __future__ import annotations

from castfs.repository.graph import Graph, Node
from castfs.runs.drawing.words import details, printable, title

_SHAPES = {
    "version": "shape=box",
    "run": "shape=box, style=rounded",
    "missing": "shape=box, style=dashed",
}


def draw_dot(graph: Graph) -> str:
    """Nodes are called n0, n1, …; their ids are their tooltips."""
    names = {id_: f"n{number}" for number, id_ in enumerate(graph.nodes)}
    lines = ["digraph lineage {", "  rankdir=LR;", '  node [fontname="monospace"];']
    for id_, node in graph.nodes.items():
        width = ", penwidth=2" if id_ == graph.root else ""
        lines.append(
            f"  {names[id_]} [label={_label(node)}, {_SHAPES[node.kind]}{width}, "
            f"tooltip={_quote(printable(id_))}];"
        )
    for edge in graph.edges:
        style = ", style=dashed" if edge.kind == "refers" else ""
        lines.append(
            f"  {names[edge.source]} -> {names[edge.target]} [label={_quote(edge.kind)}{style}];"
        )
    return "\n".join([*lines, "}", ""])


def _label(node: Node) -> str:
    """Several lines, the first one alone centred."""
    first, *rest = [_escape(line) for line in (title(node), *details(node.detail))]
    return '"' + first + ("\\n" + "".join(f"{line}\\l" for line in rest) if rest else "") + '"'


def _quote(text: str) -> str:
    return f'"{_escape(text)}"'


def _escape(text: str) -> str:
    """An escString: a backslash begins an escape like \\N, and `&lt;` is read as in HTML."""
    return text.replace("\\", "\\\\").replace('"', '\\"').replace("&", "&amp;")
