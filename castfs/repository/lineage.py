"""What came of what: from versions to the runs that made and used them, and on from there.

A run uses versions and produces others; a version whose metadata name another one refers to it.
There are no cycles: a use of what the run itself led to is not recorded, and of metadata that name
each other in a ring those are left out that name what is newer.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Iterator
from typing import Literal

from castfs.catalog import Catalog, RunFile, Use
from castfs.repository.graph import Edge, Graph, Node, without_cycles
from castfs.repository.naming import match_records, version_word
from castfs.store import Record

Direction = Literal["up", "down", "both"]


def build_lineage(
    catalog: Catalog, word: str, direction: Direction = "both", *, depth: int | None = None
) -> Graph:
    """The versions and runs that a snapshot (or the run of that id) comes from, and those that come
    from it; `depth` counts edges. NotFoundError."""
    run = catalog.run(word)
    if run is not None:
        start = _run_node(run)
    else:
        start = _record_node(catalog, match_records(catalog, word)[0])
    nodes, edges = {start.id: start}, dict[Edge, None]()
    for way in ("up", "down") if direction == "both" else (direction,):
        queue = deque([(start, 0)])
        seen = {start.id}
        while queue:
            node, distance = queue.popleft()
            if depth is not None and distance >= depth:
                continue
            for edge, other in _neighbours(catalog, node, way):
                edges[edge] = None
                nodes[other.id] = other
                if other.id not in seen:
                    seen.add(other.id)
                    queue.append((other, distance + 1))
    refers = [edge for edge in edges if edge.kind == "refers"]
    refers.sort(key=lambda edge: _is_newer(catalog, edge))
    return without_cycles(Graph(start.id, nodes, tuple(edges)), refers)


def led_to(catalog: Catalog, run_id: str, record: Record) -> bool:
    """Does a snapshot come from what a run has made?"""
    if not catalog.has_made(run_id):
        return False  # mostly: and the way up may be long
    return f"run:{run_id}" in build_lineage(catalog, record.id, "up").nodes


def _is_newer(catalog: Catalog, edge: Edge) -> bool:
    """Does a version name one that was made after it?"""
    named, naming = (catalog.get(end.partition(":")[2]) for end in (edge.source, edge.target))
    if named is None or naming is None:
        return False
    return (named.created_at, named.id) > (naming.created_at, naming.id)


def _neighbours(catalog: Catalog, node: Node, way: str) -> Iterator[tuple[Edge, Node]]:
    kind, _, key = node.id.partition(":")
    if kind == "run":
        run = catalog.run(key)
        if run is not None:
            yield from _of_run(catalog, run, node, way)
    elif kind == "version":
        record = catalog.get(key)
        if record is not None:
            yield from _of_version(catalog, record, node, way)


def _of_run(catalog: Catalog, run: RunFile, node: Node, way: str) -> Iterator[tuple[Edge, Node]]:
    if way == "up":
        for use in run.uses:
            other = _node_of(catalog, use)
            yield Edge(other.id, node.id, "used"), other
        return
    for record in iter_made(catalog, run):
        other = _record_node(catalog, record)
        yield Edge(node.id, other.id, "produced"), other


def iter_made(catalog: Catalog, run: RunFile) -> Iterator[Record]:
    """What a run made, also what others had made before it. What it takes in as its own input is
    recorded with its id, too."""
    used = {use.id for use in run.uses}
    for record in catalog.iter_records("all", run=run.id):
        if record.id not in used:
            yield record
    for again in run.made_again:
        found = catalog.get(again.id)
        if found is not None and again.id not in used:
            yield found


def _of_version(
    catalog: Catalog, record: Record, node: Node, way: str
) -> Iterator[tuple[Edge, Node]]:
    users = catalog.users_of(record.id)
    if way == "down":
        for run_id in users:
            run = catalog.run(run_id)
            if run is not None:
                other = _run_node(run)
                yield Edge(node.id, other.id, "used"), other
        if record.name is not None and record.version is not None:
            for record_id, _ in catalog.links_to(record.name, record.version):
                naming = catalog.get(record_id)
                if naming is not None and record_id != record.id:
                    other = _record_node(catalog, naming)
                    yield Edge(node.id, other.id, "refers"), other
        return
    for run_id in catalog.makers_of(record):
        if run_id not in users:
            run = catalog.run(run_id)
            other = _run_node(run) if run is not None else _missing("run", run_id)
            yield Edge(other.id, node.id, "produced"), other
    for _, name, version in catalog.links_of(record.id):
        found = catalog.find_version(name, version, "all")[:1]
        if [record] == found:
            continue
        if found:
            other = _record_node(catalog, found[0])
            yield Edge(other.id, node.id, "refers"), other
        elif version <= catalog.last_version(name):  # else it is only a word
            other = _missing("version", f"{name}:v{version}")
            yield Edge(other.id, node.id, "refers"), other


def _node_of(catalog: Catalog, use: Use) -> Node:
    record = catalog.get(use.id)
    if record is not None:
        return _record_node(catalog, record)
    return _missing("version", use_word(use))


def use_word(use: Use) -> str:
    return f"{use.name}:v{use.version}" if use.name and use.version else use.id


def _missing(what: str, word: str) -> Node:
    return Node(f"{what}:{word}", "missing", word, {})


def _record_node(catalog: Catalog, record: Record) -> Node:
    detail = {"type": record.type or "snapshot", "created": record.created_at[:19] + "Z"}
    if catalog.deleted_ns(record.id) is not None:
        detail["status"] = "deleted"
    return Node(f"version:{record.id}", "version", version_word(record), detail)


def _run_node(run: RunFile) -> Node:
    what = "/".join(filter(None, (run.project, run.name)))
    detail = {"created": run.created_at[:19] + "Z", "status": run.status}
    return Node(f"run:{run.id}", "run", f"{what} ({run.id})" if what else run.id, detail)
