"""An artifact with all that belongs to it as one file, and into another store."""

from __future__ import annotations

import fcntl
import os
import resource
import subprocess
from pathlib import Path

import msgspec
import pytest

import castfs
from castfs import Artifact, Store
from castfs.bundles.exporting import export_bundle
from castfs.bundles.importing import import_bundle, is_bundle
from castfs.catalog import NameFile, reading
from castfs.errors import (
    BlobError,
    NotFoundError,
    TargetError,
    UsageError,
)
from castfs.repository.lineage import build_lineage
from castfs.runs.drawing import draw
from castfs.store.locks import try_flock
from tests.bundles.making import members_of, write_members


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


def told_in(name: NameFile, store: Store) -> NameFile:
    """Its history as others know it: it happened in `store`."""
    where = store.depot.marker.id
    history = tuple(msgspec.structs.replace(event, store=where) for event in name.history)
    return msgspec.structs.replace(name, history=history)


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


@pytest.mark.parametrize("format", ["gnu", "pax", "ustar"])
def test_packed_again(there: Store, here: Store, tmp_path: Path, format: str) -> None:
    """By GNU tar, whatever it writes by default."""
    export_bundle(there.depot, ["team/model"], tmp_path / "x.castfs")
    (tmp_path / "dir").mkdir()
    names = subprocess.run(
        ["tar", "-xvf", tmp_path / "x.castfs", "-C", tmp_path / "dir"],
        capture_output=True, text=True, check=True,
    ).stdout.split()  # fmt: skip
    packed = tmp_path / "again.castfs"
    subprocess.run(
        ["tar", "-C", tmp_path / "dir", f"--format={format}", "-b1", "-cf", packed, *names],
        check=True,
    )
    assert len(import_bundle(here.depot, packed).added_versions) == 2


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
        assert [told_in(name, there) for name in catalog.iter_names()] == list(copy.iter_names())
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
