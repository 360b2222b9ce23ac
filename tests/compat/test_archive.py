"""Archives that castfs fills: as Runicorn's own package reads them, and with what it loses."""

from __future__ import annotations

import json
import os
import shutil
import stat
import subprocess
from pathlib import Path

import pytest

import castfs.compat.runicorn as rn
from castfs.errors import UnreadableError, UsageError
from tests.compat import older
from tests.ignore.walking import init
from tests.interop.conftest import Runicorn
from tests.interop.trees import CONTENTS, read_tree, write_tree

RESTORE = "runicorn.assets.restore.restore_from_manifest"
THEIRS = "runicorn.assets.archive"


@pytest.fixture
def source(tmp_path: Path) -> Path:
    return older.write_files(tmp_path / "data", {"a": b"1", "sub/b": b"2" * 2_000_000})


@pytest.fixture
def archive(tmp_path: Path) -> Path:
    return tmp_path / "archive"


def listing(root: Path) -> list[str]:
    """What `find` says of a tree: kind, mode, time, path, target."""
    said = subprocess.run(
        ["find", ".", "-printf", r"%y %m %T@ %P %l\n"],
        cwd=root,
        capture_output=True,
        check=True,
        timeout=60,
    )
    return sorted(said.stdout.decode(errors="surrogateescape").splitlines())


def test_as_their_package_does(tmp_path: Path, runicorn: Runicorn) -> None:
    tree = write_tree(tmp_path / "data")
    ours = rn.archive_dir(tree, tmp_path / "ours", category="datasets")
    theirs = runicorn(f"{THEIRS}.archive_dir", tree, tmp_path / "theirs", category="datasets")
    moved = {key: str(theirs[key]).replace("/theirs/", "/ours/") for key in theirs}
    assert {key: str(value) for key, value in ours.items()} == moved
    assert list(ours) == list(theirs)
    blobs = [older.blobs_in(tmp_path / side / "blobs") for side in ("ours", "theirs")]
    assert blobs[0] == blobs[1]
    documents = [json.loads(Path(found["manifest_path"]).read_text()) for found in (ours, theirs)]
    for key in ("source_path", "fingerprint", "total_size_bytes", "file_count"):
        assert documents[0][key] == documents[1][key]


def test_restored_by_their_package(tmp_path: Path, archive: Path, runicorn: Runicorn) -> None:
    tree = write_tree(tmp_path / "data")
    found = rn.archive_dir(tree, archive, category="datasets")
    out = tmp_path / "out"
    result = runicorn(RESTORE, Path(found["manifest_path"]), archive / "blobs", out)
    assert result["restored_count"] == len(CONTENTS)
    # The one name with castfs's escape character in it is escaped.
    escaped = {
        name.replace("\u241b", "\u241be2\u241b90\u241b9b"): c for name, c in CONTENTS.items()
    }
    assert read_tree(out) == escaped


def test_nothing_is_lost(source: Path, archive: Path, tmp_path: Path) -> None:
    (source / "a").chmod(0o755)
    (source / "copy of a").write_bytes(b"1")
    (source / "copy of a").chmod(0o600)
    (source / "link").symlink_to("sub/b")
    (source / "dangling").symlink_to("nowhere")
    (source / "linked").symlink_to("sub")
    (source / "void").mkdir(mode=0o750)
    Path(source, os.fsdecode(b"\xff")).write_bytes(b"named by bytes")
    (source / ".rnignore").write_bytes(b"a\n")
    os.utime(source / "a", (1, 1))
    os.utime(source / "sub", (2, 2))
    before = listing(source)
    found = rn.archive_dir(source, archive, category="datasets")
    assert found["file_count"] == 5
    rn.restore_from_manifest(Path(found["manifest_path"]), archive / "blobs", tmp_path / "out")
    assert listing(tmp_path / "out") == before == listing(source)


def test_no_rules_apply(archive: Path, tmp_path: Path) -> None:
    source = init(tmp_path / "repository")
    older.write_files(source, {".gitignore": b"*\n", ".rnignore": b"a\n", "a": b"", "b": b""})
    found = rn.archive_dir(source, archive, category="datasets")
    names = set(rn.load_manifest(Path(found["manifest_path"]))["files"])
    assert names == older.read_files(source).keys()
    assert {"a", "b", ".git/HEAD"} <= names


def test_what_cannot_be_stored_is_listed(source: Path, archive: Path) -> None:
    os.mkfifo(source / "sub" / "fifo")
    found = rn.archive_dir(source, archive, category="datasets")
    assert found["file_count"] == 2
    assert found["skipped"] == ["sub/fifo: a FIFO, which a snapshot cannot hold"]


def test_what_cannot_be_read_is_an_error(source: Path, archive: Path) -> None:
    """It is named, and nothing refers to the rest. Here it is a time that a manifest cannot hold,
    because root may read everything."""
    os.utime(source / "sub" / "b", ns=(10**19, 10**19))
    with pytest.raises(UnreadableError, match="1 entry could not be read, the first is sub/b"):
        rn.archive_dir(source, archive, category="datasets")
    assert not (archive / "manifests").exists()
    assert rn.cleanup_orphaned_blobs(archive.parent, grace_seconds=0)["orphaned_blobs"] == 1


