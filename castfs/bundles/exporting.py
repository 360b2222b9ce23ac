"""Artifacts as one file, with all their versions, what is said of them, and their runs.

A bundle is a tar archive:

    castfs-bundle.json      format, version, the names
    blobs/<64 hex>          contents
    manifests/<64 hex>      trees
    names/<key>, runs/<id>, notes/<id>, snapshots/<id>      as in a store, in this order

Whatever a member needs stands before it, so a reader needs no second look.
"""

from __future__ import annotations

import contextlib
import io
import resource
import tarfile
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import BinaryIO, Literal, cast

import msgspec

from castfs.archive import write_target
from castfs.bundles import checks
from castfs.catalog import Catalog, Event, NameFile, RunFile, reading
from castfs.catalog.files import name_path
from castfs.catalog.words import (
    PREFIX,
    Word,
    looks_like_path,
    normalize_name,
    parse_word,
    show_word,
)
from castfs.digest import Digest
from castfs.errors import DamageError, NotFoundError, UsageError
from castfs.manifest import Tree, encode_manifest
from castfs.progress import SILENT, Progress
from castfs.repository.lookup import load_manifest
from castfs.repository.naming import pick_record
from castfs.repository.targets import refuse_inside
from castfs.store import BlobDir, Depot, Record, pin_manifest
from castfs.store.reading import iter_blob

FORMAT = "castfs-bundle"
SUFFIX = ".castfs"
HEADER = "castfs-bundle.json"


class Header(msgspec.Struct, frozen=True):
    """What the first member says."""

    names: tuple[str, ...]
    #: How many members follow: a bundle that was cut between two looks whole otherwise.
    member_count: int
    format: Literal["castfs-bundle"] = "castfs-bundle"
    version: Literal[1] = 1


@dataclass(frozen=True, slots=True, kw_only=True)
class BundleResult:
    """A written bundle. Sizes in bytes; each content counts once. `left_out` are the ids of
    snapshots that have a name, and no version of it."""

    path: Path | None
    names: tuple[str, ...]
    version_count: int
    run_count: int
    blob_count: int
    blob_bytes: int
    left_out: tuple[str, ...] = ()


def export_bundle(
    depot: Depot,
    words: Sequence[str],
    target: Path | BinaryIO,
    *,
    replace: bool = False,
    progress: Progress = SILENT,
) -> BundleResult:
    """Write versions, and of a name alone all that are not in the trash. NotFoundError,
    AmbiguousError, UsageError, TargetError; BlobError for what is damaged, DamageError for what
    could not be imported again, and then there is no file."""
    if isinstance(target, Path):
        refuse_inside(target, depot)
    with reading(depot) as catalog:
        if damages := catalog.damages("live"):
            raise damages[0]  # it would be missing, and nobody would know
        chosen = _Chosen(catalog, words)
        runs = _runs_of(catalog, chosen.records)
        name_files = [
            _told_elsewhere(known, chosen.of_name(name), name in chosen.whole, depot.marker.id)
            for name in chosen.names
            if (known := catalog.name(name)) is not None
        ]
    records = chosen.records
    contents = _Contents(depot, records)
    with contents.pinned():
        blobs = contents.survey()
        texts = _encode(depot, name_files, runs, records)
        with _refused_already():
            checks.check_together(chosen.names, name_files, runs, (), records)
            for record in records:
                checks.check_record(
                    record, contents.facts[record.manifest], contents.opened(record)
                )
        progress.phase("exporting", total=sum(blobs.values()), unit="bytes")

        def write(file: BinaryIO) -> None:
            with tarfile.open(fileobj=file, mode="w|", format=tarfile.PAX_FORMAT) as tar:
                count = len(blobs) + len(contents.manifests) + len(texts)
                header = Header(names=chosen.names, member_count=count)
                _add(tar, HEADER, msgspec.json.encode(header))
                for digest, size in blobs.items():
                    _add_blob(tar, depot.blobs, digest, size)
                    progress.advance(1, size)
                for manifest_id in contents.manifests:
                    chunks = encode_manifest(load_manifest(depot, manifest_id))
                    _add(tar, f"manifests/{manifest_id}", b"".join(chunks))
                for member, text in texts.items():
                    _add(tar, member, text)

        path = None
        if isinstance(target, Path):
            path = target
            write_target(path, write, replace=replace)
        else:
            write(target)
    return BundleResult(
        path=path,
        names=chosen.names,
        version_count=len(records),
        run_count=len(runs),
        blob_count=len(blobs),
        blob_bytes=sum(blobs.values()),
        left_out=tuple(chosen.left_out),
    )


