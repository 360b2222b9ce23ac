"""Runicorn's assets (0.6.0 to 0.7.2): blobs, manifests, and what runs say of them.

    archive/blobs/<aa>/<sha256>
    archive/manifests/<category>/<aa>/<fingerprint>.json
    archive/outputs/rolling/<run id>/<sha1>_<name>   a file, or a directory with .complete in it
    runs/<path>/<run id>/assets.json, code_snapshot.zip

`archive_path` in assets.json is where the archive was when it was written, so it is never opened:
blobs and manifests are found by their fingerprint, rolling outputs by the last parts of the path.
"""

from __future__ import annotations

import contextlib
import json
import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from typing import Any

import msgspec

from castfs.errors import ManifestError
from castfs.manifest import blob_sizes
from castfs.older.contents import (
    COMPLETE,
    BlobPlaces,
    Lost,
    MadeFile,
    ManifestContents,
    OnlyReference,
    PlainDirectory,
    SingleFile,
)
from castfs.older.description import Contents, Damage, Key, OlderReference, OlderVersion
from castfs.older.documents import (
    MANIFEST_MAX,
    clean,
    clean_text,
    get_digest,
    get_list,
    get_number,
    get_object,
    get_text,
    get_time,
    to_nanoseconds,
)
from castfs.older.guarded import WRONG_KIND, Refused, Seen, SourceTree, is_component, join
from castfs.older.loose import find_blobs, make_loose_version
from castfs.older.namer import Namer
from castfs.older.naming import make_run_id
from castfs.older.runs import ASSETS, RunPlace, read_if_there
from castfs.older.zips import ZipContents

#: As what castfs itself logs is called.
TYPES_BY_CATEGORY = {
    "datasets": "dataset",
    "pretrained": "model",
    "code": "code",
    "outputs": "output",
}
CODE_ZIP = b"code_snapshot.zip"

_ROLLING = re.compile(rb"[0-9a-f]{40}_(.+)", re.DOTALL)
#: A URI that went through pathlib lost a slash.
_ONE_SLASH = re.compile(r"([a-z][a-z0-9+.-]+):/(?=[^/])")
_MANIFEST_DEPTH = 3
#: castfs.compat.runicorn names a second tree of one fingerprint (other links or modes) by its id.
_MANIFEST = re.compile(r"([0-9a-f]{64})(?:-[0-9a-f]{16})?\.json")


class _Probe(msgspec.Struct):
    """What names a manifest that nothing refers to."""

    source_path: str = ""
    created_at: float = 0.0


@dataclass
class Links:
    """What one run made and used."""

    created: list[Key] = field(default_factory=list)
    used: list[Key] = field(default_factory=list)


