"""What came of what: from versions to the runs that made and used them, and on from there.

A run uses versions and produces others; a version whose metadata name another one refers to it. A
use of what the run itself led to is not recorded (`record_use`), and metadata lead only to what is
older: so there are no cycles.
"""

from __future__ import annotations

import time
from collections import deque
from collections.abc import Iterator
from typing import Literal

import msgspec

from castfs.catalog import Catalog, Change, RunFile, Use
from castfs.catalog.files import write_run
from castfs.repository.naming import match_records, version_word
from castfs.runs.graph import Edge, Graph, Node
from castfs.store import Record
from castfs.store.records import format_time

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
    return Graph(start.id, nodes, tuple(edges))


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
    used = {use.id for use in run.uses}
    if way == "up":
        for use in run.uses:
            other = _node_of(catalog, use.id, use)
            yield Edge(other.id, node.id, "used"), other
        return
    for record in catalog.iter_records("all", run=run.id):
        if record.id not in used:
            other = _record_node(catalog, record)
            yield Edge(node.id, other.id, "produced"), other


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
                if naming is not None and _is_older(record, naming):
                    other = _record_node(catalog, naming)
                    yield Edge(node.id, other.id, "refers"), other
        return
    # What a run takes in as its own input is recorded with its id, too.
    if record.run is not None and record.run not in users:
        run = catalog.run(record.run)
        missing = Node(f"run:{record.run}", "missing", record.run, {})
        other = _run_node(run) if run is not None else missing
        yield Edge(other.id, node.id, "produced"), other
    for _, name, version in catalog.links_of(record.id):
        for named in catalog.find_version(name, version, "all")[:1]:
            if _is_older(named, record):
                other = _record_node(catalog, named)
                yield Edge(other.id, node.id, "refers"), other


def _is_older(named: Record, naming: Record) -> bool:
    return (named.created_at, named.id) < (naming.created_at, naming.id)


def _node_of(catalog: Catalog, record_id: str, use: Use) -> Node:
    record = catalog.get(record_id)
    if record is not None:
        return _record_node(catalog, record)
    label = f"{use.name}:v{use.version}" if use.name and use.version else record_id
    return Node(f"version:{record_id}", "missing", label, {})


def _record_node(catalog: Catalog, record: Record) -> Node:
    detail = {"type": record.type or "snapshot", "created": record.created_at[:19] + "Z"}
    if catalog.deleted_ns(record.id) is not None:
        detail["status"] = "deleted"
    return Node(f"version:{record.id}", "version", version_word(record), detail)


def _run_node(run: RunFile) -> Node:
    what = "/".join(filter(None, (run.project, run.name)))
    detail = {"created": run.created_at[:19] + "Z", "status": run.status}
    return Node(f"run:{run.id}", "run", f"{what} ({run.id})" if what else run.id, detail)


def record_use(change: Change, run_id: str, record: Record, *, is_input: bool = False) -> bool:
    """That a run was given a snapshot. False if it had it already, or if it led to it itself:
    unless it `is_input`, which it took into the store only to keep it."""
    run = change.run(run_id)
    if run is None or any(use.id == record.id for use in run.uses):
        return False
    own = is_input and record.run == run_id
    if not own and _led_to(change, run_id, record):
        return False
    use = Use(id=record.id, at=format_time(time.time()), name=record.name, version=record.version)
    change.touch_run(run_id)
    write_run(change.depot, msgspec.structs.replace(run, uses=(*run.uses, use)))
    change.update()
    return True


def _led_to(catalog: Catalog, run_id: str, record: Record) -> bool:
    made = catalog.iter_records("all", run=run_id)
    if next(made, None) is None:
        return False  # mostly: and the way up may be long
    return f"run:{run_id}" in build_lineage(catalog, record.id, "up").nodes
