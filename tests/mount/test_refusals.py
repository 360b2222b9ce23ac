"""Every failure before the mount is ready: one line with the remedy, and nothing left behind."""

from __future__ import annotations

import os
import re
import sys
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import pytest

from castfs.errors import (
    BlobError,
    CastfsError,
    DamageError,
    ManifestError,
    MountError,
    NoStoreError,
    NotFoundError,
    StoreError,
)
from castfs.mount import MountRequest, start_mount
from castfs.mount.mountinfo import find_mount
from castfs.mount.options import MountOptions
from castfs.mount.preflight import check_device, check_privileges
from tests.mount.conftest import Mounter, run
from tests.mount.snapshots import Snapshot
from tests.mount.trees import write

pytestmark = pytest.mark.mounted


@pytest.fixture
def snapshot(mounter: Mounter) -> Snapshot:
    write(mounter.source / "file", b"content")
    return mounter.take()


def refuse(request: MountRequest, kind: type[CastfsError], words: str) -> None:
    with pytest.raises(kind, match=words) as caught:
        start_mount(request)
    assert type(caught.value) is kind
    assert "\n" not in str(caught.value)
    assert caught.value.hint
    mounted = find_mount(request.mountpoint)
    assert mounted is None or not mounted.is_castfs
    if request.store is not None and (request.store / "leases").is_dir():
        assert os.listdir(request.store / "leases") == []


def _missing(mounter: Mounter) -> Path:
    return mounter.base / "missing"


def _file(mounter: Mounter) -> Path:
    return write(mounter.base / "file")


def _full(mounter: Mounter) -> Path:
    write(mounter.mountpoint / "in the way")
    return mounter.mountpoint


def _inside(mounter: Mounter) -> Path:
    place = mounter.store / "staging" / "mnt"
    place.mkdir()
    return place


def _the_store(mounter: Mounter) -> Path:
    return mounter.store


def _above(mounter: Mounter) -> Path:
    return mounter.base


def _above_by_symlink(mounter: Mounter) -> Path:
    (mounter.base / "link").symlink_to(mounter.base)
    return mounter.base / "link"


def _below_a_file(mounter: Mounter) -> Path:
    return write(mounter.base / "file") / "below"


PLACES: dict[str, tuple[Callable[[Mounter], Path], str]] = {
    "missing": (_missing, r"the mount point \S+ does not exist; make it with `mkdir -p "),
    "a file": (_file, "is not a directory"),
    "below a file": (_below_a_file, "cannot be used: Not a directory"),
    "not empty": (_full, r"is not empty \(it has in the way\)"),
    "inside the store": (_inside, "lies inside the store"),
    "the store itself": (_the_store, "lies inside the store"),
    "above the store": (_above, "would hide the store"),
    "above the store, by a symlink": (_above_by_symlink, "would hide the store"),
}


@pytest.mark.parametrize(("place", "words"), PLACES.values(), ids=PLACES.keys())
def test_mount_point(
    mounter: Mounter, snapshot: Snapshot, place: Callable[[Mounter], Path], words: str
) -> None:
    refuse(snapshot.request(place(mounter)), MountError, words)


def test_already_mounted(mounter: Mounter, snapshot: Snapshot) -> None:
    mounter.start(snapshot)
    with pytest.raises(MountError, match="is already mounted at") as caught:
        start_mount(snapshot.request(mounter.mountpoint))
    assert f"castfs umount {mounter.mountpoint}" in (caught.value.hint or "")
    assert (mounter.mountpoint / "file").read_bytes() == b"content"


@pytest.mark.needs_root
def test_a_dead_mount_of_others(mounter: Mounter, snapshot: Snapshot) -> None:
    """Left alone: castfs replaces only what is its own."""
    fd = os.open("/dev/fuse", os.O_RDWR)
    options = f"fd={fd},rootmode=40000,user_id=0,group_id=0"
    place = mounter.mountpoint
    run("mount", "-i", "-t", "fuse.other", "-o", options, "source", place, pass_fds=(fd,))
    os.close(fd)
    mounted = find_mount(place)
    assert mounted is not None
    with pytest.raises(MountError, match=r"a dead fuse\.other mount \(source\)") as caught:
        start_mount(snapshot.request(place))
    assert caught.value.hint == f"unmount it with `fusermount3 -uz {place}`"
    assert find_mount(place) == mounted


def test_no_blob_directory(mounter: Mounter, snapshot: Snapshot) -> None:
    request = replace(snapshot.request(mounter.mountpoint), blob_dir=mounter.base / "blobs")
    refuse(request, StoreError, "there is no blob directory .*--store")


def test_no_store(mounter: Mounter, snapshot: Snapshot) -> None:
    request = replace(snapshot.request(mounter.mountpoint), store=mounter.base / "nothing")
    refuse(request, NoStoreError, "no store at")


def test_removed_record(mounter: Mounter, snapshot: Snapshot) -> None:
    snapshot.depot.record_path(snapshot.record_id).unlink()
    refuse(snapshot.request(mounter.mountpoint), NotFoundError, "was removed")


def test_missing_manifest(mounter: Mounter, snapshot: Snapshot) -> None:
    snapshot.depot.manifest_path(snapshot.manifest.id).unlink()
    refuse(snapshot.request(mounter.mountpoint), DamageError, "manifest .* is missing")


