"""Filesystems in files: made, mounted, and copied as they are at a moment, without any sync."""

from __future__ import annotations

import os
import subprocess
from collections.abc import Iterator
from contextlib import contextmanager
from hashlib import blake2b
from pathlib import Path

#: Size, how it is made, and how it is mounted: nothing is written by the clock, and nothing is
#: synced for a program that forgot to (ext4 does that for a file that replaces another).
FILESYSTEMS = {
    "ext4": ("64M", ["mkfs.ext4", "-q", "-F"], "commit=300,noauto_da_alloc"),
    "xfs": ("320M", ["mkfs.xfs", "-q", "-f"], "defaults"),
    "btrfs": ("160M", ["mkfs.btrfs", "-q", "-f"], "commit=300"),
}
_CHUNK = 1 << 20


def make_image(image: Path, filesystem: str) -> None:
    size, mkfs, _ = FILESYSTEMS[filesystem]
    subprocess.run(["truncate", "-s", size, image], check=True)
    subprocess.run([*mkfs, image], check=True, timeout=60, stderr=subprocess.DEVNULL)


@contextmanager
def mounted(image: Path, place: Path, filesystem: str) -> Iterator[Path]:
    place.mkdir(exist_ok=True)
    options = f"loop,{FILESYSTEMS[filesystem][2]}"
    subprocess.run(["mount", "-t", filesystem, "-o", options, image, place], check=True, timeout=60)
    try:
        yield place
    except BaseException:
        # A traceback keeps the store's descriptors open.
        subprocess.run(["umount", "-l", place], check=True, timeout=60)
        raise
    subprocess.run(["umount", place], check=True, timeout=60)


class Copier:
    """Copies a file that is being written. Make it before `os` is changed."""

    def __init__(self, image: Path) -> None:
        self._image = image
        self._count = 0
        self._last = b""
        self._calls = (os.open, os.close, os.pread, os.pwrite, os.ftruncate, os.lseek, os.unlink)

        found = subprocess.run(
            ["losetup", "-n", "-O", "NAME", "-j", image], check=True, capture_output=True, text=True
        ).stdout
        self._statistics = f"/sys/block/{Path(found.strip()).name}/stat"

    def copy(self) -> Path | None:
        """The copy; None if it would be the same as the last.

        The kernel may be writing meanwhile, and what was read before and after that would be of no
        moment at all: then it is read again.
        """
        for _ in range(1000):
            before = self._count_writes()
            copy, digest = self._copy_once()
            if before == self._count_writes() and before[1] == 0:
                break
            self._calls[-1](copy)
        else:
            raise AssertionError("the image is written all the time")
        if digest == self._last:
            self._calls[-1](copy)
            return None
        self._last = digest
        self._count += 1
        return copy

    def _count_writes(self) -> tuple[int, int]:
        """Writes that were completed, and those that are under way (Linux, block/stat.rst)."""
        open_, close, pread = self._calls[:3]
        fd = open_(self._statistics, os.O_RDONLY | os.O_CLOEXEC)
        try:
            fields = pread(fd, 4096, 0).split()
        finally:
            close(fd)
        return int(fields[4]), int(fields[8])

    def _copy_once(self) -> tuple[Path, bytes]:
        open_, close, pread, pwrite, ftruncate, lseek, _ = self._calls
        copy = self._image.with_name(f"{self._image.name}-{self._count}")
        source = open_(self._image, os.O_RDONLY | os.O_CLOEXEC)
        target = open_(copy, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, 0o600)
        state = blake2b()
        try:
            size = lseek(source, 0, os.SEEK_END)
            ftruncate(target, size)
            at = 0
            while at < size:
                try:
                    at = lseek(source, at, os.SEEK_DATA)
                except OSError:  # ENXIO: only a hole is left
                    break
                end = lseek(source, at, os.SEEK_HOLE)
                while at < end:
                    data = pread(source, min(_CHUNK, end - at), at)
                    state.update(b"%d %d " % (at, len(data)))
                    state.update(data)
                    pwrite(target, data, at)
                    at += len(data)
        finally:
            close(source)
            close(target)
        return copy, state.digest()


class Neighbour:
    """Somebody else on the same filesystem who syncs what is his: a file beside the store, and the
    directories of blobs and manifests, as a writer does who syncs each file alone. What he did not
    ask for must not come to be there before what it needs. Make it before `os` is changed."""

    def __init__(self, store: Path) -> None:
        self._file = os.open(store.with_name("neighbour"), os.O_WRONLY | os.O_CREAT | os.O_CLOEXEC)
        self._rooms = (store / "blobs", store / "manifests")
        self._calls = (os.open, os.close, os.fsync, os.write, os.listdir)

    def sync(self) -> None:
        open_, close, fsync, write, listdir = self._calls
        write(self._file, b"his")
        fsync(self._file)
        for room in self._rooms:
            for directory in (*(room / name for name in listdir(room)), room):
                try:
                    fd = open_(directory, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
                except NotADirectoryError:
                    continue
                fsync(fd)
                close(fd)
