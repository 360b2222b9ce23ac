"""Where an archive's bytes go: a pipe is enough."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from typing import Protocol

from castfs.manifest import Directory, Entry, File, Tree
from castfs.paths import RelPath
from castfs.store import BlobDir
from castfs.store.reading import iter_blob

#: A tar header has 512 bytes; a system call or a compressor's call for each would be wasteful.
_BUFFER = 256 << 10


class Writer(Protocol):
    def write(self, data: bytes | memoryview, /) -> int | None: ...


class Sink:
    """Counts what is written, gathers small pieces, and writes all of them also where `file` is a
    raw one whose `write` may take less. `flush` at the end is the caller's."""

    def __init__(self, file: Writer) -> None:
        self._file = file
        self._gathered = bytearray()
        self.position = 0

    def write(self, data: bytes | memoryview) -> int:
        size = len(data)
        self.position += size
        if len(self._gathered) + size < _BUFFER:
            self._gathered += data
        else:
            self.flush()
            self._write_out(memoryview(data))
        return size

    def flush(self) -> None:
        if self._gathered:
            self._write_out(memoryview(bytes(self._gathered)))
            self._gathered.clear()

    def _write_out(self, view: memoryview) -> None:
        while view:
            count = self._file.write(view)
            view = view[len(view) if count is None else count :]

    def write_all(self, pieces: Iterable[bytes | memoryview]) -> None:
        for piece in pieces:
            self.write(piece)


def iter_in_order(tree: Tree) -> Iterator[tuple[RelPath, Entry]]:
    """Every entry but the root. All that is in a directory comes directly after it.

    That is not the order of the paths' bytes, in which `a-b` parts `a` from `a/x`: tar would have
    set the mode and time of `a` when it meets `a-b`, and then could not or would change them.
    """
    kinds = (tree.dirs, tree.files, tree.symlinks)
    for path in sorted(
        (path for kind in kinds for path in kind), key=lambda path: path.replace(b"/", b"\0")
    ):
        entry = tree.get(path)
        assert entry is not None
        yield path, entry


def iter_content(blobs: BlobDir, path: bytes, file: File) -> Iterator[memoryview]:
    """The verified bytes of a file. BlobError."""
    return iter_blob(blobs, path, file.digest, file.size_bytes)


def archive_name(path: bytes, entry: Entry) -> bytes:
    """A directory's name ends in a slash, in both formats."""
    return path + b"/" if isinstance(entry, Directory) else path
