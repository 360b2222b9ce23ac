"""What can be a name or an alias, and why all else is refused."""

from __future__ import annotations

import re
import subprocess
import unicodedata
from pathlib import Path

import pytest

import castfs
from castfs.catalog.words import check_alias, check_name
from tests.catalog.conftest import Versions

REFUSED_NAMES = {
    "": "is empty",
    "-x": "is not a name",
    " x": "is not a name",
    "x\ny": "is not a name",
    "x\x1b[31m": "is not a name",
    "deadbeef": "looks like an id",
    "DEADBEEF": "looks like an id",
    "0123456": "looks like an id",
    "a:v3": "the name alone is a",
    "a@b": "the name alone is a",
    "x.json": "that of a manifest file",
    "..": "a part that is empty, `.` or `..`",
    "a/../b": "a part that is empty, `.` or `..`",
    "a//b": "a part that is empty, `.` or `..`",
    "a/": "a part that is empty, `.` or `..`",
    "/a": "a part that is empty, `.` or `..`",
    "./a": "a part that is empty, `.` or `..`",
    "~a": "a part that is empty, `.` or `..`",
    "é" * 128: "longer than 255 bytes",
    "\udcff": "not valid UTF-8",
}

REFUSED_ALIASES = {
    "latest": "always is the highest version",
    "Latest": "always is the highest version",
    "v3": "looks like a version",
    "V12": "looks like a version",
    "": "is not an alias",
    "a b": "is not an alias",
    "a/b": "is not an alias",
    "-a": "is not an alias",
    "\udcff": "not valid UTF-8",
}


@pytest.mark.parametrize(("name", "reason"), REFUSED_NAMES.items(), ids=ascii)
def test_name_is_refused(tree: Path, store: castfs.Store, name: str, reason: str) -> None:
    with pytest.raises(castfs.UsageError, match=re.escape(reason)) as caught:
        store.ingest(tree, name=name)
    assert str(caught.value).isprintable()
    assert list(store.iter_snapshots()) == []


@pytest.mark.parametrize(("alias", "reason"), REFUSED_ALIASES.items(), ids=ascii)
def test_alias_is_refused(tree: Path, store: castfs.Store, alias: str, reason: str) -> None:
    with pytest.raises(castfs.UsageError, match=re.escape(reason)):
        store.ingest(tree, name="m", aliases=[alias])
    assert list(store.iter_snapshots()) == []
    store.ingest(tree, name="m")
    with pytest.raises(castfs.UsageError, match=re.escape(reason)):
        store.set_alias("m:v1", alias)


@pytest.mark.parametrize(
    "name",
    ["a", "deadbee/x", "abcdef", "team/data set", "データ", "é" * 127, "v3", "latest", "a.b"],
)
def test_name_is_taken(versions: Versions, name: str) -> None:
    assert versions.make(name) == [1]
    assert versions.store.resolve(f"{name}:v1").record == versions.store.resolve(name).record


@pytest.mark.parametrize("alias", ["production", "2024.05", "rc-1", "v3-final", "día", "a+b_c"])
def test_alias_is_taken(versions: Versions, alias: str) -> None:
    versions.make()
    versions.store.set_alias("m:v1", alias)
    record = versions.store.resolve(f"m:{alias}").record
    assert record is not None
    assert record.version == 1


def test_one_name_in_all_normal_forms(versions: Versions) -> None:
    forms = [unicodedata.normalize(form, "Modèle/Å") for form in ("NFC", "NFD")]
    assert forms[0] != forms[1]
    assert [versions.make(form) for form in forms] == [[1], [2]]
    assert [info.name for info in versions.store.iter_artifacts()] == forms[:1]
    versions.store.set_alias(f"{forms[1]}:v1", unicodedata.normalize("NFD", "é"))
    for form in forms:
        assert check_name(form) == forms[0]
        record = versions.store.resolve(f"{form}:é").record
        assert record is not None
        assert record.version == 1
    assert check_alias(unicodedata.normalize("NFD", "é")) == "é"


def test_names_differ_by_capitals_and_compatibility_forms(versions: Versions) -> None:
    """A name is what was typed: only what is the same text is one name."""
    for name in ("a", "A", "ﬁ", "fi"):
        assert versions.make(name) == [1]


def test_two_slashes_are_two_names(versions: Versions) -> None:
    versions.make("team/a", 2)
    versions.make("team/b")
    versions.make("team")
    assert [(i.name, i.latest) for i in versions.store.iter_artifacts(name="team/*")] == [
        ("team/a", 2),
        ("team/b", 1),
    ]


def test_types_do_not_mix(versions: Versions, tree: Path) -> None:
    store = versions.store
    store.ingest(tree, name="m", type="model")
    (tree / "model.bin").write_text("1")
    with pytest.raises(castfs.UsageError, match="m is a model, not a dataset"):
        store.ingest(tree, name="m", type="dataset")
    record = store.resolve(store.ingest(tree, name="m").id).record
    assert record is not None
    assert (record.version, record.type) == (2, "model"), "all versions of a name are of its type"


@pytest.mark.parametrize("kind", ["dataset", "model"])
def test_git_says_nothing_about_datasets_and_models(
    store: castfs.Store, tree: Path, kind: str
) -> None:
    subprocess.run(["git", "init", "-q", tree], check=True)
    (tree / ".gitignore").write_text("*.bin\n")
    assert b"model.bin" not in store.resolve(store.ingest(tree).id).manifest.tree.files
    assert b"model.bin" in store.resolve(store.ingest(tree, type=kind).id).manifest.tree.files
    store.ingest(tree, name="d", type=kind)
    again = store.ingest(tree, name="d")
    assert again.unchanged, "the type of a name holds where none is given"
