"""Putting contents into a directory of blobs of Runicorn's layout, next to others who do."""

from __future__ import annotations

import contextlib
import hashlib
import os
from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Self, cast

from castfs import atomic
from castfs.digest import Digest, digest_fd, iter_chunks
from castfs.errors import BlobError, UsageError
from castfs.store import BlobDir, StagedFile, find_depot_above
from castfs.store.failures import store_errors
from castfs.store.locks import StoreLocks
from castfs.store.staging import BLOB_MODE

if TYPE_CHECKING:
    from types import TracebackType

    from castfs.store import Staging, WriteSession


class ArchiveLocks(StoreLocks):
    """The locks of one directory of blobs, in it: whoever writes a blob or deletes one knows that
    directory, and Runicorn passes over files there."""

    def __init__(self, blob_root: Path) -> None:
        super().__init__(blob_root)
        self.gate = blob_root / ".castfs-gate"
        self.store = blob_root / ".castfs-store"

    def create(self) -> None:
        for path in (self.gate, self.store):
            flags = os.O_RDONLY | os.O_CREAT | os.O_CLOEXEC | os.O_NOFOLLOW
            with contextlib.suppress(PermissionError):  # another's, who has made it
                os.close(os.open(path, flags, 0o666))


def refuse_store(path: Path, *, hint: str) -> None:
    """A castfs store has its own protocol: what were written or deleted here would break it."""
    if (depot := find_depot_above(path / "x")) is not None:
        raise UsageError(
            f"{path} lies in the castfs store {depot.path}",
            hint=hint,
        )


class BlobWriter:
    """A context manager; inside it no collector deletes. Belongs to one thread.

    It has those verbs of a castfs.store.WriteSession and its Staging that an ingest uses, so a scan
    puts what it reads here. A blob is committed as soon as it is read, under a lock that is held
    until the manifest is there: there is no later moment in which it could get lost.
    """

    #: For reader processes, which this has none of.
    params = None

    def __init__(self, blob_root: Path, *, durable: bool = True) -> None:
        """`durable` False is for a directory that is deleted again at once."""
        self._root = blob_root
        self._durable = durable
        self._shards: set[Path] = set()
        self._stack = contextlib.ExitStack()

    def __enter__(self) -> Self:
        with contextlib.ExitStack() as stack:
            if self._durable:
                refuse_store(
                    self._root, hint="name a directory of its own, or ingest with castfs.open()"
                )
                make_dirs(self._root)
                locks = ArchiveLocks(self._root)
                locks.create()
                stack.enter_context(locks.shared())
            self._blobs = BlobDir(self._root)
            stack.callback(self._blobs.close)
            self._stack = stack.pop_all()
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        exc: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        try:
            if exc is None:
                self.sync()
        finally:
            self._stack.close()

    def as_session(self) -> WriteSession:
        """For `scan`, with one reader."""
        return cast("WriteSession", self)

    @property
    def staging(self) -> Staging:
        return cast("Staging", self)

    def beat(self) -> None:
        """There is no lease that could look dead."""

    def has_staged(self, digest: str) -> bool:
        return self._blobs.size(digest) is not None

    def claim(self, blobs: Sequence[tuple[Digest, int]]) -> list[bool]:
        return [self.claim_present(digest, size) for digest, size in blobs]

    def claim_present(self, digest: Digest, size: int) -> bool:
        """Rely on a blob if it is there with the right bytes: they are read, since nothing else in
        this layout would ever find out, and its blobs may have been written to. It becomes young,
        or if that is refused (another's file) is replaced by an own copy."""
        try:
            fd = self._blobs.open(digest, size)
        except (BlobError, OSError):
            return False
        try:
            if digest_fd(fd) != digest:
                return False
            os.utime(self._blobs.name(digest), dir_fd=self._blobs.dir_fd)
        except OSError:
            return False
        finally:
            os.close(fd)
        return True

    def stage_bytes(self, data: bytes, digest: Digest) -> StagedFile:
        with store_errors(self._root):
            self._place(self._write([data]), digest)
        return StagedFile(digest, len(data), new=True)

    def stage_file(self, source_fd: int) -> StagedFile:
        """The rest of an open file: the very bytes that are written are hashed."""
        return self.stage_chunks(iter_chunks(source_fd))

    def stage_chunks(self, chunks: Iterable[bytes | memoryview]) -> StagedFile:
        state = hashlib.sha256()
        size = 0

        def hashed() -> Iterator[bytes]:
            nonlocal size
            for chunk in chunks:
                state.update(chunk)
                size += len(chunk)
                yield cast("bytes", chunk)

        with store_errors(self._root):
            temp = self._write(hashed())
            digest = Digest(state.hexdigest())
            if self.claim_present(digest, size):
                temp.unlink()
                return StagedFile(digest, size, new=False)
            self._place(temp, digest)
        return StagedFile(digest, size, new=True)

    def _write(self, chunks: Iterable[bytes]) -> Path:
        if self._durable:
            return atomic.write_temp(self._root, chunks, mode=BLOB_MODE)
        path = self._root / "part"
        with path.open("wb") as file:
            file.writelines(chunks)
        return path

    def _place(self, temp: Path, digest: Digest) -> None:
        path = self._root / self._blobs.name(digest)
        try:
            if path.parent not in self._shards:
                path.parent.mkdir(exist_ok=True)
                self._shards.add(path.parent)
            os.utime(temp)  # a rename keeps the time, and the copying may have taken hours
            temp.replace(path)
        except BaseException:
            temp.unlink(missing_ok=True)
            raise

    def sync(self) -> None:
        """What was placed is on the medium. Call it before anything that refers to it is."""
        if self._durable and self._shards:
            for shard in sorted(self._shards):
                atomic.fsync_dir(shard)
            atomic.fsync_dir(self._root)


def make_dirs(path: Path) -> None:
    """`path` with its parents, durably, by the user's umask: the layout is shared by mode bits."""
    missing = [parent for parent in (path, *path.parents) if not parent.is_dir()]
    path.mkdir(parents=True, exist_ok=True)
    for made in missing:
        atomic.fsync_dir(made.parent)
