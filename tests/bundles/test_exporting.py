"""What a bundle is made of, and where it may be written."""

from __future__ import annotations

import json
import tracemalloc
from collections.abc import Mapping
from pathlib import Path

import msgspec
import pytest

import castfs
from castfs import Store
from castfs.bundles.exporting import export_bundle
from castfs.bundles.importing import import_bundle
from castfs.catalog import reading
from castfs.errors import CastfsError, DamageError, NotFoundError, TargetError, UsageError
from castfs.store import Record
from castfs.store.records import encode_record, new_record_id
from tests.bundles.making import members_of


def add_record(store: Store, like: Record, **values: object) -> str:
    """As an earlier castfs, or another program, may have left it."""
    record = msgspec.structs.replace(like, id=new_record_id(), **values)
    (store.path / "snapshots" / f"{record.id}.json").write_bytes(encode_record(record))
    return record.id


def words_of(bundle: Path, kind: str) -> list[Mapping[str, object]]:
    return [json.loads(data) for m, data in members_of(bundle) if m.name.startswith(kind)]


def test_what_has_no_version_is_left_out(there: Store, here: Store, tmp_path: Path) -> None:
    record = there.resolve("data:v1").record
    assert record is not None
    left_out = add_record(there, record, version=None)
    done = export_bundle(there.depot, ["data"], tmp_path / "x.castfs")
    assert (done.version_count, done.left_out) == (1, (left_out,))
    assert import_bundle(here.depot, tmp_path / "x.castfs").added_versions == ("data:v1",)
    add_record(there, record, name="plain", version=None)
    with pytest.raises(UsageError, match="no version"):
        export_bundle(there.depot, ["plain"], tmp_path / "y.castfs")
    with pytest.raises(UsageError, match="no version"):
        export_bundle(there.depot, [left_out], tmp_path / "y.castfs")


@pytest.mark.parametrize(
    "values",
    [
        {"created_at": "yesterday"}, {"content": "0" * 64}, {"file_count": 7},
        {"source": "\u241bzz"}, {"version": 10**15 - 1}, {"type": "a b"}, {"run": "../x"},
    ],
)  # fmt: skip
def test_what_no_import_takes_is_not_written(
    there: Store, tmp_path: Path, values: dict[str, object]
) -> None:
    record = there.resolve("data:v1").record
    assert record is not None
    add_record(there, record, **{"version": 2, **values})
    with pytest.raises(DamageError, match="no import would take this"):
        export_bundle(there.depot, ["data"], tmp_path / "x.castfs")
    assert list(tmp_path.glob("*.castfs")) == []


def test_some_versions(there: Store, here: Store, tmp_path: Path) -> None:
    bundle = tmp_path / "x.castfs"
    done = export_bundle(there.depot, ["team/model:best", "data"], bundle)
    assert (done.names, done.version_count) == (("team/model", "data"), 2)
    assert [each["version"] for each in words_of(bundle, "snapshots/")] == [2, 1]
    imported = import_bundle(here.depot, bundle)
    assert imported.added_versions == ("team/model:v2", "data:v1")
    with reading(here.depot) as catalog:
        name = catalog.name("team/model")
        assert name is not None
        # v3 is not known here, and what others removed is no part of v2.
        assert (name.last_version, name.aliases) == (2, {"best": 2})
        assert {event.kind for event in name.history} == {"alias"}
    # The rest comes later.
    export_bundle(there.depot, ["team/model"], bundle, replace=True)
    assert import_bundle(here.depot, bundle).added_versions == ("team/model:v3",)


def test_words_that_mean_versions(there: Store, tmp_path: Path) -> None:
    record = there.resolve("team/model:v3").record
    assert record is not None
    words = ["team/model:v3", "team/model:latest", record.id, f"team/model@{record.id[:14]}"]
    for number, word in enumerate(words):
        bundle = tmp_path / f"{number}.castfs"
        assert export_bundle(there.depot, [word], bundle).version_count == 1
        assert bundle.read_bytes() == (tmp_path / "0.castfs").read_bytes()
    assert export_bundle(there.depot, words, tmp_path / "all.castfs").version_count == 1
    for word in ("team/model:v1", "team/model:nobody", "nothing", "abcdef012345"):
        with pytest.raises(NotFoundError):
            export_bundle(there.depot, [word], tmp_path / "x.castfs")


def test_into_the_store(there: Store, tmp_path: Path) -> None:
    (tmp_path / "link").symlink_to(there.path)
    snapshot = there.resolve("data")
    for directory in (there.path, there.path / "snapshots", tmp_path / "link" / "leases"):
        with pytest.raises(TargetError, match="lies in the store"):
            export_bundle(there.depot, ["data"], directory / "x.castfs")
        for suffix in ("tar", "tar.zst", "zip"):
            with pytest.raises(TargetError, match="lies in the store"):
                snapshot.export(directory / f"x.{suffix}", replace=True)
    there.gc()


def test_an_error_names_the_option(there: Store, tmp_path: Path) -> None:
    (tmp_path / "x.castfs").touch()
    with pytest.raises(CastfsError) as caught:
        export_bundle(there.depot, ["data"], tmp_path / "x.castfs")
    assert "--force" in (caught.value.hint or "")


def test_memory_does_not_grow_with_the_versions(tmp_path: Path) -> None:
    """A tree of 3,000 files is some megabytes, read: at any time there is one."""
    there = castfs.open(tmp_path / "there", create=True)
    tree = tmp_path / "tree"
    tree.mkdir()
    for number in range(3000):
        (tree / f"file-{number:05}").write_bytes(b"x")
    peaks = []
    for count in (2, 8):
        while len(list(there.iter_snapshots())) < count:
            (tree / "file-00000").write_text(f"{len(list(there.iter_snapshots()))}")
            there.ingest(tree, name="m")
        bundle = tmp_path / f"{count}.castfs"
        here = castfs.open(tmp_path / f"here-{count}", create=True)
        tracemalloc.start()
        try:
            export_bundle(there.depot, ["m"], bundle)
            import_bundle(here.depot, bundle)
            peaks.append(tracemalloc.get_traced_memory()[1])
        finally:
            tracemalloc.stop()
    assert peaks[1] < peaks[0] * 1.2, peaks
