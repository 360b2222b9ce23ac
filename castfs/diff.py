"""What differs between two trees."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any, Literal

from castfs.manifest import Entry, File, Symlink, Tree
from castfs.paths import RelPath

#: What can differ in an entry that both trees have. "type" stands alone: nothing else compares.
What = Literal["type", "content", "target", "mode", "mtime", "owner", "xattrs", "hardlink"]

#: What is said of a snapshot beside its tree.
DetailKind = Literal["type", "tag", "metadata", "message", "reference"]


@dataclass(frozen=True, slots=True, kw_only=True)
class Change:
    """One path that differs; b"" is the root. `what` is empty unless it was "changed"."""

    path: bytes
    kind: Literal["added", "removed", "changed"]
    what: tuple[What, ...]
    before: Entry | None
    after: Entry | None

    @property
    def added_bytes(self) -> int:
        """Size of the content that only `after` has."""
        return _content_size(self.after) if self._has_other_content else 0

    @property
    def removed_bytes(self) -> int:
        return _content_size(self.before) if self._has_other_content else 0

    @property
    def _has_other_content(self) -> bool:
        return self.kind != "changed" or "content" in self.what or "type" in self.what


@dataclass(frozen=True, slots=True, kw_only=True)
class DetailChange:
    """Something else that is said of one snapshot than of the other. `key` is a tag, a key of the
    metadata, or the address of a reference; None is said where there is no such thing."""

    kind: DetailKind
    key: str
    before: Any
    after: Any


@dataclass(frozen=True, slots=True, kw_only=True)
class DiffResult:
    """All changes, ordered by the bytes of their paths. Sizes are of contents: a file whose content
    changed counts with its old size as removed and with its new one as added. `details` are of two
    snapshots that are recorded; they are none of the changes that are counted."""

    added_count: int
    removed_count: int
    changed_count: int
    added_bytes: int
    removed_bytes: int
    changes: tuple[Change, ...]
    details: tuple[DetailChange, ...] = ()


def compare_trees(before: Tree, after: Tree, *, ignore_mtime: bool = False) -> DiffResult:
    """`diff_trees` with its sums."""
    changes = tuple(diff_trees(before, after, ignore_mtime=ignore_mtime))
    kinds = Counter(change.kind for change in changes)
    return DiffResult(
        added_count=kinds["added"],
        removed_count=kinds["removed"],
        changed_count=kinds["changed"],
        added_bytes=sum(change.added_bytes for change in changes),
        removed_bytes=sum(change.removed_bytes for change in changes),
        changes=changes,
    )


def diff_trees(before: Tree, after: Tree, *, ignore_mtime: bool = False) -> Iterator[Change]:
    """Each path that was added, removed or changed, ordered by the bytes of the path.

    Owners and extended attributes are compared only where both trees recorded them. A hard link is
    changed where it is tied to another path than before, looking only at paths in both trees.
    """
    comparison = _Comparison(before, after, ignore_mtime=ignore_mtime)
    if root := comparison.compare(b"", before.root, after.root):
        yield root
    for path in sorted(_paths_that_differ(before, after)):
        if change := comparison.compare(path, before.get(path), after.get(path)):
            yield change


def _paths_that_differ(before: Tree, after: Tree) -> set[bytes]:
    """All paths that may be worth a look. Comparing whole structs leaves out the rest cheaply."""
    result: set[bytes] = set()
    kinds: tuple[tuple[Mapping[RelPath, Entry], Mapping[RelPath, Entry]], ...] = (
        (before.dirs, after.dirs),
        (before.files, after.files),
        (before.symlinks, after.symlinks),
    )
    for ours, theirs in kinds:
        result.update(path for path, entry in ours.items() if theirs.get(path) != entry)
        result.update(theirs.keys() - ours.keys())
    return result


class _Comparison:
    def __init__(self, before: Tree, after: Tree, *, ignore_mtime: bool) -> None:
        self._ignore_mtime = ignore_mtime
        self._xattrs = before.has_xattrs and after.has_xattrs
        self._groups_before = _groups(before, after)
        self._groups_after = _groups(after, before)

    def compare(self, path: bytes, before: Entry | None, after: Entry | None) -> Change | None:
        if before is None or after is None:
            kind: Literal["added", "removed"] = "removed" if after is None else "added"
            return Change(path=path, kind=kind, what=(), before=before, after=after)
        what = tuple(self._iter_what(path, before, after))
        if not what:
            return None
        return Change(path=path, kind="changed", what=what, before=before, after=after)

    def _iter_what(self, path: bytes, before: Entry, after: Entry) -> Iterator[What]:
        if type(before) is not type(after):
            yield "type"
            return
        match before, after:
            case File(), File():
                if (before.sha256, before.size_bytes) != (after.sha256, after.size_bytes):
                    yield "content"
            case Symlink(), Symlink() if before.target != after.target:
                yield "target"
        if getattr(before, "mode", None) != getattr(after, "mode", None):
            yield "mode"
        if not self._ignore_mtime and before.mtime_ns != after.mtime_ns:
            yield "mtime"
        if _owners_differ(before, after):
            yield "owner"
        if self._xattrs and before.xattrs != after.xattrs:
            yield "xattrs"
        if self._groups_before.get(path) != self._groups_after.get(path):
            yield "hardlink"


def _owners_differ(before: Entry, after: Entry) -> bool:
    pairs = ((before.uid, after.uid), (before.gid, after.gid))
    return any(a is not None and b is not None and a != b for a, b in pairs)


def _groups(tree: Tree, other: Tree) -> dict[bytes, bytes]:
    """Path → the smallest path that it is a hard link of, among those that both trees have.

    The recorded name of a group is its smallest path in one tree: removing that one renames a group
    whose other members are what they were, which is no change of theirs.
    """
    members: dict[str, list[bytes]] = {}
    for ours, theirs in ((tree.files, other.files), (tree.symlinks, other.symlinks)):
        for path, entry in ours.items():
            if entry.hardlink is not None and path in theirs:
                members.setdefault(entry.hardlink, []).append(path)
    groups = (paths for paths in members.values() if len(paths) > 1)
    return {path: first for paths in groups for first in [min(paths)] for path in paths}


def _content_size(entry: Entry | None) -> int:
    return entry.size_bytes if isinstance(entry, File) else 0
