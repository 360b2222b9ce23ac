"""Symlinks and directories of their own, which castfs.compat.runicorn archives and Runicorn not."""

from __future__ import annotations

import hashlib
import json
import os
import shutil
import stat
import zipfile
from pathlib import Path
from typing import Any

import pytest

import castfs
import castfs.compat.runicorn as rn
from castfs.errors import UsageError
from castfs.manifest import Directory, File, Symlink, Tree, encode_manifest, make_manifest
from castfs.manifest.checks import TARGET_MAX
from castfs.older import import_archive
from castfs.older.importing import import_directory
from castfs.older.report import ImportReport
from castfs.paths import RelPath
from castfs.repository.drafting import Draft
from castfs.repository.publishing import Details
from tests.older.memory import Memory

SECOND = 1_000_000_000
RUN = "runs/demo/20260115_100000_abc123"


@pytest.fixture
def data(tmp_path: Path) -> Path:
    """Links that lead nowhere, out, and to a directory; directories with nothing in them."""
    root = tmp_path / "data"
    (root / "empty/deeper").mkdir(parents=True)
    (root / "full").mkdir()
    (root / "full/f").write_bytes(b"1")
    for name, target in {"link": "x", "out": "/etc/passwd", "up": "../../x", "dir": "full"}.items():
        (root / name).symlink_to(target)
        os.utime(root / name, ns=(0, 7 * SECOND), follow_symlinks=False)
    for number, name in enumerate(("empty/deeper", "empty", "full", ".")):
        (root / name).chmod(0o700 + number)
        os.utime(root / name, ns=(0, (1000 + number) * SECOND + 5))
    return root


@pytest.fixture
def store(tmp_path: Path) -> castfs.Store:
    return castfs.open(tmp_path / "store", create=True)


def describe(tree: Tree) -> dict[bytes, Any]:
    return {b"": tree.root, **dict(tree.iter_entries())}


def forget_links(memory: Memory) -> None:
    """As castfs imported before it took them."""
    for kept in memory.versions:
        kept.symlinks.clear()
        kept.directories.clear()
        kept.wanted.metadata["imported"].pop("entries", None)


def take_twice(root: Path, memory: Memory) -> ImportReport:
    report = import_directory(memory, root)
    again = import_directory(memory, root)
    assert again.versions == ()
    assert set(again.damage) == set(report.damage)
    return report


def test_manifest(data: Path, tmp_path: Path, store: castfs.Store) -> None:
    """All of the tree, as an ingest takes it: modes and times, the root's, too."""
    rn.archive_dir(data, tmp_path / "root/archive", category="datasets")
    report = import_archive(store.depot, tmp_path / "root")
    assert (report.exit_code, len(report.versions)) == (0, 1)
    tree = store.resolve("data:v1").manifest.tree
    expected = store.ingest(data)
    assert describe(tree) == describe(store.resolve(expected.id).manifest.tree)
    assert tree.symlinks.keys() == {b"link", b"out", b"up", b"dir"}
    assert tree.get(b"empty/deeper") == Directory(mode=0o700, mtime_ns=1000 * SECOND + 5)
    again = import_archive(store.depot, tmp_path / "root")
    assert (again.versions, again.unchanged, again.exit_code) == ((), 1, 0)


def test_restored_links_are_not_followed(data: Path, tmp_path: Path, store: castfs.Store) -> None:
    secret = tmp_path / "secret"
    secret.mkdir()
    (data / "full2").symlink_to(secret)
    rn.archive_dir(data, tmp_path / "root/archive", category="datasets")
    import_archive(store.depot, tmp_path / "root")
    store.resolve("data:v1").restore(tmp_path / "out")
    assert os.readlink(tmp_path / "out/out") == "/etc/passwd"
    assert os.readlink(tmp_path / "out/up") == "../../x"
    assert list(secret.iterdir()) == []


@pytest.mark.parametrize("name", ["link", "empty/"])
def test_nothing_but_links_or_directories(name: str, tmp_path: Path, store: castfs.Store) -> None:
    data = tmp_path / "data"
    data.mkdir()
    if name.endswith("/"):
        (data / name).mkdir()
    else:
        (data / name).symlink_to("x")
    rn.archive_dir(data, tmp_path / "root/archive", category="datasets")
    report = import_archive(store.depot, tmp_path / "root")
    assert (report.exit_code, len(report.versions)) == (0, 1)
    assert name.rstrip("/").encode() in dict(store.resolve("data:v1").manifest.tree.iter_entries())


def test_empty_directory_alone_is_skipped(tmp_path: Path) -> None:
    (tmp_path / "data").mkdir()
    rn.archive_dir(tmp_path / "data", tmp_path / "root/archive", category="datasets")
    memory = Memory()
    report = take_twice(tmp_path / "root", memory)
    assert (memory.versions, report.exit_code) == ([], 3)


