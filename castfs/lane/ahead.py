"""Giving the kernel small files before it asks for them.

Who reads a tree file by file (tar, grep, a copy) waits at each for two switches between processes,
which take longer than all the work. Inode numbers follow the order in which directories list their
files, so what will be read next is known: FUSE_NOTIFY_STORE puts it into the page cache, and the
reader does not come by here at all.

The kernel takes page locks for that, which readers hold who wait for us: so it is a thread of its
own, and no other waits for it.
"""

from __future__ import annotations

import errno
import logging
import os
import threading
from queue import Empty, SimpleQueue

from castfs import fuse
from castfs.tree import TreeIndex
from castfs.view import Contents

log = logging.getLogger("castfs.lane")

#: Larger files are read ahead well enough by the kernel itself.
SIZE_MAX = 128 << 10
#: Files that are stored at once: at first, and when most of those were read.
_WINDOW_MIN = 8
_WINDOW_MAX = 128
#: Inode numbers that may be left out (links, empty files) in a sequence.
_GAP = 8
#: How sure the next files must be. Each read in sequence adds to it, each other one and each
#: listing takes away: who only lists, or reads here and there, is given nothing.
_SURE = 3
_SURE_MAX = 24
#: Directories that the reader will come back to from those below.
_LATER_MAX = 256

_STORED, _ASKED = 1, 2

_HEADER_SIZE = fuse.OUT_HEADER.size + fuse.NOTIFY_STORE_OUT.size


class ReadAhead:
    """`read` and `listed` belong to the lane's thread."""

    def __init__(self, device: int, index: TreeIndex, contents: Contents) -> None:
        self._device = device
        self._index = index
        self._contents = contents
        #: (first, last) inode to store, newest last.
        self._jobs: SimpleQueue[tuple[int, int] | None] = SimpleQueue()
        self._thread: threading.Thread | None = None
        #: By inode: _STORED, _ASKED, or 0. The kernel has it then, or has dropped it for good.
        self._given = bytearray(index.inode_count + 1)
        self._confidence = 0
        #: The last that was read, that was ordered, and of its directory; how many to order next.
        self._last = 0
        self._ordered = 0
        self._end = 0
        self._window = _WINDOW_MIN
        self._closed = False

    def read(self, ino: int) -> None:
        """The start of a small file was read."""
        self._given[ino] = _ASKED
        if self._last < ino <= max(self._last, self._ordered) + _GAP:
            self._confidence = min(self._confidence + 2, _SURE_MAX)
            self._window = min(self._window * 2, _WINDOW_MAX)
        else:
            self._confidence = max(self._confidence - 1, 0)
            self._window = _WINDOW_MIN
            self._ordered = ino
            self._end = 0
        self._last = ino
        if self._confidence >= _SURE:
            if ino > self._end:
                self._end = self._index.last_file(self._index.parent(ino))
            self._order(max(ino, self._ordered) + 1, ino + self._window)

    def leave(self, ino: int) -> None:
        """Somebody waits for a disk to read it, and holds its pages: it must not be stored now."""
        self._given[ino] = _ASKED

    def listed(self, directory: int) -> None:
        """A directory was listed to its end, so the kernel knows its files."""
        if self._confidence < _SURE:
            return
        self._confidence -= 1
        first = self._index.first_file(directory)
        if first:
            self._end = self._index.last_file(directory)
            # The first one will be asked for before it could be stored.
            self._last = self._ordered = first
            self._window = _WINDOW_MAX if self._confidence > _SURE_MAX // 2 else _WINDOW_MIN
            self._order(first + 1, first + self._window)

    def _order(self, first: int, last: int) -> None:
        last = min(last, self._end)
        if first > last:
            return
        self._ordered = last
        if self._thread is None:
            thread = threading.Thread(target=self._work, name="castfs ahead", daemon=True)
            try:
                thread.start()
            except RuntimeError:  # a limit of processes
                return
            self._thread = thread
        self._jobs.put((first, last))

    def close(self) -> None:
        """Begin no other file."""
        self._closed = True
        self._jobs.put(None)

    def is_busy(self, seconds: float = 0.01) -> bool:
        """After `close`: is one still being stored? Waits for its end for a moment."""
        if self._thread is not None:
            self._thread.join(seconds)
        return self._thread is not None and self._thread.is_alive()

    def _work(self) -> None:
        jobs, given = self._jobs, self._given
        pending: list[tuple[int, int]] = []
        while True:
            try:
                job = jobs.get(block=not pending)
            except Empty:
                pass
            else:
                if job is None or self._closed:
                    return
                pending.append(job)
                del pending[:-_LATER_MAX]
            ino, last = pending.pop()
            while ino <= last and not self._closed:
                if not given[ino]:
                    given[ino] = _STORED
                    if not self._store(ino):
                        given[ino] = 0
                        break
                    if not jobs.empty():
                        pending.append((ino + 1, last))
                        break
                ino += 1

    def _store(self, ino: int) -> bool:
        """False if what follows is not worth trying, either."""
        data = self._contents.read_small(ino, SIZE_MAX)
        if not data:
            return True
        if self._given[ino] == _ASKED:
            return True
        header = fuse.OUT_HEADER.pack(_HEADER_SIZE + len(data), fuse.NOTIFY_STORE, 0)
        store = fuse.NOTIFY_STORE_OUT.pack(ino, 0, len(data), 0)
        try:
            os.writev(self._device, [header, store, data])
        except OSError as exc:
            if exc.errno != errno.ENOENT:  # the kernel does not know the inode (any more)
                log.debug("storing ahead: %s", exc.strerror)
            return False
        return True