class _Chosen:
    """What the words mean: versions, by name and in their order."""

    def __init__(self, catalog: Catalog, words: Sequence[str]) -> None:
        #: Names of which all versions are meant.
        self.whole: set[str] = set()
        self.left_out: list[str] = []
        self._of_name: dict[str, dict[str, Record]] = {}
        for word in words:
            if not (_is_only_name(word) and self._take_name(catalog, word)):
                self._take(pick_record(catalog, word), word)

    def _take_name(self, catalog: Catalog, word: str) -> bool:
        """All versions of a name. False if the word may be an id."""
        name = normalize_name(word)
        found = list(catalog.iter_records(name=name))
        if not found and PREFIX.fullmatch(word):
            return False
        if not found:
            raise NotFoundError(f"nothing is called {show_word(word)}", hint="see `castfs list`")
        versions = [record for record in found if record.version is not None]
        self.left_out += sorted(record.id for record in found if record.version is None)
        if not versions:
            raise _no_version(word)
        self.whole.add(name)
        for record in versions:
            self._take(record, word)
        return True

    def _take(self, record: Record, word: str) -> None:
        if record.name is None or record.version is None:
            raise _no_version(word)
        self._of_name.setdefault(record.name, {})[record.id] = record

    @property
    def names(self) -> tuple[str, ...]:
        return tuple(self._of_name)

    def of_name(self, name: str) -> list[Record]:
        """In their order."""
        found = self._of_name[name].values()
        return sorted(found, key=lambda record: (record.version or 0, record.id))

    @property
    def records(self) -> list[Record]:
        return [record for name in self._of_name for record in self.of_name(name)]


def _is_only_name(word: str) -> bool:
    return not looks_like_path(word) and parse_word(word) == Word(normalize_name(word))


def _no_version(word: str) -> UsageError:
    return UsageError(
        f"{show_word(word)} is no version of a name, and bundles hold versions",
        hint="export it as .tar, or ingest it with --name",
    )


def _told_elsewhere(
    name: NameFile, records: Sequence[Record], is_whole: bool, store_id: str
) -> NameFile:
    """What a name's file says of these versions, as others are told it: of each event, in which
    store it happened. Of a version that is there nobody has to know that it was away."""
    versions = {record.version for record in records}
    aliases = {a: version for a, version in name.aliases.items() if version in versions}

    def is_told(event: Event) -> bool:
        if event.kind in checks.LIFE:
            return is_whole and event.version not in versions
        return event.alias in aliases or (is_whole and event.alias not in name.aliases)

    history = tuple(
        msgspec.structs.replace(event, store=event.store or store_id)
        for event in name.history
        if is_told(event)
    )
    told = msgspec.structs.replace(name, aliases=aliases, history=history)
    return msgspec.structs.replace(told, last_version=checks.believed_last(told, records))


def _encode(
    depot: Depot, names: Sequence[NameFile], runs: Sequence[RunFile], records: Sequence[Record]
) -> dict[str, bytes]:
    """The members that are no contents and no trees. DamageError for what no import would take."""
    texts: dict[str, bytes] = {}
    with _refused_already():
        for name in names:
            checks.check_name_file(name)
            texts[f"names/{name_path(depot, name.name).stem}"] = msgspec.json.encode(name)
        for run in runs:
            checks.check_run(run)
            texts[f"runs/{run.id}"] = msgspec.json.encode(run)
        for record in records:
            checks.check_record_alone(record)
            texts[f"snapshots/{record.id}"] = msgspec.json.encode(record)
        for member, text in texts.items():
            if len(text) > checks.WORDS_MAX:
                raise ValueError(f"{member} would have {len(text):,} bytes")
    return texts


