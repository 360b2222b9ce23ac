"""Trees with their blobs, made from real directories or from descriptions: no ingest needed."""

from __future__ import annotations

import hashlib
import os
import stat
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import TypeVar

import msgspec

from castfs.digest import Digest
from castfs.manifest import (
    Directory,
    Entry,
    File,
    Symlink,
    Tree,
    encode_xattrs,
    order_canonically,
)
from castfs.paths import RelPath, escape
from castfs.store import BlobDir, Depot, WriteSession, ensure_depot

E = TypeVar("E", bound=Entry)

MTIME_NS = 1_600_000_000_123_456_789


@dataclass(frozen=True)
class Stored:
    """A tree and the store that has its blobs."""

    tree: Tree
    depot: Depot

    @property
    def blobs(self) -> BlobDir:
        return self.depot.blobs

    def blob_path(self, path: bytes) -> Path:
        entry = self.tree.files[RelPath(path)]
        return self.depot.blobs.path / BlobDir.name(entry.sha256)


def make_tree(entries: Mapping[bytes, Entry], *, root: Directory | None = None) -> Tree:
    """A tree of `entries`; parents that are not among them are added."""
    every = dict(entries)
    for path in entries:
        while path := path.rpartition(b"/")[0]:
            every.setdefault(path, directory())
    return Tree(
        root=root or directory(),
        dirs=order_canonically({p: e for p, e in every.items() if isinstance(e, Directory)}),
        files=order_canonically({p: e for p, e in every.items() if isinstance(e, File)}),
        symlinks=order_canonically({p: e for p, e in every.items() if isinstance(e, Symlink)}),
    )


def directory(mode: int = 0o755, mtime_ns: int = MTIME_NS) -> Directory:
    return Directory(mode=mode, mtime_ns=mtime_ns)


def file(data: bytes, mode: int = 0o644, mtime_ns: int = MTIME_NS) -> File:
    digest = hashlib.sha256(data).hexdigest()
    return File(mode=mode, mtime_ns=mtime_ns, sha256=digest, size_bytes=len(data))


def symlink(target: bytes, mtime_ns: int = MTIME_NS) -> Symlink:
    return Symlink(mtime_ns=mtime_ns, target=escape(target))


def store_files(contents: Mapping[bytes, bytes], store: Path) -> Stored:
    """A tree of plain files with their blobs in a new store."""
    depot, _ = ensure_depot(store)
    store_blobs(depot, *contents.values())
    return Stored(make_tree({path: file(data) for path, data in contents.items()}), depot)


def store_blobs(depot: Depot, *contents: bytes) -> None:
    with WriteSession(depot, purpose="test") as session:
        for data in contents:
            session.stage_bytes(data)
        session.commit_blobs()


def store_directory(
    source: Path, store: Path, *, owner: bool = False, xattrs: bool = False
) -> Stored:
    """What `source` is, entry by entry, with its blobs in a new store. Of any depth."""
    depot, _ = ensure_depot(store)
    with WriteSession(depot, purpose="test") as session:
        scan = _Scan(session, owner=owner, xattrs=xattrs)
        fd = os.open(source, os.O_RDONLY | os.O_DIRECTORY)
        root = scan.directory(fd, os.fstat(fd))
        scan.walk(fd, b"")
        session.commit_blobs()
    return Stored(make_tree(scan.linked(), root=root), depot)


class _Scan:
    def __init__(self, session: WriteSession, *, owner: bool, xattrs: bool) -> None:
        self.session = session
        self.owner = owner
        self.xattrs = xattrs
        self.entries: dict[bytes, Entry] = {}
        self.inodes: dict[tuple[int, int], list[bytes]] = {}

    def walk(self, fd: int, path: bytes) -> None:
        """Fill `entries` from directory `fd`, and close it."""
        pending = [(fd, path)]
        while pending:
            fd, path = pending.pop()
            for name in self.read(fd, path):
                child = os.open(name, os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW, dir_fd=fd)
                pending.append((child, path + b"/" + name if path else name))
            os.close(fd)

    def read(self, dir_fd: int, parent: bytes) -> list[bytes]:
        below = []
        for name in sorted(map(os.fsencode, os.listdir(dir_fd))):
            path = parent + b"/" + name if parent else name
            status = os.lstat(name, dir_fd=dir_fd)
            flags = os.O_PATH if stat.S_ISLNK(status.st_mode) else os.O_RDONLY | os.O_NONBLOCK
            fd = os.open(name, flags | os.O_NOFOLLOW, dir_fd=dir_fd)
            if stat.S_ISDIR(status.st_mode):
                self.entries[path] = self.directory(fd, status)
                below.append(name)
            elif stat.S_ISLNK(status.st_mode):
                link = symlink(os.readlink(name, dir_fd=dir_fd), status.st_mtime_ns)
                self.entries[path] = self.owned(link, status)
            else:
                staged = self.session.stage_file(fd)
                entry = File(
                    mode=stat.S_IMODE(status.st_mode),
                    mtime_ns=status.st_mtime_ns,
                    sha256=staged.digest,
                    size_bytes=staged.size,
                    xattrs=self.xattrs_of(fd),
                )
                self.entries[path] = self.owned(entry, status)
            os.close(fd)
            if status.st_nlink > 1 and not stat.S_ISDIR(status.st_mode):
                self.inodes.setdefault((status.st_dev, status.st_ino), []).append(path)
        return below

    def directory(self, fd: int, status: os.stat_result) -> Directory:
        entry = Directory(
            mode=stat.S_IMODE(status.st_mode),
            mtime_ns=status.st_mtime_ns,
            xattrs=self.xattrs_of(fd),
        )
        return self.owned(entry, status)

    def owned(self, entry: E, status: os.stat_result) -> E:
        if not self.owner:
            return entry
        return msgspec.structs.replace(entry, uid=status.st_uid, gid=status.st_gid)

    def xattrs_of(self, fd: int) -> dict[str, str] | None:
        if not self.xattrs:
            return None
        names = map(os.fsencode, os.listxattr(fd))
        return encode_xattrs({name: os.getxattr(fd, name) for name in names})

    def linked(self) -> dict[bytes, Entry]:
        for paths in self.inodes.values():
            if len(paths) > 1:
                for path in paths:
                    first = escape(min(paths))
                    self.entries[path] = msgspec.structs.replace(self.entries[path], hardlink=first)
        return self.entries


def digest_of(data: bytes) -> Digest:
    return Digest(hashlib.sha256(data).hexdigest())
