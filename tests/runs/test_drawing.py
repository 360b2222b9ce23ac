"""Lineage drawn: what the drawings say, and that they are what they claim to be."""

from __future__ import annotations

import json
import re
import xml.etree.ElementTree as ET
from collections.abc import Iterable
from dataclasses import dataclass
from itertools import pairwise
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from castfs.errors import UsageError
from castfs.repository.graph import Edge, EdgeKind, Graph, Node, NodeKind
from castfs.runs.drawing import FORMATS, Format, draw
from castfs.runs.drawing.words import columns

HEAD = ("url(#castfs-lineage-head)",)
SVG = "{http://www.w3.org/2000/svg}"


READ_BY_PEOPLE: tuple[Format, ...] = ("text", "dot", "svg")


def node(id_: str, kind: NodeKind = "version", label: str | None = None, **detail: str) -> Node:
    return Node(id_, kind, id_ if label is None else label, detail)


def graph(root: str, nodes: Iterable[Node], edges: Iterable[tuple[str, str, EdgeKind]]) -> Graph:
    return Graph(root, {each.id: each for each in nodes}, tuple(Edge(*edge) for edge in edges))


TRAINING = graph(
    "model:v1",
    [
        node("model:v1", type="model", created="2026-01-15"),
        node("r1", "run", "train"),
        node("r2", "run", "prepare"),
        node("r3", "run", "evaluate"),
        node("data:v1"),
        node("raw:v7"),
        node("code:v3"),
        node("report:v1"),
    ],
    [
        ("raw:v7", "r2", "used"),
        ("code:v3", "r2", "used"),
        ("r2", "data:v1", "produced"),
        ("data:v1", "r1", "used"),
        ("code:v3", "r1", "used"),
        ("base:v9", "r1", "used"),
        ("r1", "model:v1", "produced"),
        ("data:v1", "model:v1", "refers"),
        ("model:v1", "r3", "used"),
        ("r3", "report:v1", "produced"),
        ("model:v1", "report:v1", "refers"),
    ],
)


def test_text() -> None:
    assert draw(TRAINING, "text") == (
        "model:v1  (type: model, created: 2026-01-15)\n"
        "upstream\n"
        "├── produced by run train\n"
        "│   ├── used data:v1\n"
        "│   │   └── produced by run prepare\n"
        "│   │       ├── used raw:v7\n"
        "│   │       └── used code:v3\n"
        "│   ├── used code:v3 (again)\n"
        "│   └── used base:v9 (missing)\n"
        "└── refers to data:v1 (again)\n"
        "downstream\n"
        "├── used by run evaluate\n"
        "│   └── produced report:v1\n"
        "└── referred to by report:v1 (again)\n"
    )


def test_text_in_ascii() -> None:
    text = draw(
        graph("é…", [node("é…"), node("r", "run"), node("日")],
              [("r", "é…", "produced"), ("日", "r", "used"), ("日", "é…", "refers")]),
        "text", ascii_only=True,
    )  # fmt: skip
    assert text == (
        "\\xe9...\n"
        "upstream\n"
        "|-- produced by run r\n"
        "|   `-- used \\u65e5\n"
        "`-- refers to \\u65e5 (again)\n"
    )


def test_text_of_one_node() -> None:
    assert draw(graph("a", [node("a")], []), "text") == "a\n"
    assert draw(graph("a", [], []), "text") == "a (missing)\n"
    assert draw(graph("a", [node("a", "run", "")], []), "text") == "run a\n"


def test_text_of_cycles() -> None:
    text = draw(
        graph("a", [node("a"), node("b")],
              [("a", "b", "refers"), ("b", "a", "refers"), ("a", "a", "refers")]),
        "text",
    )  # fmt: skip
    assert text == (
        "a\n"
        "upstream\n"
        "├── refers to b\n"
        "│   └── refers to a (cycle)\n"
        "└── refers to a (cycle)\n"
        "downstream\n"
        "├── referred to by b\n"
        "│   └── referred to by a (cycle)\n"
        "└── referred to by a (cycle)\n"
    )


