"""Runicorn's artifacts (0.3.1 to 0.5.3): named, numbered versions with aliases and metadata.

    artifacts/<type>/<name>/versions.json           aliases, and what versions there are
    artifacts/<type>/<name>/v3/files/…              hard links into the pool
    artifacts/<type>/<name>/v3/{manifest,metadata}.json[, .deleted]
    artifacts/.dedup/<aa>/<sha256>                  the pool

A type that was left out was stored under `ArtifactType.MODEL`, where their own code never looked.
A version is what its manifest says: without one it was never finished. Files that are not where
they belong are taken from the pool.
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any

from castfs.digest import digest_bytes
from castfs.older.contents import BlobPlaces, Unchecked, walk
from castfs.older.description import (
    Damage,
    Item,
    Key,
    OlderFile,
    OlderReference,
    OlderVersion,
    Renamed,
)
from castfs.older.detecting import VERSION
from castfs.older.documents import (
    MANIFEST_MAX,
    clean,
    get_digest,
    get_list,
    get_number,
    get_object,
    get_text,
    get_texts,
    get_time,
    parse_object,
    read_object,
    to_nanoseconds,
)
from castfs.older.guarded import WRONG_KIND, Refused, SourceTree, is_component, join
from castfs.older.namer import Namer
from castfs.older.naming import TYPES, make_alias, make_run_id, make_type
from castfs.paths import parse_relpath, shown

#: Longest path of an entry: PATH_MAX without its NUL.
_PATH_MAX = 4095


@dataclass(frozen=True)
class ArtifactContents(Unchecked):
    """The files and references of one version's manifest."""

    tree: SourceTree
    where: bytes
    pool: BlobPlaces

    @property
    def _manifest(self) -> bytes:
        return join(self.where, b"manifest.json")

    def _read(self) -> bytes:
        return self.tree.read(self._manifest, MANIFEST_MAX)

    @property
    def identity(self) -> str:
        return digest_bytes(self._read())

    def iter_items(self, damage: list[Damage]) -> Iterator[Item]:
        document = parse_object(self._read())
        if not isinstance(document.get("files"), list):
            raise Refused("it has no list of files")
        taken: set[bytes] = set()
        for entry in get_list(document, "files"):
            try:
                file = self._make_file(entry)
                if file.path in taken:
                    raise Refused(f"{shown(file.path)} stands in it twice")
            except Refused as exc:
                damage.append(Damage(self._manifest, exc.reason))
                continue
            taken.add(file.path)
            yield file
        self._note_strangers(taken, damage)
        for entry in get_list(document, "references"):
            if reference := make_reference(entry):
                yield reference
            else:
                damage.append(Damage(self._manifest, "it has a reference without a uri"))

    def _note_strangers(self, taken: set[bytes], damage: list[Damage]) -> None:
        top = join(self.where, b"files")
        if self._is_missing(top):
            return
        try:
            for path, _ in walk(self.tree, top, damage):
                if path not in taken:
                    damage.append(Damage(join(top, path), "it is not in the manifest"))
        except Refused as exc:
            damage.append(Damage(top, exc.reason))

    def _make_file(self, entry: Any) -> OlderFile:
        if not isinstance(entry, dict) or not isinstance(entry.get("path"), str):
            raise Refused("it has a file without a path")
        try:
            raw = entry["path"].encode()
            if len(raw) > _PATH_MAX:
                raise Refused(f"it has a path of {len(raw)} bytes")
            path: bytes = parse_relpath(raw)
        except UnicodeEncodeError as exc:
            raise Refused("it has a path that is not UTF-8") from exc
        except ValueError as exc:
            raise Refused(f"it has a path that leads elsewhere: {exc}") from exc
        digest, size = get_digest(entry, "digest"), get_number(entry, "size")
        if digest is None or size is None:
            raise Refused(f"{shown(path)} has no possible digest or size")
        source = join(self.where, b"files", path)
        if self._is_missing(source) and b"\\" in path:
            # Windows wrote its own separators, and a copy of it elsewhere has directories.
            path = _parse_windows(path)
            source = join(self.where, b"files", path)
        if self._is_missing(source):
            pooled = self.pool.find(digest)
            source = source if self._is_missing(pooled) else pooled
        modified_at = get_time(entry, "modified_at")
        mtime_ns = None if modified_at is None else to_nanoseconds(modified_at)
        return OlderFile(
            path, self.tree.path_of(source), expected=digest, size=size, mtime_ns=mtime_ns
        )

    def _is_missing(self, source: bytes) -> bool:
        try:
            return self.tree.look(source) is None
        except Refused:
            return False


