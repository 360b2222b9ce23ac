"""Reading a bundle into a store. It is hostile input: a stranger may have made it."""

from __future__ import annotations

import functools
import os
import re
import tempfile
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import BinaryIO, Generic, TypeVar

import msgspec

from castfs import atomic
from castfs.archive import Member, iter_members
from castfs.bundles import checks
from castfs.bundles.exporting import HEADER, Header
from castfs.bundles.merging import (
    Brought,
    Merged,
    Plan,
    make_plan,
    merge_notes,
    save_names,
    save_numbers,
)
from castfs.catalog import NameFile, Note, RunFile, changing, reading
from castfs.catalog.files import FILE_MODE, encode_file, name_path, notes_dir, runs_dir
from castfs.catalog.words import show_word
from castfs.digest import Digest, iter_chunks
from castfs.errors import DamageError, NotFoundError
from castfs.manifest import Header as TreeHeader
from castfs.manifest import Tree, blob_sizes, decode_stored, is_file_of, split_header
from castfs.paths import display
from castfs.progress import SILENT, Progress
from castfs.repository.naming import version_word
from castfs.store import Depot, Record, WriteSession

#: Larger ones go by way of a file; records and the like are never so large.
_IN_MEMORY_MAX = 8 << 20
_MEMBER = re.compile(r"(blobs|manifests|names|runs|notes|snapshots)/([0-9A-Za-z_.-]{1,205})")
_HEX = {"blobs": re.compile("[0-9a-f]{64}"), "manifests": re.compile("[0-9a-f]{64}"),
        "snapshots": re.compile("[0-9a-f]{24}"), "notes": re.compile("[0-9a-f]{24}"),
        "names": re.compile("[0-9a-f]{32}")}  # fmt: skip

T = TypeVar("T", RunFile, Note)


@dataclass(frozen=True, slots=True, kw_only=True)
class UnbundleResult:
    """What came out of a bundle. `added_*` are what the store did not have, versions with the ids
    of their records; sizes in bytes. Of what it had, `trashed_versions` are in its trash,
    `merged` got tags or values, or has others and keeps them. `deleted_versions` were deleted here
    for good, and are passed over. `kept_aliases` mean another version here."""

    names: tuple[str, ...]
    version_count: int
    added_versions: tuple[str, ...]
    added_ids: tuple[str, ...]
    added_runs: int
    added_count: int
    added_bytes: int
    trashed_versions: tuple[str, ...]
    deleted_versions: tuple[str, ...]
    merged: tuple[Merged, ...]
    set_aliases: tuple[str, ...]
    kept_aliases: tuple[str, ...]


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


def import_bundle(
    depot: Depot, source: Path | BinaryIO, *, progress: Progress = SILENT
) -> UnbundleResult:
    """Take over what the store does not have: all of it, or nothing. What it has already stays as
    it is, but for tags, values and aliases that it lacks. An open file is read once, to the
    bundle's end. DamageError for what is no whole bundle; UsageError where a version's number, or a
    name's type, is another one here."""
    if not isinstance(source, Path):
        return _import(depot, source, "the bundle", progress)
    shown = display(os.fsencode(source))
    if not source.is_file():
        raise NotFoundError(f"{shown} is no file", hint="name a file of `castfs export`")
    with source.open("rb") as file:
        return _import(depot, file, shown, progress)


def _import(depot: Depot, file: BinaryIO, shown: str, progress: Progress) -> UnbundleResult:
    try:
        with WriteSession(depot, purpose=f"import {shown}") as session:
            read = _Reader(session, progress)
            for member in iter_members(file):
                read.take(member)
            return read.finish()
    except RecursionError as exc:
        raise _no_bundle(shown, "something in it is nested too deeply") from exc
    except (EOFError, msgspec.DecodeError, UnicodeDecodeError, OverflowError, ValueError) as exc:
        raise _no_bundle(shown, str(exc)) from exc


def _no_bundle(shown: str, reason: str) -> DamageError:
    return DamageError(
        f"{shown} is not a whole bundle: {reason}", hint="get it again; nothing was imported"
    )