def test_what_is_deep_goes_on_at_the_margin() -> None:
    lines = draw(chain(60), "text").splitlines()
    # A heading, 60 levels but the root, and two lines where it goes on.
    assert len(lines) == 2 + 59 + 2
    assert lines[25].endswith("used by 24 (continued below)")
    assert lines[26:28] == ["24 (continued)", "└── used by 25"]
    assert max(map(len, lines)) < 24 * 4 + 40


def test_control_characters_are_escaped_in_what_people_read() -> None:
    hostile = 'a\x1b[31m\n\t\x00\u202e"<&>\udcff'
    drawn = graph(hostile, [Node(hostile, "version", hostile, {"k\n": "v\x07"})], [])
    assert draw(drawn, "text") == ('a\\x1b[31m\\n\\t\\x00\\u202e"<&>\\udcff  (k\\n: v\\x07)\n')
    for format in READ_BY_PEOPLE:
        assert not re.search("[\x00-\x09\x0b-\x1f\x7f\u202e]", draw(drawn, format))


def test_long_labels_are_shortened() -> None:
    drawn = graph("a", [node("a", label="x" * 10_000_000, d="y" * 10_000_000)], [])
    for format in READ_BY_PEOPLE:
        assert len(draw(drawn, format)) < 10_000


def test_json() -> None:
    document = json.loads(draw(TRAINING, "json"))
    assert list(document) == ["root", "nodes", "edges"]
    assert document["root"] == "model:v1"
    assert document["nodes"][0] == {
        "id": "model:v1",
        "kind": "version",
        "label": "model:v1",
        "detail": {"type": "model", "created": "2026-01-15"},
    }
    missing = {"id": "base:v9", "kind": "missing", "label": "base:v9", "detail": {}}
    assert document["nodes"][-1] == missing
    assert document["edges"][0] == {"source": "raw:v7", "target": "r2", "kind": "used"}
    assert (len(document["nodes"]), len(document["edges"])) == (9, 11)


def test_an_unknown_format() -> None:
    with pytest.raises(UsageError, match="no such format: png; one of text, dot, json, svg"):
        draw(TRAINING, "png")  # type: ignore[arg-type]


# What graphviz's grammar says of a file with one statement on a line: an id here is a plain name
# or a quoted string, in which only \" is an escape to the lexer (and so \\ must come in pairs, or
# the string would end elsewhere).
QUOTED = r'"(?:[^"\\\n]|\\[^\n])*"'
ATTRIBUTE = rf"[a-z]+=(?:[a-zA-Z0-9]+|{QUOTED})"
ATTRIBUTES = rf"\[({ATTRIBUTE}(?:, {ATTRIBUTE})*)\]"
DOT_NODE = re.compile(rf"  (n\d+) {ATTRIBUTES};")
DOT_EDGE = re.compile(rf"  (n\d+) -> (n\d+) {ATTRIBUTES};")


@dataclass
class Dot:
    labels: dict[str, str]
    edges: list[tuple[str, str, str]]


def parse_dot(text: str) -> Dot:
    """Fails for what is no such file. Labels are as graphviz shows them, without justification."""
    first, *lines, last = text.removesuffix("\n").split("\n")
    assert (first, last) == ("digraph lineage {", "}")
    assert lines[:2] == ["  rankdir=LR;", '  node [fontname="monospace"];']
    parsed = Dot({}, [])
    for line in lines[2:]:
        if match := DOT_NODE.fullmatch(line):
            parsed.labels[match[1]] = shown_label(match[2])
        else:
            match = DOT_EDGE.fullmatch(line)
            assert match, line
            parsed.edges.append((match[1], match[2], shown_label(match[3])))
    return parsed


def shown_label(attributes: str) -> str:
    match = re.match(rf"label=({QUOTED})", attributes)
    assert match
    text = re.sub(r'\\(["\\nl])', lambda m: {"n": "\n", "l": "\n"}.get(m[1], m[1]), match[1][1:-1])
    assert not re.search("&(?!amp;)", text)
    return text.replace("&amp;", "&")


def test_dot() -> None:
    parsed = parse_dot(draw(TRAINING, "dot"))
    labels = parsed.labels
    assert labels["n0"] == "model:v1\ntype: model\ncreated: 2026-01-15\n"
    assert list(labels.values())[-1] == "base:v9 (missing)"
    assert [(labels[s], labels[t], kind) for s, t, kind in parsed.edges][-1] == (
        labels["n0"],
        "report:v1",
        "refers",
    )


