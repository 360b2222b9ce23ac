"""A small snapshot without a store: its index in memory, its blobs in a directory."""

from __future__ import annotations

import hashlib
import random
from pathlib import Path

from castfs.manifest import Directory, File, Symlink, encode_xattrs
from castfs.store import BlobDir
from castfs.tree import Presentation, TreeIndex, compile_tree
from castfs.view import Contents, SnapshotView
from tests.tree.test_compiler import make_file, make_tree, resolve

BIG = random.Random(9).randbytes(300_000)
#: Contents by path.
FILES = {
    b"empty": b"",
    b"big": BIG,
    b"other/1": b"one",
    **{b"many/%03d" % number: b"content %d" % number * 50 for number in range(160)},
    **{b"more/%03d" % number: b"more %d" % number for number in range(20)},
}


class Sample:
    """`xattrs` gives some to one file. `blobs` are made for what is to be read."""

    def __init__(
        self, base: Path, *, blobs: bool = False, xattrs: bool = False, verify: bool = False
    ) -> None:
        self.base = base
        base.mkdir()
        some = {b"user.a": b"value", b"user.empty": b""}
        recorded = encode_xattrs(some) if xattrs else None
        entries: dict[bytes, File | Symlink | Directory] = {
            path: make_file(content, xattrs=recorded if path == b"big" else None)
            for path, content in FILES.items()
        }
        entries[b"link"] = Symlink(mtime_ns=5, target="many/000")
        entries[b"long link"] = Symlink(mtime_ns=5, target="x/" * 2000)
        entries[b"nothing"] = Directory(mode=0o700, mtime_ns=3)
        for content in FILES.values() if blobs else ():
            path = self._path_of(content)
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_bytes(content)
        self.index: TreeIndex = compile_tree(make_tree(entries), Presentation())
        self.view = SnapshotView(self.index)
        self._blobs = BlobDir(base)
        self.contents = Contents(self.view, self._blobs, verify=verify)

    def _path_of(self, content: bytes) -> Path:
        digest = hashlib.sha256(content).hexdigest()
        return self.base / digest[:2] / digest

    def blob(self, path: bytes) -> Path:
        return self._path_of(FILES[path])

    def ino(self, path: bytes) -> int:
        return resolve(self.index, path)

    def close(self) -> None:
        self._blobs.close()