@dataclass(frozen=True, slots=True)
class _Staged:
    """A tree that waits in a file: some have as many megabytes as the memory."""

    path: Path
    header: TreeHeader

    def iter_chunks(self) -> Iterator[bytes]:
        fd = os.open(self.path, os.O_RDONLY | os.O_CLOEXEC)
        try:
            yield from map(bytes, iter_chunks(fd))
        finally:
            os.close(fd)

    def read(self) -> bytes:
        return self.path.read_bytes()

    def open(self) -> Tree:
        return decode_stored(self.read(), Digest(self.header.id)).tree


class _Reader:
    def __init__(self, session: WriteSession, progress: Progress) -> None:
        self._session = session
        self._depot = session.depot
        self._progress = progress
        self._header: Header | None = None
        self._brought = Brought()
        self._trees: dict[str, _Staged] = {}
        self._facts: dict[str, checks.TreeFacts] = {}
        #: Of those in the bundle: raw digest → size; and those that the store did not have.
        self._blobs: dict[bytes, int] = {}
        self._new_blobs: set[bytes] = set()
        self._count = 0

    def take(self, member: Member) -> None:
        """One member. ValueError for what does not belong there."""
        if self._header is None:
            if member.name != HEADER:
                raise ValueError("it does not begin with its description")
            self._header = msgspec.json.decode(_bytes(member), type=Header)
            self._progress.phase("importing")
            return
        self._count += 1
        match = _MEMBER.fullmatch(member.name)
        kind, key = match.groups() if match else ("", "")
        if match is None or (kind in _HEX and not _HEX[kind].fullmatch(key)):
            raise ValueError(f"it has a member {show_word(member.name)}")
        if kind == "blobs":
            self._take_blob(member, Digest(key))
        elif kind == "manifests":
            self._take_tree(_bytes(member, checks.MANIFEST_MAX), Digest(key))
        else:
            self._take_words(kind, key, _bytes(member))

    def _take_tree(self, raw: bytes, tree_id: Digest) -> None:
        tree = decode_stored(raw, tree_id).tree
        for file in tree.files.values():
            if self._blobs.get(bytes.fromhex(file.sha256)) != file.size_bytes:
                raise ValueError(f"the content {file.sha256} is missing, or of another size")
        # Nothing may be kept of it that grows with it: a bundle has thousands of them.
        self._facts[tree_id] = checks.TreeFacts.of(tree)
        path = self._session.staging.path / f"tree-{tree_id}"
        path.write_bytes(raw)
        self._trees[tree_id] = _Staged(path, split_header(raw)[0])

    def _take_words(self, kind: str, key: str, raw: bytes) -> None:
        decode = functools.partial(msgspec.json.decode, raw)
        brought = self._brought
        match kind:
            case "names":
                name: NameFile = decode(type=NameFile)
                checks.check_name_file(name)
                if name_path(self._depot, name.name).stem != key:
                    raise ValueError(f"names/{key} is of another name")
                brought.names.append(name)
            case "runs":
                run: RunFile = decode(type=RunFile)
                if run.id != key:
                    raise ValueError(f"run {key} is another one")
                checks.check_run(run)
                brought.runs.append(run)
            case "notes":
                note: Note = decode(type=Note)
                if note.id != key:
                    raise ValueError(f"note {key} is another one")
                checks.check_note(note)
                brought.notes.append(note)
            case _:
                record: Record = decode(type=Record)
                if record.id != key or record.manifest not in self._trees:
                    raise ValueError(f"snapshot {key} is another one, or without its manifest")
                checks.check_record_alone(record)
                staged = self._trees[record.manifest]
                checks.check_record(record, self._facts[record.manifest], staged.open)
                brought.records.append(record)

    def _take_blob(self, member: Member, digest: Digest) -> None:
        raw = bytes.fromhex(digest)
        self._blobs[raw] = member.size
        [there] = self._session.claim([(digest, member.size)])
        if there:
            return
        size = member.size
        if size <= _IN_MEMORY_MAX:
            staged = self._session.stage_bytes(member.read())
        else:
            with tempfile.TemporaryFile(dir=self._depot.staging_dir) as spool:
                for piece in member.iter_pieces():
                    spool.write(piece)
                spool.seek(0)
                staged = self._session.stage_file(spool.fileno())
        if staged.digest != digest:
            raise ValueError(f"blob {digest} has other content than its name says")
        self._new_blobs.add(raw)
        self._progress.advance(1, size)

    def finish(self) -> UnbundleResult:
        header, brought = self._header, self._brought
        if header is None or not brought.records:
            raise ValueError("it is empty")
        if self._count != header.member_count:
            raise ValueError(f"it has {self._count} of {header.member_count} members")
        checks.check_together(
            header.names, brought.names, brought.runs, brought.notes, brought.records
        )
        with reading(self._depot) as catalog:
            # Before anything is stored; what counts is what it says below.
            plan = make_plan(catalog, brought.records)
            notes, _ = merge_notes(catalog, brought, plan)
            runs = {run.id: run for run in brought.runs if catalog.run(run.id) is None}
        self._commit(plan)
        # All that can be is written and synced before the catalog is held.
        self._session.stage_records(plan.added)
        run_words = _Words[RunFile](self._session, runs_dir(self._depot), runs)
        note_words = _Words[Note](self._session, notes_dir(self._depot), notes)
        with changing(self._depot) as change:
            plan = make_plan(change, brought.records)
            change.touch(*(record.id for record in plan.added))
            save_numbers(change, brought, plan)
            notes, merged = merge_notes(change, brought, plan)
            if plan.added:
                self._session.publish_records(plan.added)
            was_set, kept = save_names(change, brought, plan)
            runs = {run.id: run for run in brought.runs if change.run(run.id) is None}
            for run_id in runs:
                change.touch_run(run_id)
            run_words.publish(runs)
            for record_id in notes:
                change.touch_note(record_id)
            note_words.publish(notes)
        return UnbundleResult(
            names=header.names,
            version_count=len(brought.records),
            added_versions=_words_of(plan.added),
            added_ids=tuple(record.id for record in plan.added),
            added_runs=len(runs),
            added_count=len(self._new_blobs),
            added_bytes=sum(self._blobs[raw] for raw in self._new_blobs),
            trashed_versions=_words_of(plan.trashed),
            deleted_versions=_words_of(plan.deleted),
            merged=tuple(merged),
            set_aliases=tuple(was_set),
            kept_aliases=tuple(kept),
        )

    def _commit(self, plan: Plan) -> None:
        """The contents and trees of all that is not passed over."""
        wanted = {record.manifest for record in self._brought.records}
        wanted -= {record.manifest for record in plan.deleted} - {
            record.manifest for record in (*plan.added, *plan.there, *plan.trashed)
        }
        digests = None
        if len(wanted) < len(self._trees):
            digests = {d for each in wanted for d in blob_sizes(self._trees[each].read())}
            self._new_blobs &= set(map(bytes.fromhex, digests))
        self._session.commit_blobs(wanted=digests)
        for tree_id in wanted:
            staged = self._trees[tree_id]
            is_sound = functools.partial(is_file_of, staged.header)
            self._session.publish_manifest(Digest(tree_id), staged.iter_chunks(), is_sound=is_sound)