def test_dot_shows_labels_as_they_are() -> None:
    for label in ('a"b', "a\\", "\\N\\G\\n", "&lt;&amp;", "<b>x</b>", "a;b]", "日本", 'a\\"'):
        parsed = parse_dot(draw(graph("a", [node("a", label=label)], []), "dot"))
        assert parsed.labels == {"n0": label}


@dataclass
class Box:
    x: float
    y: float
    width: float
    height: float

    def meets(self, other: Box) -> bool:
        return (
            self.x < other.x + other.width
            and other.x < self.x + self.width
            and self.y < other.y + other.height
            and other.y < self.y + self.height
        )


@dataclass
class Svg:
    boxes: dict[str, Box]
    edges: list[tuple[str, str, str]]
    titles: dict[str, str]


NUMBER = r"-?\d+(?:\.\d+)?"


def parse_svg(text: str) -> Svg:
    """Fails if it is not well-formed, needs anything from elsewhere, or is not drawn right."""
    root = ET.fromstring(text)
    assert root.tag == SVG + "svg"
    width, height = float(root.attrib["width"]), float(root.attrib["height"])
    allowed = ("svg", "title", "style", "defs", "marker", "path", "rect", "g", "text")
    assert {each.tag for each in root.iter()} <= {SVG + name for name in allowed}
    for each in root.iter():
        assert not [name for name in each.attrib if name.startswith("on") or "href" in name]
        for name, value in each.attrib.items():
            assert name.startswith("data-") or value in HEAD or "url" not in value
    style = root.findtext(SVG + "style") or ""
    assert "prefers-color-scheme: dark" in style
    assert "url" not in style
    assert "@import" not in style
    svg = Svg({}, [], {})
    for group in root.iter(SVG + "g"):
        rect = group.find(SVG + "rect")
        assert rect is not None
        box = Box(*(float(rect.attrib[name]) for name in ("x", "y", "width", "height")))
        assert box.x >= 0
        assert box.y >= 0
        assert box.x + box.width <= width
        assert box.y + box.height <= height
        for line in group.iter(SVG + "text"):
            check_text(line, box)
        assert group.attrib["data-id"] not in svg.boxes
        svg.boxes[group.attrib["data-id"]] = box
        svg.titles[group.attrib["data-id"]] = group.findtext(SVG + "title") or ""
    for path in root.findall(SVG + "path"):
        source, target = path.attrib["data-source"], path.attrib["data-target"]
        check_joined(path.attrib["d"], svg.boxes[source], svg.boxes[target])
        svg.edges.append((source, target, path.attrib["class"].removeprefix("edge ")))
    check_apart(list(svg.boxes.values()))
    return svg


def check_text(line: ET.Element, box: Box) -> None:
    x, y = float(line.attrib["x"]), float(line.attrib["y"])
    length = float(line.attrib.get("textLength", "0"))
    assert box.x < x
    assert x + length <= box.x + box.width
    assert box.y < y < box.y + box.height
    assert columns(line.text or "") <= 44


def check_joined(path: str, source: Box, target: Box) -> None:
    """From the middle of the right side to the middle of the left side, to half a pixel."""
    assert re.fullmatch(rf"M{NUMBER},{NUMBER}(?:[LC ]{NUMBER},{NUMBER})+", path), path
    numbers = [float(each) for each in re.findall(NUMBER, path)]
    start, end = numbers[:2], numbers[-2:]
    assert start == pytest.approx([source.x + source.width, source.y + source.height / 2], abs=0.5)
    assert end == pytest.approx([target.x, target.y + target.height / 2], abs=0.5)


def check_apart(boxes: list[Box]) -> None:
    """Boxes whose extents from left to right meet are one column, with a gap below each box."""
    columns_: list[list[Box]] = []
    end = -1.0
    for box in sorted(boxes, key=lambda each: each.x):
        if box.x >= end:
            columns_.append([])
        end = max(end, box.x + box.width)
        columns_[-1].append(box)
    for column in columns_:
        column.sort(key=lambda each: each.y)
        for one, other in pairwise(column):
            assert other.y >= one.y + one.height + 10


