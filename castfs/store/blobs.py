"""A directory of blobs: `ab/<64 hex>`, one file for each content. Older systems have it too."""

from __future__ import annotations

import os
import re
from collections.abc import Iterator
from pathlib import Path

from castfs.digest import Digest
from castfs.errors import BlobError, StoreError

_SHARD = re.compile(r"[0-9a-f]{2}")
_NAME = re.compile(r"[0-9a-f]{64}")
_FLAGS = os.O_RDONLY | os.O_CLOEXEC | os.O_NOFOLLOW | os.O_NONBLOCK


class BlobDir:
    """Reads blobs below `path`. Holds one descriptor, so that it goes on working when the directory
    is moved and look-ups resolve two short components."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self._fd = -1
        try:
            self._fd = os.open(path, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
        except OSError as exc:
            raise StoreError(
                f"cannot open the blob directory {path}: {exc.strerror}",
                hint="give the store that has the blobs with --store",
            ) from exc

    def close(self) -> None:
        if self._fd >= 0:
            os.close(self._fd)
            self._fd = -1

    def __del__(self) -> None:
        self.close()

    @property
    def dir_fd(self) -> int:
        """The directory's descriptor, for `dir_fd=` arguments."""
        return self._fd

    @staticmethod
    def name(digest: str) -> str:
        """Where a blob lies, relative to the directory."""
        return f"{digest[:2]}/{digest}"

    def size(self, digest: str) -> int | None:
        """Size of a blob in bytes; None if it is not there (or is no regular file)."""
        try:
            status = os.stat(self.name(digest), dir_fd=self._fd, follow_symlinks=False)
        except (FileNotFoundError, NotADirectoryError):
            return None
        return status.st_size if status.st_mode & 0o170000 == 0o100000 else None

    def open(self, digest: Digest, size: int) -> int:
        """A read-only descriptor of the blob, which the caller closes.

        BlobError if it is missing or not `size` bytes long. Content is not hashed here.
        """
        try:
            fd = os.open(self.name(digest), _FLAGS, dir_fd=self._fd)
        except (FileNotFoundError, NotADirectoryError) as exc:
            raise BlobError(
                f"blob {digest} is missing from {self.path}",
                digest=digest,
                hint="ingest the same file again, or import it from another store",
            ) from exc
        actual = os.fstat(fd).st_size
        if actual != size:
            os.close(fd)
            raise BlobError(
                f"blob {digest} has {actual} bytes instead of {size}",
                digest=digest,
                hint="ingest the same file again to heal it",
            )
        return fd

    def read(self, digest: Digest, limit: int) -> bytes:
        """The first `limit` bytes of a blob, by one read, whatever they are. OSError."""
        fd = os.open(self.name(digest), _FLAGS, dir_fd=self._fd)
        try:
            return os.read(fd, limit)
        finally:
            os.close(fd)

    def iter_blobs(self) -> Iterator[tuple[Digest, os.stat_result]]:
        """(digest, lstat) of every blob, shard by shard; other files are passed over."""
        for shard in self._list_shards():
            if not _SHARD.fullmatch(shard):
                continue
            try:
                # Not through a symlink: what lies elsewhere may be somebody else's.
                flags = os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW | os.O_CLOEXEC
                shard_fd = os.open(shard, flags, dir_fd=self._fd)
            except (FileNotFoundError, NotADirectoryError):
                continue
            try:
                with os.scandir(shard_fd) as entries:
                    for entry in entries:
                        if not (_NAME.fullmatch(entry.name) and entry.name.startswith(shard)):
                            continue
                        try:
                            status = entry.stat(follow_symlinks=False)
                        except FileNotFoundError:  # collected meanwhile
                            continue
                        yield Digest(entry.name), status
            finally:
                os.close(shard_fd)

    def _list_shards(self) -> list[str]:
        # Opened anew: on btrfs a directory's descriptor lists what was in it when it was opened
        # (kernel 6.5, commit 9b378f6ad48c).
        fd = os.open(".", os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC, dir_fd=self._fd)
        try:
            return sorted(os.listdir(fd))
        finally:
            os.close(fd)
