"""Older archives in a real store: what it has of them afterwards, and what a kill leaves."""

from __future__ import annotations

import json
import os
import shutil
import signal
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import msgspec
import pytest

import castfs
from castfs.bundles.exporting import export_bundle
from castfs.bundles.importing import import_bundle
from castfs.catalog import MadeAgain, changing, reading
from castfs.catalog.files import name_path, write_run
from castfs.errors import BlobError, DamageError, ManifestError, TargetError, UsageError
from castfs.gc import GcOptions
from castfs.older import export_records, import_archive
from castfs.older.exporting import ExportLayout
from castfs.older.storing import DepotDestination
from castfs.progress import Progress
from castfs.repository.lookup import load_manifest_file
from castfs.store import Record
from castfs.store.records import Reference, encode_record, new_record_id
from castfs.verify import VerifyOptions
from tests.older.conftest import Made

#: Ends the process in the midst of the nth commit: before its record, or right after it.
KILLED = """
import os, signal, sys
from pathlib import Path
import castfs
from castfs.older import export_records, import_archive
from castfs.store import WriteSession

count, when = int(sys.argv[3]), sys.argv[4]
publish_record = WriteSession.publish_record

def counted(self, record):
    global count
    count -= 1
    if count == 0 and when == "before":
        os.kill(os.getpid(), signal.SIGKILL)
    publish_record(self, record)
    if count == 0:
        os.kill(os.getpid(), signal.SIGKILL)

WriteSession.publish_record = counted
import_archive(castfs.open(Path(sys.argv[1])).depot, Path(sys.argv[2]))
"""


@pytest.fixture
def store(tmp_path: Path) -> castfs.Store:
    return castfs.open(tmp_path / "store", create=True)


def records(store: castfs.Store) -> dict[tuple[str | None, int | None], Record]:
    """Everything that there is, in the trash, too."""
    with reading(store.depot) as catalog:
        return {(each.name, each.version): each for each in catalog.iter_records("all")}


def state(store: castfs.Store) -> list[tuple[str, bytes]]:
    """All files that say something; none may be there that somebody forgot."""
    kinds = ("blobs", "manifests", "snapshots", "trash", "names", "notes", "runs", "leases")
    found = []
    for kind in (*kinds, "staging"):
        for path in sorted((store.path / kind).rglob("*")):
            if path.is_file():
                found.append((str(path.relative_to(store.path)), path.read_bytes()))
    return found


def read_tree(root: Path) -> dict[str, bytes]:
    files = (path for path in root.rglob("*") if path.is_file())
    return {path.relative_to(root).as_posix(): path.read_bytes() for path in files}


def restore(store: castfs.Store, word: str, target: Path) -> dict[str, bytes]:
    target.parent.mkdir(exist_ok=True)
    store.resolve(word).restore(target)
    return read_tree(target)


def test_artifacts(
    store: castfs.Store, artifacts: Made, tmp_path: Path, unchanged: Callable[[Path], None]
) -> None:
    unchanged(artifacts.root)
    report = import_archive(store.depot, artifacts.root)
    assert (report.exit_code, report.damage, len(report.versions)) == (0, (), 8)
    shutil.copytree(artifacts.root, tmp_path / "copy")
    specs = ("cifar:v1", "resnet50:v2", "resnet50:v3")
    artifacts.package.run(
        "use_artifacts.py", tmp_path / "copy", tmp_path / "theirs", *specs, cwd=tmp_path
    )
    for spec in specs:
        theirs = read_tree(tmp_path / "theirs" / spec)
        assert restore(store, spec, tmp_path / "ours" / spec) == theirs
    cifar = records(store)["cifar", 1]
    assert cifar.type == "dataset"
    assert cifar.tags == ("small", "csv")
    assert cifar.message == "the small one"
    assert cifar.metadata["nested"] == {"a": [1, "ü", None]}
    assert cifar.run == artifacts.said["prepare"]
    origin = cifar.metadata["imported"]
    assert (origin["system"], origin["name"], origin["version"]) == ("runicorn", "cifar", 1)
    metadata = json.loads((artifacts.root / "artifacts/dataset/cifar/v1/metadata.json").read_text())
    assert cifar.created_at.startswith("20")
    assert metadata["created_at"] == pytest.approx(castfs_time(cifar.created_at), abs=1e-3)
    far = records(store)["imagenet-full", 1].references[0]
    assert (far.uri, far.size_bytes) == ("s3://bucket/imagenet", 150_000_000_000)
    assert far.checksum == "sha256:" + "ab" * 32
    assert far.metadata == {"split": "train"}