def test_svg() -> None:
    text = draw(TRAINING, "svg")
    svg = parse_svg(text)
    assert len(svg.boxes) == 9
    assert sorted(svg.edges) == sorted((e.source, e.target, e.kind) for e in TRAINING.edges)
    assert svg.titles["model:v1"] == "model:v1\ntype: model\ncreated: 2026-01-15"
    # Left to right by the longest path.
    order = ["raw:v7", "r2", "data:v1", "r1", "model:v1", "r3", "report:v1"]
    places = [svg.boxes[id_].x + svg.boxes[id_].width / 2 for id_ in order]
    assert places == sorted(places)
    assert all(other - one > 50 for one, other in pairwise(places))
    for source, target, _ in svg.edges:
        assert svg.boxes[source].x + svg.boxes[source].width < svg.boxes[target].x


def test_an_edge_over_several_columns_does_not_run_behind_boxes() -> None:
    svg = ET.fromstring(draw(TRAINING, "svg"))
    boxes = parse_svg(draw(TRAINING, "svg")).boxes
    for path in svg.findall(SVG + "path"):
        others = [
            box
            for id_, box in boxes.items()
            if id_ not in (path.attrib["data-source"], path.attrib["data-target"])
        ]
        for x, y in points_on(path.attrib["d"]):
            assert not any(box.meets(Box(x, y, 0.01, 0.01)) for box in others)


def points_on(path: str) -> Iterable[tuple[float, float]]:
    at = (0.0, 0.0)
    for command, arguments in re.findall(r"([MLC])([^MLC]+)", path):
        numbers = [float(each) for each in re.findall(NUMBER, arguments)]
        points = list(zip(numbers[::2], numbers[1::2], strict=True))
        if command == "M":
            at = points[0]
            continue
        p = [at, *points] if command == "C" else [at, at, points[0], points[0]]
        for step in range(41):
            t = step / 40
            weights = ((1 - t) ** 3, 3 * t * (1 - t) ** 2, 3 * t * t * (1 - t), t**3)
            yield (
                sum(w * x for w, (x, _) in zip(weights, p, strict=True)),
                sum(w * y for w, (_, y) in zip(weights, p, strict=True)),
            )
        at = points[-1]


def test_svg_tells_nothing_but_the_label() -> None:
    hostile = '</text><script>alert(1)</script>" onload="x'
    svg = parse_svg(draw(graph(hostile, [node(hostile, label=hostile)], []), "svg"))
    assert svg.titles == {hostile: hostile}


def chain(length: int) -> Graph:
    ids = [str(number) for number in range(length)]
    return graph("0", map(node, ids), [(one, other, "used") for one, other in pairwise(ids)])


def wide(breadth: int) -> Graph:
    ids = [str(number) for number in range(breadth)]
    edges: list[tuple[str, str, EdgeKind]] = [("root", each, "used") for each in ids]
    edges += [(each, "end", "produced") for each in ids]
    return graph("root", map(node, ["root", *ids, "end"]), edges)


