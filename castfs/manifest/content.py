"""What a tree is apart from its times and owners: whether a new version says anything new."""

from __future__ import annotations

import hashlib

from castfs.digest import Digest
from castfs.manifest.model import Directory, File, Tree


def content_id(tree: Tree) -> Digest:
    """SHA-256 over types, modes, paths, contents and targets of all entries, the root first.

    Equal for trees that differ in mtimes, owners, extended attributes or hard links alone.
    """
    digest = hashlib.sha256(b"d%o" % tree.root.mode)
    for path, entry in tree.iter_entries():
        match entry:
            case File():
                line = b"f%o %s\0%s\0" % (entry.mode, path, entry.sha256.encode())
            case Directory():
                line = b"d%o %s\0\0" % (entry.mode, path)
            case _:
                line = b"l %s\0%s\0" % (path, entry.raw_target)
        digest.update(line)
    return Digest(digest.hexdigest())
