"""Stores and snapshots for these tests, made from a real directory without the ingest package."""

from __future__ import annotations

import os
import stat
import time
from dataclasses import dataclass
from pathlib import Path

import msgspec

from castfs.manifest import (
    Directory,
    File,
    Manifest,
    Symlink,
    Tree,
    encode_manifest,
    encode_xattrs,
    make_manifest,
    order_canonically,
)
from castfs.mount import MountOptions, MountRequest, parse_options
from castfs.paths import RelPath, escape
from castfs.store import Depot, Record, WriteSession, ensure_depot
from castfs.store.records import format_time, new_record_id

#: Whether requests ask for the fast lane.
fast_lane = True


@dataclass(frozen=True)
class Snapshot:
    """A stored tree."""

    depot: Depot
    manifest: Manifest
    record_id: str

    def request(self, mountpoint: Path, options: str = "") -> MountRequest:
        return MountRequest(
            mountpoint=mountpoint,
            blob_dir=self.depot.path / "blobs",
            manifest_id=self.manifest.id,
            store=self.depot.path,
            record_id=self.record_id,
            label="test",
            options=parse_options(options) if options else MountOptions(),
            fast_lane=fast_lane,
        )

    def blob(self, path: bytes) -> Path:
        """Where the content of a file lies."""
        digest = self.manifest.tree.files[RelPath(path)].sha256
        return self.depot.path / "blobs" / digest[:2] / digest


def take_snapshot(
    source: Path, store: Path, *, owner: bool = False, xattrs: bool = False
) -> Snapshot:
    """What an ingest of `source` stores, with nothing left out."""
    depot, _ = ensure_depot(store)
    with WriteSession(depot, purpose="test") as session:
        tree = _Taker(session, owner=owner, xattrs=xattrs).take(os.fsencode(source))
        return publish(session, tree, str(source))


def publish(session: WriteSession, tree: Tree, source: str = "test") -> Snapshot:
    """Commit what was staged, and `tree` with a record."""
    manifest = make_manifest(tree, created_at=time.time(), source_path=source)
    record = Record(
        id=new_record_id(),
        manifest=manifest.id,
        created_at=format_time(time.time()),
        host="test",
        source=source,
        file_count=len(tree.files),
        total_size_bytes=tree.total_size_bytes,
    )
    session.commit_blobs()
    session.publish(manifest.id, encode_manifest(manifest), record, is_sound=any)
    return Snapshot(session.depot, manifest, record.id)


class _Taker:
    def __init__(self, session: WriteSession, *, owner: bool, xattrs: bool) -> None:
        self._session = session
        self._owner = owner
        self._xattrs = xattrs
        self._files: dict[bytes, File] = {}
        self._symlinks: dict[bytes, Symlink] = {}
        self._groups: dict[int, list[bytes]] = {}

    def take(self, root: bytes) -> Tree:
        dirs: dict[bytes, Directory] = {}
        for where, dir_names, file_names, dir_fd in os.fwalk(root):
            base = where[len(root) + 1 :]
            dirs[base] = self._directory(dir_fd)
            for name in dir_names + file_names:
                status = os.stat(name, dir_fd=dir_fd, follow_symlinks=False)
                if not stat.S_ISDIR(status.st_mode):
                    self._leaf(base + b"/" + name if base else name, name, dir_fd, status)
        self._link()
        return Tree(
            root=dirs.pop(b""),
            dirs=order_canonically(dirs),
            files=order_canonically(self._files),
            symlinks=order_canonically(self._symlinks),
        )

    def _owner_id(self, value: int) -> int | None:
        return value if self._owner else None

    def _directory(self, fd: int) -> Directory:
        status = os.fstat(fd)
        return Directory(
            mode=stat.S_IMODE(status.st_mode),
            mtime_ns=status.st_mtime_ns,
            uid=self._owner_id(status.st_uid),
            gid=self._owner_id(status.st_gid),
            xattrs=self._read_xattrs(fd),
        )

    def _leaf(self, path: bytes, name: bytes, dir_fd: int, status: os.stat_result) -> None:
        if status.st_nlink > 1:
            self._groups.setdefault(status.st_ino, []).append(path)
        if stat.S_ISLNK(status.st_mode):
            self._symlinks[path] = Symlink(
                mtime_ns=status.st_mtime_ns,
                target=escape(os.readlink(name, dir_fd=dir_fd)),
                uid=self._owner_id(status.st_uid),
                gid=self._owner_id(status.st_gid),
            )
            return
        fd = os.open(name, os.O_RDONLY, dir_fd=dir_fd)
        staged = self._session.stage_file(fd)
        self._files[path] = File(
            mode=stat.S_IMODE(status.st_mode),
            mtime_ns=status.st_mtime_ns,
            sha256=staged.digest,
            size_bytes=staged.size,
            uid=self._owner_id(status.st_uid),
            gid=self._owner_id(status.st_gid),
            xattrs=self._read_xattrs(fd),
        )
        os.close(fd)

    def _read_xattrs(self, fd: int) -> dict[str, str] | None:
        if not self._xattrs:
            return None
        return encode_xattrs({os.fsencode(n): os.getxattr(fd, n) for n in os.listxattr(fd)})

    def _link(self) -> None:
        for group in self._groups.values():
            leader = escape(min(group))
            for path in group if len(group) > 1 else ():
                if path in self._files:
                    self._files[path] = msgspec.structs.replace(self._files[path], hardlink=leader)
                else:
                    link = self._symlinks[path]
                    self._symlinks[path] = msgspec.structs.replace(link, hardlink=leader)
