"""Manifests that do not lie in a store of ours, and stores that cannot be written."""

from __future__ import annotations

import hashlib
import json
import os
from dataclasses import replace
from pathlib import Path

import pytest

from castfs.manifest import read_older
from castfs.mount import MountRequest, start_mount, unmount
from tests.mount.conftest import Mounter, run
from tests.mount.trees import write

pytestmark = pytest.mark.mounted


def make_archive(root: Path, contents: dict[str, bytes]) -> Path:
    """An older system's archive: `manifests/` and `blobs/` side by side."""
    files = {}
    for name, content in contents.items():
        digest = hashlib.sha256(content).hexdigest()
        blob = root / "blobs" / digest[:2] / digest
        blob.parent.mkdir(parents=True, exist_ok=True)
        blob.write_bytes(content)
        files[name] = {"sha256": digest, "size_bytes": len(content)}
    (root / "manifests").mkdir()
    path = root / "manifests" / "run_001.json"
    path.write_text(json.dumps({"created_at": 1_700_000_000.5, "files": files}))
    return path


@pytest.mark.semantics("L7")
def test_an_older_archive(mounter: Mounter) -> None:
    root = mounter.base / "archive"
    path = make_archive(root, {"src/main.py": b"print(1)\n", "ümlaut": b"", "src/deep/x": b"12"})
    request = MountRequest(
        mountpoint=mounter.mountpoint,
        blob_dir=root / "blobs",
        manifest_id=read_older(path.read_bytes()).id,
        manifest_file=path,
    )
    before = sorted(root.rglob("*"))
    status = start_mount(request)
    assert status.pid is not None
    mounter.pids.append(status.pid)
    assert (mounter.mountpoint / "src" / "main.py").read_bytes() == b"print(1)\n"
    assert run("find", ".", "-printf", r"%p %m %T@\n", cwd=mounter.mountpoint).splitlines() == [
        ". 755 1700000000.5000000000",
        "./src 755 1700000000.5000000000",
        "./src/deep 755 1700000000.5000000000",
        "./src/deep/x 644 1700000000.5000000000",
        "./src/main.py 644 1700000000.5000000000",
        "./ümlaut 644 1700000000.5000000000",
    ]
    assert (status.store, status.label) == (None, None)
    assert mounter.listed() == [status]
    unmount(mounter.mountpoint)
    assert sorted(root.rglob("*")) == before


@pytest.mark.parametrize("older", [False, True])
def test_a_manifest_file_whose_blobs_are_in_a_store(mounter: Mounter, older: bool) -> None:
    """It is pinned like one of the store's own, in our format, so that a collector can read it."""
    write(mounter.source / "file", b"content")
    snapshot = mounter.take()
    path = mounter.base / "copy.json"
    manifest = snapshot.manifest
    if older:
        files = {"file": {"sha256": snapshot.blob(b"file").name, "size_bytes": 7}}
        path.write_text(json.dumps({"files": files}))
        manifest = read_older(path.read_bytes())
    else:
        path.write_bytes(snapshot.depot.manifest_path(manifest.id).read_bytes())
    snapshot.depot.manifest_path(snapshot.manifest.id).unlink()
    request = replace(
        snapshot.request(mounter.mountpoint),
        manifest_file=path,
        manifest_id=manifest.id,
        record_id=None,
    )
    status = start_mount(request)
    assert status.pid is not None
    mounter.pids.append(status.pid)
    assert (mounter.mountpoint / "file").read_bytes() == b"content"
    (pinned,) = snapshot.depot.leases_dir.glob("*.json")
    assert json.loads(pinned.read_bytes())["id"] == manifest.id
    path.unlink()
    unmount(mounter.mountpoint)
    assert os.listdir(snapshot.depot.leases_dir) == []


@pytest.mark.semantics("L8")
@pytest.mark.needs_root
def test_a_store_on_a_read_only_medium(mounter: Mounter) -> None:
    """Pinned by locks alone; the mount works, and leaves nothing there."""
    write(mounter.source / "file", b"content")
    snapshot = mounter.take()
    read_only = mounter.base / "medium"
    read_only.mkdir()
    run("mount", "--bind", snapshot.depot.path, read_only)
    run("mount", "-o", "remount,bind,ro", read_only)
    try:
        request = replace(
            snapshot.request(mounter.mountpoint), store=read_only, blob_dir=read_only / "blobs"
        )
        status = start_mount(request)
        assert status.pid is not None
        mounter.pids.append(status.pid)
        assert status.warnings == ()
        assert (mounter.mountpoint / "file").read_bytes() == b"content"
        locks = [line.split()[1:5] for line in run("cat", "/proc/locks").splitlines()]
        assert locks.count(["FLOCK", "ADVISORY", "READ", str(status.pid)]) == 2
        unmount(mounter.mountpoint)
    finally:
        run("umount", read_only)
    assert os.listdir(snapshot.depot.leases_dir) == []


@pytest.mark.semantics("L8")
@pytest.mark.needs_root
def test_a_store_that_protects_nobody_says_so(mounter: Mounter) -> None:
    write(mounter.source / "file", b"content")
    snapshot = mounter.take()
    copy = mounter.base / "copy.json"
    copy.write_bytes(snapshot.depot.manifest_path(snapshot.manifest.id).read_bytes())
    medium = mounter.base / "medium"
    medium.mkdir()
    run("mount", "--bind", snapshot.depot.path, medium)
    run("mount", "-o", "remount,bind,ro", medium)
    try:
        status = start_mount(
            replace(
                snapshot.request(mounter.mountpoint),
                store=medium,
                blob_dir=medium / "blobs",
                manifest_file=copy,
            )
        )
        assert status.pid is not None
        mounter.pids.append(status.pid)
        (warning,) = status.warnings
        assert "not protected from a collector" in warning
        unmount(mounter.mountpoint)
    finally:
        run("umount", medium)
