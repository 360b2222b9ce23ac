"""An artifact with all that belongs to it as one file, and into another store."""

from __future__ import annotations

import fcntl
import io
import json
import os
import resource
import subprocess
import tarfile
from collections.abc import Callable, Mapping
from pathlib import Path

import pytest

import castfs
from castfs import Artifact, Store
from castfs.catalog import reading
from castfs.errors import (
    BlobError,
    CastfsError,
    DamageError,
    NotFoundError,
    TargetError,
    UsageError,
)
from castfs.repository.bundling import export_bundle
from castfs.repository.lineage import build_lineage
from castfs.repository.unbundling import import_bundle, is_bundle
from castfs.runs.drawing import draw
from castfs.store.locks import try_flock


@pytest.fixture
def there(tmp_path: Path) -> Store:
    """A store with two artifacts and their runs."""
    store = castfs.open(tmp_path / "there", create=True)
    large, file = tmp_path / "large", tmp_path / "file"
    large.write_bytes(b"0123456789abcdef" * (600 << 10))
    with castfs.init("ml", "prep", store=store) as run:
        run.log_artifact(Artifact("data", "dataset").add_file(large).add_tags("raw"))
    for number in (1, 2, 3):
        file.write_text(f"model {number}")
        with castfs.init("ml", f"train {number}", store=store) as run:
            run.use_artifact("data:v1")
            made = Artifact("team/model", metadata={"acc": number / 10, "data": "data:v1"})
            run.log_artifact(made.add_file(file), aliases=["best"] if number == 2 else [])
    with castfs.init("ml", "eval", store=store) as run:
        run.use_artifact("team/model:best")
    store.remove("team/model:v1")
    return store


@pytest.fixture
def here(tmp_path: Path) -> Store:
    return castfs.open(tmp_path / "here", create=True)


def described(store: Store) -> object:
    """All that a store says of its names: what has no name here has none there."""
    with reading(store.depot) as catalog:
        return (
            sorted((record for record in catalog.iter_records()), key=lambda record: record.id),
            {
                name.name: (name.type, name.last_version, name.aliases)
                for name in catalog.iter_names()
            },
            list(catalog.iter_runs()),
            draw(build_lineage(catalog, "team/model:best"), "json"),
        )


def test_there_and_back(there: Store, here: Store, tmp_path: Path) -> None:
    bundle = tmp_path / "all.castfs"
    written = export_bundle(there.depot, ["team/model", "data"], bundle)
    assert (written.version_count, written.run_count, written.blob_count) == (3, 5, 3)
    assert is_bundle(bundle)
    listed = subprocess.run(["tar", "-tf", bundle], capture_output=True, text=True, check=True)
    assert len(listed.stdout.splitlines()) == 1 + 3 + 3 + 2 + 5 + 3
    done = import_bundle(here.depot, bundle)
    assert done.names == ("team/model", "data")
    assert sorted(done.added_versions) == ["data:v1", "team/model:v2", "team/model:v3"]
    # The run whose version is in the trash made nothing that is in the bundle, but used the data.
    assert described(here) == described(there)
    assert here.verify().problems == ()
    with here.resolve("team/model:best").open("file") as file:
        assert file.read() == b"model 2"
    again = import_bundle(here.depot, bundle)
    assert (again.added_versions, again.added_count, again.added_runs) == ((), 0, 0)
    assert described(here) == described(there)


def test_written_by_another_program(there: Store, here: Store, tmp_path: Path) -> None:
    """What the hostile ones are made of is taken."""
    bundle = tmp_path / "x.castfs"
    export_bundle(there.depot, ["team/model"], bundle)
    write_members(bundle, members_of(bundle))
    assert len(import_bundle(here.depot, bundle).added_versions) == 2