@contextlib.contextmanager
def _refused_already() -> Iterator[None]:
    """Not on the day on which somebody needs the bundle."""
    try:
        yield
    except (ValueError, RecursionError) as exc:
        raise DamageError(
            f"no import would take this: {exc}",
            hint="take it out with `castfs rm`, or export the other versions alone",
        ) from exc


def _runs_of(catalog: Catalog, records: Sequence[Record]) -> list[RunFile]:
    """Those that made or used them."""
    ids: dict[str, None] = {}
    for record in records:
        for run_id in (*catalog.makers_of(record), *catalog.users_of(record.id)):
            ids[run_id] = None
    found = (catalog.run(run_id) for run_id in sorted(ids))
    return [run for run in found if run is not None]


class _Contents:
    """The manifests and blobs of records, held while they are written."""

    def __init__(self, depot: Depot, records: Sequence[Record]) -> None:
        self._depot = depot
        self._records = {Digest(record.manifest): record for record in records}
        self.facts: dict[str, checks.TreeFacts] = {}

    @property
    def manifests(self) -> list[Digest]:
        return list(self._records)

    def pinned(self) -> _Pins:
        return _Pins(self._depot, self._records)

    def survey(self) -> dict[Digest, int]:
        """Digest → size of all blobs, in the order in which the trees name them. Trees are read one
        after the other."""
        found: dict[Digest, int] = {}
        for manifest_id in self._records:
            tree = load_manifest(self._depot, manifest_id).tree
            found |= {file.digest: file.size_bytes for file in tree.files.values()}
            self.facts[manifest_id] = checks.TreeFacts.of(tree)
        return found

    def opened(self, record: Record) -> Callable[[], Tree]:
        return lambda: load_manifest(self._depot, Digest(record.manifest)).tree


class _Pins:
    def __init__(self, depot: Depot, records: dict[Digest, Record]) -> None:
        self._stack = contextlib.ExitStack()
        self._depot = depot
        self._records = records

    def __enter__(self) -> None:
        with self._stack:
            # A pin of a reader that may not write has two descriptors.
            self._stack.enter_context(_descriptors(2 * len(self._records) + 200))
            for manifest_id, record in self._records.items():
                pin = pin_manifest(self._depot, manifest_id, purpose="export", record_id=record.id)
                self._stack.enter_context(pin)
            self._stack = self._stack.pop_all()

    def __exit__(self, *_: object) -> None:
        self._stack.close()


@contextlib.contextmanager
def _descriptors(count: int) -> Iterator[None]:
    """So many may be open, if the system allows it: most allow more than programs start with."""
    before = resource.getrlimit(resource.RLIMIT_NOFILE)
    soft, hard = before
    if soft != resource.RLIM_INFINITY and soft < count:
        wanted = count if hard == resource.RLIM_INFINITY else min(count, hard)
        resource.setrlimit(resource.RLIMIT_NOFILE, (max(soft, wanted), hard))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_NOFILE, before)


def _add(tar: tarfile.TarFile, name: str, data: bytes) -> None:
    tar.addfile(_member(name, len(data)), io.BytesIO(data))


def _add_blob(tar: tarfile.TarFile, blobs: BlobDir, digest: Digest, size: int) -> None:
    pieces = iter_blob(blobs, digest.encode(), digest, size)
    # All that tarfile asks of it is `read`.
    tar.addfile(_member(f"blobs/{digest}", size), cast("BinaryIO", _Pieces(pieces)))
    # Of a large one it is known only after the last piece whether it is what its name says.
    assert not any(map(len, pieces))


def _member(name: str, size: int) -> tarfile.TarInfo:
    """Nothing in it depends on who writes it, or when."""
    member = tarfile.TarInfo(name)
    member.size = size
    member.mode = 0o444
    return member


class _Pieces:
    """An iterator of bytes as a file that is read once, from its start to its end."""

    def __init__(self, pieces: Iterator[memoryview]) -> None:
        self._pieces = pieces
        self._rest = bytearray()

    def read(self, size: int) -> bytes:
        while len(self._rest) < size:
            piece = next(self._pieces, None)
            if piece is None:
                break
            self._rest += piece
        data = bytes(self._rest[:size])
        del self._rest[:size]
        return data
