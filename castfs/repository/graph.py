"""Lineage as data: versions and runs, and what flowed from one into another."""

from __future__ import annotations

from collections import Counter
from collections.abc import Collection, Mapping, Sequence
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
    """`root` is what was asked about."""

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


def without_cycles(graph: Graph, doubtful: Sequence[Edge]) -> Graph:
    """The same without those of the `doubtful` edges that would close a ring, the later ones of
    them first, and without what only they led to."""
    edges = list(graph.edges)
    ring = _in_rings(edges)
    for edge in reversed(doubtful):
        if not ring:
            break
        if edge in ring:
            edges.remove(edge)
            ring = _in_rings(ring - {edge})
    if len(edges) == len(graph.edges):
        return graph
    reached, queue = {graph.root}, [graph.root]
    ends: dict[str, list[str]] = {}
    for edge in edges:
        ends.setdefault(edge.source, []).append(edge.target)
        ends.setdefault(edge.target, []).append(edge.source)
    while queue:
        new = [end for end in ends.get(queue.pop(), ()) if end not in reached]
        reached.update(new)
        queue += new
    nodes = {key: node for key, node in graph.nodes.items() if key in reached}
    return Graph(graph.root, nodes, tuple(edge for edge in edges if edge.source in reached))


def _in_rings(edges: Collection[Edge]) -> set[Edge]:
    """Those that lie on a ring, or between two."""
    return _peeled(_peeled(edges, "source", "target"), "target", "source")


def _peeled(edges: Collection[Edge], near: str, far: str) -> set[Edge]:
    """Without what begins at no edge's end, and what is no edge's end then (Kahn 1962)."""
    leaving: dict[str, list[Edge]] = {}
    arriving = Counter[str]()
    for edge in edges:
        leaving.setdefault(getattr(edge, near), []).append(edge)
        arriving[getattr(edge, far)] += 1
    queue = [node for node in leaving if not arriving[node]]
    left = set(edges)
    while queue:
        for edge in leaving.get(queue.pop(), ()):
            left.remove(edge)
            end = getattr(edge, far)
            arriving[end] -= 1
            if not arriving[end]:
                queue.append(end)
    return left