def test_imported_before(data: Path, tmp_path: Path) -> None:
    """What lacks them is another content, once; what lacks nothing is the same."""
    root = tmp_path / "root"
    rn.archive_dir(data, root / "archive", category="datasets")
    (tmp_path / "plain/sub").mkdir(parents=True)
    (tmp_path / "plain/sub/f").write_bytes(b"2")
    rn.archive_dir(tmp_path / "plain", root / "archive", category="datasets")
    memory = Memory()
    take_twice(root, memory)
    forget_links(memory)
    report = take_twice(root, memory)
    assert [(each.name, each.version) for each in report.versions] == [("data", 2)]
    assert memory.find("data", 2).symlinks["link"] == ("x", 7 * SECOND)
    assert memory.names() == {"data": 2, "plain": 1}


def test_dataset_of_a_run(data: Path, tmp_path: Path) -> None:
    """Trees of one fingerprint that differ in their links have manifests of their own."""
    root = tmp_path / "root"
    first = rn.archive_dir(data, root / "archive", category="datasets")
    (data / "link").unlink()
    (data / "link").symlink_to("y")
    second = rn.archive_dir(data, root / "archive", category="datasets")
    assert first["fingerprint"] == second["fingerprint"]
    shutil.rmtree(data)
    (root / RUN).mkdir(parents=True)
    entry = {"name": "mine", "uri": "data", "saved": True, **second}
    (root / RUN / "assets.json").write_text(json.dumps({"datasets": [entry]}))
    memory = Memory()
    report = take_twice(root, memory)
    assert (report.damage, memory.names()) == ((), {"mine": 1, "data": 1})
    assert memory.find("mine").symlinks["link"][0] == "y"
    assert memory.find("data").symlinks["link"][0] == "x"


def test_zip_of_a_run(data: Path, tmp_path: Path, store: castfs.Store) -> None:
    (data / "full/f").chmod(0o755)
    (tmp_path / "root" / RUN).mkdir(parents=True)
    (tmp_path / "root" / RUN / "meta.json").write_text('{"path": "demo", "created_at": 1.5}')
    rn.snapshot_workspace(data, tmp_path / "root" / RUN / "code_snapshot.zip")
    report = import_archive(store.depot, tmp_path / "root")
    assert (report.exit_code, len(report.versions)) == (0, 1)
    tree = store.resolve("demo/code:v1").manifest.tree
    assert tree.get(b"out") == Symlink(mtime_ns=7 * SECOND, target="/etc/passwd")
    assert tree.get(b"empty/deeper") == Directory(mode=0o700, mtime_ns=1000 * SECOND)
    assert {path: type(entry) for path, entry in tree.iter_entries()} == {
        path: type(entry)
        for path, entry in store.resolve(store.ingest(data).id).manifest.tree.iter_entries()
    }
    assert import_archive(store.depot, tmp_path / "root").versions == ()


def test_zip_imported_before(data: Path, tmp_path: Path) -> None:
    """Its digest says nothing of that: as a blob, and beside the run."""
    root = tmp_path / "root"
    (root / RUN).mkdir(parents=True)
    (root / RUN / "meta.json").write_text('{"path": "demo", "created_at": 1.5}')
    rn.snapshot_workspace(data, root / RUN / "code_snapshot.zip")
    found = rn.archive_file(root / RUN / "code_snapshot.zip", root / "archive", category="code")
    code = {"snapshot": {"saved": True, "format": "zip", **found}}
    (root / RUN / "assets.json").write_text(json.dumps({"code": code}))
    memory = Memory()
    take_twice(root, memory)
    forget_links(memory)
    report = take_twice(root, memory)
    assert [each.name for each in report.versions] == ["demo/code"]
    assert memory.find("demo/code", 2).symlinks["link"] == ("x", 7 * SECOND)
    # A copy that is not what it should be is not believed.
    forget_links(memory)
    for place in (*root.glob("archive/blobs/*/*"), root / RUN / "code_snapshot.zip"):
        place.chmod(0o644)
        place.write_bytes(place.read_bytes().replace(b"link", b"lion"))
    assert import_directory(memory, root).versions == ()


def link(name: str, target: bytes) -> tuple[zipfile.ZipInfo, bytes]:
    entry = zipfile.ZipInfo(name)
    entry.create_system = 3
    entry.external_attr = (stat.S_IFLNK | 0o777) << 16
    return entry, target


def put_zip(root: Path, *entries: tuple[zipfile.ZipInfo | str, bytes]) -> Path:
    (root / RUN).mkdir(parents=True)
    (root / RUN / "meta.json").write_text('{"path": "demo", "created_at": 1.5}')
    path = root / RUN / "code_snapshot.zip"
    with zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED) as archive:
        for entry, content in entries:
            archive.writestr(entry, content)
    return path


