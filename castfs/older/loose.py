"""Blobs that nothing names: all of a directory of blobs, or what is left of an archive."""

from __future__ import annotations

from collections.abc import Mapping

from castfs.digest import Digest
from castfs.older.contents import LooseBlobs
from castfs.older.description import Damage, OlderVersion
from castfs.older.detecting import BLOB, SHARD
from castfs.older.guarded import WRONG_KIND, Refused, Seen, SourceTree, join
from castfs.older.namer import Namer

LOOSE = "loose-blobs"


def find_blobs(tree: SourceTree, top: bytes, damage: list[Damage]) -> dict[Digest, bytes]:
    """digest → path of every blob in a directory, with or without shards."""
    found: dict[Digest, bytes] = {}

    def look(where: bytes, seen: Seen) -> None:
        if not BLOB.fullmatch(seen.name):
            return
        if seen.kind == "file":
            found.setdefault(Digest(seen.name.decode()), join(where, seen.name))
        else:
            damage.append(Damage(join(where, seen.name), WRONG_KIND[seen.kind]))

    try:
        entries = tree.list(top)
    except Refused as exc:
        if not exc.missing:
            damage.append(Damage(top, exc.reason))
        return {}
    for seen in entries:
        if not SHARD.fullmatch(seen.name):
            look(top, seen)
            continue
        shard = join(top, seen.name)
        try:
            for inner in tree.list(shard):
                look(shard, inner)
        except Refused as exc:
            damage.append(Damage(shard, exc.reason))
    return found


def make_loose_version(
    tree: SourceTree, top: bytes, blobs: Mapping[Digest, bytes], namer: Namer
) -> OlderVersion:
    """Blobs that nothing names, all in one tree."""
    return OlderVersion(
        key=("blobs",),
        name=namer.name(LOOSE, "custom"),
        older_name=LOOSE,
        type="custom",
        contents=LooseBlobs(tree, blobs),
        where=top,
        description="blobs that nothing in the archive names",
    )
