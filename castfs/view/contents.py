"""Reading files: from the blobs, whole ranges or an error, never zeros or short data.

A blob that is missing, short, unreadable or (with `verify`) damaged fails the read and is logged
once with a path and its digest. Opening a file never fails for its blob's sake; what is wrong shows
when it is read, and a blob that was healed meanwhile is then picked up.
"""

from __future__ import annotations

import contextlib
import errno
import logging
import os
import stat
import threading
from collections.abc import Iterator

from castfs.digest import Digest, digest_bytes, digest_fd
from castfs.errors import BlobError
from castfs.paths import display
from castfs.store import BlobDir
from castfs.syscalls import is_local
from castfs.view.snapshot import SnapshotView

log = logging.getLogger("castfs.view")

#: What identifies the bytes behind a descriptor: device, inode, mtime, ctime. A blob is only ever
#: replaced by rename, but whoever heals one by hand may write into it.
_Identity = tuple[int, int, int, int]

#: Not the blob's fault, and over as soon as somebody closes a file.
_OUT_OF_DESCRIPTORS = (errno.EMFILE, errno.ENFILE)


class OpenFile:
    """A file that somebody has open. `fd` is its blob's descriptor, -1 while there is none."""

    __slots__ = ("digest", "fd", "guard", "ino", "size", "trusted")

    def __init__(self, ino: int, size: int, digest: Digest) -> None:
        self.ino = ino
        self.size = size
        self.digest = digest
        self.fd = -1
        #: May bytes be served without another look at the blob?
        self.trusted = False
        #: Guards opening the blob later than the file.
        self.guard = threading.Lock()

    def close(self) -> None:
        """Idempotent; happens by itself when nobody refers to the file any more."""
        fd, self.fd = self.fd, -1
        if fd >= 0:
            os.close(fd)

    def __del__(self) -> None:
        self.close()


