"""Restore as uid 1000, in a process of its own: what root may do hides what permissions forbid."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import msgspec
import pytest

from castfs.manifest import encode_manifest, encode_xattrs, make_manifest
from castfs.restore import restore_tree
from tests.restore.building import Stored, directory, file, make_tree, store_directory, store_files
from tests.restore.oracles import assert_same, listing
from tests.restore.sources import make_source

USER = 1000
# Modules are loaded before the change of user, who may not be allowed to read where Python lies.
_SCRIPT = """
import dataclasses, json, os, sys
from pathlib import Path
from castfs.errors import CastfsError
from castfs.manifest import decode_manifest
from castfs.restore import restore_tree
from castfs.store import BlobDir
tree = decode_manifest(Path("manifest.json").read_bytes()).tree
exec(sys.argv[1])
options = json.loads(sys.argv[2])
os.umask(options.pop("umask", 0o022))
os.setgroups([])
os.setgid(1000)
os.setuid(1000)
try:
    result = restore_tree(tree, BlobDir(Path("store/blobs")), Path("out"), **options)
except CastfsError as error:
    print(json.dumps({"error": str(error), "kind": type(error).__name__}))
else:
    print(json.dumps({"not_set": [[n.what, n.reason, n.count] for n in result.not_set]}))
"""


@pytest.fixture
def home(tmp_path: Path) -> Path:
    """The user's directory. The way there is closed to them: all paths are relative to it."""
    place = tmp_path / "user"
    place.mkdir()
    return place


def restore_as_user(
    home: Path, stored: Stored, *, as_root: str = "", **options: object
) -> Mapping[str, Any]:
    """`restore_tree` into `home`/out; `as_root` is what root does there directly before."""
    manifest = make_manifest(stored.tree, created_at=0.0, source_path="")
    (home / "manifest.json").write_bytes(b"".join(encode_manifest(manifest)))
    subprocess.run(["chown", "-hR", f"{USER}:{USER}", str(home)], check=True, timeout=60)
    done = subprocess.run(
        [sys.executable, "-c", _SCRIPT, as_root, json.dumps(options)],
        cwd=home,
        env={"PYTHONPATH": str(Path(__file__).parents[2]), "PATH": os.defpath},
        capture_output=True,
        timeout=60,
        check=False,
    )
    assert done.returncode == 0, done.stderr.decode()
    result: dict[str, Any] = json.loads(done.stdout)
    return result


@pytest.mark.parametrize("options", [{}, {"umask": 0o777}, {"umask": 0o277}, {"threads": 2}])
@pytest.mark.needs_root
def test_read_only_and_closed_directories(
    tmp_path: Path, home: Path, options: dict[str, Any]
) -> None:
    """`sub` is 0555 and `empty` 0000; with a umask of 0777 nothing that is made can be opened."""
    source = make_source(tmp_path / "source")
    (source / "sub" / "inner").mkdir()
    (source / "sub" / "inner" / "f").write_text("below two read-only directories")
    (source / "sub" / "inner" / "empty").mkdir(mode=0o700)
    (source / "sub" / "inner").chmod(0o000)
    stored = store_directory(source, home / "store")
    assert restore_as_user(home, stored, **options) == {"not_set": []}
    assert_same(source, home / "out")
    assert {path.lstat().st_uid for path in (home / "out").rglob("*")} == {USER}


@pytest.mark.needs_root
def test_replace_within_directories_that_are_closed(tmp_path: Path, home: Path) -> None:
    source = make_source(tmp_path / "source")
    stored = store_directory(source, home / "store")
    for _ in range(2):
        assert restore_as_user(home, stored, if_exists="replace") == {"not_set": []}
        assert_same(source, home / "out")
    (home / "out").chmod(0o500)
    assert restore_as_user(home, stored, if_exists="replace") == {"not_set": []}
    assert_same(source, home / "out")