def castfs_time(text: str) -> float:
    from datetime import datetime

    return datetime.fromisoformat(text).timestamp()


def test_aliases_deletion_and_lineage(store: castfs.Store, artifacts: Made) -> None:
    import_archive(store.depot, artifacts.root)
    assert store.resolve("resnet50:production").record == records(store)["resnet50", 2]
    assert store.resolve("resnet50:latest").record == records(store)["resnet50", 3]
    with reading(store.depot) as catalog:
        (deleted,) = catalog.iter_records("trash")
        runs = {run.id: run for run in catalog.iter_runs()}
        users = catalog.users_of(records(store)["resnet50", 3].id)
        links = catalog.links_of(records(store)["resnet50", 3].id)
    assert (deleted.name, deleted.version) == ("resnet50", 1)
    assert users == [artifacts.said["evaluate"]]
    assert links == [("dataset", "cifar", 1)]
    train = runs[artifacts.said["train"]]
    assert (train.project, train.name, train.status) == ("vision", "train", "finished")
    assert train.metadata["accuracy"] == 0.93
    assert [(use.name, use.version) for use in train.uses] == [("cifar", 1)]
    assert runs[artifacts.said["evaluate"]].status == "failed"


def test_assets(
    store: castfs.Store, assets: Made, tmp_path: Path, unchanged: Callable[[Path], None]
) -> None:
    unchanged(assets.root)
    report = import_archive(store.depot, assets.root)
    assert (report.exit_code, report.damage) == (0, ())
    manifests = sorted((assets.root / "archive/manifests/datasets").rglob("*.json"))
    names = {len(json.loads(path.read_bytes())["files"]): path for path in manifests}
    for word, count in (("cifar:v1", 4), ("cifar:v2", 5), ("alone", 1)):
        call = [
            "runicorn.assets.restore.restore_from_manifest",
            [{"path": str(names[count])}, {"path": str(assets.root / "archive/blobs")},
             {"path": str(tmp_path / "theirs" / word)}],
            {},
        ]  # fmt: skip
        assets.package.run("call.py", json.dumps([call]), cwd=tmp_path)
        theirs = read_tree(tmp_path / "theirs" / word)
        assert restore(store, word, tmp_path / "ours" / word) == theirs
    zipped = assets.root / assets.said["directories"][0] / "code_snapshot.zip"
    subprocess.run(["unzip", "-q", zipped, "-d", tmp_path / "unzipped"], check=True, timeout=60)
    code = restore(store, "training/resnet/code:v1", tmp_path / "code")
    assert code == read_tree(tmp_path / "unzipped")
    assert os.access(tmp_path / "code/train.py", os.X_OK)


@pytest.mark.parametrize("which", ["newest_assets", "artifacts"])
def test_second_import_adds_nothing(
    which: str, store: castfs.Store, request: pytest.FixtureRequest
) -> None:
    made: Made = request.getfixturevalue(which)
    first = import_archive(store.depot, made.root)
    before = state(store)
    second = import_archive(store.depot, made.root)
    assert (second.versions, second.runs) == ((), 0)
    assert second.unchanged == len(first.versions)
    assert state(store) == before


@pytest.mark.parametrize("when", ["before", "after"])
@pytest.mark.parametrize("count", [1, 2, 3, 6])
def test_killed_import_is_completed(
    count: int, when: str, store: castfs.Store, artifacts: Made, tmp_path: Path
) -> None:
    arguments: list[str | Path] = [store.path, artifacts.root, str(count), when]
    result = subprocess.run(
        [sys.executable, "-c", KILLED, *arguments], capture_output=True, timeout=60, check=False
    )
    assert result.returncode == -signal.SIGKILL, result.stderr
    assert len(records(store)) == count - (when == "before")
    report = import_archive(store.depot, artifacts.root)
    assert report.damage == ()
    assert len(report.versions) + report.unchanged == 8
    assert len(records(store)) == 8
    # What came after the record of the killed one was done, too.
    assert store.resolve("resnet50:production").record == records(store)["resnet50", 2]
    with reading(store.depot) as catalog:
        trash = [(each.name, each.version) for each in catalog.iter_records("trash")]
        assert trash == [("resnet50", 1)]
        assert len(list(catalog.iter_runs())) == 3


