"""The graph for programs.

    {"root": id,
     "nodes": [{"id", "kind": "version"|"run"|"missing", "label", "detail": {name: text}}, …],
     "edges": [{"source": id, "target": id, "kind": "used"|"produced"|"refers"}, …]}

Each node and each edge is there once; every id that is named is that of a node. Edges have the
direction of the data, from what was used to what came of it.
"""

from __future__ import annotations

import json

from castfs.paths import escape
from castfs.repository.graph import Graph


def draw_json(graph: Graph) -> str:
    document = {
        "root": _text(graph.root),
        "nodes": [
            {
                "id": _text(id_),
                "kind": node.kind,
                "label": _text(node.label),
                "detail": {_text(key): _text(value) for key, value in node.detail.items()},
            }
            for id_, node in graph.nodes.items()
        ],
        "edges": [
            {"source": _text(edge.source), "target": _text(edge.target), "kind": edge.kind}
            for edge in graph.edges
        ],
    }
    return json.dumps(document, ensure_ascii=False, indent=1) + "\n"


def _text(value: str) -> str:
    """What is no Unicode text is escaped, as names are in manifests."""
    try:
        value.encode()
    except UnicodeEncodeError:
        return escape(value.encode(errors="surrogatepass"))
    return value