def comb(length: int) -> Graph:
    """A chain whose every node is joined to the first, to the last, and back to the one before."""
    ids = [str(number) for number in range(length)]
    edges: list[tuple[str, str, EdgeKind]] = []
    for one, other in pairwise(ids):
        edges += [(one, other, "used"), (other, one, "refers")]
        edges += [("0", other, "refers"), (one, ids[-1], "refers"), (other, "0", "produced")]
    return graph(str(length // 2), map(node, ids), edges)


LARGE = {"chain": chain(10_000), "wide": wide(5_000), "comb": comb(3_000)}


@pytest.mark.parametrize("name", LARGE)
def test_large_graphs(name: str) -> None:
    """Neither recursion nor squares: some seconds at most, and some megabytes."""
    drawn = LARGE[name]
    texts = {format: draw(drawn, format) for format in FORMATS}  # type: ignore[arg-type]
    assert max(map(len, texts.values())) < 30e6
    lines = texts["text"].splitlines()
    assert max(map(len, lines)) < 200
    document = json.loads(texts["json"])
    assert len(document["nodes"]) == len(drawn.nodes)
    assert len(parse_dot(texts["dot"]).edges) == len(set(drawn.edges))
    svg = parse_svg(texts["svg"])
    assert len(svg.boxes) == len(drawn.nodes)
    assert len(svg.edges) == len(set(drawn.edges))
    said = {re.sub(r"^[│ ├└─]*| \(\w+( below)?\)$", "", line).split(" ")[-1] for line in lines}
    assert set(drawn.nodes) <= said


TEXT = st.text(max_size=12) | st.sampled_from(
    ['"', "\\", '\\"', "a\\", "<b>&amp;", "\ud800", "\udcff", "\n", "\x00", "日本", "\\n"]
)  # fmt: skip


@st.composite
def graphs(draw_: Any) -> Graph:
    ids = draw_(st.lists(TEXT, min_size=1, max_size=8, unique=True))
    known = draw_(st.lists(st.sampled_from(ids), unique=True))
    nodes = {
        id_: Node(
            id_,
            draw_(st.sampled_from(["version", "run", "missing"])),
            draw_(TEXT),
            draw_(st.dictionaries(TEXT, TEXT, max_size=6)),
        )
        for id_ in known
    }
    edges = draw_(
        st.lists(
            st.builds(
                Edge,
                st.sampled_from(ids),
                st.sampled_from(ids),
                st.sampled_from(["used", "produced", "refers"]),
            ),
            max_size=20,
        )
    )
    return Graph(draw_(st.sampled_from(ids)), nodes, tuple(edges))


def all_ids(drawn: Graph) -> set[str]:
    return {drawn.root, *drawn.nodes, *(end for e in drawn.edges for end in (e.source, e.target))}


@given(graphs())
def test_any_graph_as_json(drawn: Graph) -> None:
    document = json.loads(draw(drawn, "json").encode())
    ids = [each["id"] for each in document["nodes"]]
    assert len(ids) == len(all_ids(drawn))
    assert len(set(ids)) == len(ids)
    assert document["root"] in ids
    assert len(document["edges"]) == len(set(drawn.edges))
    for edge in document["edges"]:
        assert edge["source"] in ids
        assert edge["target"] in ids
    if is_unicode(drawn):
        assert set(ids) == all_ids(drawn)
        assert {each["id"]: each["detail"] for each in document["nodes"]} == {
            id_: dict(drawn.nodes[id_].detail) if id_ in drawn.nodes else {}
            for id_ in all_ids(drawn)
        }


def is_unicode(drawn: Graph) -> bool:
    details = [
        text for each in drawn.nodes.values() for pair in each.detail.items() for text in pair
    ]
    try:
        "".join([*all_ids(drawn), *details]).encode()
    except UnicodeEncodeError:
        return False
    return True


@given(graphs())
def test_any_graph_as_dot(drawn: Graph) -> None:
    text = draw(drawn, "dot")
    text.encode()
    parsed = parse_dot(text)
    assert len(parsed.labels) == len(all_ids(drawn))
    assert len(parsed.edges) == len(set(drawn.edges))
    for source, target, _ in parsed.edges:
        assert source in parsed.labels
        assert target in parsed.labels


@given(graphs())
def test_any_graph_as_svg(drawn: Graph) -> None:
    svg = parse_svg(draw(drawn, "svg").encode().decode())
    assert len(svg.boxes) == len(all_ids(drawn))
    assert len(svg.edges) == len(set(drawn.edges))


@given(graphs(), st.booleans())
def test_any_graph_as_text(drawn: Graph, ascii_only: bool) -> None:
    """Each edge that leads to the root or comes from it, by any way, has its line."""
    text = draw(drawn, "text", ascii_only=ascii_only)
    assert text.encode("ascii" if ascii_only else "utf-8")
    assert all(character == "\n" or character.isprintable() for character in text)
    edges = set(drawn.edges)
    expected = 1
    for towards in (True, False):
        joined = reach(drawn.root, edges, towards=towards)
        count = sum((e.target if towards else e.source) in joined for e in edges)
        expected += count + (count > 0)
    assert len(text.splitlines()) == expected


def reach(root: str, edges: Iterable[Edge], *, towards: bool) -> set[str]:
    steps = {(e.target, e.source) if towards else (e.source, e.target) for e in edges}
    reached, before = {root}, set[str]()
    while reached != before:
        before = set(reached)
        reached |= {there for here, there in steps if here in reached}
    return reached
