"""Reading a bundle (`bundling`) into a store. It is hostile input: a stranger may have made it."""

from __future__ import annotations

import contextlib
import functools
import os
import re
import tarfile
import tempfile
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import IO, Any, TypeVar

import msgspec

from castfs import atomic
from castfs.catalog import Catalog, Change, NameFile, Note, RunFile, changing, reading
from castfs.catalog.files import FILE_MODE, encode_file, name_path, notes_dir, runs_dir
from castfs.catalog.words import show_word
from castfs.digest import Digest
from castfs.errors import CastfsError, DamageError, NotFoundError, UsageError
from castfs.manifest import Manifest, decode_stored, encode_manifest, is_stored_whole
from castfs.paths import display
from castfs.progress import SILENT, Progress
from castfs.repository import bundle_checks as checks
from castfs.repository.bundling import HEADER, Header
from castfs.repository.publishing import save_name
from castfs.store import Depot, Record, WriteSession

#: Larger ones go by way of a file; records and the like are never so large.
_IN_MEMORY_MAX = 8 << 20
_MANIFEST_MAX = 4 << 30
_MEMBER = re.compile(r"(blobs|manifests|names|runs|notes|snapshots)/([0-9A-Za-z_.-]{1,205})")
_HEX = {"blobs": re.compile("[0-9a-f]{64}"), "manifests": re.compile("[0-9a-f]{64}"),
        "snapshots": re.compile("[0-9a-f]{24}"), "notes": re.compile("[0-9a-f]{24}"),
        "names": re.compile("[0-9a-f]{32}")}  # fmt: skip

T = TypeVar("T")


@dataclass(frozen=True, slots=True, kw_only=True)
class UnbundleResult:
    """What came out of a bundle. `added_*` are what the store did not have; sizes in bytes."""

    names: tuple[str, ...]
    version_count: int
    added_versions: tuple[str, ...]
    added_runs: int
    added_count: int
    added_bytes: int
    kept_aliases: tuple[str, ...]


@dataclass
class _Read:
    """All of a bundle but its blobs."""

    header: Header | None = None
    manifests: dict[str, Manifest] = field(default_factory=dict)
    names: list[NameFile] = field(default_factory=list)
    runs: list[RunFile] = field(default_factory=list)
    notes: list[Note] = field(default_factory=list)
    records: list[Record] = field(default_factory=list)


def is_bundle(path: Path) -> bool:
    """Does the file begin as one does?"""
    try:
        fd = os.open(path, os.O_RDONLY | os.O_CLOEXEC | os.O_NONBLOCK)
    except OSError:
        return False
    try:
        return os.read(fd, len(HEADER) + 1) == HEADER.encode() + b"\0"
    except OSError:
        return False
    finally:
        os.close(fd)


def import_bundle(depot: Depot, path: Path, *, progress: Progress = SILENT) -> UnbundleResult:
    """Take over what the store does not have: all of it, or nothing. What it has already stays as
    it is. DamageError for what is no whole bundle; UsageError where a version's number, or a name's
    type, is another one here."""
    shown = display(os.fsencode(path))
    if not path.is_file():
        raise NotFoundError(f"{shown} is no file", hint="name a file of `castfs export`")
    try:
        with (
            path.open("rb") as file,
            tarfile.open(fileobj=file, mode="r|") as tar,
            WriteSession(depot, purpose=f"import {shown}") as session,
        ):
            read = _Reader(session, progress)
            for member in tar:
                read.take(tar, member)
            return read.finish()
    except (tarfile.TarError, EOFError, msgspec.DecodeError, UnicodeDecodeError, ValueError) as exc:
        if isinstance(exc, CastfsError):
            raise
        raise DamageError(
            f"{shown} is not a whole bundle: {exc}",
            hint="get it again; nothing was imported",
        ) from exc


