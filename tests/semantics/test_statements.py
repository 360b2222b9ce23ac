"""docs/SEMANTICS.md and the tests agree on what is promised."""

from __future__ import annotations

import re
from collections import Counter

from tests.semantics.statements import DOCUMENT, REPOSITORY, find_proofs, read_statements


def test_every_statement_has_a_test() -> None:
    proven = {proof.statement for proof in find_proofs(REPOSITORY / "tests")}
    statements = read_statements(DOCUMENT.read_text())
    assert len(statements) > 100
    assert [f"{name} {text}" for name, text in statements if name not in proven] == []


def test_every_test_names_a_statement_that_exists() -> None:
    known = {name for name, _ in read_statements(DOCUMENT.read_text())}
    proofs = list(find_proofs(REPOSITORY / "tests"))
    assert [proof for proof in proofs if proof.statement not in known] == []


def test_no_statement_is_written_twice_or_not_read() -> None:
    text = DOCUMENT.read_text()
    names = [name for name, _ in read_statements(text)]
    assert [name for name, count in Counter(names).items() if count > 1] == []
    assert len(names) == len(re.findall(r"^\s*[-*] ", text, re.MULTILINE))
