"""Which small files will be asked for next.

Who reads a tree file by file (tar, grep, a copy) waits at each for two switches between processes,
which take longer than all the work. Inode numbers follow the order in which directories list their
files, so what will be read next is known: it is put into the page cache (`storing`), and the reader
does not come by here at all.
"""

from __future__ import annotations

from castfs.lane.storing import Storing
from castfs.tree import TreeIndex

#: Files that are stored at once: at first, and when most of those were read.
_WINDOW_MIN = 8
_WINDOW_MAX = 128
#: Inode numbers that may be left out (links, empty files) in a sequence.
_GAP = 8
#: How sure the next files must be. Each read in sequence adds to it, each other one and each
#: listing takes away: who only lists, or reads here and there, is given nothing.
_SURE = 3
_SURE_MAX = 24


class ReadAhead:
    """Belongs to the lane's thread."""

    def __init__(self, index: TreeIndex, storing: Storing) -> None:
        self._index = index
        self._storing = storing
        self._confidence = 0
        #: The last that was read, that was ordered, and of its directory; how many to order next.
        self._last = 0
        self._ordered = 0
        self._end = 0
        self._window = _WINDOW_MIN

    def read(self, ino: int) -> None:
        """The start of a small file was read."""
        self._storing.was_asked_for(ino)
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

    def listed(self, directory: int) -> None:
        """The last part of a directory's listing was given, so the kernel is about to know its
        files. Whoever lists it will ask once more whether that was all: time to store the first."""
        if self._confidence < _SURE:
            return
        self._confidence -= 1
        first = self._index.first_file(directory)
        if first:
            self._end = self._index.last_file(directory)
            self._last = self._ordered = first - 1
            self._window = _WINDOW_MAX if self._confidence > _SURE_MAX // 2 else _WINDOW_MIN
            self._order(first, first + self._window, are_new=True)

    def _order(self, first: int, last: int, *, are_new: bool = False) -> None:
        last = min(last, self._end)
        if first <= last:
            self._ordered = last
            self._storing.order(first, last, are_new=are_new)
