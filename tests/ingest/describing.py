"""What a directory is, found out without castfs.ingest, and what a tree says it is: comparable."""

from __future__ import annotations

import hashlib
import os
import stat
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from castfs.manifest import Directory, Entry, File, Tree
from castfs.paths import unescape

_DIR = os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW


@dataclass(frozen=True)
class Described:
    """One entry. `mode` is None for symlinks; `content` is a SHA-256 or a target; `group` is the
    first name of the same inode inside the tree, None if there is no other."""

    kind: str
    mode: int | None
    mtime_ns: int
    size: int | None = None
    content: bytes | None = None
    group: bytes | None = None


def describe_directory(root: Path) -> dict[bytes, Described]:
    """By lstat; of any depth. FIFOs, sockets and devices are left out."""
    found: dict[bytes, Described] = {}
    inodes: dict[tuple[int, int], list[bytes]] = {}
    for path, name, dir_fd in _walk(root):
        status = os.lstat(name, dir_fd=dir_fd)
        if stat.S_ISDIR(status.st_mode):
            found[path] = Described("d", stat.S_IMODE(status.st_mode), status.st_mtime_ns)
            continue
        if stat.S_ISREG(status.st_mode):
            fd = os.open(name, os.O_RDONLY, dir_fd=dir_fd)
            with open(fd, "rb") as file:
                digest = hashlib.file_digest(file, "sha256").hexdigest().encode()
            mode = stat.S_IMODE(status.st_mode)
            found[path] = Described("f", mode, status.st_mtime_ns, status.st_size, digest)
        elif stat.S_ISLNK(status.st_mode):
            target = os.readlink(name, dir_fd=dir_fd)
            found[path] = Described("l", None, status.st_mtime_ns, content=target)
        else:
            continue
        inodes.setdefault((status.st_dev, status.st_ino), []).append(path)
    for members in inodes.values():
        if len(members) > 1:
            for path in members:
                entry = found[path]
                found[path] = Described(
                    entry.kind, entry.mode, entry.mtime_ns, entry.size, entry.content, min(members)
                )
    return found


def _walk(root: Path) -> Iterator[tuple[bytes, bytes, int]]:
    """(path, name, descriptor of the directory) of every entry, and of the root itself."""
    fd = os.open(root, _DIR)
    yield b"", b".", fd
    pending = [(fd, b"")]
    while pending:
        fd, parent = pending.pop()
        for name in map(os.fsencode, os.listdir(fd)):
            path = parent + b"/" + name if parent else name
            yield path, name, fd
            if stat.S_ISDIR(os.lstat(name, dir_fd=fd).st_mode):
                pending.append((os.open(name, _DIR, dir_fd=fd), path))
        os.close(fd)


def describe_tree(tree: Tree) -> dict[bytes, Described]:
    found = {b"": _describe_entry(tree.root)}
    for path, entry in tree.iter_entries():
        found[path] = _describe_entry(entry)
    return found


def _describe_entry(entry: Entry) -> Described:
    if isinstance(entry, Directory):
        return Described("d", entry.mode, entry.mtime_ns)
    group = None if entry.hardlink is None else unescape(entry.hardlink)
    if isinstance(entry, File):
        content = entry.sha256.encode()
        return Described("f", entry.mode, entry.mtime_ns, entry.size_bytes, content, group)
    return Described("l", None, entry.mtime_ns, content=entry.raw_target, group=group)