@pytest.mark.parametrize("policy", ["fail", "skip"])
@pytest.mark.needs_root
def test_a_closed_directory_is_left_closed(home: Path, policy: str) -> None:
    stored = store_files({b"a": b"x", b"d/b": b"y"}, home / "store")
    (home / "out/d").mkdir(parents=True)
    (home / "out/d").chmod(0o000)
    before = listing(home / "out")
    result = restore_as_user(home, stored, if_exists=policy)
    assert result["kind"] == "TargetError"
    assert "Permission denied" in result["error"]
    assert listing(home / "out") == before


@pytest.mark.needs_root
def test_a_target_that_may_not_be_written(home: Path) -> None:
    stored = store_files({b"a": b"x", b"d/b": b"y"}, home / "store")
    (home / "out").mkdir()
    (home / "out").chmod(0o500)
    result = restore_as_user(home, stored)
    assert result["kind"] == "TargetError"
    assert "you may not write there" in result["error"]
    assert list((home / "out").iterdir()) == []


@pytest.mark.needs_root
def test_a_directory_of_somebody_else(home: Path) -> None:
    """Files can be written into it; its mode and time cannot be set, which is said."""
    stored = store_files({b"d/b": b"y"}, home / "store")
    (home / "out/d").mkdir(parents=True)
    theirs = "os.chown('out/d', 0, 0); os.chmod('out/d', 0o777)"
    result = restore_as_user(home, stored, as_root=theirs, if_exists="replace")
    assert result["not_set"] == [
        ["mode", "Operation not permitted", 1],
        ["mtime", "Operation not permitted", 1],
    ]
    assert (home / "out/d/b").read_text() == "y"


@pytest.mark.needs_root
def test_what_a_user_may_not_set_is_reported_once(home: Path) -> None:
    stored = store_files({b"a": b"x"}, home / "store")
    theirs = msgspec.structs.replace(
        file(b"x"), uid=0, gid=0, xattrs=encode_xattrs({b"trusted.a": b"1", b"user.b": b"2"})
    )
    root = msgspec.structs.replace(directory(), uid=USER, gid=USER)
    tree = make_tree({b"a": theirs, b"b": theirs}, root=root)
    result = restore_as_user(home, Stored(tree, stored.depot), owner=True)
    assert result["not_set"] == [
        ["owner", "Operation not permitted", 2],
        ["trusted.* extended attributes", "Operation not permitted", 2],
    ]
    assert os.getxattr(home / "out/a", "user.b") == b"2"


@pytest.mark.needs_root
def test_set_group_id_that_the_kernel_drops_is_reported(home: Path) -> None:
    """The target's directory hands its group down, and the user is not in it."""
    stored = store_files({b"a": b"x"}, home / "store")
    tree = make_tree({b"a": file(b"x", mode=0o2755)})
    theirs = "os.mkdir('out'); os.chown('out', 1000, 4242); os.chmod('out', 0o2777)"
    result = restore_as_user(home, Stored(tree, stored.depot), as_root=theirs)
    assert result["not_set"] == [["set-id bits", "you are not in the file's group", 1]]
    assert (home / "out/a").stat().st_mode & 0o7777 == 0o755


@pytest.mark.needs_root
def test_root_sets_all_of_it(tmp_path: Path) -> None:
    stored = store_files({b"a": b"x"}, tmp_path / "store")
    entry = msgspec.structs.replace(
        file(b"x", mode=0o6755), uid=1234, gid=4321, xattrs=encode_xattrs({b"trusted.a": b"1"})
    )
    root = msgspec.structs.replace(directory(), uid=0, gid=0)
    result = restore_tree(
        make_tree({b"a": entry}, root=root), stored.blobs, tmp_path / "out", owner=True
    )
    status = (tmp_path / "out/a").stat()
    assert (status.st_mode & 0o7777, status.st_uid, status.st_gid) == (0o6755, 1234, 4321)
    assert os.getxattr(tmp_path / "out/a", "trusted.a") == b"1"
    assert result.not_set == ()
