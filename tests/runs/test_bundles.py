"""An artifact with all that belongs to it as one file, and into another store."""

from __future__ import annotations

import io
import json
import resource
import subprocess
import tarfile
from collections.abc import Callable
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
from castfs.repository.unbundling import import_bundle, is_bundle
from castfs.runs.drawing import draw
from castfs.runs.lineage import build_lineage


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
