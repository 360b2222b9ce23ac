"""Stores whose ids are chosen, so that prefixes meet where a test wants them to."""

from __future__ import annotations

from pathlib import Path

import castfs
from castfs.manifest import Directory, Manifest, Tree, encode_manifest, make_manifest
from castfs.store import Record, WriteSession


class Shelf:
    """A store and what a test puts into it. Trees are empty and differ by their mtime."""

    def __init__(self, path: Path) -> None:
        self.store = castfs.open(path, create=True)

    def manifest(self, number: int) -> Manifest:
        root = Directory(mode=0o755, mtime_ns=number)
        tree = Tree(root=root, dirs={}, files={}, symlinks={})
        return make_manifest(tree, created_at=1.0, source_path=f"/source/{number}")

    def put(
        self,
        number: int,
        record_id: str | None,
        *,
        name: str | None = None,
        version: int | None = None,
        source: str = "/source",
    ) -> Manifest:
        """Tree `number` with a record of that id; without one if it is None."""
        manifest = self.manifest(number)
        record = None
        if record_id is not None:
            record = Record(
                id=record_id.ljust(24, "0"),
                manifest=manifest.id,
                created_at="2026-01-02T03:04:05.678901+00:00",
                host="host",
                source=source,
                file_count=0,
                total_size_bytes=0,
                name=name,
                version=version,
            )
        with WriteSession(self.store.depot, purpose="test") as session:
            session.publish_manifest(manifest.id, encode_manifest(manifest), is_sound=any)
            if record is not None:
                session.publish_record(record)
        return manifest

    def meaning(self, word: str) -> tuple[int, str | None]:
        """(number of the tree, id of the record without its zeros) that a word resolves to."""
        snapshot = self.store.resolve(word)
        record_id = snapshot.record.id.rstrip("0") if snapshot.record else None
        return snapshot.manifest.tree.root.mtime_ns, record_id