class _Reader:
    def __init__(self, session: WriteSession, progress: Progress) -> None:
        self._session = session
        self._depot = session.depot
        self._progress = progress
        self._read = _Read()
        self._added = [0, 0]
        #: Of those in the bundle: digest → size.
        self._blobs: dict[str, int] = {}
        self._count = 0

    def take(self, tar: tarfile.TarFile, member: tarfile.TarInfo) -> None:
        """One member. ValueError for what does not belong there."""
        if self._read.header is None:
            if member.name != HEADER:
                raise ValueError("it does not begin with its description")
            self._read.header = msgspec.json.decode(_bytes(tar, member), type=Header)
            self._progress.phase("importing")
            return
        self._count += 1
        match = _MEMBER.fullmatch(member.name)
        kind, key = match.groups() if match else ("", "")
        if member.issparse():
            raise ValueError("a member has holes")  # its size would be anything
        if not (match and member.isreg()) or (kind in _HEX and not _HEX[kind].fullmatch(key)):
            raise ValueError(f"it has a member {show_word(member.name)}")
        if kind == "blobs":
            self._take_blob(tar, member, Digest(key))
        elif kind == "manifests":
            raw = _bytes(tar, member, _MANIFEST_MAX)
            self._read.manifests[key] = decode_stored(raw, Digest(key))
        else:
            self._take_words(kind, key, _bytes(tar, member))

    def _take_words(self, kind: str, key: str, raw: bytes) -> None:
        decode = functools.partial(msgspec.json.decode, raw)
        read = self._read
        match kind:
            case "names":
                name: NameFile = decode(type=NameFile)
                checks.check_name_file(name)
                if name_path(self._depot, name.name).stem != key:
                    raise ValueError(f"names/{key} is of another name")
                read.names.append(name)
            case "runs":
                run: RunFile = decode(type=RunFile)
                if run.id != key:
                    raise ValueError(f"run {key} is another one")
                checks.check_run(run)
                read.runs.append(run)
            case "notes":
                note: Note = decode(type=Note)
                if note.id != key:
                    raise ValueError(f"note {key} is another one")
                checks.check_note(note)
                read.notes.append(note)
            case _:
                record: Record = decode(type=Record)
                if record.id != key or record.manifest not in read.manifests:
                    raise ValueError(f"snapshot {key} is another one, or without its manifest")
                checks.check_record_alone(record)
                read.records.append(record)

    def _take_blob(self, tar: tarfile.TarFile, member: tarfile.TarInfo, digest: Digest) -> None:
        source = tar.extractfile(member)
        assert source is not None
        self._blobs[digest] = member.size
        [there] = self._session.claim([(digest, member.size)])
        if there:
            return
        if member.size <= _IN_MEMORY_MAX:
            staged = self._session.stage_bytes(_all(source, member.size))
        else:
            with tempfile.TemporaryFile(dir=self._depot.staging_dir) as spool:
                _copy(source, spool, member.size)
                spool.seek(0)
                staged = self._session.stage_file(spool.fileno())
        if staged.digest != digest:
            raise ValueError(f"blob {digest} has other content than its name says")
        self._added[0] += 1
        self._added[1] += member.size
        self._progress.advance(1, member.size)

    def finish(self) -> UnbundleResult:
        read = self._read
        if read.header is None or not read.records:
            raise ValueError("it is empty")
        if self._count != read.header.member_count:
            raise ValueError(f"it has {self._count} of {read.header.member_count} members")
        for manifest in read.manifests.values():
            for file in manifest.tree.files.values():
                if self._blobs.get(file.sha256) != file.size_bytes:
                    raise ValueError(f"the content {file.sha256} is missing, or of another size")
        checks.check_together(
            read.header.names, read.names, read.runs, read.notes, read.records, read.manifests
        )
        with reading(self._depot) as catalog:
            _check(catalog, read)  # before anything is stored; what counts is what it says below
            known = {record.id for record in read.records if catalog.get(record.id) is not None}
        self._session.commit_blobs()
        for manifest in read.manifests.values():
            is_sound = functools.partial(is_stored_whole, manifest)
            self._session.publish_manifest(
                manifest.id, encode_manifest(manifest), is_sound=is_sound
            )
        # All that can be is written and synced before the catalog is held.
        self._session.stage_records([each for each in read.records if each.id not in known])
        words = _Words(self._session)
        words.stage(runs_dir(self._depot), {run.id: run for run in read.runs})
        words.stage(notes_dir(self._depot), {note.id: note for note in read.notes})
        with changing(self._depot) as change:
            added = _check(change, read)
            change.touch(*(record.id for record in added))
            _save_numbers(change, read, added)
            if added:
                self._session.publish_records(added)
            kept = _save_names(change, read)
            runs = {run.id: run for run in read.runs if change.run(run.id) is None}
            for run_id in runs:
                change.touch_run(run_id)
            words.publish(runs_dir(self._depot), runs)
            new = {record.id for record in added}
            notes = {note.id: note for note in read.notes if note.id in new}
            for record_id in notes:
                change.touch_note(record_id)
            words.publish(notes_dir(self._depot), notes)
        return UnbundleResult(
            names=read.header.names,
            version_count=len(read.records),
            added_versions=tuple(f"{each.name}:v{each.version}" for each in added),
            added_runs=len(runs),
            added_count=self._added[0],
            added_bytes=self._added[1],
            kept_aliases=tuple(kept),
        )


