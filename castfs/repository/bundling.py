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
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import BinaryIO, Literal, cast

import msgspec

from castfs.archive import write_target
from castfs.catalog import Catalog, RunFile, reading
from castfs.catalog.files import name_path
from castfs.catalog.words import check_name, show_word
from castfs.digest import Digest
from castfs.errors import NotFoundError
from castfs.manifest import encode_manifest
from castfs.progress import SILENT, Progress
from castfs.repository.lookup import load_manifest
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
    """A written bundle. Sizes in bytes; each content counts once."""

    path: Path | None
    names: tuple[str, ...]
    version_count: int
    run_count: int
    blob_count: int
    blob_bytes: int


def export_bundle(
    depot: Depot,
    names: Sequence[str],
    target: Path | BinaryIO,
    *,
    replace: bool = False,
    progress: Progress = SILENT,
) -> BundleResult:
    """Write all versions of `names` that are not in the trash. NotFoundError, TargetError;
    BlobError for what is damaged, and then there is no file."""
    names = tuple(dict.fromkeys(map(check_name, names)))
    with reading(depot) as catalog:
        if damages := catalog.damages("live"):
            raise damages[0]  # it would be missing, and nobody would know
        records = [record for name in names for record in _versions(catalog, name)]
        runs = _runs_of(catalog, records)
        name_files = [catalog.name(name) for name in names]
    contents = _Contents(depot, records)
    with contents.pinned():
        blobs = contents.blobs()
        progress.phase("exporting", total=sum(blobs.values()), unit="bytes")

        def write(file: BinaryIO) -> None:
            with tarfile.open(fileobj=file, mode="w|", format=tarfile.PAX_FORMAT) as tar:
                known_names = [known for known in name_files if known is not None]
                count = sum(map(len, (blobs, contents.manifests, known_names, runs, records)))
                header = Header(names=names, member_count=count)
                _add(tar, HEADER, msgspec.json.encode(header))
                for digest, size in blobs.items():
                    _add_blob(tar, depot.blobs, digest, size)
                    progress.advance(1, size)
                for manifest_id in contents.manifests:
                    chunks = encode_manifest(load_manifest(depot, manifest_id))
                    _add(tar, f"manifests/{manifest_id}", b"".join(chunks))
                for known in known_names:
                    key = name_path(depot, known.name).stem
                    _add(tar, f"names/{key}", msgspec.json.encode(known))
                for run in runs:
                    _add(tar, f"runs/{run.id}", msgspec.json.encode(run))
                for record in records:
                    _add(tar, f"snapshots/{record.id}", msgspec.json.encode(record))

        path = None
        if isinstance(target, Path):
            path = target
            write_target(path, write, replace=replace)
        else:
            write(target)
    return BundleResult(
        path=path,
        names=names,
        version_count=len(records),
        run_count=len(runs),
        blob_count=len(blobs),
        blob_bytes=sum(blobs.values()),
    )


def _versions(catalog: Catalog, name: str) -> list[Record]:
    """In their order."""
    found = list(catalog.iter_records(name=name))
    if not found:
        raise NotFoundError(f"nothing is called {show_word(name)}", hint="see `castfs list`")
    return sorted(found, key=lambda record: (record.version or 0, record.id))


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

    @property
    def manifests(self) -> list[Digest]:
        return list(self._records)

    def pinned(self) -> _Pins:
        return _Pins(self._depot, self._records)

    def blobs(self) -> dict[Digest, int]:
        """Digest → size, in the order in which the trees name them."""
        found: dict[Digest, int] = {}
        for manifest_id in self._records:
            tree = load_manifest(self._depot, manifest_id).tree
            found |= {file.digest: file.size_bytes for file in tree.files.values()}
        return found


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
