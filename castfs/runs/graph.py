"""Lineage as data: versions and runs, and what flowed from one into another."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Literal

NodeKind = Literal["version", "run", "missing"]
EdgeKind = Literal["used", "produced", "refers"]


@dataclass(frozen=True, slots=True)
class Node:
    """`missing`: something names it, and it is not there. `detail`: what else is worth saying."""

    id: str
    kind: NodeKind
    label: str
    detail: Mapping[str, str]


@dataclass(frozen=True, slots=True)
class Edge:
    """In the direction of the data: a run `used` a version (version → run), it `produced` one
    (run → version), and the metadata of a version `refers` to another (named → naming)."""

    source: str
    target: str
    kind: EdgeKind


@dataclass(frozen=True, slots=True)
class Graph:
    """`root` is what was asked about. Nothing is promised about cycles: see `with_all_ends`."""

    root: str
    nodes: Mapping[str, Node]
    edges: tuple[Edge, ...]


def with_all_ends(graph: Graph) -> Graph:
    """The same with a node for the root and for each end of an edge, and each edge once."""
    edges = tuple(dict.fromkeys(graph.edges))
    nodes = dict(graph.nodes)
    ends = [graph.root, *(end for edge in edges for end in (edge.source, edge.target))]
    for end in ends:
        if end not in nodes:
            nodes[end] = Node(end, "missing", end, {})
    return Graph(graph.root, nodes, edges)