@pytest.mark.filterwarnings("ignore:Duplicate name")
@pytest.mark.parametrize(
    ("entries", "links", "reason"),
    [
        ([link("l", b"a"), link("l", b"b")], {"l": "a"}, "twice"),
        ([link("l", b"/etc"), ("l/evil", b"")], {"l": "/etc"}, "directory should be"),
        ([link("l", b"/etc"), ("l/", b"")], {"l": "/etc"}, "something else"),
        ([("l/f", b""), link("l", b"/etc")], {}, "something else"),
        ([("l", b""), link("l", b"/etc")], {}, "twice"),
        ([link("../l", b"a")], {}, "leads elsewhere"),
        ([link("l", b"x" * TARGET_MAX)], {"l": "x" * TARGET_MAX}, None),
        ([link("l", b"x" * (TARGET_MAX + 1))], {}, "target of 4096 bytes"),
        ([link("l", b"")], {}, "target of 0 bytes"),
        ([link("l", b"a\0b")], {}, "impossible target"),
        ([link("l/", b"a")], {}, "no regular file"),
        ([("d/", b""), ("d/", b"")], {}, "twice"),
    ],
)
def test_hostile_zip(
    entries: list[tuple[zipfile.ZipInfo | str, bytes]],
    links: dict[str, str],
    reason: str | None,
    tmp_path: Path,
) -> None:
    put_zip(tmp_path / "root", *entries, ("good", b"good"))
    memory = Memory()
    report = take_twice(tmp_path / "root", memory)
    kept = memory.find("demo/code")
    assert {name: target for name, (target, _) in kept.symlinks.items()} == links
    assert kept.files["good"] == b"good"
    assert len(report.damage) == (reason is not None)
    assert reason is None or reason in report.damage[0].reason


def test_damaged_target_in_a_zip(tmp_path: Path) -> None:
    path = put_zip(tmp_path / "root", link("l", b"/somewhere"), ("good", b"good"))
    raw = path.read_bytes()
    with zipfile.ZipFile(path) as archive:
        offset = archive.getinfo("good").header_offset
    path.write_bytes(raw[: offset - 3] + b"\xff" + raw[offset - 2 :])
    memory = Memory()
    report = take_twice(tmp_path / "root", memory)
    assert (memory.find("demo/code").symlinks, len(report.damage)) == ({}, 1)


@pytest.mark.parametrize(
    ("path", "target", "sound"),
    [
        ("link", "x" * TARGET_MAX, True),
        ("link", "/../..", True),
        ("f", "x", False),
        ("link", "", False),
        ("link", "x" * (TARGET_MAX + 1), False),
        ("f/link", "x", False),
        ("nowhere/link", "x", False),
        ("..", "x", False),
    ],
)
def test_hostile_manifest(path: str, target: str, sound: bool, tmp_path: Path) -> None:
    content = b"1"
    digest = hashlib.sha256(content).hexdigest()
    tree = Tree(
        root=Directory(mode=0o755, mtime_ns=0),
        dirs={},
        files={RelPath(b"f"): File(mode=0o644, mtime_ns=0, sha256=digest, size_bytes=1)},
        symlinks={RelPath(path.encode()): Symlink(mtime_ns=0, target=target)},
    )
    manifest = make_manifest(tree, created_at=0.0, source_path="data")
    archive = tmp_path / "root/archive"
    for name, data in (
        (f"blobs/{digest[:2]}/{digest}", content),
        (f"manifests/datasets/00/{manifest.fingerprint}.json", b"".join(encode_manifest(manifest))),
    ):
        (archive / name).parent.mkdir(parents=True)
        (archive / name).write_bytes(data)
    memory = Memory()
    report = take_twice(tmp_path / "root", memory)
    if sound:
        assert (report.damage, memory.find("data").symlinks) == ((), {path: (target, 0)})
    else:
        assert (report.exit_code, "data" in memory.names()) == (5, False)


def test_directory_of_a_draft_is_given_once(store: castfs.Store) -> None:
    with Draft(store.depot, "test") as draft:
        draft.add_directory(b"d", mode=0o700, mtime_ns=1)
        with pytest.raises(UsageError, match="added before"):
            draft.add_directory(b"d", mode=0o755, mtime_ns=2)
        draft.add_directory(b"", mode=0o711, mtime_ns=3)
        record = draft.commit(Details(name="mine")).record
    tree = store.resolve(record.id).manifest.tree
    assert tree.root == Directory(mode=0o711, mtime_ns=3)
    assert tree.get(b"d") == Directory(mode=0o700, mtime_ns=1)
