"""Large files straight from their blobs: the kernel reads those itself (FUSE_PASSTHROUGH).

Such a file is as fast as its blob and shares its page cache, so nothing is in memory twice. It
takes Linux 6.9, root, and an OPEN for each open(2), which costs more than it gains where files are
small: so a mount either has OPENs, or is without them (`Answers`).
"""

from __future__ import annotations

import errno
import fcntl
import logging
import os

from castfs import fuse
from castfs.tree import TreeIndex
from castfs.tree.presentation import BLOCK_SIZE
from castfs.view import Contents

log = logging.getLogger("castfs.lane")

#: Mean size of files from which on it pays: reading that much saves more than an OPEN costs.
MEAN_SIZE_MIN = 1 << 20
#: Smaller files are read as everywhere: one READ, and their pages stay.
SIZE_MIN = 256 << 10

#: What will be the same for all files: this process may not; the blobs' filesystem is a stacked
#: one, has no such reads, or (EINVAL) none with O_DIRECT.
_REFUSALS = (errno.EPERM, errno.ELOOP, errno.EOPNOTSUPP, errno.EINVAL)

#: What RELEASE says of a file: its handle.
_SMALL, _READ, _BACKED = 0, 1, 2


def passthrough_pays(index: TreeIndex) -> bool:
    """Has the tree files so large that opening them may cost something?"""
    files = index.inode_count - index.dir_count
    return index.total_blocks * BLOCK_SIZE >= MEAN_SIZE_MIN * files > 0


class Passthrough:
    """What OPEN and RELEASE of files are answered with. Belongs to the lane's thread."""

    def __init__(self, device: int, index: TreeIndex, contents: Contents) -> None:
        #: Does the kernel offer it?
        self.offered = False
        self._device = device
        self._index = index
        self._contents = contents
        #: By inode: the kernel's number for its blob, and how many have it open.
        self._backings: dict[int, tuple[int, int]] = {}
        #: Large files that are open without; the kernel refuses to have an inode open both ways.
        self._without: dict[int, int] = {}
        self._granted = False

    def open(self, ino: int) -> bytes | int:
        """The fuse_open_out. -ENOSYS if there is no passthrough: the kernel does without OPEN then,
        and asks no more."""
        if not self.offered:
            return -errno.ENOSYS
        if self._index.attributes(ino).size < SIZE_MIN:
            return _reply(_SMALL)
        backing, count = self._backings.get(ino, (0, 0))
        if not backing and ino not in self._without:
            try:
                backing = self._register(ino)
                self._granted = self._granted or backing > 0
            except OSError as exc:
                if exc.errno in _REFUSALS and not self._granted:
                    log.info("large files are read without passthrough: %s", exc.strerror)
                    self.offered = False  # nobody closes any more what is opened from now on
                    return -errno.ENOSYS
        if backing:
            self._backings[ino] = backing, count + 1
            return _reply(_BACKED, backing)
        self._without[ino] = self._without.get(ino, 0) + 1
        return _reply(_READ)

    def _register(self, ino: int) -> int:
        """0 if the blob is not as it should be: reading it says why. OSError from the kernel."""
        file = self._contents.open(ino)
        if file.fd < 0:
            return 0
        # Whether O_DIRECT can be had the kernel asks when somebody opens with it, who would get EIO
        # if the blob's filesystem has none. Of the file that is registered it takes no flags.
        fcntl.fcntl(file.fd, fcntl.F_SETFL, os.O_DIRECT)
        request = bytearray(fuse.BACKING_MAP.pack(file.fd, 0, 0))
        return int(fcntl.ioctl(self._device, fuse.DEV_IOC_BACKING_OPEN, request))

    def release(self, ino: int, handle: int) -> None:
        """What `open` gave is closed."""
        if handle == _READ:
            self._without[ino] -= 1
            if not self._without[ino]:
                del self._without[ino]
        elif handle == _BACKED:
            backing, count = self._backings.pop(ino)
            if count > 1:
                self._backings[ino] = backing, count - 1
            else:
                request = bytearray(fuse.BACKING_ID.pack(backing))
                fcntl.ioctl(self._device, fuse.DEV_IOC_BACKING_CLOSE, request)


def _reply(handle: int, backing: int = 0) -> bytes:
    flags = fuse.FOPEN_PASSTHROUGH if backing else fuse.FOPEN_KEEP_CACHE | fuse.FOPEN_NOFLUSH
    return fuse.OPEN_OUT.pack(handle, flags, backing)
