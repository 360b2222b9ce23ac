"""A power cut at any point of a commit: what is on the medium then is the old state or the new.

The store lies on an image. At the chosen points the image's file is copied as it is, without what
the kernel still holds back; the copies are mounted afterwards, which replays their journals, and
looked at. Leaving out one syncfs makes these tests find blobs of 0 bytes.
"""

from __future__ import annotations

import os
import random
import subprocess
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest

import castfs
from castfs import syscalls
from castfs.progress import Progress
from castfs.repository import Store
from tests.store.checking import check_store, read_records
from tests.store.crashing import OPERATIONS

MKFS = {
    "ext4": ("64M", ["mkfs.ext4", "-q", "-F"]),
    "xfs": ("320M", ["mkfs.xfs", "-q", "-f"]),
    "btrfs": ("160M", ["mkfs.btrfs", "-q", "-f"]),
}


@contextmanager
def mounted(image: Path, place: Path) -> Iterator[Path]:
    place.mkdir()
    subprocess.run(["mount", "-o", "loop", image, place], check=True, timeout=60)
    try:
        yield place
    finally:
        subprocess.run(["umount", place], check=True, timeout=60)


class Cutter(Progress):
    """Copies the image before the chosen operations of the commit, and counts them."""

    def __init__(self, image: Path, wanted: Callable[[int], bool]) -> None:
        self.count = 0
        self.copies: list[Path] = []
        self._image = image
        self._wanted = wanted
        self._busy = True

    def phase(self, name: str, **_: object) -> None:
        if name == "writing to disk":
            self._busy = False

    def wrap(self, monkeypatch: pytest.MonkeyPatch) -> None:
        for module, names in ((os, OPERATIONS), (syscalls, ("syncfs",))):
            for name in names:
                self._wrap(monkeypatch, module, name)

    def _wrap(self, monkeypatch: pytest.MonkeyPatch, module: Any, name: str) -> None:
        original: Callable[..., Any] = getattr(module, name)

        def call(*args: Any, **kwargs: Any) -> Any:
            if not self._busy:
                self._busy = True
                self.count += 1
                if self._wanted(self.count):
                    self.cut()
                self._busy = False
            return original(*args, **kwargs)

        monkeypatch.setattr(module, name, call)

    def cut(self) -> None:
        copy = self._image.with_name(f"copy-{len(self.copies)}")
        subprocess.run(["cp", "--sparse=always", self._image, copy], check=True)
        self.copies.append(copy)


def cut_at(
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    source: Path,
    filesystem: str,
    wanted: Callable[[int], bool],
) -> int:
    """Ingest, change the source, ingest again with cuts, look at each. Returns the operations."""
    size, mkfs = MKFS[filesystem]
    image = tmp_path / "image"
    subprocess.run(["truncate", "-s", size, image], check=True)
    subprocess.run([*mkfs, image], check=True, timeout=60)
    cutter = Cutter(image, wanted)
    with mounted(image, tmp_path / "disk") as disk:
        store = castfs.open(disk / "store", create=True)
        first = store.ingest(source)
        (source / "a").write_bytes(b"changed")
        for number in range(5):
            (source / f"new {number}").write_bytes(b"new %d" % number)
        (source / "new large").write_bytes(b"N" * 1_200_000)
        with monkeypatch.context() as patch:
            cutter.wrap(patch)
            second = store.ingest(source, progress=cutter)
        cutter.cut()  # it has returned: now it must be there
        del store
    for number, copy in enumerate(cutter.copies):
        with mounted(copy, tmp_path / f"{copy.name}-mounted") as disk:
            check_store(disk / "store")
            manifests = [record["manifest"] for record in read_records(disk / "store")]
            assert manifests in (
                [[first.manifest_id], [first.manifest_id, second.manifest_id]]
                if number + 1 < len(cutter.copies)
                else [[first.manifest_id, second.manifest_id]]
            )
            assert Store(castfs.open(disk / "store").depot).ingest(source).file_count == 10
            check_store(disk / "store")
        copy.unlink()
    return cutter.count


@pytest.mark.needs_root
def test_power_cut(tmp_path: Path, source: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    # About 90 operations; which ones they are may differ by a few with the umask or the Python.
    chosen = set(random.Random(5).sample(range(1, 90), 8))
    count = cut_at(tmp_path, monkeypatch, source, "ext4", chosen.__contains__)
    assert count > max(chosen)


@pytest.mark.slow
@pytest.mark.timeout(1800)
@pytest.mark.parametrize("filesystem", ["ext4", "xfs", "btrfs"])
def test_power_cut_at_every_point(
    tmp_path: Path, source: Path, monkeypatch: pytest.MonkeyPatch, filesystem: str
) -> None:
    cut_at(tmp_path, monkeypatch, source, filesystem, lambda number: True)