def test_same_tree_keeps_its_manifest(source: Path, archive: Path, tmp_path: Path) -> None:
    first = rn.archive_dir(source, archive, category="datasets")
    before = Path(first["manifest_path"]).read_bytes()
    shutil.copytree(source, tmp_path / "copy", copy_function=shutil.copyfile)
    for path in (tmp_path / "copy").rglob("*"):
        os.utime(path, (5, 5))
    assert rn.archive_dir(tmp_path / "copy", archive, category="datasets") == first
    assert Path(first["manifest_path"]).read_bytes() == before
    assert len(list((archive / "manifests").rglob("*.json"))) == 1
    assert len(older.blobs_in(archive / "blobs")) == 2


def test_modes_make_another_tree(source: Path, archive: Path, tmp_path: Path) -> None:
    """The fingerprint is the same, for it is over names and contents."""
    first = rn.archive_dir(source, archive, category="datasets")
    (source / "a").chmod(0o755)
    second = rn.archive_dir(source, archive, category="datasets")
    assert second["fingerprint"] == first["fingerprint"]
    assert second["manifest_path"] != first["manifest_path"]
    assert rn.archive_dir(source, archive, category="datasets") == second
    for found, mode in ((first, 0o644), (second, 0o755)):
        out = tmp_path / f"{mode:o}"
        rn.restore_from_manifest(Path(found["manifest_path"]), archive / "blobs", out)
        assert stat.S_IMODE((out / "a").stat().st_mode) == mode


def test_beside_theirs(source: Path, archive: Path, runicorn: Runicorn) -> None:
    """A manifest that Runicorn has written stays as it is."""
    (source / "a").chmod(0o755)
    theirs = runicorn.archive_dir(source, archive)
    before = theirs.read_bytes()
    ours = rn.archive_dir(source, archive, category="datasets")
    assert theirs.read_bytes() == before
    assert Path(ours["manifest_path"]) != theirs
    assert Path(ours["manifest_path"]).parent == theirs.parent
    assert len(older.blobs_in(archive / "blobs")) == 2


def test_damage_is_healed(source: Path, archive: Path, tmp_path: Path) -> None:
    """Also where nothing has changed since and the stat cache knows every file."""
    for path in source.rglob("*"):
        os.utime(path, (1, 1))
    found = rn.archive_dir(source, archive, category="datasets")
    blobs = archive / "blobs"
    contents = older.blobs_in(blobs)
    for number, name in enumerate(contents):
        path = older.blob_path(blobs, name)
        path.chmod(0o644)
        path.write_bytes(b"x" * (len(contents[name]) - number))
    Path(found["manifest_path"]).write_bytes(b"{")
    assert rn.archive_dir(source, archive, category="datasets") == found
    assert older.blobs_in(blobs) == contents
    result = rn.restore_from_manifest(Path(found["manifest_path"]), blobs, tmp_path / "out")
    assert result["restored_count"] == 2
    assert "error" not in result


def test_archive_in_the_directory_is_no_part_of_it(source: Path) -> None:
    for _ in range(2):
        found = rn.archive_dir(source, source / "archive", category="datasets")
        assert found["file_count"] == 2


@pytest.mark.parametrize("category", ["../../x", "/x", "", "..", "a/b"])
def test_category_is_one_name(source: Path, archive: Path, category: str) -> None:
    for archive_it, what in ((rn.archive_dir, source), (rn.archive_file, source / "a")):
        with pytest.raises(UsageError, match="category"):
            archive_it(what, archive, category=category)
    assert not archive.exists()


def test_no_directory(source: Path, archive: Path) -> None:
    with pytest.raises(ValueError, match="archive_dir expects a directory, got: "):
        rn.archive_dir(source / "a", archive, category="datasets")
    with pytest.raises(ValueError, match="archive_file expects a file, got: "):
        rn.archive_file(source, archive, category="datasets")


def test_file(source: Path, tmp_path: Path, runicorn: Runicorn) -> None:
    ours = rn.archive_file(source / "a", tmp_path / "ours", category="code")
    theirs = runicorn(f"{THEIRS}.archive_file", source / "a", tmp_path / "theirs", category="code")
    assert list(ours) == list(theirs)
    assert {**theirs, "archive_path": theirs["archive_path"].replace("/theirs/", "/ours/")} == ours
    assert Path(ours["archive_path"]).read_bytes() == b"1"
    assert not (tmp_path / "ours" / "manifests").exists()


def test_relied_on_before_the_manifest_names_it(
    source: Path, archive: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """From the first blob to the manifest nobody can sweep."""
    from castfs.compat.runicorn.assets import archive as room
    from castfs.store import locks

    monkeypatch.setattr(locks, "_TRY_SECONDS", 0.01)
    monkeypatch.setattr(locks, "_TRIES", 2)
    publish = room._publish
    swept: list[dict[str, object]] = []

    def sweep_before(*args: object) -> Path:
        swept.append(rn.cleanup_orphaned_blobs(archive.parent, grace_seconds=0))
        return publish(*args)  # type: ignore[arg-type]

    monkeypatch.setattr(room, "_publish", sweep_before)
    rn.archive_dir(source, archive, category="datasets")
    assert [result["success"] for result in swept] == [False]
    assert "somebody holds" in str(swept[0]["errors"])
    assert len(older.blobs_in(archive / "blobs")) == 2
    assert rn.cleanup_orphaned_blobs(archive.parent, grace_seconds=0)["success"] is True
    assert len(older.blobs_in(archive / "blobs")) == 2
