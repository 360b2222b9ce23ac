"""Targets that cannot take it: missing, read-only, full; and the user who changes their mind."""

from __future__ import annotations

import gc
import os
import signal
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from castfs.errors import TargetError
from castfs.manifest import encode_manifest, make_manifest
from castfs.progress import Progress
from castfs.restore import restore_tree, workers
from castfs.restore.copying import Copier, Stopped
from castfs.restore.metadata import Metadata
from tests.restore.building import store_directory, store_files
from tests.restore.oracles import assert_same, fingerprint, temporary_files
from tests.restore.sources import make_source


def mount_tmpfs(place: Path, options: str) -> None:
    place.mkdir(exist_ok=True)
    subprocess.run(
        ["mount", "-t", "tmpfs", "-o", options, "castfs-test", str(place)], check=True, timeout=20
    )


def open_descriptors() -> int:
    gc.collect()  # stores of earlier tests
    return len(os.listdir("/proc/self/fd"))


@pytest.fixture
def small(tmp_path: Path) -> Iterator[Path]:
    """A filesystem of 2 MiB and 60 inodes."""
    place = tmp_path / "small"
    mount_tmpfs(place, "size=2m,nr_inodes=60")
    yield place
    subprocess.run(["umount", "-l", str(place)], check=True, timeout=20)


def test_the_parent_must_exist(tmp_path: Path) -> None:
    stored = store_files({b"a": b"x"}, tmp_path / "store")
    with pytest.raises(TargetError, match=r"missing is not a directory.*mkdir -p"):
        restore_tree(stored.tree, stored.blobs, tmp_path / "missing" / "out")
    assert not (tmp_path / "missing").exists()


def test_the_target_is_a_file(tmp_path: Path) -> None:
    stored = store_files({b"a": b"x"}, tmp_path / "store")
    (tmp_path / "out").write_text("mine")
    for path in (tmp_path / "out", tmp_path / "out" / "below"):
        with pytest.raises(TargetError, match="not a directory"):
            restore_tree(stored.tree, stored.blobs, path, if_exists="replace")
    assert (tmp_path / "out").read_text() == "mine"


def test_the_target_is_a_dangling_symlink(tmp_path: Path) -> None:
    stored = store_files({b"a": b"x"}, tmp_path / "store")
    (tmp_path / "out").symlink_to("nowhere")
    with pytest.raises(TargetError, match="leads nowhere"):
        restore_tree(stored.tree, stored.blobs, tmp_path / "out")
    assert not (tmp_path / "nowhere").exists()


@pytest.mark.needs_root
def test_a_read_only_filesystem(tmp_path: Path, small: Path) -> None:
    stored = store_files({b"a": b"x", b"d/b": b"y"}, tmp_path / "store")
    (small / "d").mkdir()
    subprocess.run(["mount", "-o", "remount,ro", str(small)], check=True, timeout=20)
    for target in (small, small / "out"):
        with pytest.raises(TargetError, match="read-only filesystem"):
            restore_tree(stored.tree, stored.blobs, target)
    assert [p.name for p in small.rglob("*")] == ["d"]


@pytest.mark.semantics("R19")
@pytest.mark.parametrize("threads", [1, 3])
@pytest.mark.needs_root
def test_a_full_disk(
    tmp_path: Path, small: Path, monkeypatch: pytest.MonkeyPatch, threads: int
) -> None:
    monkeypatch.setattr(workers, "_WORTH_BYTES", 0)
    contents = {b"f%d" % i: os.urandom(600_000) for i in range(8)}
    stored = store_files(contents, tmp_path / "store")
    with pytest.raises(TargetError, match=r"No space left on device; free some space") as caught:
        restore_tree(stored.tree, stored.blobs, small / "out", threads=threads)
    assert "\n" not in str(caught.value)
    assert temporary_files(small) == []
    whole = list((small / "out").iterdir())
    assert len(whole) <= 3
    for path in whole:
        assert path.read_bytes() == contents[os.fsencode(path.name)]


@pytest.mark.needs_root
def test_no_inodes_left(tmp_path: Path, small: Path) -> None:
    stored = store_files({b"d%d/f" % i: b"x" for i in range(60)}, tmp_path / "store")
    with pytest.raises(TargetError, match="No space left on device"):
        restore_tree(stored.tree, stored.blobs, small / "out")
    assert temporary_files(small) == []


