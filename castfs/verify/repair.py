"""Healing what is bad, and only that, from another store or from the files themselves."""

from __future__ import annotations

import functools
import os
import stat
from collections.abc import Container, Iterable, Iterator, Mapping
from pathlib import Path

from castfs.digest import Digest, ReadError, digest_fd
from castfs.errors import CastfsError, ManifestError, NoStoreError, SourceError
from castfs.manifest import decode_stored, encode_manifest, is_stored_whole
from castfs.progress import Progress
from castfs.store import BlobDir, Depot, WriteSession, open_depot

_FLAGS = os.O_RDONLY | os.O_CLOEXEC | os.O_NOFOLLOW | os.O_NONBLOCK


class Source:
    """A store, an older archive (a directory with `blobs`), or a directory with files."""

    def __init__(self, path: Path) -> None:
        if not path.is_dir():
            raise SourceError(
                f"{path} is no directory", hint="name a store, or a directory with good files"
            )
        self._path = path
        self._depot: Depot | None = None
        self._blobs: BlobDir | None = None
        try:
            self._depot = open_depot(path)
            self._blobs = self._depot.blobs
        except NoStoreError:
            if (path / "blobs").is_dir():
                self._blobs = BlobDir(path / "blobs")

    def is_same(self, depot: Depot) -> bool:
        return os.path.samefile(self._path, depot.path)

    def read_manifest(self, manifest_id: Digest) -> bytes | None:
        if self._depot is None:
            return None
        try:
            return self._depot.read_manifest(manifest_id)
        except CastfsError:
            return None

    def iter_candidates(self, wanted: Mapping[str, int]) -> Iterator[int]:
        """Descriptors of files that may have one of the contents `wanted` (digest → size); each is
        closed when the next is asked for."""
        names = _walk(self._path)
        if self._blobs is not None:
            blobs = self._blobs
            names = iter([(blobs.name(digest), blobs.dir_fd) for digest in wanted])
        yield from _open_each(names, set(wanted.values()))


def _walk(top: Path) -> Iterator[tuple[str, int]]:
    for _, _, names, dir_fd in os.fwalk(top, follow_symlinks=False):
        for name in names:
            yield name, dir_fd


def _open_each(names: Iterable[tuple[str, int]], sizes: Container[int]) -> Iterator[int]:
    for name, dir_fd in names:
        try:
            fd = os.open(name, _FLAGS, dir_fd=dir_fd)
        except OSError:
            continue
        try:
            status = os.fstat(fd)
            if stat.S_ISREG(status.st_mode) and status.st_size in sizes:
                yield fd
        finally:
            os.close(fd)


def repair_manifests(depot: Depot, source: Source, manifest_ids: Iterable[str]) -> set[str]:
    """Write again those manifests that the source has. Returns which. StoreError."""
    repaired: set[str] = set()
    with WriteSession(depot, purpose="repair") as session:
        for manifest_id in map(Digest, manifest_ids):
            raw = source.read_manifest(manifest_id)
            if raw is None:
                continue
            try:
                manifest = decode_stored(raw, manifest_id)
            except ManifestError:
                continue
            is_sound = functools.partial(is_stored_whole, manifest)
            session.publish_manifest(manifest_id, encode_manifest(manifest), is_sound=is_sound)
            repaired.add(manifest_id)
    return repaired


def repair_blobs(
    depot: Depot, source: Source, wanted: Mapping[str, int], progress: Progress
) -> set[str]:
    """Store again those contents `wanted` (digest → size) that the source has. Returns which.

    What is there is compared byte for byte first, so that only the bad is replaced. StoreError.
    """
    rest = dict(wanted)
    progress.phase("repairing", total=len(rest))
    with WriteSession(depot, purpose="repair", check_existing=True) as session:
        for fd in source.iter_candidates(rest):
            try:
                # Before it is staged: a directory may have many files of one size.
                if digest_fd(fd) not in rest:
                    continue
                os.lseek(fd, 0, os.SEEK_SET)
                staged = session.stage_file(fd)
            except ReadError:
                continue  # the source has a bad file, too
            if rest.pop(staged.digest, None) is not None:
                progress.advance(1, staged.size)
            if not rest:
                break
        repaired = set(wanted) - set(rest)
        session.commit_blobs(wanted=repaired)
    return repaired