def _words_of(records: list[Record]) -> tuple[str, ...]:
    return tuple(map(version_word, records))


class _Words(Generic[T]):
    """Runs or notes, which are written first and then appear, with one sync of the directory."""

    def __init__(self, session: WriteSession, directory: Path, files: Mapping[str, T]) -> None:
        self._depot = session.depot
        self._staging = session.staging.path
        self._directory = directory
        self._written: dict[str, tuple[T, Path]] = {
            key: (value, self._write(value)) for key, value in files.items()
        }

    def _write(self, value: T) -> Path:
        return atomic.write_temp(self._staging, [encode_file(value)], mode=FILE_MODE)

    def publish(self, files: Mapping[str, T]) -> None:
        """The caller holds the catalog."""
        if not files:
            return
        atomic.ensure_dir(self._directory, self._depot.dir_mode)
        for key, value in files.items():
            # What was said, or was there, when the others were written may have changed since.
            written = self._written.get(key)
            temp = written[1] if written and written[0] == value else self._write(value)
            temp.replace(self._directory / f"{key}.json")
        atomic.fsync_dir(self._directory)


def _bytes(member: Member, limit: int = checks.WORDS_MAX) -> bytes:
    if member.size > limit:
        raise ValueError(f"its member {show_word(member.name)} is too large")
    return member.read()