def _check(change: Catalog, read: _Read) -> list[Record]:
    """The records that are new here. UsageError for what contradicts what is."""
    added = []
    for record in read.records:
        if change.get(record.id) is not None:
            continue
        if record.name is not None and record.version is not None:
            same = change.find_version(record.name, record.version, "all")
            if same:
                raise UsageError(
                    f"{show_word(record.name)}:v{record.version} is another one in this store",
                    hint="import into a new store (--store), and restore what you need from there",
                )
            known = change.name(record.name)
            if known and any(event.version == record.version for event in known.history):
                raise UsageError(
                    f"{show_word(record.name)}:v{record.version} was deleted in this store, "
                    "and numbers are not given again",
                    hint="import into a new store (--store)",
                )
            if known and known.type and record.type and known.type != record.type:
                raise UsageError(
                    f"{show_word(record.name)} is a {known.type} in this store, "
                    f"not a {record.type}",
                    hint="import into a new store (--store)",
                )
        added.append(record)
    return added


def _save_numbers(change: Change, read: _Read, added: list[Record]) -> None:
    """Before the records are there, as always."""
    last: dict[str, int] = {}
    for record in added:
        if record.name is not None and record.version is not None:
            last[record.name] = max(last.get(record.name, 0), record.version)
    for name in read.names:
        last[name.name] = max(last.get(name.name, 0), name.last_version)
    types = {name.name: name.type for name in read.names}
    for word, version in last.items():
        known = change.name(word) or NameFile(name=word, type=types.get(word))
        if version > known.last_version or known.type is None:
            kind = known.type or types.get(word)
            save_name(
                change,
                msgspec.structs.replace(
                    known, type=kind, last_version=max(version, known.last_version)
                ),
            )


def _save_names(change: Change, read: _Read) -> list[str]:
    """Aliases that there are not yet, and what happened elsewhere. Returns the aliases that mean
    something else here, and stay."""
    kept: list[str] = []
    for name in read.names:
        known = change.name(name.name) or NameFile(name=name.name)
        there = {r.version for r in read.records if r.name == name.name}
        brought = {a: v for a, v in name.aliases.items() if v in there}
        aliases: Mapping[str, int] = {**brought, **known.aliases}
        kept += [
            f"{name.name}:{alias}"
            for alias, version in brought.items()
            if known.aliases.get(alias, version) != version
        ]
        events = {msgspec.json.encode(each): each for each in (*known.history, *name.history)}
        history = tuple(sorted(events.values(), key=lambda event: event.at))
        if (aliases, history) != (known.aliases, known.history):
            save_name(change, msgspec.structs.replace(known, aliases=aliases, history=history))
    return kept


class _Words:
    """Runs and notes, which are written first and then appear, with one sync of the directory."""

    def __init__(self, session: WriteSession) -> None:
        self._depot = session.depot
        self._staging = session.staging.path
        self._temps: dict[tuple[Path, str], Path] = {}

    def stage(self, directory: Path, files: Mapping[str, RunFile | Note]) -> None:
        for key, value in files.items():
            if not os.path.lexists(directory / f"{key}.json"):
                self._temps[directory, key] = self._write(value)

    def _write(self, value: RunFile | Note) -> Path:
        return atomic.write_temp(self._staging, [encode_file(value)], mode=FILE_MODE)

    def publish(self, directory: Path, files: Mapping[str, RunFile | Note]) -> None:
        """The caller holds the catalog."""
        if not files:
            return
        atomic.ensure_dir(directory, self._depot.dir_mode)
        for key, value in files.items():
            # One that was there when the others were written, and is gone.
            temp = self._temps.get((directory, key)) or self._write(value)
            temp.replace(directory / f"{key}.json")
        atomic.fsync_dir(directory)


def _bytes(tar: tarfile.TarFile, member: tarfile.TarInfo, limit: int = 64 << 20) -> bytes:
    source = tar.extractfile(member) if member.isreg() else None
    if source is None or member.size > limit:
        raise ValueError(f"its member {show_word(member.name)} is no file, or too large")
    return _all(source, member.size)


def _all(source: IO[bytes], size: int) -> bytes:
    data = source.read(size)
    if len(data) != size:
        raise EOFError("it ends too early")
    return data


def _copy(source: IO[bytes], target: Any, size: int) -> None:
    left = size
    while left:
        piece = source.read(min(left, 1 << 20))
        if not piece:
            raise EOFError("it ends too early")
        target.write(piece)
        left -= len(piece)
    with contextlib.suppress(AttributeError):
        target.flush()