class Contents:
    """The contents of one snapshot's files. Every method may be called from any thread."""

    def __init__(self, view: SnapshotView, blobs: BlobDir, *, verify: bool = False) -> None:
        self._view = view
        self._blobs = blobs
        self._verify = verify
        try:
            #: Opening a blob never waits for another machine or process.
            self.is_local = is_local(blobs.dir_fd)
        except OSError:
            self.is_local = False
        self._nowait = hasattr(os, "RWF_NOWAIT")
        self._guard = threading.Condition()
        # Guarded by _guard, all four.
        self._logged: set[str] = set()
        self._good: set[_Identity] = set()
        self._bad: set[_Identity] = set()
        self._hashing: set[_Identity] = set()

    @property
    def dir_fd(self) -> int:
        """The descriptor through which blobs are opened."""
        return self._blobs.dir_fd

    def read_small(self, ino: int, limit: int) -> bytes:
        """All of a regular file of at most `limit` bytes that is as it should be; b"" else.

        For those who did not ask for it: nothing is logged. May wait for I/O.
        """
        index = self._view.index
        attributes = index.attributes(ino)
        size = attributes.size
        if not stat.S_ISREG(attributes.mode) or not 0 < size <= limit:
            return b""
        digest = index.digest(ino)
        try:
            data = self._blobs.read(digest, size + 1)
        except OSError:
            return b""
        if len(data) != size or (self._verify and digest_bytes(data) != digest):
            return b""
        return data

    def open(self, ino: int) -> OpenFile:
        """EISDIR, ELOOP, ESTALE; ENFILE if no more descriptors can be had."""
        self._view.check_file(ino)
        index = self._view.index
        file = OpenFile(ino, index.attributes(ino).size, index.digest(ino))
        if file.size == 0:
            return file  # there is nothing to read
        try:
            self._open_blob(file)
        except BlobError as exc:
            self._log_once(file, exc)
        return file

    def read_cached(self, file: OpenFile, offset: int, count: int, buffer: memoryview) -> int:
        """Fill `buffer` from memory alone, at most `count` bytes from `offset` on; never waits.

        Returns how many bytes it has (less than `count` at the end of the file), or -1 if that
        takes I/O, hashing or an error message: then `read` is to be called. `buffer` has at least
        `count` bytes.
        """
        wanted = min(count, file.size - offset)
        if wanted <= 0:
            return 0
        if not file.trusted or not self._nowait:
            return -1
        try:
            done = os.preadv(file.fd, [buffer[:wanted]], offset, os.RWF_NOWAIT)
        except BlockingIOError:
            return -1
        except OSError as exc:
            # Filesystems without it (tmpfs before 6.6, FUSE, some network ones) say so each time.
            if exc.errno == errno.EOPNOTSUPP:
                self._nowait = False
            return -1
        return wanted if done == wanted else -1

    def read(self, file: OpenFile, offset: int, count: int) -> bytes | bytearray:
        """`count` bytes from `offset` on, fewer only at the end of the file. May wait for I/O.

        BlobError for whatever is wrong with the blob, logged once; ENFILE as in `open`.
        """
        wanted = min(count, file.size - offset)
        if wanted <= 0:
            return b""
        try:
            self._make_trusted(file)
            return self._read_fully(file, offset, wanted)
        except BlobError as exc:
            self._log_once(file, exc)
            raise
        except OSError as exc:
            if exc.errno in _OUT_OF_DESCRIPTORS:
                raise
            error = _unreadable(file.digest, exc)
            self._log_once(file, error)
            raise error from exc

    def _read_fully(self, file: OpenFile, offset: int, wanted: int) -> bytearray:
        data = bytearray(wanted)
        view = memoryview(data)
        done = 0
        while done < wanted:
            count = os.preadv(file.fd, [view[done:]], offset + done)
            if count == 0:
                raise BlobError(
                    f"blob {file.digest} ends after {offset + done} of {file.size} bytes",
                    digest=file.digest,
                    hint="ingest the same file again to heal it",
                )
            done += count
        return data

    def _open_blob(self, file: OpenFile) -> None:
        """BlobError if it is missing, has another size or cannot be opened."""
        try:
            file.fd = self._blobs.open(file.digest, file.size)
        except OSError as exc:
            if exc.errno in _OUT_OF_DESCRIPTORS:
                raise
            raise _unreadable(file.digest, exc) from exc
        file.trusted = not self._verify

    def _make_trusted(self, file: OpenFile) -> None:
        with file.guard:
            if file.trusted:
                return
            if file.fd < 0:
                self._open_blob(file)
            if self._verify and not self._is_good(file):
                raise BlobError(
                    f"blob {file.digest} has other content than its name says",
                    digest=file.digest,
                    hint="ingest the same file again to heal it",
                )
            file.trusted = True

    def _is_good(self, file: OpenFile) -> bool:
        """Hash a blob the first time that it is asked for; others who want it wait meanwhile."""
        status = os.fstat(file.fd)
        identity = (status.st_dev, status.st_ino, status.st_mtime_ns, status.st_ctime_ns)
        with self._guard:
            while identity in self._hashing:
                self._guard.wait()
            if identity in self._good:
                return True
            if identity in self._bad:
                return False
            self._hashing.add(identity)
        with self._finished(identity):
            os.lseek(file.fd, 0, os.SEEK_SET)
            good = digest_fd(file.fd) == file.digest
            with self._guard:
                (self._good if good else self._bad).add(identity)
        return good

    @contextlib.contextmanager
    def _finished(self, identity: _Identity) -> Iterator[None]:
        try:
            yield
        finally:
            with self._guard:
                self._hashing.discard(identity)
                self._guard.notify_all()

    def _log_once(self, file: OpenFile, exc: BlobError) -> None:
        with self._guard:
            if file.digest in self._logged:
                return
            self._logged.add(file.digest)
        log.error("%s: %s", display(self._view.index.path(file.ino)), exc)


def _unreadable(digest: Digest, exc: OSError) -> BlobError:
    return BlobError(f"blob {digest} cannot be read: {exc.strerror}", digest=digest)
