"""What a Runicorn run wrote of itself in its directory: documents, metrics, console, pictures.

What else lies there (zips, outputs) becomes versions, or stays where it is.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

from castfs.older.description import Damage
from castfs.older.documents import DOCUMENT_MAX, read_object
from castfs.older.guarded import WRONG_KIND, Refused, Seen, SourceTree, join

EVENTS = b"events.jsonl"
#: What they write by themselves. `summary.json` is castfs's own, too.
DOCUMENTS = (
    EVENTS, b"logs.txt", b"summary.json", b"meta.json", b"status.json", b"environment.json",
    b"assets.json", b"artifacts_created.json", b"artifacts_used.json",
)  # fmt: skip
#: Pictures that events name.
MEDIA = b"media"
_MEDIA_MAX = 100_000
#: Bytes. What is longer is no file of theirs, but a hole somebody made.
_LONG_MAX = 4 << 30
_LONG = (EVENTS, b"logs.txt")
_DEPTH_MAX = 20


@dataclass(frozen=True, slots=True)
class RunFiles:
    """The files of one run. What cannot be read goes to `damage`."""

    tree: SourceTree
    #: The run's directory.
    where: bytes
    damage: list[Damage]

    def iter_paths(self) -> Iterator[bytes]:
        """Relative to the run's directory, each of a regular file."""
        try:
            inside = {seen.name: seen for seen in self.tree.list(self.where)}
        except Refused as exc:
            self.damage.append(Damage(self.where, exc.reason))
            return
        for name in DOCUMENTS:
            if name in inside and self._is_file(name, inside[name]):
                yield name
        if MEDIA in inside:
            if inside[MEDIA].kind == "directory":
                yield from self._iter_media()
            else:
                self.lose(MEDIA, WRONG_KIND[inside[MEDIA].kind])

    def _iter_media(self) -> Iterator[bytes]:
        pending, count = [(MEDIA, 0)], 0
        while pending:
            where, depth = pending.pop()
            try:
                entries = self.tree.list(join(self.where, where))
            except Refused as exc:
                self.lose(where, exc.reason)
                continue
            for seen in entries:
                path = join(where, seen.name)
                count += 1
                if count > _MEDIA_MAX or depth > _DEPTH_MAX:
                    self.lose(where, f"more than {_MEDIA_MAX} files, or {_DEPTH_MAX} levels")
                    return
                if seen.kind == "directory":
                    pending.append((path, depth + 1))
                elif self._is_file(path, seen):
                    yield path

    def _is_file(self, path: bytes, seen: Seen) -> bool:
        """One that can be taken."""
        limit = DOCUMENT_MAX if path in DOCUMENTS and path not in _LONG else _LONG_MAX
        if seen.kind != "file":
            self.lose(path, WRONG_KIND[seen.kind])
        elif seen.size > limit:
            self.lose(path, f"it is longer than {limit} bytes, which no such file is")
        else:
            return True
        return False

    def open(self, path: bytes) -> int:
        """A descriptor, which the caller closes. Refused."""
        return self.tree.open(join(self.where, path))

    def lose(self, path: bytes, reason: str) -> None:
        self.damage.append(Damage(join(self.where, path), reason))

    def is_object(self, path: bytes) -> bool:
        """Is a document one? That it is damaged was said when it was read."""
        try:
            read_object(self.tree, join(self.where, path))
        except Refused:
            return False
        return True
