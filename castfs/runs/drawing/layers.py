"""Which node stands in which column, and in which order there (after Sugiyama et al., 1981).

A node's column is the length of the longest path to it. An edge over several columns passes through
a lane of its own in each, so that it does not run behind boxes. The order in a column follows the
middle of what each box is joined to, which leaves few crossings.
"""

from __future__ import annotations

from collections import defaultdict, deque
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass

#: Sweeps over all columns; more change little (the paper's own experience, too).
_SWEEPS = 6
#: More lanes are not laid: long edges then run behind boxes. So a hostile graph of 10,000 columns
#: and as many edges over all of them costs no 100,000,000 lanes.
_LANES_MAX = 20_000

Pair = tuple[str, str]


@dataclass(frozen=True, slots=True)
class Lane:
    """Where an edge passes through a column on its way."""

    edge: Pair
    column: int


Item = str | Lane


@dataclass(frozen=True, slots=True)
class Layers:
    """`columns` from left to right, each from top to bottom; `routes` have the lanes of an edge, in
    its direction. `backward` edges close cycles, and go from right to left or to their own start.
    """

    columns: tuple[tuple[Item, ...], ...]
    routes: Mapping[Pair, tuple[Lane, ...]]
    backward: frozenset[Pair]


def arrange(nodes: Sequence[str], edges: Iterable[Pair]) -> Layers:
    """Every end of an edge is one of `nodes`. Linear but for the sorting, and without recursion."""
    pairs = list(dict.fromkeys(edges))
    backward = _close_cycles(nodes, pairs)
    forward = [pair for pair in pairs if pair not in backward]
    column_of = _longest_paths(nodes, forward)
    columns: list[list[Item]] = [[] for _ in range(1 + max(column_of.values(), default=0))]
    for node in nodes:
        columns[column_of[node]].append(node)
    routes: dict[Pair, tuple[Lane, ...]] = {}
    budget = _LANES_MAX
    for source, target in forward:
        between = range(column_of[source] + 1, column_of[target])
        if 0 < len(between) <= budget:
            budget -= len(between)
            routes[source, target] = tuple(Lane((source, target), at) for at in between)
            for lane in routes[source, target]:
                columns[lane.column].append(lane)
    _untangle(columns, forward, routes)
    return Layers(tuple(map(tuple, columns)), routes, backward)


def _close_cycles(nodes: Sequence[str], pairs: Sequence[Pair]) -> frozenset[Pair]:
    """Those of `pairs` that lead back to where a walk came from; without them there is no cycle."""
    after: dict[str, list[str]] = defaultdict(list)
    for source, target in pairs:
        after[source].append(target)
    entered: set[str] = set()
    above: set[str] = set()
    back: set[Pair] = set()
    for start in nodes:
        if start in entered:
            continue
        entered.add(start)
        above.add(start)
        path = [(start, iter(after[start]))]
        while path:
            node, rest = path[-1]
            following = next(rest, None)
            if following is None:
                above.discard(node)
                path.pop()
            elif following in above:
                back.add((node, following))
            elif following not in entered:
                entered.add(following)
                above.add(following)
                path.append((following, iter(after[following])))
    return frozenset(back)


def _longest_paths(nodes: Sequence[str], forward: Sequence[Pair]) -> dict[str, int]:
    after: dict[str, list[str]] = defaultdict(list)
    missing = dict.fromkeys(nodes, 0)
    for source, target in forward:
        after[source].append(target)
        missing[target] += 1
    column_of = dict.fromkeys(nodes, 0)
    ready = deque(node for node in nodes if not missing[node])
    while ready:
        node = ready.popleft()
        for target in after[node]:
            column_of[target] = max(column_of[target], column_of[node] + 1)
            missing[target] -= 1
            if not missing[target]:
                ready.append(target)
    return column_of


def _untangle(
    columns: list[list[Item]], forward: Sequence[Pair], routes: Mapping[Pair, tuple[Lane, ...]]
) -> None:
    before: dict[Item, list[Item]] = defaultdict(list)
    after: dict[Item, list[Item]] = defaultdict(list)
    for pair in forward:
        stops: list[Item] = [pair[0], *routes.get(pair, ()), pair[1]]
        for at in range(len(stops) - 1):
            after[stops[at]].append(stops[at + 1])
            before[stops[at + 1]].append(stops[at])
    place: dict[Item, float] = {}
    for column in columns:
        _number(column, place)
    for sweep in range(_SWEEPS):
        joined = after if sweep % 2 else before
        for column in reversed(columns) if sweep % 2 else columns:
            middle = {
                item: sum(place[each] for each in joined[item]) / len(joined[item])
                if joined.get(item)
                else place[item]
                for item in column
            }
            column.sort(key=middle.__getitem__)
            _number(column, place)


def _number(column: Sequence[Item], place: dict[Item, float]) -> None:
    """Places from 0 to 1, so that columns of different lengths compare."""
    for at, item in enumerate(column):
        place[item] = (at + 0.5) / len(column)