def test_an_existing_directory_gets_its_mode_back_after_a_failure(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    stored = store_files({b"d/a": b"x"}, tmp_path / "store")
    out = tmp_path / "out"
    (out / "d").mkdir(parents=True)
    (out / "d").chmod(0o550)
    out.chmod(0o500)

    def fail(*args: object) -> None:
        assert (out / "d").stat().st_mode & 0o700 == 0o700
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(Copier, "copy", fail)
    with pytest.raises(TargetError):
        restore_tree(stored.tree, stored.blobs, out, if_exists="replace")
    assert (out / "d").stat().st_mode & 0o7777 == 0o550
    assert out.stat().st_mode & 0o7777 == 0o500


class Interrupting(Progress):
    def advance(self, count: int, size: int = 0) -> None:
        raise KeyboardInterrupt


@pytest.mark.semantics("R19")
@pytest.mark.parametrize("threads", [1, 3])
def test_interrupted_between_files(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, threads: int
) -> None:
    monkeypatch.setattr(workers, "_WORTH_BYTES", 0)
    contents = {b"f%d" % i: bytes([i]) * (3 << 20) for i in range(12)}
    stored = store_files(contents, tmp_path / "store")
    before = open_descriptors()
    with pytest.raises(KeyboardInterrupt):
        restore_tree(
            stored.tree, stored.blobs, tmp_path / "out", threads=threads, progress=Interrupting()
        )
    assert temporary_files(tmp_path / "out") == []
    for path in (tmp_path / "out").iterdir():
        assert path.read_bytes() == contents[os.fsencode(path.name)]
    assert open_descriptors() <= before


def test_threads_stop_in_the_middle_of_a_file(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    stored = store_files({b"a/large": bytes(3 << 20), b"b/small": b"x"}, tmp_path / "store")

    told = []

    def wait(self: Copier) -> None:
        told.append(self._stop.wait(20))
        raise Stopped

    monkeypatch.setattr(Copier, "_check", wait)
    with pytest.raises(KeyboardInterrupt):
        restore_tree(
            stored.tree, stored.blobs, tmp_path / "out", threads=2, progress=Interrupting()
        )
    assert told == [True]
    assert list((tmp_path / "out/a").iterdir()) == []


@pytest.mark.parametrize("step", ["copy", "set"])
def test_interrupted_within_a_file(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, step: str
) -> None:
    stored = store_files({b"a": b"x", b"b": b"y"}, tmp_path / "store")

    def interrupt(*args: object) -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr(Copier if step == "copy" else Metadata, step, interrupt)
    with pytest.raises(KeyboardInterrupt):
        restore_tree(stored.tree, stored.blobs, tmp_path / "out")
    assert list((tmp_path / "out").iterdir()) == []


_SCRIPT = """
import sys
from pathlib import Path
from castfs.manifest import decode_manifest
from castfs.restore import restore_tree
from castfs.store import BlobDir
tree = decode_manifest(Path("manifest.json").read_bytes()).tree
print("ready", flush=True)
restore_tree(tree, BlobDir(Path("store/blobs")), Path("out"), threads=int(sys.argv[1]))
"""


@pytest.mark.semantics("R19")
@pytest.mark.parametrize("threads", [1, 2])
def test_ctrl_c_leaves_no_temporary_file(tmp_path: Path, threads: int) -> None:
    contents = {b"d%d/f%d" % (i % 40, i): b"%d" % i * 5000 for i in range(1500)}
    stored = store_files(contents, tmp_path / "store")
    manifest = make_manifest(stored.tree, created_at=0.0, source_path="")
    (tmp_path / "manifest.json").write_bytes(b"".join(encode_manifest(manifest)))
    process = subprocess.Popen(
        [sys.executable, "-c", _SCRIPT, str(threads)],
        cwd=tmp_path,
        env={**os.environ, "PYTHONPATH": str(Path(__file__).parents[2])},
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
    )
    try:
        assert process.stdout is not None
        assert process.stdout.readline() == b"ready\n"
        while process.poll() is None and not (tmp_path / "out/d10").exists():
            pass
        process.send_signal(signal.SIGINT)
        _, errors = process.communicate(timeout=60)
    finally:
        process.kill()
        process.communicate()
    assert b"KeyboardInterrupt" in errors
    assert temporary_files(tmp_path / "out") == []
    files = [path for path in (tmp_path / "out").rglob("f*") if path.is_file()]
    assert 0 < len(files) < len(contents)
    for path in files:
        name = os.fsencode(path.relative_to(tmp_path / "out"))
        assert path.read_bytes() == contents[name]


@pytest.mark.needs_root
def test_a_failure_closes_all_descriptors(tmp_path: Path, small: Path) -> None:
    stored = store_files({b"d%d/f" % i: b"x" for i in range(60)}, tmp_path / "store")
    before = open_descriptors()
    for threads in (1, 2):
        with pytest.raises(TargetError):
            restore_tree(
                stored.tree, stored.blobs, small / "out", threads=threads, if_exists="replace"
            )
    assert open_descriptors() <= before


@pytest.mark.parametrize("kind", ["xfs", "btrfs"])
@pytest.mark.needs_root
def test_filesystems_that_share_extents(tmp_path: Path, kind: str) -> None:
    """Blobs and target on an image of a filesystem with FICLONE: the data exists once."""
    image = tmp_path / "image"
    with image.open("wb") as file:
        file.truncate(600 << 20)
    subprocess.run([f"mkfs.{kind}", "-q", str(image)], check=True, timeout=60, capture_output=True)
    place = tmp_path / "mounted"
    place.mkdir()
    subprocess.run(["mount", "-o", "loop", str(image), str(place)], check=True, timeout=60)
    try:
        (place / "source").mkdir()
        source = make_source(place / "source" / "tree")
        (source / "big").write_bytes(os.urandom(64 << 20))
        stored = store_directory(source, place / "store")
        used = _used(place)
        restore_tree(stored.tree, stored.blobs, place / "out", threads=2)
        assert_same(source, place / "out")
        assert _used(place) - used < 16 << 20
        stored.blobs.close()
    finally:
        subprocess.run(["umount", "-l", str(place)], check=True, timeout=60)


def _used(place: Path) -> int:
    subprocess.run(["sync", "-f", str(place)], check=True, timeout=60)
    status = os.statvfs(place)
    return (status.f_blocks - status.f_bfree) * status.f_frsize


def test_nothing_changes_when_the_survey_fails(tmp_path: Path) -> None:
    stored = store_files({b"a/b/c": b"x", b"a/d": b"y", b"z": b"z"}, tmp_path / "store")
    out = tmp_path / "out"
    (out / "a").mkdir(parents=True)
    (out / "z").write_text("mine")
    before = fingerprint(out)
    with pytest.raises(TargetError):
        restore_tree(stored.tree, stored.blobs, out)
    assert fingerprint(out) == before
