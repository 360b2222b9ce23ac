"""The statements of docs/SEMANTICS.md, and the tests that prove them."""

from __future__ import annotations

import ast
import re
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

REPOSITORY = Path(__file__).resolve().parents[2]
DOCUMENT = REPOSITORY / "docs" / "SEMANTICS.md"

_STATEMENT = re.compile(r"^- \*\*([A-Z][0-9]+)\*\* (\S.*)$", re.MULTILINE)


@dataclass(frozen=True)
class Proof:
    """A test that names a statement."""

    statement: str
    where: str


def read_statements(text: str) -> list[tuple[str, str]]:
    """(identifier, first line) of each, in the order of the page."""
    return _STATEMENT.findall(text)


def find_proofs(tests: Path) -> Iterator[Proof]:
    """Every `@pytest.mark.semantics("M1", ...)` above a test function."""
    for path in sorted(tests.rglob("test_*.py")):
        for node in ast.walk(ast.parse(path.read_bytes())):
            if isinstance(node, ast.FunctionDef) and node.name.startswith("test_"):
                for decorator in node.decorator_list:
                    for statement in _named_by(decorator):
                        yield Proof(
                            statement, f"{path.relative_to(tests.parent)}:{node.lineno} {node.name}"
                        )


def _named_by(decorator: ast.expr) -> list[str]:
    if not isinstance(decorator, ast.Call) or ast.unparse(decorator.func) != (
        "pytest.mark.semantics"
    ):
        return []
    return [ast.literal_eval(argument) for argument in decorator.args]