def test_contents_of_all_sizes(here: Store, tmp_path: Path) -> None:
    tree = tmp_path / "tree"
    tree.mkdir()
    # Around what is read at once, what goes by way of a file, and tar's blocks.
    for size in (
        0,
        1,
        511,
        512,
        513,
        (1 << 20) - 1,
        1 << 20,
        (1 << 20) + 1,
        8 << 20,
        (8 << 20) + 1,
    ):
        (tree / f"{size}").write_bytes(b"%d" % (size % 7) * size)
    there = castfs.open(tmp_path / "there", create=True)
    there.ingest(tree, name="sizes")
    export_bundle(there.depot, ["sizes"], tmp_path / "x.castfs")
    import_bundle(here.depot, tmp_path / "x.castfs")
    here.resolve("sizes").restore(tmp_path / "back")
    assert subprocess.run(["diff", "-r", tree, tmp_path / "back"], check=False).returncode == 0


def test_more_versions_than_descriptors(here: Store, tmp_path: Path) -> None:
    there = castfs.open(tmp_path / "there", create=True)
    (tmp_path / "tree").mkdir()
    for number in range(80):
        (tmp_path / "tree" / "file").write_text(str(number))
        there.ingest(tmp_path / "tree", name="many")
    before = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (64, before[1]))
    try:
        export_bundle(there.depot, ["many"], tmp_path / "x.castfs")
        assert resource.getrlimit(resource.RLIMIT_NOFILE)[0] == 64
    finally:
        resource.setrlimit(resource.RLIMIT_NOFILE, before)
    assert len(import_bundle(here.depot, tmp_path / "x.castfs").added_versions) == 80


def test_whatever_castfs_writes(here: Store, tmp_path: Path) -> None:
    """References, inputs that are kept, configurations, outputs, notes, what was taken back."""
    there = castfs.open(tmp_path / "there", create=True)
    (tmp_path / "tree").mkdir()
    (tmp_path / "tree" / "a.pt").write_text("x")
    os.mkfifo(tmp_path / "tree" / "fifo")
    names = ["kept", "far", "p/n/config", "p/n/outputs/tree/a.pt", "plain", "unnamed-run/config"]
    with castfs.init("p", "n", store=there) as run:
        run.log_dataset("kept", tmp_path / "tree", save=True)
        run.log_dataset("far", "s3://bucket/x")
        run.log_config({"lr": 1})
        for _ in range(2):
            run.scan_outputs_once(tmp_path / "tree", min_age_sec=0, root=tmp_path)
        run.log_artifact(Artifact("plain").add_file(tmp_path / "tree" / "a.pt"), aliases=["a"])
        (tmp_path / "tree" / "a.pt").write_text("y")
        run.log_artifact(Artifact("plain").add_file(tmp_path / "tree" / "a.pt"), aliases=["a"])
    with castfs.init(path="unnamed-run", store=there, metadata={"seed": 1}) as run:
        run.log_config({"lr": 2})
        run.use_artifact("plain:v1")
    there.tag("plain:v2", "later")
    there.set_metadata("plain:v2", {"good": True})
    there.remove_alias("plain", "a")
    there.ingest(tmp_path / "tree", name="kept", type="dataset", aliases=["b"])
    export_bundle(there.depot, names, tmp_path / "x.castfs")
    import_bundle(here.depot, tmp_path / "x.castfs")
    with reading(there.depot) as catalog, reading(here.depot) as copy:
        assert list(copy.iter_runs()) == list(catalog.iter_runs())
        assert list(copy.iter_names()) == list(catalog.iter_names())
        assert [*copy.iter_records()] == [*catalog.iter_records()]
    assert here.verify().problems == ()


