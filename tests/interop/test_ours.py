"""Snapshots that castfs made, read by Runicorn's own functions."""

from __future__ import annotations

import json
import os
import zipfile
from pathlib import Path

import pytest

import castfs
from tests.interop.conftest import Runicorn
from tests.interop.trees import CONTENTS, read_tree, write_tree

RESTORE = "runicorn.assets.restore"


@pytest.fixture
def store(tmp_path: Path) -> castfs.Store:
    return castfs.open(tmp_path / "store", create=True)


@pytest.fixture
def manifest(tmp_path: Path, store: castfs.Store) -> Path:
    """CONTENTS and what Runicorn does not know: symlinks, an empty directory, modes, hard links."""
    source = write_tree(tmp_path / "source")
    (source / "void").mkdir()
    (source / "link").symlink_to("train.py")
    (source / "sub" / "dangling").symlink_to("/nowhere")
    (source / "train.py").chmod(0o755)
    os.link(source / "binary", source / "sub" / "linked")
    result = store.ingest(source, output=tmp_path / "manifest.json")
    assert (tmp_path / "manifest.json").read_bytes() == store.depot.manifest_path(
        result.manifest_id
    ).read_bytes()
    return tmp_path / "manifest.json"


def as_they_see_it(name: str) -> str:
    """The one UTF-8 name that they get otherwise: with our escape character in it."""
    return name.replace("\u241b", "\u241be2\u241b90\u241b9b")


STORED = {as_they_see_it(name): content for name, content in CONTENTS.items()}
EXPECTED = {**STORED, "sub/linked": CONTENTS["binary"]}


def test_restored(manifest: Path, store: castfs.Store, tmp_path: Path, runicorn: Runicorn) -> None:
    result = runicorn(
        f"{RESTORE}.restore_from_manifest", manifest, store.path / "blobs", tmp_path / "out"
    )
    assert result == {
        "restored_count": len(EXPECTED),
        "total_bytes": sum(map(len, EXPECTED.values())),
        "target_dir": str(tmp_path / "out"),
    }
    assert read_tree(tmp_path / "out") == EXPECTED


def test_restored_from_the_store_itself(
    store: castfs.Store, tmp_path: Path, runicorn: Runicorn
) -> None:
    result = store.ingest(write_tree(tmp_path / "source"))
    path = store.depot.manifest_path(result.manifest_id)
    runicorn(f"{RESTORE}.restore_from_manifest", path, store.path / "blobs", tmp_path / "out")
    assert read_tree(tmp_path / "out") == STORED


def test_names_that_json_cannot_have(
    store: castfs.Store, tmp_path: Path, runicorn: Runicorn
) -> None:
    """They come out escaped, each under a name of its own, and in the directory."""
    source = tmp_path / "source"
    source.mkdir()
    for name in (b"\xff", b"\xfe", b"caf\xe9"):
        Path(source, os.fsdecode(name)).write_bytes(name)
    store.ingest(source, output=tmp_path / "m.json")
    runicorn(
        f"{RESTORE}.restore_from_manifest",
        tmp_path / "m.json",
        store.path / "blobs",
        tmp_path / "out",
    )
    assert read_tree(tmp_path / "out") == {
        "\u241bff": b"\xff",
        "\u241bfe": b"\xfe",
        "caf\u241be9": b"caf\xe9",
    }


def test_exported_to_zip(
    manifest: Path, store: castfs.Store, tmp_path: Path, runicorn: Runicorn
) -> None:
    target = tmp_path / "out.zip"
    result = runicorn(f"{RESTORE}.export_manifest_to_zip", manifest, store.path / "blobs", target)
    assert result["exported_count"] == len(EXPECTED)
    assert "missing_blobs" not in result
    with zipfile.ZipFile(target) as archive:
        assert {name: archive.read(name) for name in archive.namelist()} == EXPECTED


@pytest.mark.parametrize("name", ["train.py", "ünïcode/目录/\U0001f9ca.txt", "sub/linked"])
def test_single_file(name: str, manifest: Path, store: castfs.Store, runicorn: Runicorn) -> None:
    path = runicorn(f"{RESTORE}.get_file_from_manifest", manifest, store.path / "blobs", name)
    assert Path(path).is_relative_to(store.path / "blobs")
    assert Path(path).read_bytes() == EXPECTED[name]


def test_loaded(manifest: Path, runicorn: Runicorn, store: castfs.Store) -> None:
    document = runicorn(f"{RESTORE}.load_manifest", manifest)
    assert document == json.loads(manifest.read_bytes())
    assert document["file_count"] == len(document["files"]) == len(EXPECTED)
    assert document["total_size_bytes"] == sum(map(len, EXPECTED.values()))


def test_same_fingerprint(tmp_path: Path, store: castfs.Store, runicorn: Runicorn) -> None:
    """Both systems give the same content the same fingerprint."""
    source = write_tree(tmp_path / "source")
    ours = store.ingest(source)
    assert runicorn.archive_dir(source, tmp_path / "archive").stem == ours.fingerprint


def test_their_blobs_are_ours(tmp_path: Path, store: castfs.Store, runicorn: Runicorn) -> None:
    """The layout is the same: their archive's blobs, byte for byte, under the same names."""
    source = write_tree(tmp_path / "source")
    store.ingest(source)
    runicorn.archive_dir(source, tmp_path / "archive")
    assert read_tree(store.path / "blobs") == read_tree(tmp_path / "archive" / "blobs")


def test_their_statistics_of_our_store(
    tmp_path: Path, store: castfs.Store, runicorn: Runicorn
) -> None:
    store.ingest(write_tree(tmp_path / "source"))
    result = runicorn("runicorn.assets.blob_store.get_blob_stats", store.path / "blobs")
    contents = set(CONTENTS.values())
    assert result == {"blob_count": len(contents), "total_size_bytes": sum(map(len, contents))}
