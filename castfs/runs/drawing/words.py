"""What is said of nodes and edges, as one line of printable text."""

from __future__ import annotations

import unicodedata
from collections.abc import Mapping

from castfs.paths import shown
from castfs.repository.graph import Node


def printable(text: str) -> str:
    """Without control characters and lone surrogates, and without the middle of what is long."""
    return shown(text.encode(errors="backslashreplace"))


def title(node: Node) -> str:
    label = printable(node.label) or printable(node.id)
    match node.kind:
        case "run":
            return f"run {label}"
        case "missing":
            return f"{label} (missing)"
    return label


def details(detail: Mapping[str, str]) -> list[str]:
    return [f"{printable(key)}: {printable(value)}" for key, value in detail.items()]


def columns(text: str) -> int:
    """How wide a terminal or a fixed-width font shows printable `text` (Unicode's annex 11)."""
    if text.isascii():
        return len(text)
    return sum(map(_columns_of, text))


def _columns_of(character: str) -> int:
    if unicodedata.category(character) in ("Mn", "Me"):
        return 0
    return 2 if unicodedata.east_asian_width(character) in "WF" else 1


def cut(text: str, limit: int) -> str:
    """`text`, or so much of it and an ellipsis as has `limit` columns."""
    if columns(text) <= limit:
        return text
    width = 1
    for at, character in enumerate(text):
        width += _columns_of(character)
        if width > limit:
            return text[:at] + "…"
    return text