def _parse_windows(path: bytes) -> bytes:
    try:
        return parse_relpath(path.replace(b"\\", b"/"))
    except ValueError as exc:
        raise Refused(f"it has a path that leads elsewhere: {exc}") from exc


def make_reference(entry: Any) -> OlderReference | None:
    if not isinstance(entry, dict) or not (uri := get_text(entry, "uri")):
        return None
    return OlderReference(
        uri,
        checksum=get_text(entry, "checksum"),
        size=get_number(entry, "size"),
        metadata=get_object(entry, "metadata"),
    )


class Artifacts:
    """The tree of artifacts at `top`."""

    def __init__(
        self,
        tree: SourceTree,
        top: bytes,
        namer: Namer,
        damage: list[Damage],
        renamed: list[Renamed],
    ) -> None:
        self._tree, self._top, self._namer = tree, top, namer
        self._damage, self._renamed = damage, renamed
        self._pool = BlobPlaces(tree, sharded=(join(top, b".dedup"),))

    def iter_versions(self) -> Iterator[OlderVersion]:
        """By type (first the ones that their own code looked in, in its order), name, number."""
        for directory in sorted(self._directories(self._top), key=_type_order):
            for name in self._directories(join(self._top, directory)):
                yield from self._iter_artifact(directory, name)

    def find_key(self, type: str, name: str, version: int) -> Key:
        """The key of a version that a run names."""
        for directory in (type, f"ArtifactType.{type.upper()}"):
            parts = directory.encode(), name.encode()
            where = join(self._top, *parts, b"v%d" % version)
            if all(map(is_component, parts)) and self._tree.is_directory(where):
                return make_key(directory, name, version)
        return make_key(type, name, version)

    def _directories(self, where: bytes) -> list[bytes]:
        try:
            entries = self._tree.list(where)
        except Refused as exc:
            self._damage.append(Damage(where, exc.reason))
            return []
        for seen in entries:
            if seen.kind in ("symlink", "special"):
                self._damage.append(Damage(join(where, seen.name), WRONG_KIND[seen.kind]))
        return [
            seen.name
            for seen in entries
            if seen.kind == "directory" and not seen.name.startswith(b".")
        ]

    def _iter_artifact(self, directory: bytes, leaf: bytes) -> Iterator[OlderVersion]:
        where = join(self._top, directory, leaf)
        there = {
            int(match[1]): name
            for name in self._directories(where)
            if (match := VERSION.fullmatch(name))
        }
        index = self._read_index(where, bool(there))
        listed = _listed_versions(index)
        for number in sorted(set(listed) - set(there)):
            # What was deleted for good is not listed any more, unless an export says so.
            if listed[number].get("status") != "deleted":
                missing = join(where, b"v%d" % number)
                self._damage.append(Damage(missing, "versions.json lists it, and it is missing"))
        older_type = directory.decode(errors="replace")
        older_name = leaf.decode(errors="replace")
        type = make_type(older_type)
        name = self._namer.name(older_name, type, kind="" if older_type in TYPES else older_type)
        aliases = self._read_aliases(index, where, set(there))
        for number in sorted(there):
            yield self._read_version(
                join(where, there[number]),
                key=make_key(older_type, older_name, number),
                name=name,
                older_name=older_name,
                type=type,
                number=number,
                aliases=tuple(aliases.get(number, ())),
                status=get_text(listed.get(number, {}), "status"),
            )

    def _read_index(self, where: bytes, has_versions: bool) -> dict[str, Any]:
        path = join(where, b"versions.json")
        try:
            return read_object(self._tree, path)
        except Refused as exc:
            if has_versions:
                self._damage.append(Damage(path, f"{exc.reason}, so aliases may be lost"))
            return {}

    def _read_aliases(
        self, index: Mapping[str, Any], where: bytes, there: set[int]
    ) -> dict[int, list[str]]:
        """The aliases of each version."""
        aliases: dict[int, list[str]] = {}
        for older, number in get_object(index, "aliases").items():
            alias = make_alias(older)
            if alias is None:
                continue
            if not isinstance(number, int) or number not in there:
                path = join(where, b"versions.json")
                self._damage.append(Damage(path, f"its alias {older!r} names no version"))
                continue
            if alias != older:
                reason = "castfs does not take the older alias"
                self._renamed.append(Renamed(f"alias {older}", alias, reason))
            aliases.setdefault(number, []).append(alias)
        return aliases

    def _read_version(self, where: bytes, *, status: str | None, **known: Any) -> OlderVersion:
        metadata = self._read_metadata(where)
        run, older_type = get_text(metadata, "created_by_run"), get_text(metadata, "type")
        details: dict[str, Any] = {
            key: value
            for key in ("created_by_user", "status", "type")
            if (value := get_text(metadata, key))
        }
        details |= (
            {"parent_artifacts": list(parents)}
            if (parents := get_texts(metadata, "parent_artifacts"))
            else {}
        )
        if run is not None and make_run_id(run) is None:
            details["run"] = run
        deleted = self._is_marked(join(where, b".deleted"))
        if older_type is None:
            details["type"] = known["key"][1]
        return OlderVersion(
            contents=ArtifactContents(self._tree, where, self._pool),
            where=join(where, b"manifest.json"),
            tags=get_texts(metadata, "tags"),
            metadata=get_object(metadata, "metadata"),
            details=details,
            description=get_text(metadata, "description"),
            created_at=get_time(metadata, "created_at"),
            run=make_run_id(run),
            deleted=deleted or "deleted" in (status, details.get("status")),
            **known,
        )

    def _is_marked(self, marker: bytes) -> bool:
        try:
            return self._tree.look(marker) is not None
        except Refused as exc:
            self._damage.append(Damage(marker, exc.reason))
            return False

    def _read_metadata(self, where: bytes) -> dict[str, Any]:
        path = join(where, b"metadata.json")
        try:
            metadata = read_object(self._tree, path)
            clean(metadata.get("metadata"))
        except Refused as exc:
            self._damage.append(Damage(path, exc.reason))
            return {}
        self._check_manifest(where, get_digest(metadata, "manifest_digest"))
        return metadata

    def _check_manifest(self, where: bytes, claimed: str | None) -> None:
        """Their digest was that of the text: on Windows, of other line ends and another encoding
        than the file's. So a difference says something only of a manifest in plain ASCII."""
        try:
            raw = self._tree.read(join(where, b"manifest.json"), MANIFEST_MAX)
        except Refused:
            return  # said when its files are asked for
        texts = (raw, raw.replace(b"\r\n", b"\n"))
        digests = [hashlib.sha256(text).hexdigest() for text in texts]
        if claimed and raw.isascii() and claimed not in digests:
            reason = "it is not the manifest that metadata.json has the digest of"
            self._damage.append(Damage(join(where, b"manifest.json"), reason))


def make_key(directory: str, name: str, number: int) -> Key:
    return ("artifact", directory, name, str(number))


def _type_order(directory: bytes) -> tuple[int, bytes]:
    text = directory.decode(errors="replace")
    return (TYPES.index(text) if text in TYPES else len(TYPES), directory)


def _listed_versions(index: Mapping[str, Any]) -> dict[int, dict[str, Any]]:
    return {
        number: entry
        for entry in get_list(index, "versions")
        if isinstance(entry, dict) and (number := get_number(entry, "version"))
    }