def test_what_was_changed_since_stays(store: castfs.Store, artifacts: Made) -> None:
    import_archive(store.depot, artifacts.root)
    store.undelete("resnet50:v1")
    store.remove("cifar:v1", force=True)
    before = state(store)
    report = import_archive(store.depot, artifacts.root)
    assert report.versions == ()
    assert state(store) == before


def test_number_that_is_taken(store: castfs.Store, artifacts: Made, tmp_path: Path) -> None:
    (tmp_path / "own").write_bytes(b"own")
    own = store.ingest(tmp_path / "own", name="cifar", type="dataset")
    report = import_archive(store.depot, artifacts.root)
    assert records(store)["cifar", 1].id == own.id
    assert records(store)["cifar", 2].metadata["imported"]["version"] == 1
    assert any(entry.older == "cifar:v1" for entry in report.renamed)
    assert import_archive(store.depot, artifacts.root).versions == ()


def test_damage_leaves_nothing_wrong(store: castfs.Store, artifacts: Made) -> None:
    path = artifacts.root / "artifacts/model/resnet50/v2/files/model.pth"
    path.write_bytes(b"WEIGHTS 2" * 1000)
    report = import_archive(store.depot, artifacts.root)
    assert report.exit_code == 5
    assert [entry.path for entry in report.damage] == [
        b"artifacts/model/resnet50/v2/files/model.pth"
    ]
    contents = [data for name, data in state(store) if name.startswith("blobs/")]
    assert b"WEIGHTS 2" * 1000 not in contents
    assert store.verify(options=VerifyOptions(data=True)).status == "clean"


def test_file_that_is_no_utf8(store: castfs.Store, tmp_path: Path) -> None:
    directory = tmp_path / "root/artifacts/model/x/v1/files"
    directory.mkdir(parents=True)
    (directory.parent / "manifest.json").write_text('{"files": [], "references": []}')
    Path(os.fsdecode(os.fsencode(directory) + b"/\xff")).write_bytes(b"x")
    report = import_archive(store.depot, tmp_path / "root")
    assert b"artifacts/model/x/v1/files/\xff" in [entry.path for entry in report.damage]


@pytest.mark.parametrize("version", ["v2", "v3"])
def test_in_place(store: castfs.Store, artifacts: Made, tmp_path: Path, version: str) -> None:
    """What one version's manifest names lies in the pool, three levels up."""
    directory = artifacts.root / "artifacts/model/resnet50" / version
    snapshot = load_manifest_file(directory / "manifest.json", depot=None)
    snapshot.restore(tmp_path / "out")
    assert read_tree(tmp_path / "out") == read_tree(directory / "files")
    import_archive(store.depot, artifacts.root)
    imported = store.resolve(f"resnet50:{version}").manifest.tree.files
    assert snapshot.manifest.tree.files == imported


def test_what_a_run_used_stays(store: castfs.Store, artifacts: Made) -> None:
    import_archive(store.depot, artifacts.root)
    shutil.rmtree(artifacts.root / "artifacts/dataset/cifar")
    report = import_archive(store.depot, artifacts.root)
    assert report.versions == ()
    with reading(store.depot) as catalog:
        run = catalog.run(artifacts.said["train"])
    assert run is not None
    assert [(use.name, use.version) for use in run.uses] == [("cifar", 1)]
    assert import_archive(store.depot, artifacts.root).runs == 0


