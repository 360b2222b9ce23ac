"""One file or symlink: written under a temporary name beside the final one, then renamed."""

from __future__ import annotations

import contextlib
import errno
import itertools
import os
import secrets
import stat
import threading
from collections.abc import Iterator
from pathlib import Path

from castfs import syscalls
from castfs.errors import TargetError
from castfs.manifest import File, Symlink
from castfs.restore.copying import Copier
from castfs.restore.failures import disturbed, shown, target_errors
from castfs.restore.metadata import Metadata
from castfs.restore.result import IfExists
from castfs.store import BlobDir
from castfs.store.reading import open_blob

_CREATE = os.O_RDWR | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW | os.O_CLOEXEC

#: What link(2) says where there are no hard links, or no more of one file (ext4: 65,000).
_NO_LINKS = (errno.EPERM, errno.EOPNOTSUPP, errno.ENOSYS, errno.EMLINK)

#: (device, inode)
Identity = tuple[int, int]


class LeafWriter:
    """May be used from several threads. Each method leaves a whole entry under the final name or no
    change at all, and never a temporary file, also when it is interrupted.

    They return None where `if_exists` is "skip" and something is there; with "fail" that is a
    TargetError: the survey found nothing, so somebody else made it.
    """

    def __init__(
        self,
        target: Path,
        blobs: BlobDir,
        metadata: Metadata,
        *,
        if_exists: IfExists,
        verify: bool,
        stop: threading.Event,
    ) -> None:
        self._target = target
        self._blobs = blobs
        self._metadata = metadata
        self._if_exists = if_exists
        self._copier = Copier(verify=verify, stop=stop)
        self._token = secrets.token_hex(8)
        self._counter = itertools.count()

    def write(self, dir_fd: int, path: bytes, entry: File | Symlink) -> Identity | None:
        """Create the entry in its directory. Returns its inode for `link` if it is a hard link."""
        with target_errors(self._target, path), self._temporary(dir_fd) as temp:
            if isinstance(entry, File):
                self._write_file(dir_fd, temp, path, entry)
            else:
                self._write_symlink(dir_fd, temp, path, entry)
            if entry.hardlink is None:
                return (0, 0) if self._place(dir_fd, temp, path) else None
            status = os.lstat(temp, dir_fd=dir_fd)
            placed = self._place(dir_fd, temp, path)
            return (status.st_dev, status.st_ino) if placed else None

    def link(
        self, source: tuple[int, bytes, Identity], dir_fd: int, path: bytes, entry: File | Symlink
    ) -> Identity | None:
        """Make `path` a hard link of what `write` made: (descriptor of its directory, path, inode).

        Where the filesystem has no (more) hard links it becomes a file of its own.
        """
        first_dir_fd, first, identity = source
        name = first.rpartition(b"/")[2]
        with target_errors(self._target, path), self._temporary(dir_fd) as temp:
            try:
                os.link(
                    name, temp, src_dir_fd=first_dir_fd, dst_dir_fd=dir_fd, follow_symlinks=False
                )
            except OSError as exc:
                if exc.errno not in _NO_LINKS:
                    raise
                self._metadata.refuse("hard link", exc, path)
                return self.write(dir_fd, path, entry)
            status = os.lstat(temp, dir_fd=dir_fd)
            if (status.st_dev, status.st_ino) != identity:
                raise disturbed(self._target, first)
            return identity if self._place(dir_fd, temp, path) else None

    @contextlib.contextmanager
    def _temporary(self, dir_fd: int) -> Iterator[bytes]:
        """A name that nobody uses; what has it in the end is removed."""
        temp = b".castfs-%s-%d" % (self._token.encode(), next(self._counter))
        try:
            yield temp
        except BaseException:
            with contextlib.suppress(OSError):
                os.unlink(temp, dir_fd=dir_fd)
            raise

    def _write_file(self, dir_fd: int, temp: bytes, path: bytes, file: File) -> None:
        source_fd = open_blob(self._blobs, path, file.digest, file.size_bytes)
        try:
            fd = os.open(temp, _CREATE, 0o600, dir_fd=dir_fd)
            try:
                self._copier.copy(source_fd, fd, path, file)
                self._metadata.set(fd, path, file)
            finally:
                os.close(fd)
        finally:
            os.close(source_fd)

    def _write_symlink(self, dir_fd: int, temp: bytes, path: bytes, link: Symlink) -> None:
        os.symlink(link.raw_target, temp, dir_fd=dir_fd)
        fd = os.open(temp, os.O_PATH | os.O_NOFOLLOW | os.O_CLOEXEC, dir_fd=dir_fd)
        try:
            # A file that somebody put in its place must not get the link's owner.
            if not stat.S_ISLNK(os.fstat(fd).st_mode):
                raise disturbed(self._target, path)
            self._metadata.set_symlink(fd, path, link)
        finally:
            os.close(fd)

    def _place(self, dir_fd: int, temp: bytes, path: bytes) -> bool:
        name = path.rpartition(b"/")[2]
        if self._if_exists == "replace":
            self._replace(dir_fd, temp, name, path)
            return True
        try:
            if not syscalls.rename_noreplace(dir_fd, temp, name):
                self._link_into_place(dir_fd, temp, name)
        except FileExistsError:
            if self._if_exists == "skip":
                os.unlink(temp, dir_fd=dir_fd)
                return False
            raise TargetError(
                f"{shown(path)} appeared in {self._target} during the restore",
                hint="look who else writes there, or give --if-exists replace",
            ) from None
        return True

    def _replace(self, dir_fd: int, temp: bytes, name: bytes, path: bytes) -> None:
        try:
            os.rename(temp, name, src_dir_fd=dir_fd, dst_dir_fd=dir_fd)
        except IsADirectoryError:
            raise TargetError(
                f"{shown(path)} is a directory in {self._target} and none in the snapshot",
                hint="move it away: castfs never removes a directory",
            ) from None
        # rename(2) of two names of one inode does nothing, so the temporary one may still be there.
        with contextlib.suppress(FileNotFoundError):
            os.unlink(temp, dir_fd=dir_fd)

    def _link_into_place(self, dir_fd: int, temp: bytes, name: bytes) -> None:
        try:
            os.link(temp, name, src_dir_fd=dir_fd, dst_dir_fd=dir_fd, follow_symlinks=False)
        except OSError as exc:
            if exc.errno not in _NO_LINKS:
                raise
            raise TargetError(
                f"the filesystem of {self._target} cannot create a file without replacing one",
                hint="give --if-exists replace",
            ) from exc
        os.unlink(temp, dir_fd=dir_fd)
