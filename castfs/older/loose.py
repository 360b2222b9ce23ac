"""Blobs that nothing names: all of a directory of blobs, or what is left of an archive."""

from __future__ import annotations

import contextlib
import itertools
import os
from collections.abc import Mapping

from castfs.digest import Digest, ReadError, digest_fd
from castfs.errors import NotFoundError
from castfs.older.contents import LooseBlobs
from castfs.older.description import Damage, OlderVersion
from castfs.older.detecting import BLOB, SHARD
from castfs.older.guarded import WRONG_KIND, Refused, Seen, SourceTree, join
from castfs.older.namer import Namer
from castfs.paths import display

LOOSE = "loose-blobs"
#: Blobs that are read to tell how all are named; digests are as good as chance.
_SAMPLE = 16


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


def check_named_by_sha256(tree: SourceTree, top: bytes) -> None:
    """NotFoundError if no blob of a sample is named by its SHA-256: HitSave names by BLAKE3. Where
    none can be read, that is said of each when it is taken."""
    read = 0
    for digest, path in itertools.islice(sorted(find_blobs(tree, top, []).items()), _SAMPLE):
        with contextlib.suppress(Refused, ReadError):
            fd = tree.open(path)
            try:
                if digest_fd(fd) == digest:
                    return
            finally:
                os.close(fd)
            read += 1
    if read:
        shown = display(os.fsencode(tree.path_of(top)))
        raise NotFoundError(
            f"{shown} is no archive that is known: its blobs are not named by their SHA-256",
            hint="take them as files, by `castfs ingest`",
        )
