"""The graph for a terminal: what the root comes from, and what came of it, each as a tree.

    model:v1
    upstream
    └── produced by run train
        ├── used code:v3
        └── used data:v1
    downstream
    └── used by run evaluation

What is reached a second time is marked `(again)`, without what is below it; `(cycle)` if it is
above itself.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field

from castfs.repository.graph import EdgeKind, Graph, Node
from castfs.runs.drawing.words import details, title

#: A branch that is deeper goes on below, at the left margin: 24 levels fill 96 columns. So the
#: drawing of a chain of 10,000 has not 200 MB of indentation.
_LEVELS = 24

_UPWARD = {"used": "used", "produced": "produced by", "refers": "refers to"}
_DOWNWARD = {"used": "used by", "produced": "produced", "refers": "referred to by"}

#: Neighbours of each node, in the order of the edges.
_Neighbours = Mapping[str, list[tuple[str, EdgeKind]]]


@dataclass(slots=True)
class _Branch:
    """`name` is what it is called where it goes on."""

    name: str
    line: str
    branches: list[_Branch] = field(default_factory=list)


def draw_text(graph: Graph, *, ascii_only: bool) -> str:
    upward: dict[str, list[tuple[str, EdgeKind]]] = {}
    downward: dict[str, list[tuple[str, EdgeKind]]] = {}
    for edge in graph.edges:
        upward.setdefault(edge.target, []).append((edge.source, edge.kind))
        downward.setdefault(edge.source, []).append((edge.target, edge.kind))
    lines = [_describe(graph.nodes[graph.root])]
    for heading, neighbours, words in (
        ("upstream", upward, _UPWARD),
        ("downstream", downward, _DOWNWARD),
    ):
        if graph.root in neighbours:
            lines.append(heading)
            lines += _render(_grow(graph, neighbours, words))
    text = "\n".join([*lines, ""])
    return _to_ascii(text) if ascii_only else text


def _describe(node: Node) -> str:
    said = details(node.detail)
    return f"{title(node)}  ({', '.join(said)})" if said else title(node)


def _grow(graph: Graph, neighbours: _Neighbours, words: Mapping[str, str]) -> _Branch:
    """The tree below the root: depth first, each node grown where it is first reached."""
    root = _Branch(title(graph.nodes[graph.root]), "")
    reached = {graph.root}
    above = {graph.root}
    path = [(graph.root, root, iter(neighbours.get(graph.root, ())))]
    while path:
        id_, branch, rest = path[-1]
        following = next(rest, None)
        if following is None:
            above.discard(id_)
            path.pop()
            continue
        next_id, kind = following
        node = graph.nodes[next_id]
        if next_id in reached:
            mark = "cycle" if next_id in above else "again"
            line = f"{words[kind]} {title(node)} ({mark})"
            branch.branches.append(_Branch(title(node), line))
            continue
        grown = _Branch(title(node), f"{words[kind]} {_describe(node)}")
        branch.branches.append(grown)
        reached.add(next_id)
        above.add(next_id)
        path.append((next_id, grown, iter(neighbours.get(next_id, ()))))
    return root


def _render(root: _Branch) -> Iterator[str]:
    waiting = deque([root])
    while waiting:
        top = waiting.popleft()
        if top is not root:
            yield f"{top.name} (continued)"
        yield from _render_piece(top, waiting.append)


def _render_piece(top: _Branch, put_off: Callable[[_Branch], None]) -> Iterator[str]:
    pending = [(branch, "", 1) for branch in reversed(top.branches)]
    lasts = {id(top.branches[-1])}
    while pending:
        branch, indent, level = pending.pop()
        is_last = id(branch) in lasts
        yield f"{indent}{'└── ' if is_last else '├── '}{branch.line}" + (
            " (continued below)" if branch.branches and level == _LEVELS else ""
        )
        if branch.branches and level == _LEVELS:
            put_off(branch)
        elif branch.branches:
            lasts.add(id(branch.branches[-1]))
            deeper = indent + ("    " if is_last else "│   ")
            pending += [(each, deeper, level + 1) for each in reversed(branch.branches)]


_ASCII_LINES = str.maketrans({"├": "|", "└": "`", "─": "-", "│": "|", "…": "..."})


def _to_ascii(text: str) -> str:
    return text.translate(_ASCII_LINES).encode("ascii", "backslashreplace").decode()
