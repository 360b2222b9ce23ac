"""The bytes of a blob into a new file: shared, or copied and hashed on the way."""

from __future__ import annotations

import errno
import os
import threading

from castfs.digest import CHUNK_SIZE, Digest
from castfs.manifest import File
from castfs.store.reading import damaged, iter_verified, read_blob
from castfs.syscalls import clone_file

#: Smaller files are copied: a clone costs a transaction of the filesystem, a copy 20 µs.
_CLONE_MIN = 128 << 10
_ZEROS = bytes(CHUNK_SIZE)


class Stopped(Exception):
    """Another thread failed, or the user interrupted: the file is not finished."""


class Copier:
    """May be used from several threads. `stop` ends a copy within a chunk, with Stopped."""

    def __init__(self, *, verify: bool, stop: threading.Event) -> None:
        self._verify = verify
        self._stop = stop
        self._can_clone = True
        self._can_copy_range = not verify

    def copy(self, source_fd: int, fd: int, path: bytes, file: File) -> None:
        """All of an opened blob into `fd`, which is new. BlobError if the bytes are not the right
        ones, OSError if the target does not take them."""
        size, digest = file.size_bytes, file.digest
        if size >= _CLONE_MIN and self._clone(source_fd, fd, path, size, digest):
            return
        if size <= CHUNK_SIZE:
            data = read_blob(source_fd, path, digest, size, verify=self._verify)
            _write(fd, memoryview(data))
        elif not self._copy_range(source_fd, fd, path, size, digest):
            self._copy_chunks(source_fd, fd, path, size, digest)

    def _clone(self, source_fd: int, fd: int, path: bytes, size: int, digest: Digest) -> bool:
        if not self._can_clone:
            return False
        self._can_clone = clone_file(source_fd, fd)
        if not self._can_clone:
            return False
        # What was cloned is hashed, not what it was cloned from.
        if self._verify:
            for _ in iter_verified(fd, path, digest, size):
                self._check()
        elif os.fstat(fd).st_size != size:
            raise damaged(path, digest)
        return True

    def _copy_range(self, source_fd: int, fd: int, path: bytes, size: int, digest: Digest) -> bool:
        """copy_file_range(2), for contents that nobody asked to hash."""
        done = 0
        while self._can_copy_range and done < size:
            self._check()
            try:
                count = os.copy_file_range(source_fd, fd, min(size - done, 64 << 20))
            except OSError as exc:
                if done or exc.errno not in (errno.EXDEV, errno.EOPNOTSUPP, errno.EINVAL):
                    raise
                self._can_copy_range = False
                return False
            if count == 0:
                raise damaged(path, digest)
            done += count
        return done == size

    def _copy_chunks(self, source_fd: int, fd: int, path: bytes, size: int, digest: Digest) -> None:
        holes = False
        for chunk in iter_verified(source_fd, path, digest, size, verify=self._verify):
            self._check()
            # Looking at both ends first keeps this free for data; bytes compare by memcmp.
            if chunk[0] == chunk[-1] == 0 and bytes(chunk) == _ZEROS[: len(chunk)]:
                os.lseek(fd, len(chunk), os.SEEK_CUR)
                holes = True
            else:
                _write(fd, chunk)
        if holes:
            os.ftruncate(fd, size)

    def _check(self) -> None:
        if self._stop.is_set():
            raise Stopped


def _write(fd: int, data: memoryview) -> None:
    while data:
        data = data[os.write(fd, data) :]