def test_what_a_run_made_again_stays(store: castfs.Store, artifacts: Made) -> None:
    import_archive(store.depot, artifacts.root)
    again = MadeAgain(id=records(store)["resnet50", 2].id, at="2026-01-01T00:00:00Z")
    with changing(store.depot) as change:
        run = change.run(artifacts.said["evaluate"])
        assert run is not None
        change.touch_run(run.id)
        write_run(store.depot, msgspec.structs.replace(run, made_again=(again,)))
    import_archive(store.depot, artifacts.root)
    with reading(store.depot) as catalog:
        run = catalog.run(artifacts.said["evaluate"])
    assert run is not None
    assert run.made_again == (again,)


def test_a_number_that_others_deleted(store: castfs.Store, artifacts: Made, tmp_path: Path) -> None:
    """Their history says so, and this store never had it."""
    other = castfs.open(tmp_path / "other", create=True)
    (tmp_path / "file").write_text("1")
    other.ingest(tmp_path / "file", name="cifar", type="dataset")
    (tmp_path / "file").write_text("2")
    other.ingest(tmp_path / "file", name="cifar", type="dataset")
    other.remove("cifar:v1")
    other.gc(GcOptions(grace_seconds=0, trash_age_seconds=0))
    export_bundle(other.depot, ["cifar"], tmp_path / "x.castfs")
    import_bundle(store.depot, tmp_path / "x.castfs")
    report = import_archive(store.depot, artifacts.root)
    assert records(store)["cifar", 1].metadata["imported"]["version"] == 1
    assert all(entry.older != "cifar:v1" for entry in report.renamed)
    destination = DepotDestination(other.depot)
    assert destination.has_version("cifar", 1)


