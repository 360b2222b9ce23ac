"""Numbers that a program gives, whatever they are made of: a run does not end over one of them."""

from __future__ import annotations

import json
import math
from argparse import Namespace
from collections.abc import Callable
from decimal import Decimal
from enum import Enum, IntEnum, StrEnum
from fractions import Fraction
from pathlib import Path
from typing import Any

import pytest

import castfs
from castfs import Artifact, Run, Store
from castfs.catalog import reading
from castfs.errors import UsageError
from castfs.runs.showing import describe_run

NAN, INF = float("nan"), float("inf")


class Scalar:
    """As numpy's and torch's scalars and arrays without dimensions."""

    def __init__(self, value: object) -> None:
        self._value = value

    def item(self) -> object:
        return self._value

    def tolist(self) -> object:
        return self._value

    def __repr__(self) -> str:
        return f"Scalar({self._value!r})"


class Array:
    """Of more than one, which `item` and `float` refuse."""

    def __init__(self, *values: object) -> None:
        self._values = list(values)

    def item(self) -> object:
        raise ValueError("can only convert an array of size 1")

    def tolist(self) -> list[object]:
        return self._values

    def __float__(self) -> float:
        raise TypeError("only length-1 arrays can be converted")


class Float64(float):
    """numpy.float64 is one."""


class OnlyFloat:
    """A tensor of others."""

    def __float__(self) -> float:
        return 2.5

    def __index__(self) -> int:
        raise TypeError("no integer")


class Size(IntEnum):
    SMALL = 1


class Word(StrEnum):
    SGD = "sgd"


class Level(Enum):
    HIGH = "high"


GIVEN: list[tuple[object, object]] = [
    (NAN, NAN), (INF, INF), (-INF, -INF), (Float64(0.5), 0.5), (Float64("nan"), NAN),
    (Scalar(0.5), 0.5), (Scalar(NAN), NAN), (Scalar(7), 7), (Scalar(True), True),
    (Scalar("text"), "text"), (OnlyFloat(), 2.5), (Decimal("0.5"), 0.5), (Fraction(1, 2), 0.5),
    (Array(1, 2.5, NAN), [1, 2.5, NAN]), (Array(Scalar(1), Array(2, 3)), [1, [2, 3]]),
    (Size.SMALL, 1), (Word.SGD, "sgd"), (Level.HIGH, "high"), (2**70, str(2**70)),
    (2**64 - 1, 2**64 - 1), ((1, 2), [1, 2]), ({"a": [Scalar(-INF)]}, {"a": [-INF]}),
    ({0: 0.5}, {"0": 0.5}), (None, None),
]  # fmt: skip


def same(one: object, other: object) -> bool:
    """Also of type; and NaN is itself."""
    return repr(one) == repr(other)


def strictly(text: str | bytes) -> Any:
    """As everybody else reads it."""

    def refuse(word: str) -> None:
        raise AssertionError(f"{word} is no JSON")

    return json.loads(text, parse_constant=refuse)


@pytest.mark.parametrize(("given", "expected"), GIVEN)
def test_what_is_logged(run: Run, given: object, expected: object) -> None:
    run.log({"loss": given, "after": 1}, step=3)
    [line] = run.iter_log()
    assert same(line["data"], {"loss": expected, "after": 1})
    strictly((run.run_dir / "log.jsonl").read_bytes())


@pytest.mark.parametrize(("given", "expected"), GIVEN)
def test_a_summary(store: Store, given: object, expected: object) -> None:
    with castfs.init(store=store) as run:
        assert same(run.summary({"loss": given}), {"loss": expected})
        run.summary({"more": 1})
    assert same(castfs.find_run(run.id, store=store).summary(), {"loss": expected, "more": 1})
    strictly((run.run_dir / "summary.json").read_bytes())
    assert set(describe_run(store.depot, run.id).summary) == {"loss", "more"}


