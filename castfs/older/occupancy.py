"""Which paths of a version are taken, so that each is a file or a directory, and only once."""

from __future__ import annotations

from castfs.older.guarded import Refused
from castfs.paths import split

#: Bytes of all directories' paths: a path of 4 KiB can name 2,000 of them with 4 MB, so a small
#: document could ask for all the memory there is.
_DIRECTORIES_BYTES = 256 << 20


class Occupancy:
    def __init__(self) -> None:
        self._files: set[bytes] = set()
        self._directories: set[bytes] = set()
        #: Those of them that were given as such.
        self._given: set[bytes] = set()
        self._allowance = _DIRECTORIES_BYTES

    def take(self, path: bytes) -> None:
        """Refused if there can be no file or symlink `path` besides what there is."""
        if path in self._files:
            raise Refused("it is there twice")
        if path in self._directories:
            raise Refused("something else has that path")
        self._take_parents(path)
        self._files.add(path)

    def take_directory(self, path: bytes) -> None:
        """Refused if there can be no directory `path`, or if it was given before."""
        if path in self._given:
            raise Refused("it is there twice")
        if path in self._files:
            raise Refused("something else has that path")
        self._take_parents(path + b"/")
        self._given.add(path)

    def _take_parents(self, path: bytes) -> None:
        parents = []
        parent = split(path)[0]
        while parent and parent not in self._directories:
            if parent in self._files:
                raise Refused("a file or symlink lies where its directory should be")
            parents.append(parent)
            parent = split(parent)[0]
        self._allowance -= sum(map(len, parents))
        if self._allowance < 0:
            raise Refused("there is an absurd number of directories")
        self._directories.update(parents)