def test_temporary_files_lie_in_the_store(
    store: castfs.Store, newest_assets: Made, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """What is unpacked is as large as the archive; another medium may be small, or full."""
    monkeypatch.setattr("castfs.older.filling._IN_MEMORY", 0)
    monkeypatch.setattr("tempfile.tempdir", str(tmp_path / "nowhere"))
    report = import_archive(store.depot, newest_assets.root)
    assert report.damage == ()
    assert any(version.type == "code" for version in report.versions)
    assert [path for path in (store.path / "staging").iterdir() if path.is_dir()] == []


def test_configurations_and_outputs_are_as_our_own(
    store: castfs.Store, newest_assets: Made
) -> None:
    import_archive(store.depot, newest_assets.root)
    by_type: dict[str | None, set[str | None]] = {}
    for name, _ in records(store):
        by_type.setdefault(records(store)[name, 1].type, set()).add(name)
    assert "training/resnet/outputs/outputs/model.pth" in by_type["output"]
    assert by_type["config"] == {"training/resnet/config"}
    config = records(store)["training/resnet/config", 1]
    with reading(store.depot) as catalog:
        assert config.run in catalog.users_of(config.id)


def test_manifest_file(store: castfs.Store, newest_assets: Made) -> None:
    made = newest_assets
    manifest = next((made.root / "archive/manifests/pretrained").rglob("*.json"))
    report = import_archive(store.depot, manifest)
    assert (report.format, len(report.versions)) == ("manifest", 1)
    again = import_archive(store.depot, manifest, format="manifest")
    assert (again.versions, again.unchanged) == ((), 1)
    with pytest.raises(UsageError):
        import_archive(store.depot, manifest, format="runicorn")
    for blob in (made.root / "archive/blobs").glob("*/*"):
        blob.unlink()
    (made.root / "broken.json").write_text("{")
    with pytest.raises(ManifestError):
        import_archive(store.depot, made.root / "broken.json")
    other = next((made.root / "archive/manifests/datasets").rglob("*.json"))
    with pytest.raises(BlobError):
        import_archive(castfs.open(made.root.parent / "empty", create=True).depot, other)


class Counter(Progress):
    def __init__(self) -> None:
        self.count = self.size = 0

    def advance(self, count: int, size: int = 0) -> None:
        self.count += count
        self.size += size


def test_progress(store: castfs.Store, artifacts: Made) -> None:
    counter = Counter()
    report = import_archive(store.depot, artifacts.root, progress=counter)
    assert counter.count == sum(version.file_count for version in report.versions)
    assert counter.size == sum(version.size_bytes for version in report.versions)


def test_own_run_is_not_replaced(store: castfs.Store, artifacts: Made) -> None:
    import_archive(store.depot, artifacts.root)
    destination = DepotDestination(store.depot)
    assert {known.name for known in destination.iter_known()} == {
        name for name, _ in records(store)
    }
    assert destination.type_of("cifar") == "dataset"
    assert destination.type_of("nothing") is None


def test_exported_again(store: castfs.Store, artifacts: Made, tmp_path: Path) -> None:
    """From their package into the store and back: it says the same of both."""
    import_archive(store.depot, artifacts.root)
    report = export_records(
        store.depot, list(records(store).values()), tmp_path / "back", layout="artifacts"
    )
    assert {loss.reason for loss in report.losses} == set()
    again = castfs.open(tmp_path / "again", create=True)
    second = import_archive(again.depot, tmp_path / "back")
    assert second.damage == ()
    said = {}
    specs = ("cifar:v1", "resnet50:v1", "resnet50:latest", "resnet50:production")
    for number, root in enumerate((artifacts.root, tmp_path / "back")):
        said[number] = artifacts.package.run(
            "use_artifacts.py", root, tmp_path / str(number), *specs, "imagenet-full:v1",
            cwd=tmp_path,
        )  # fmt: skip
    said[0]["cifar:v1"]["metadata"]["mean"] = "NaN"
    assert said[0] == said[1]
    assert read_tree(tmp_path / "0") == read_tree(tmp_path / "1")
    first = records(store)
    for key, record in records(again).items():
        before = first[key]
        assert (record.content, record.tags, record.run, record.references) == (
            before.content, before.tags, before.run, before.references
        )  # fmt: skip
    with reading(store.depot) as ours, reading(again.depot) as theirs:
        uses = [
            {run.id: [(use.name, use.version) for use in run.uses] for run in each.iter_runs()}
            for each in (ours, theirs)
        ]
        assert uses[0] == uses[1]
        trash = [[record.name for record in each.iter_records("trash")] for each in (ours, theirs)]
        assert trash == [["resnet50"], ["resnet50"]]


def test_exported_assets(store: castfs.Store, newest_assets: Made, tmp_path: Path) -> None:
    import_archive(store.depot, newest_assets.root)
    chosen = [record for (name, _), record in records(store).items() if name == "cifar"]
    report = export_records(store.depot, chosen, tmp_path / "back", layout="assets")
    original = newest_assets.root / "archive"
    for path in report.written:
        theirs = original / path.relative_to(tmp_path / "back/archive")
        assert json.loads(path.read_bytes())["files"] == json.loads(theirs.read_bytes())["files"]
    assert list((store.path / "leases").iterdir()) == []


def test_export_with_a_damaged_name(store: castfs.Store, artifacts: Made, tmp_path: Path) -> None:
    """Its aliases would be missing, and nobody would know."""
    import_archive(store.depot, artifacts.root)
    path = name_path(store.depot, "resnet50")
    path.chmod(0o644)
    path.write_text("{")
    chosen = [record for (name, _), record in records(store).items() if name == "resnet50"]
    with pytest.raises(DamageError, match="cannot be read"):
        export_records(store.depot, chosen, tmp_path / "out", layout="artifacts")


@pytest.mark.parametrize("layout", ["assets", "artifacts"])
def test_export_of_a_reference_without_a_path(
    store: castfs.Store, tmp_path: Path, layout: ExportLayout
) -> None:
    (tmp_path / "file").write_text("1")
    store.ingest(tmp_path / "file", name="x")
    [record] = store.iter_snapshots()
    odd = msgspec.structs.replace(
        record, id=new_record_id(), references=(Reference(uri="s3://x", path="\u241bzz"),)
    )
    (store.path / "snapshots" / f"{odd.id}.json").write_bytes(encode_record(odd))
    with pytest.raises(DamageError, match="a reference whose path is none"):
        export_records(store.depot, [odd], tmp_path / "out", layout=layout)


def test_export_into_the_store(store: castfs.Store, tmp_path: Path) -> None:
    (tmp_path / "link").symlink_to(store.path)
    for target in (store.path, store.path / "blobs" / "x", tmp_path / "link" / "x"):
        with pytest.raises(TargetError, match="lies in the store"):
            export_records(store.depot, [], target, layout="assets")