@pytest.mark.parametrize(("given", "expected"), GIVEN)
def test_metadata(store: Store, given: object, expected: object) -> None:
    with castfs.init(store=store, metadata={"said": given}) as run:
        artifact = Artifact("model", metadata={"first": given}).add_reference("s3://x", seen=given)
        artifact.add_metadata({"second": given})
        artifact.metadata["third"] = given
        run.log_artifact(artifact)
        read = run.use_artifact("model:v1")
        assert same(dict(read.metadata), dict.fromkeys(("first", "second", "third"), expected))
        assert same(dict(read.get_metadata().metadata), dict(read.metadata))
        assert same(dict(read.get_references()[0].metadata), {"seen": expected})
    with reading(store.depot) as catalog:
        assert catalog.damages() == []
    strictly((store.path / "snapshots" / f"{artifact.id}.json").read_bytes())
    strictly((store.path / "runs" / f"{run.id}.json").read_bytes())


@pytest.mark.parametrize(("given", "expected"), GIVEN)
def test_a_configuration(run: Run, given: object, expected: object) -> None:
    config = run.log_config(Namespace(lr=given), extra={"more": given})
    said = strictly(config.get_file_path("config.json").read_bytes())
    named = json.dumps(expected).replace("NaN", '"NaN"').replace("Infinity", '"Infinity"')
    named = named.replace('-"Infinity"', '"-Infinity"')
    assert said == {"args": {"lr": json.loads(named)}, "extra": {"more": json.loads(named)}}


def test_a_configuration_of_what_is_no_number(run: Run) -> None:
    args = {"path": Path("a/b"), "seen": {"b", "a"}, "type": Decimal, "raw": b"x"}
    said = strictly(run.log_config(args).get_file_path("config.json").read_bytes())["args"]
    assert (said["path"], said["seen"], said["raw"]) == ("a/b", ["a", "b"], "b'x'")
    assert "Decimal" in said["type"]


CALLS: dict[str, Callable[[Run, Any], object]] = {
    "what is logged": lambda run, data: run.log(data),
    "the summary": lambda run, data: run.summary(data),
    "the metadata": lambda run, data: Artifact("a").add_metadata(data),
}


@pytest.mark.parametrize("what", CALLS)
@pytest.mark.parametrize("odd", [object(), b"x", {"a": [object()]}, {(1,): 2}, {1: 1, "1": 2}])
def test_the_key_is_named(run: Run, what: str, odd: object) -> None:
    with pytest.raises(UsageError, match=f"val_loss of {what} cannot be recorded: ") as caught:
        CALLS[what](run, {"fine": 1, "val_loss": odd})
    assert ("metadata" in str(caught.value)) == (what == "the metadata")
    assert not (run.run_dir / "log.jsonl").exists()


@pytest.mark.parametrize(
    ("step", "expected"), [(3, 3), (Scalar(3), 3), (3.0, 3), (Float64(3), 3), (Scalar(3.0), 3)]
)
def test_steps(run: Run, step: Any, expected: int) -> None:
    run.log({"a": 1}, step=step)
    assert [line["step"] for line in run.iter_log()] == [expected]


@pytest.mark.parametrize("step", [1.5, NAN, Scalar(0.5), "3", 2**70, Array(1, 2)])
def test_no_steps(run: Run, step: Any) -> None:
    with pytest.raises(UsageError, match="the step"):
        run.log({"a": 1}, step=step)


def test_a_summary_that_another_system_wrote(run: Run) -> None:
    """Python's own json writes what is no JSON, and reads it."""
    (run.run_dir / "summary.json").write_text(f'{{"loss": NaN, "big": {2**80}}}')
    known = run.summary({"more": 1})
    assert math.isnan(known["loss"])
    assert strictly((run.run_dir / "summary.json").read_bytes()) == {
        "loss": "NaN", "big": str(2**80), "more": 1,
    }  # fmt: skip


def test_keys_in_another_spelling(run: Run, caplog: pytest.LogCaptureFixture) -> None:
    """They are kept in Unicode's form NFC."""
    for number in (1, 2):
        run.log_artifact(Artifact("a", metadata={"e\u0301": number}).add_reference("s3://x"))
    assert run.use_artifact("a").metadata == {"\u00e9": 2}