def test_damaged_manifest(mounter: Mounter, snapshot: Snapshot) -> None:
    path = snapshot.depot.manifest_path(snapshot.manifest.id)
    path.chmod(0o644)
    path.write_bytes(path.read_bytes().replace(b'"mode":420', b'"mode":421'))
    refuse(snapshot.request(mounter.mountpoint), ManifestError, "not the one that its id")


@pytest.mark.semantics("L6")
def test_a_missing_blob_of_a_manifest_file(mounter: Mounter, snapshot: Snapshot) -> None:
    copy = mounter.base / "copy.json"
    copy.write_bytes(snapshot.depot.manifest_path(snapshot.manifest.id).read_bytes())
    blob = snapshot.blob(b"file")
    blob.unlink()
    request = replace(snapshot.request(mounter.mountpoint), manifest_file=copy, record_id=None)
    with pytest.raises(BlobError) as caught:
        start_mount(request)
    assert caught.value.digest == blob.name
    refuse(request, BlobError, rf"the blob of file in .* is missing \({blob.name}\); ")


def test_a_replaced_manifest_file(mounter: Mounter, snapshot: Snapshot) -> None:
    copy = mounter.base / "copy.json"
    copy.write_bytes(snapshot.depot.manifest_path(snapshot.manifest.id).read_bytes())
    request = replace(
        snapshot.request(mounter.mountpoint), manifest_file=copy, manifest_id="0" * 64
    )
    refuse(request, ManifestError, "the manifest has id")


@pytest.mark.parametrize(
    ("content", "kind", "words"),
    [
        (None, NotFoundError, "no manifest file"),
        (b"not json", ManifestError, "bad manifest: .*JSON"),
        (
            b'{"files": {"../x": {"sha256": "", "size_bytes": 0}}}',
            ManifestError,
            r"bad manifest: .*'\.\.'",
        ),
        (b'{"format": "castfs-manifest", "version": 9}', ManifestError, "bad manifest"),
    ],
)
def test_bad_manifest_file(
    mounter: Mounter,
    snapshot: Snapshot,
    content: bytes | None,
    kind: type[CastfsError],
    words: str,
) -> None:
    path = mounter.base / "bad.json"
    if content is not None:
        path.write_bytes(content)
    request = replace(snapshot.request(mounter.mountpoint), manifest_file=path)
    refuse(request, kind, words)


@pytest.mark.semantics("L2")
def test_no_device(tmp_path: Path) -> None:
    with pytest.raises(MountError) as caught:
        check_device(tmp_path / "fuse")
    assert "does not exist; load the module with `modprobe fuse`; in a container" in str(
        caught.value
    )


@pytest.mark.needs_root
def test_a_device_without_a_driver(tmp_path: Path) -> None:
    os.mknod(tmp_path / "fuse", 0o20666, os.makedev(10, 254))
    with pytest.raises(MountError, match="modprobe fuse"):
        check_device(tmp_path / "fuse")


@pytest.mark.parametrize(
    ("line", "allowed"),
    [
        ("user_allow_other\n", True),
        ("  user_allow_other  \nmount_max = 5", True),
        ("#user_allow_other\n", False),
        ("user_allow_others\n", False),
        ("", False),
        (None, False),
    ],
)
def test_who_may_share(tmp_path: Path, line: str | None, allowed: bool) -> None:
    conf = tmp_path / "fuse.conf"
    if line is not None:
        conf.write_text(line)
    options = MountOptions(allow_other=True)
    check_privileges(options, euid=0, fuse_conf=conf)
    if allowed:
        check_privileges(options, euid=1000, fuse_conf=conf)
    else:
        with pytest.raises(MountError, match=re.escape(f"{conf} has no line `user_allow_other`")):
            check_privileges(options, euid=1000, fuse_conf=conf)


@pytest.mark.needs_root
def test_what_libfuse_says_is_passed_on(mounter: Mounter, snapshot: Snapshot) -> None:
    """Root without CAP_SYS_ADMIN, as in a container."""
    script = f"""
import sys
sys.path.insert(0, {str(Path(__file__).parents[2])!r})
from castfs.errors import MountError
from castfs.mount import start_mount
from castfs.mount.request import MountRequest
try:
    start_mount(MountRequest.decode(bytes.fromhex(sys.argv[1])))
except MountError as exc:
    print(exc)
"""
    request = snapshot.request(mounter.mountpoint)
    said = run(
        *("setpriv", "--bounding-set=-sys_admin", "--inh-caps=-sys_admin"),
        *(sys.executable, "-c", script, request.encode().hex()),
    )
    assert said == (
        f"cannot mount at {mounter.mountpoint}: fusermount3: mount failed: Operation not permitted"
        "; in a container: start it with `--device /dev/fuse --cap-add SYS_ADMIN`; else: is "
        "fusermount3 installed set-uid root?\n"
    )
    assert find_mount(mounter.mountpoint) is None


def test_no_place_for_the_log(
    mounter: Mounter, snapshot: Snapshot, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("XDG_STATE_HOME", str(write(mounter.base / "a file")))
    refuse(
        snapshot.request(mounter.mountpoint), MountError, "where mounts keep their logs.*XDG_STATE"
    )
