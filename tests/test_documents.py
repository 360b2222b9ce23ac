"""The tests that docs/RELIABILITY.md names exist."""

from __future__ import annotations

import ast
import re
from pathlib import Path

TESTS = Path(__file__).parent
DOCUMENT = TESTS.parent / "docs" / "RELIABILITY.md"


def named_tests(text: str) -> list[tuple[str, str]]:
    """(file or directory below tests, name of a test or "")."""
    found, last = [], ""
    for file, name in re.findall(r"`([a-z_/]+(?:\.py)?)?(?:::([a-z_]+))?`", text):
        last = file or last
        if file.endswith((".py", "/")) or name:
            found.append((last, name))
    return found


def promises() -> list[str]:
    """The rows of the tables."""
    rows = [line for line in DOCUMENT.read_text().splitlines() if line.startswith("| ")]
    return [row for row in rows if not row.startswith("| promise")]


def test_what_is_promised_is_shown() -> None:
    named = named_tests("\n".join(promises()))
    assert len(named) > 30
    for file, name in named:
        path = TESTS / file
        assert path.exists(), file
        if name:
            functions = {
                node.name
                for node in ast.walk(ast.parse(path.read_bytes()))
                if isinstance(node, ast.FunctionDef)
            }
            assert name in functions, f"{file}::{name}"


def test_every_promise_has_a_test() -> None:
    assert len(promises()) >= 20
    assert [row for row in promises() if not named_tests(row)] == []