def test_the_catalog_is_held_briefly(
    here: Store, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """What is synced while others wait for it does not grow with the bundle."""
    there = castfs.open(tmp_path / "there", create=True)
    for number in range(30):
        (tmp_path / "file").write_text(str(number))
        with castfs.init("p", str(number), store=there) as run:
            run.log_artifact(Artifact("many").add_file(tmp_path / "file"))
    export_bundle(there.depot, ["many"], tmp_path / "x.castfs")
    fsync, counts = os.fsync, {True: 0, False: 0}

    def count(fd: int) -> None:
        with (here.path / "catalog.lock").open("r+") as lock:
            counts[not try_flock(lock.fileno(), fcntl.LOCK_EX)] += 1
        fsync(fd)

    monkeypatch.setattr(os, "fsync", count)
    import_bundle(here.depot, tmp_path / "x.castfs")
    assert counts[True] < 10, counts
    assert counts[False] >= 60, counts
    with reading(here.depot) as catalog:
        assert len(list(catalog.iter_runs())) == len(list(catalog.iter_records())) == 30


def test_numbers_go_on(there: Store, here: Store, tmp_path: Path) -> None:
    export_bundle(there.depot, ["team/model"], tmp_path / "x.castfs")
    import_bundle(here.depot, tmp_path / "x.castfs")
    with castfs.init(store=here) as run:
        assert run.log_artifact(Artifact("team/model").add_file(tmp_path / "large")) == 4


def test_the_same_bundle_has_the_same_bytes(there: Store, here: Store, tmp_path: Path) -> None:
    for store, file in ((there, "1.castfs"), (here, "2.castfs")):
        export_bundle(store.depot, ["data", "team/model"], tmp_path / file)
        if store is there:
            import_bundle(here.depot, tmp_path / "1.castfs")
    assert (tmp_path / "1.castfs").read_bytes() == (tmp_path / "2.castfs").read_bytes()


def test_what_is_here_stays(there: Store, here: Store, tmp_path: Path) -> None:
    export_bundle(there.depot, ["team/model"], tmp_path / "x.castfs")
    with castfs.init(store=here) as run:
        for number in (1, 2):
            (tmp_path / "file").write_text(f"another {number}")
            run.log_artifact(Artifact("team/model").add_file(tmp_path / "file"))
    before = [record.id for record in here.iter_snapshots()]
    with pytest.raises(UsageError, match=r"team/model:v2 is another one"):
        import_bundle(here.depot, tmp_path / "x.castfs")
    assert [record.id for record in here.iter_snapshots()] == before


def test_aliases_that_are_here_stay(there: Store, here: Store, tmp_path: Path) -> None:
    from castfs.catalog import changing
    from castfs.repository.publishing import move_alias

    bundle = tmp_path / "x.castfs"
    export_bundle(there.depot, ["team/model"], bundle)
    import_bundle(here.depot, bundle)
    with changing(here.depot) as change:
        move_alias(change, "team/model", "best", 3)
    assert import_bundle(here.depot, bundle).kept_aliases == ("team/model:best",)
    assert here.resolve("team/model:best").record == here.resolve("team/model:v3").record


def test_export_refuses(there: Store, tmp_path: Path) -> None:
    with pytest.raises(NotFoundError):
        export_bundle(there.depot, ["nothing"], tmp_path / "x.castfs")
    (tmp_path / "x.castfs").write_text("mine")
    with pytest.raises(TargetError):
        export_bundle(there.depot, ["data"], tmp_path / "x.castfs")
    assert (tmp_path / "x.castfs").read_text() == "mine"
    export_bundle(there.depot, ["data"], tmp_path / "x.castfs", replace=True)
    assert is_bundle(tmp_path / "x.castfs")


@pytest.mark.parametrize("where", [0, -1])
def test_damaged_contents_are_not_exported(there: Store, tmp_path: Path, where: int) -> None:
    [digest] = {file.sha256 for file in there.resolve("data").manifest.tree.files.values()}
    blob = there.path / "blobs" / digest[:2] / digest
    data = bytearray(blob.read_bytes())
    data[where] ^= 1
    blob.chmod(0o644)
    blob.write_bytes(data)
    with pytest.raises(BlobError):
        export_bundle(there.depot, ["data"], tmp_path / "x.castfs")
    assert list(tmp_path.glob("*.castfs")) == []


# Hostile bundles --------------------------------------------------------------------------------

Members = list[tuple[tarfile.TarInfo, bytes]]


def members_of(bundle: Path) -> Members:
    found = []
    with tarfile.open(bundle) as tar:
        for member in tar:
            file = tar.extractfile(member)
            assert file is not None
            found.append((member, file.read()))
    return found


def write_members(bundle: Path, members: Members) -> None:
    with tarfile.open(bundle, "w") as tar:
        for member, data in members:
            if member.isreg():
                member.size = len(data)
            tar.addfile(member, io.BytesIO(data))


def change(kind: str, **values: object) -> Callable[[Members], Members]:
    def act(members: Members) -> Members:
        return [
            (m, json.dumps(json.loads(data) | values).encode() if m.name.startswith(kind) else data)
            for m, data in members
        ]

    return act


def without(kind: str) -> Callable[[Members], Members]:
    return lambda members: [each for each in members if not each[0].name.startswith(kind)]


def renamed(name: str, to: str) -> Callable[[Members], Members]:
    def act(members: Members) -> Members:
        for member, _ in members:
            if member.name.startswith(name):
                member.name = to
        return members

    return act


def flipped(kind: str) -> Callable[[Members], Members]:
    return lambda members: [
        (m, bytes([data[0] ^ 1]) + data[1:] if m.name.startswith(kind) else data)
        for m, data in members
    ]


def twice(members: Members) -> Members:
    return [*members, members[-1]]


def another_id(members: Members) -> Members:
    """Two records of one version."""
    _, data = members[-1]
    copy = tarfile.TarInfo("snapshots/" + "f" * 24)
    return [*members, (copy, json.dumps(json.loads(data) | {"id": "f" * 24}).encode())]


def other_size(members: Members) -> Members:
    """Of a content, in the tree."""
    return [
        (m, data.replace(b'"size_bytes":7', b'"size_bytes":9') if "manifests" in m.name else data)
        for m, data in members
    ]


def uses(values: dict[str, object]) -> Callable[[Members], Members]:
    """The first use of each run with other values."""

    def act(members: Members) -> Members:
        found = []
        for member, data in members:
            said = json.loads(data) if member.name.startswith("runs/") else {}
            if said.get("uses"):
                said["uses"][0] |= values
                data = json.dumps(said).encode()
            found.append((member, data))
        return found

    return act


def used_twice(members: Members) -> Members:
    run, data = next(each for each in members if b'"uses":[{' in each[1])
    said = json.loads(data)
    said["uses"] *= 2
    return [(m, json.dumps(said).encode() if m is run else d) for m, d in members]


def of_itself(members: Members) -> Members:
    """Two runs, each of which used what the other made."""
    records = [json.loads(data) for member, data in members if member.name.startswith("snapshots")]
    first, second = records[:2]
    for maker, used in ((first, second), (second, first)):
        given = [{"id": used["id"], "at": used["created_at"]}]
        members = change(f"runs/{maker['run']}", uses=given)(members)
    return members


def event(**values: object) -> Callable[[Members], Members]:
    def act(members: Members) -> Members:
        [data] = [data for member, data in members if member.name.startswith("names/")]
        return change("names", history=[json.loads(data)["history"][0] | values])(members)

    return act


def added(name: str, values: Mapping[str, object], members: Members) -> Members:
    """One more, and the description says so."""
    count = len(members)
    members = change("castfs-bundle", member_count=count)(members)
    return [*members[:-1], (tarfile.TarInfo(name), json.dumps(values).encode()), members[-1]]


def another_note(members: Members) -> Members:
    return added(f"notes/{'0' * 24}", {"id": "0" * 24, "tags": ["x"]}, members)


def another_run(members: Members) -> Members:
    run = {"id": "run-1", "created_at": "2026-01-01T00:00:00Z", "status": "finished"}
    return added("runs/run-1", run, members)


def linked(members: Members) -> Members:
    link = tarfile.TarInfo("blobs/" + "0" * 64)
    link.type, link.linkname = tarfile.SYMTYPE, "/etc/passwd"
    return [members[0], (link, b""), *members[1:]]


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
