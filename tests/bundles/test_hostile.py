"""Bundles that a stranger made: nothing is imported, and why is said in one line."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest

from castfs import Store
from castfs.bundles.exporting import export_bundle
from castfs.bundles.importing import import_bundle
from castfs.errors import CastfsError, DamageError, UsageError
from tests.bundles.making import (
    Members,
    another_id,
    another_note,
    another_run,
    change,
    event,
    flipped,
    linked,
    members_of,
    nested,
    of_itself,
    other_size,
    renamed,
    twice,
    used_twice,
    uses,
    without,
    write_members,
)


@pytest.mark.parametrize(
    "act",
    [
        without("castfs-bundle"), without("blobs"), without("manifests"), without("snapshots"),
        lambda members: members[::-1], lambda members: [], linked, flipped("blobs"),
        flipped("manifests"), renamed("blobs", "../../escaped"), renamed("names", "names/../x"),
        renamed("runs", "/etc/x"), renamed("snapshots", "snapshots/" + "0" * 24),
        change("snapshots", id="../x"), change("snapshots", manifest="0" * 64),
        change("snapshots", name="../x"), change("snapshots", version="x"),
        change("names", name="0123456789"), change("names", aliases={"latest": 1}),
        twice, another_id, other_size, lambda members: members[:-1],
        change("snapshots", version=2**70), change("snapshots", version=-3),
        change("snapshots", version=None), change("snapshots", name=None),
        change("snapshots", created_at="x"), change("names", last_version=2**53),
        change("names", aliases={"a": 2**70}), change("names", last_version=-1),
        change("runs", id="../x"), change("runs", status="odd"),
        change("runs", status="running"), change("runs", created_at="yesterday"),
        change("runs", created_at="2026-13-01T00:00:00Z"), change("runs", finished_at="2026"),
        change("runs", finished_at="2026-01-01T00:00:00+05:00"),
        change("runs", directory="\u241bzz"),
        uses({"id": "../x"}), uses({"id": "0" * 64}), uses({"at": "x"}), uses({"name": "a:b"}),
        uses({"version": 0}), uses({"version": 2**60}), uses({"id": 3}), used_twice,
        change("runs", uses=[]), of_itself, change("runs", project="\ud800"),
        event(kind="odd"), event(alias="latest"), event(alias=None), event(alias="v3"),
        event(at="x"), event(version=0), event(before=-1), event(kind="remove"), event(by=5),
        change("names", aliases={"a": 4}), change("names", type="../x"),
        change("names", type="dataset"), change("names", name="another"),
        change("snapshots", created_at="2026-01-01"), change("snapshots", type="a b"),
        change("snapshots", content="0" * 64), change("snapshots", content=None),
        change("snapshots", file_count=2), change("snapshots", total_size_bytes=0),
        change("snapshots", run="../x"), change("snapshots", source="\u241bzz"),
        change("snapshots", skipped=[{"path": "\u241b", "reason": ""}]),
        change("snapshots", references=[{"uri": "s3://x", "path": "nothing"}]),
        change("snapshots", references=[{"uri": "", "path": "file"}], file_count=0),
        change("castfs-bundle", names=["other"]), change("castfs-bundle", names=[]),
        another_note, another_run, event(run="../x"), event(message="x"),
        event(kind="version", alias=None, before=None, run="../x"), change("snapshots", user=5),
        change("runs", made_again=[{"id": "../x", "at": "2026-01-01T00:00:00Z"}]),
        change("runs", made_again=[{"id": "0" * 24, "at": "x"}]),
        change("runs", made_again=[{"id": "0" * 24, "at": "2026-01-01T00:00:00Z"}] * 2),
        nested("snapshots"), nested("runs"), event(store="../x"), event(store=5),
        change("snapshots", version=10**12 + 1), event(version=10**12 + 1),
    ],
)  # fmt: skip
def test_hostile(
    there: Store, here: Store, tmp_path: Path, act: Callable[[Members], Members]
) -> None:
    bundle = tmp_path / "x.castfs"
    export_bundle(there.depot, ["team/model"], bundle)
    write_members(bundle, act(members_of(bundle)))
    before = sorted(path for path in tmp_path.rglob("*") if "cache" not in path.parts)
    with pytest.raises(CastfsError) as caught:
        import_bundle(here.depot, bundle)
    assert isinstance(caught.value, (DamageError, UsageError))
    after = sorted(path for path in tmp_path.rglob("*") if "cache" not in path.parts)
    new = [path for path in after if path not in before and "blobs" not in path.parts]
    assert [
        p for p in new if not p.name.startswith("catalog.") and "manifests" not in p.parts
    ] == []
    assert here.verify().problems == ()
    assert list(here.iter_snapshots()) == []


@pytest.mark.parametrize("share", [0.001, 0.3, 0.9, 0.999])
def test_cut_off(there: Store, here: Store, tmp_path: Path, share: float) -> None:
    bundle = tmp_path / "x.castfs"
    export_bundle(there.depot, ["data"], bundle)
    data = bundle.read_bytes()
    # What tar adds at the end to fill its records is nobody's.
    bundle.write_bytes(data[: int((len(data) - 10_240) * share)])
    with pytest.raises(DamageError):
        import_bundle(here.depot, bundle)
    assert list(here.iter_snapshots()) == []
