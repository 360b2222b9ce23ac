"""The graph for a browser: one SVG without scripts, fonts or anything else from elsewhere.

It has its own background, so that it can be read wherever it is shown, and dark colours where the
reader prefers them. Each box is a `<g class="node …" data-id=…>` and each edge a
`<path class="edge …" data-source=… data-target=…>` from the right side of the one box to the left
side of the other.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from itertools import pairwise
from xml.sax.saxutils import escape, quoteattr

from castfs.repository.graph import Edge, Graph, Node
from castfs.runs.drawing.layers import Item, Lane, Layers, arrange
from castfs.runs.drawing.words import columns, cut, details, title

#: Pixels. A character of a fixed-width font is 0.6 of its size wide, and `textLength` makes it so
#: in a font where it is not.
_FONT = 13.0
_SMALL_FONT = 11.0
_ADVANCE = 0.6
_LINE = 17.0
_PADDING = 10.0
_GAP_ACROSS = 70.0
_GAP_DOWN = 16.0
_LANE_HEIGHT = 6.0
_MARGIN = 20.0
#: Columns of text, and lines of details, in a box. All is in its tooltip.
_WIDTH_MAX = 44
_DETAILS_MAX = 4

_STYLE = """\
.castfs-lineage { font-family: ui-monospace, Menlo, Consolas, "DejaVu Sans Mono", monospace; }
.castfs-lineage .back { fill: #ffffff; }
.castfs-lineage rect.box { fill: #f3f6fa; stroke: #57606a; stroke-width: 1; }
.castfs-lineage .run rect.box { fill: #e8f3ec; }
.castfs-lineage .missing rect.box { fill: #ffffff; stroke-dasharray: 4 3; }
.castfs-lineage .root rect.box { stroke: #0969da; stroke-width: 3; }
.castfs-lineage text { fill: #1f2328; }
.castfs-lineage text.detail { fill: #57606a; }
.castfs-lineage .edge { fill: none; stroke: #6e7781; stroke-width: 1.5; }
.castfs-lineage .refers { stroke-dasharray: 5 4; }
.castfs-lineage .head { fill: #6e7781; }
@media (prefers-color-scheme: dark) {
.castfs-lineage .back { fill: #0d1117; }
.castfs-lineage rect.box { fill: #1b222c; stroke: #8b949e; }
.castfs-lineage .run rect.box { fill: #16281d; }
.castfs-lineage .missing rect.box { fill: #0d1117; }
.castfs-lineage .root rect.box { stroke: #58a6ff; }
.castfs-lineage text { fill: #e6edf3; }
.castfs-lineage text.detail { fill: #9ea7b1; }
.castfs-lineage .edge { stroke: #8b949e; }
.castfs-lineage .head { fill: #8b949e; }
}
"""


@dataclass(frozen=True, slots=True)
class _Box:
    """`lines`: text, size of its font."""

    lines: tuple[tuple[str, float], ...]
    width: float
    height: float


@dataclass(frozen=True, slots=True)
class _Place:
    """The left upper corner, and where its column begins and ends."""

    x: float
    y: float
    width: float
    height: float
    begin: float
    end: float

    @property
    def middle(self) -> float:
        return self.y + self.height / 2

    @property
    def right(self) -> float:
        return self.x + self.width


@dataclass(frozen=True, slots=True)
class _Frame:
    """What is left free around everything: more where edges go back."""

    across: float
    down: float


def draw_svg(graph: Graph) -> str:
    boxes = {id_: _box(node) for id_, node in graph.nodes.items()}
    layers = arrange(list(graph.nodes), [(edge.source, edge.target) for edge in graph.edges])
    frame = _Frame(_MARGIN, _MARGIN)
    if layers.backward:
        highest = max(boxes[source].height for source, _ in layers.backward)
        frame = _Frame(_MARGIN + _GAP_ACROSS / 2, _MARGIN + highest + _GAP_DOWN)
    places, width, height = _place(layers, boxes, frame)
    parts = [
        f'<svg xmlns="http://www.w3.org/2000/svg" class="castfs-lineage" role="img" '
        f'width="{width:g}" height="{height:g}" viewBox="0 0 {width:g} {height:g}">',
        f"<title>Lineage of {escape(title(graph.nodes[graph.root]))}</title>",
        f"<style>{escape(_STYLE)}</style>",
        '<defs><marker id="castfs-lineage-head" viewBox="0 0 8 8" refX="8" refY="4" '
        'markerWidth="6" markerHeight="6" orient="auto">'
        '<path class="head" d="M0 0L8 4L0 8z"/></marker></defs>',
        f'<rect class="back" width="{width:g}" height="{height:g}"/>',
        *(_edge(edge, layers, places) for edge in graph.edges),
        *(
            _node(id_, node, boxes[id_], places[id_], is_root=id_ == graph.root)
            for id_, node in graph.nodes.items()
        ),
        "</svg>",
        "",
    ]
    return "\n".join(parts)


def _box(node: Node) -> _Box:
    said = details(node.detail)
    if len(said) > _DETAILS_MAX:
        said[_DETAILS_MAX - 1 :] = ["…"]
    lines = ((title(node), _FONT), *((line, _SMALL_FONT) for line in said))
    lines = tuple((cut(line, _WIDTH_MAX), size) for line, size in lines)
    width = max(_text_width(line, size) for line, size in lines)
    return _Box(lines, width + 2 * _PADDING, len(lines) * _LINE + 2 * _PADDING)


def _text_width(text: str, size: float) -> float:
    return round(columns(text) * size * _ADVANCE, 1)


def _place(
    layers: Layers, boxes: dict[str, _Box], frame: _Frame
) -> tuple[dict[Item, _Place], float, float]:
    """The items of a column below one another, and in the middle of the whole height."""
    heights = [
        sum(_height(item, boxes) for item in column) + _GAP_DOWN * (len(column) - 1)
        for column in layers.columns
    ]
    tallest = max(heights)
    places: dict[Item, _Place] = {}
    x = frame.across
    for column, height in zip(layers.columns, heights, strict=True):
        width = max((boxes[each].width for each in column if isinstance(each, str)), default=0.0)
        y = frame.down + (tallest - height) / 2
        for item in column:
            own = boxes[item].width if isinstance(item, str) else width
            places[item] = _Place(
                x=x + (width - own) / 2,
                y=y,
                width=own,
                height=_height(item, boxes),
                begin=x,
                end=x + width,
            )
            y += places[item].height + _GAP_DOWN
        x += width + _GAP_ACROSS
    return places, x - _GAP_ACROSS + frame.across, tallest + 2 * frame.down


def _height(item: Item, boxes: dict[str, _Box]) -> float:
    return _LANE_HEIGHT if isinstance(item, Lane) else boxes[item].height


def _edge(edge: Edge, layers: Layers, places: dict[Item, _Place]) -> str:
    pair = edge.source, edge.target
    if pair in layers.backward:
        path = _way_back(places[edge.source], places[edge.target])
    else:
        stops: list[Item] = [edge.source, *layers.routes.get(pair, ()), edge.target]
        path = _way([places[stop] for stop in stops])
    return (
        f'<path class="edge {edge.kind}" data-source={_attribute(edge.source)} '
        f'data-target={_attribute(edge.target)} d="{path}" '
        f'marker-end="url(#castfs-lineage-head)"><title>{edge.kind}</title></path>'
    )


def _way(stops: Sequence[_Place]) -> str:
    """Straight within a column, whose boxes are of different widths, and curved between two."""
    path = [f"M{_point(stops[0].right, stops[0].middle)}"]
    for here, there in pairwise(stops):
        half = (here.end + there.begin) / 2
        path += [
            f"L{_point(here.end, here.middle)}",
            f"C{_point(half, here.middle)} {_point(half, there.middle)} ",
            _point(there.begin, there.middle),
        ]
    path.append(f"L{_point(stops[-1].x, stops[-1].middle)}")
    return "".join(path)


def _way_back(start: _Place, end: _Place) -> str:
    """For an edge of a cycle: around its own box, or above those between."""
    lift = start.height + _GAP_DOWN
    return (
        f"M{_point(start.right, start.middle)}"
        f"C{_point(start.right + _GAP_ACROSS, start.middle - lift)} "
        f"{_point(end.x - _GAP_ACROSS, end.middle - lift)} {_point(end.x, end.middle)}"
    )


def _point(x: float, y: float) -> str:
    return f"{x:.1f},{y:.1f}"


def _node(id_: str, node: Node, box: _Box, place: _Place, *, is_root: bool) -> str:
    classes = f"node {node.kind} root" if is_root else f"node {node.kind}"
    tooltip = "\n".join([title(node), *details(node.detail)])
    radius = 14 if node.kind == "run" else 3
    return (
        f'<g class="{classes}" data-id={_attribute(id_)}><title>{escape(tooltip)}</title>'
        f'<rect class="box" x="{place.x:.1f}" y="{place.y:.1f}" width="{place.width:.1f}" '
        f'height="{place.height:.1f}" rx="{radius}"/>{_texts(box.lines, place)}</g>'
    )


def _texts(lines: Sequence[tuple[str, float]], place: _Place) -> str:
    texts = []
    for number, (line, size) in enumerate(lines):
        y = place.y + _PADDING + (number + 0.75) * _LINE
        width = _text_width(line, size)
        length = f' textLength="{width:g}" lengthAdjust="spacingAndGlyphs"' if width else ""
        kind = "label" if number == 0 else "detail"
        texts.append(
            f'<text class="{kind}" x="{place.x + _PADDING:.1f}" y="{y:.1f}" '
            f'font-size="{size:g}"{length} xml:space="preserve">{escape(line)}</text>'
        )
    return "".join(texts)


def _attribute(id_: str) -> str:
    """Whole, however long, and another for every id: it is what edges and boxes are joined by."""
    if not id_.isprintable() or "\\" in id_:
        id_ = "".join(map(_escape_character, id_))
    return quoteattr(id_)


def _escape_character(character: str) -> str:
    if character.isprintable() and character != "\\":
        return character
    return character.encode("unicode_escape").decode()