class Assets:
    """Walks the runs first, in their order, then what no run names."""

    def __init__(
        self, tree: SourceTree, archive: bytes | None, namer: Namer, damage: list[Damage]
    ) -> None:
        self._tree, self._namer, self._damage = tree, namer, damage
        self._archive = archive
        at = archive or b""
        self._manifests = join(at, b"manifests")
        self._rolling = join(at, b"outputs", b"rolling")
        blobs = join(at, b"blobs")
        self._blobs = BlobPlaces(tree, sharded=(blobs,), flat=(blobs,))
        self._blobs_at = blobs
        self._links: dict[bytes, Links] = {}
        #: Keys of versions that were given out: runs share datasets.
        self._given: set[Key] = set()
        self._named_manifests: set[bytes] = set()
        self._named_rolling: set[bytes] = set()
        #: Raw digests, a third of their text.
        self._named_blobs: set[bytes] = set()

    def links_of(self, run: RunPlace) -> Links:
        return self._links.setdefault(run.where, Links())

    def iter_versions(self, runs: list[RunPlace]) -> Iterator[OlderVersion]:
        prefixes = {}
        for run in runs:
            prefixes[run.id] = run.prefix
            assets = read_if_there(self._tree, run.where, ASSETS, run.files, self._damage)
            yield from self._iter_run(run, assets)
        if self._archive is None:
            return
        yield from self._iter_unnamed_manifests()
        yield from self._iter_unnamed_rolling(prefixes)
        yield from self._iter_loose_blobs()

    # What a run names

    def _iter_run(self, run: RunPlace, assets: Mapping[str, Any]) -> Iterator[OlderVersion]:
        yield from self._iter_code(run, get_object(assets, "code"))
        yield from self._iter_config(run, get_object(assets, "config"))
        for entry in self._entries(run, assets, "datasets"):
            yield from self._iter_input(run, entry, "datasets", "uri")
        for entry in self._entries(run, assets, "pretrained"):
            yield from self._iter_input(run, entry, "pretrained", "path_or_uri")
        for entry in self._entries(run, assets, "outputs"):
            yield from self._iter_output(run, entry)

    def _entries(
        self, run: RunPlace, assets: Mapping[str, Any], key: str
    ) -> Iterator[dict[str, Any]]:
        for entry in get_list(assets, key):
            try:
                if not isinstance(entry, dict):
                    raise Refused(f"an entry of its {key} is no object")
                yield clean(entry)
            except Refused as exc:
                self._damage.append(Damage(join(run.where, ASSETS), exc.reason))

    def _iter_code(self, run: RunPlace, code: dict[str, Any]) -> Iterator[OlderVersion]:
        snapshot = get_object(code, "snapshot")
        digest = get_digest(snapshot, "fingerprint")
        beside = join(run.where, CODE_ZIP)
        if digest is not None:
            self._name_blob(digest)
            places = [self._blobs.find(digest)] if self._archive is not None else []
            if CODE_ZIP in run.files or not places:
                places.append(beside)
            contents: Contents = ZipContents(self._tree, tuple(places), digest)
            yield self._make(run, ("code", run.id, "code"), "code", contents, places[0], snapshot)
        # `snapshot_workspace(root, out_zip)` leaves nothing but the zip.
        for name in sorted(run.files):
            if not name.lower().endswith(b".zip") or (name == CODE_ZIP and digest is not None):
                continue
            where = join(run.where, name)
            stem = "code" if name == CODE_ZIP else name[:-4].decode(errors="replace")
            contents = ZipContents(self._tree, (where,), None)
            yield self._make(run, ("code", run.id, stem), stem, contents, where, snapshot)

    def _make(
        self,
        run: RunPlace,
        key: Key,
        leaf: str,
        contents: Contents,
        where: bytes,
        said: Mapping[str, Any],
    ) -> OlderVersion:
        """Something that a run made, but for its outputs."""
        self.links_of(run).created.append(key)
        type = key[0]
        if type == "config":
            # Used, too: the run was told it, and keeps it.
            self.links_of(run).used.append(key)
        older = f"{run.prefix}/{leaf}"
        return OlderVersion(
            key=key,
            name=self._namer.name(older, type),
            older_name=older,
            type=type,
            contents=contents,
            where=where,
            created_at=get_time(said, "created_at") or run.created_at,
            run=run.id,
            source=get_text(said, "workspace_root"),
        )

    def _iter_config(self, run: RunPlace, config: dict[str, Any]) -> Iterator[OlderVersion]:
        if not config:
            return
        where = join(run.where, ASSETS)
        text = json.dumps(config, ensure_ascii=False, indent=2, sort_keys=True) + "\n"
        mtime_ns = to_nanoseconds(run.created_at or 0.0)
        contents = MadeFile(b"config.json", text.encode(), where, mtime_ns)
        yield self._make(run, ("config", run.id), "config", contents, where, {})

    def _iter_input(
        self, run: RunPlace, entry: dict[str, Any], category: str, uri_key: str
    ) -> Iterator[OlderVersion]:
        """A dataset or pretrained model: one version, however many runs logged the same."""
        type = TYPES_BY_CATEGORY[category]
        older = get_text(entry, "name") or category
        uri = _read_uri(entry.get(uri_key))
        where = join(run.where, ASSETS)
        saved = entry.get("saved") is True
        if saved:
            contents, where = self._find_saved(entry, category, where, _leaf(uri) or older)
        elif uri is not None:
            contents = _make_reference(uri, entry)
        else:
            return  # a name alone
        try:
            key: Key = (category, older, contents.identity)
        except Refused as exc:
            self._damage.append(Damage(where, f"{exc.reason} ({type} {older} of run {run.id})"))
            return
        self.links_of(run).used.append(key)
        if key in self._given:
            return
        self._given.add(key)
        facts = ("context", "source_type", "file_count", "total_size_bytes")
        yield OlderVersion(
            key=key,
            name=self._namer.name(older, type),
            older_name=older,
            type=type,
            contents=contents,
            where=where,
            metadata={name: entry[name] for name in facts if entry.get(name) is not None},
            description=get_text(entry, "description"),
            created_at=run.created_at,
            source=uri,
        )

    def _find_saved(
        self, entry: Mapping[str, Any], category: str, where: bytes, leaf: str
    ) -> tuple[Contents, bytes]:
        """What an entry says was archived, and where that is."""
        digest = get_digest(entry, "fingerprint")
        if digest is None or self._archive is None:
            return Lost("there is no archive beside the runs" if digest else "no digest"), where
        if get_text(entry, "fingerprint_kind") == "sha256_manifest":
            path = join(self._manifests, category.encode(), digest[:2].encode())
            named = _leaf(get_text(entry, "archive_path"))
            match = _MANIFEST.fullmatch(named)
            leaf = named if match is not None and match[1] == digest else f"{digest}.json"
            path = join(path, leaf.encode())
            self._named_manifests.add(path)
            return ManifestContents(self._tree, path, self._blobs, digest), path
        self._name_blob(digest)
        source = self._blobs.find(digest)
        name = _component(leaf)
        return SingleFile(self._tree, name, source, digest, mode=0o644), source

    def _iter_output(self, run: RunPlace, entry: dict[str, Any]) -> Iterator[OlderVersion]:
        if entry.get("saved") is not True:
            return
        output = get_text(entry, "key") or get_text(entry, "name") or "output"
        name = get_text(entry, "name") or _leaf(output) or "output"
        rolling = self._find_rolling(get_text(entry, "archive_path"))
        if rolling is None:
            where = join(run.where, ASSETS)
            contents, where = self._find_saved(entry, "outputs", where, name)
        else:
            where = rolling
            self._named_rolling.add(rolling)
            contents = self._open_rolling(rolling, entry, name)
        stamp = get_text(entry, "fingerprint") or ""
        key: Key = ("outputs", run.id, output, stamp)
        self.links_of(run).created.append(key)
        yield self._make_output(run.prefix, run.id, output, key, contents, where, entry)

    def _make_output(
        self,
        prefix: str,
        run_id: str | None,
        output: str,
        key: Key,
        contents: Contents,
        where: bytes,
        entry: Mapping[str, Any],
    ) -> OlderVersion:
        older = f"{prefix}/outputs/{output.strip('/')}"
        facts = ("path", "kind", "mode")
        return OlderVersion(
            key=key,
            name=self._namer.name(older, "output"),
            older_name=older,
            type="output",
            contents=contents,
            where=where,
            metadata={name: entry[name] for name in facts if entry.get(name) is not None},
            created_at=get_time(entry, "archived_at"),
            run=run_id,
            source=get_text(entry, "path"),
        )

    def _find_rolling(self, archive_path: str | None) -> bytes | None:
        """Where a rolling output lies here. None if it is none."""
        if archive_path is None or self._archive is None:
            return None
        if "/" not in archive_path:
            archive_path = archive_path.replace("\\", "/")
        parts = archive_path.encode().split(b"/")[-3:]
        if len(parts) < 3 or parts[0] != b"rolling" or not all(map(is_component, parts)):
            return None
        return join(self._rolling, parts[1], parts[2])

    def _open_rolling(self, where: bytes, entry: Mapping[str, Any], name: str) -> Contents:
        kind = get_text(entry, "fingerprint_kind")
        digest = get_digest(entry, "fingerprint")
        if get_text(entry, "kind") == "dir":
            return PlainDirectory(self._tree, where, digest, leave_out=COMPLETE)
        expected = digest if kind == "sha256" else None
        stamp = get_text(entry, "fingerprint") or ""
        return SingleFile(self._tree, _component(name), where, expected, stamp)

    def _name_blob(self, digest: str) -> None:
        self._named_blobs.add(bytes.fromhex(digest))

    # What no run names

    def _iter_unnamed_manifests(self) -> Iterator[OlderVersion]:
        found = []
        for path, category in self._iter_manifests(self._manifests, 0):
            digests, probe = self._survey(path)
            self._named_blobs.update(digests)
            if path not in self._named_manifests:
                found.append((probe.created_at, path, category, probe.source_path))
        for created_at, path, category, source in sorted(found):
            stem = path.rpartition(b"/")[2].removesuffix(b".json")
            match = _MANIFEST.fullmatch(path.rpartition(b"/")[2].decode(errors="replace"))
            fingerprint = match[1] if match is not None else None
            older = stem.decode(errors="replace")
            if fingerprint is not None:
                older = _leaf(source) or category or "manifest"
            type = TYPES_BY_CATEGORY.get(category, "custom")
            yield OlderVersion(
                key=("manifest", category, stem.decode(errors="replace")),
                name=self._namer.name(older, type),
                older_name=older,
                type=type,
                contents=ManifestContents(self._tree, path, self._blobs, fingerprint),
                where=path,
                created_at=created_at or None,
                source=source or None,
            )

    def _iter_manifests(self, where: bytes, depth: int) -> Iterator[tuple[bytes, str]]:
        """(path, category) of every manifest; the flat layout has no categories."""
        for seen in self._list(where):
            path = join(where, seen.name)
            if seen.name.startswith(b"."):
                continue  # a temporary file of a writer that died
            if seen.kind == "directory" and depth < _MANIFEST_DEPTH:
                yield from self._iter_manifests(path, depth + 1)
            elif seen.kind != "file":
                self._damage.append(Damage(path, WRONG_KIND[seen.kind]))
            elif seen.name.endswith(b".json"):
                parts = path[len(self._manifests) + 1 :].split(b"/")
                yield path, parts[0].decode(errors="replace") if len(parts) > 1 else ""

    def _survey(self, path: bytes) -> tuple[list[bytes], _Probe]:
        """(raw digests that a manifest needs, what names it). A damaged one needs nothing, so that
        its blobs are taken as loose ones."""
        try:
            raw = self._tree.read(path, MANIFEST_MAX)
            probe = msgspec.json.decode(raw, type=_Probe)
            probe.source_path = clean_text(probe.source_path)
            return [bytes.fromhex(digest) for digest in blob_sizes(raw)], probe
        except (Refused, ManifestError, msgspec.DecodeError, ValueError, RecursionError):
            return [], _Probe()

    def _iter_unnamed_rolling(self, prefixes: Mapping[str, str]) -> Iterator[OlderVersion]:
        for directory in self._list(self._rolling):
            run_id = make_run_id(directory.name.decode(errors="replace"))
            where = join(self._rolling, directory.name)
            if directory.kind != "directory":
                self._damage.append(Damage(where, WRONG_KIND[directory.kind]))
                continue
            for seen in self._list(where):
                path = join(where, seen.name)
                match = _ROLLING.fullmatch(seen.name)
                if path in self._named_rolling or match is None:
                    continue
                output = match[1].decode(errors="replace")
                contents = self._open_unnamed(path, seen, match[1])
                if contents is None:
                    continue
                prefix = prefixes.get(run_id or "", run_id or "runs")
                key: Key = ("rolling", run_id or "", seen.name.decode(errors="replace"))
                entry = {"archived_at": seen.mtime_ns / 10**9}
                yield self._make_output(prefix, run_id, output, key, contents, path, entry)

    def _open_unnamed(self, path: bytes, seen: Seen, name: bytes) -> Contents | None:
        if seen.kind == "file":
            stamp = f"{seen.size} {seen.mtime_ns}"
            return SingleFile(self._tree, name, path, None, stamp)
        if seen.kind == "directory":
            with contextlib.suppress(Refused):
                if self._tree.look(join(path, COMPLETE)) is not None:
                    return PlainDirectory(self._tree, path, None, leave_out=COMPLETE)
            self._damage.append(Damage(path, "it was never finished"))
        else:
            self._damage.append(Damage(path, WRONG_KIND[seen.kind]))
        return None

    def _iter_loose_blobs(self) -> Iterator[OlderVersion]:
        loose = find_blobs(self._tree, self._blobs_at, self._damage)
        loose = {
            digest: path
            for digest, path in loose.items()
            if bytes.fromhex(digest) not in self._named_blobs
        }
        if loose:
            yield make_loose_version(self._tree, self._blobs_at, loose, self._namer)

    def _list(self, where: bytes) -> list[Seen]:
        try:
            return self._tree.list(where)
        except Refused as exc:
            if not exc.missing:
                self._damage.append(Damage(where, exc.reason))
            return []


def _read_uri(value: Any) -> str | None:
    if value is None:
        return None
    if not isinstance(value, str):
        return json.dumps(clean(value), ensure_ascii=False, sort_keys=True)
    return _ONE_SLASH.sub(r"\1://", clean_text(value)) or None


def _make_reference(uri: str, entry: Mapping[str, Any]) -> OnlyReference:
    facts = get_object(entry, "fingerprint")
    size = get_number(facts, "total_size_bytes") or get_number(facts, "size_bytes")
    return OnlyReference(OlderReference(uri, size=size, metadata=facts), facts)


def _leaf(path: str | None) -> str:
    """The last part of a path of either kind, "" if there is none."""
    return re.split(r"[/\\]", (path or "").rstrip("/\\"))[-1]


def _component(name: str) -> bytes:
    """A file's name for what is called `name`."""
    raw = name.encode(errors="replace")
    if is_component(raw):
        return raw
    raw = _leaf(name).encode(errors="replace").replace(b"\0", b"_")[:255]
    return raw if is_component(raw) else b"file"
