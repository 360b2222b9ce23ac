"""Names, aliases and types that castfs does not take, made into ones that it does."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from castfs.catalog.words import check_alias, check_name
from castfs.older.description import Renamed
from castfs.older.namer import Namer
from castfs.older.naming import make_alias, make_name, make_run_id, make_type


@pytest.mark.parametrize(
    ("older", "name"),
    [
        ("resnet50", "resnet50"),
        ("training/resnet/code", "training/resnet/code"),
        ("a..b", "a..b"),
        ("über model", "über model"),
        ("u\u0308ber", "über"),
        ("deadbeef", "deadbeef-model"),
        ("DEADBEEF", "DEADBEEF-model"),
        ("0123456", "0123456-model"),
        ("abcdef", "abcdef"),
        ("..", "__"),
        (".", "_"),
        ("../../etc", "__/__/etc"),
        ("/abs/olute", "abs/olute"),
        ("a//b/", "a/b"),
        ("a:b@c", "a-b-c"),
        ("metrics.json", "metrics-json"),
        ("-rf", "_rf"),
        ("~root", "_root"),
        (" x ", "x"),
        ("a\nb\x1b[31m", "a-b-[31m"),
        ("", "model"),
        ("/", "model"),
        ("\ud800", "\\ud800"),
        ("x" * 201, "x" * 190 + "-x5bf1ad22"),
    ],
)
def test_names(older: str, name: str) -> None:
    made = make_name(older, "model")
    if len(older) > 200:
        assert made[:190] == name[:190]
        assert len(made) == 200
    else:
        assert made == name
    assert check_name(made) == made


@given(st.text(), st.sampled_from(["model", "custom"]))
def test_any_name_is_taken(older: str, type: str) -> None:
    made = make_name(older, type)
    assert check_name(made) == made
    assert make_name(older, type) == made


@given(st.text())
def test_any_alias_is_taken(older: str) -> None:
    made = make_alias(older)
    if older != "latest":
        assert made is not None
        assert check_alias(made) == made


def test_aliases() -> None:
    assert make_alias("production") == "production"
    assert make_alias("latest") is None
    assert make_alias("v7") == "older-v7"


@pytest.mark.parametrize(
    ("older", "type"),
    [
        ("model", "model"),
        ("ArtifactType.MODEL", "model"),
        ("ArtifactType.DATASET", "dataset"),
        ("evaluation", "evaluation"),
        ("../../x", "custom"),
        ("", "custom"),
        ("Two Words", "custom"),
    ],
)
def test_types(older: str, type: str) -> None:
    assert make_type(older) == type


def test_run_ids() -> None:
    assert make_run_id("20260115_100000_abc123") == "20260115_100000_abc123"
    for hostile in ("", "..", "a/b", "a..b", ".x", "-x", "a b", "a\n", "x" * 129, None):
        assert make_run_id(hostile) is None


def test_each_thing_has_a_name_of_its_own() -> None:
    renamed: list[Renamed] = []
    namer = Namer(renamed)
    assert namer.name("x", "model") == "x"
    assert namer.name("x", "dataset") == "x-dataset"
    assert namer.name("x", "model", kind="ArtifactType.MODEL") == "x-model"
    assert namer.name("x-model", "model") == "x-model-model"
    assert namer.name("x", "model") == "x"
    assert namer.name("a:b", "model") == "a-b"
    assert namer.name("a@b", "model") == "a-b-model"
    assert [entry.name for entry in renamed] == [
        "x-dataset", "x-model", "x-model-model", "a-b", "a-b-model"
    ]  # fmt: skip
