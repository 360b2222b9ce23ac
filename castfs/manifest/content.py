"""What a tree is apart from its times and owners: whether a new version says anything new."""

from __future__ import annotations

import hashlib

from castfs.digest import Digest
from castfs.manifest.model import Tree


def content_id(tree: Tree) -> Digest:
    """SHA-256 over types, modes, paths, contents and targets of all entries, the root first.

    Equal for trees that differ in mtimes, owners, extended attributes or hard links alone.
    """
    # A line for each entry, which the paths put in order; no path is in two of these.
    lines = {
        path: b"f%o %s" % (file.mode, file.sha256.encode()) for path, file in tree.files.items()
    }
    lines |= {path: b"d%o" % entry.mode for path, entry in tree.dirs.items()}
    lines |= {path: b"l %s" % link.raw_target for path, link in tree.symlinks.items()}
    digest = hashlib.sha256(b"d%o\0" % tree.root.mode)
    for path in sorted(lines):
        digest.update(b"%s\0%s\0" % (path, lines[path]))
    return Digest(digest.hexdigest())
