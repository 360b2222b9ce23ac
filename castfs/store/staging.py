"""The staging area of one write session: where content waits until it is on the medium.

Several processes may work in it: the session's owner holds the lease, its readers attach by path
and append to the lease what they rely on.
"""

from __future__ import annotations

import contextlib
import errno
import hashlib
import itertools
import os
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path

import msgspec

from castfs import atomic, syscalls
from castfs.digest import CHUNK_SIZE, Digest, ReadError, digest_fd, iter_chunks
from castfs.errors import CastfsError
from castfs.paths import unescape
from castfs.store.depot import Depot, open_depot

BLOB_MODE = 0o444
#: Blobs that are touched or renamed under one hold of the shared lock: about 10 ms, so a collector
#: waits no longer than that.
LOCK_BATCH = 256
#: st_blocks counts these (stat(2)).
_BLOCK = 512
_ZEROS = bytes(CHUNK_SIZE)


@dataclass(frozen=True, slots=True)
class StagedFile:
    """What was staged: its digest and size, and whether it is new to the store and the session."""

    digest: Digest
    size: int
    new: bool


class StagingParams(msgspec.Struct, frozen=True):
    """What another process needs to work in a session's staging area."""

    #: The store's path, escaped: any bytes.
    depot: str
    lease: str
    #: Does the umask take bits of 0444 away?
    needs_chmod: bool
    #: Is every file synced alone, because the filesystem's syncfs cannot be relied on?
    each_alone: bool
    #: Are blobs of the right size compared byte for byte before they are relied on?
    check_existing: bool


class Staging:
    """Belongs to one process and one thread."""

    def __init__(self, depot: Depot, params: StagingParams) -> None:
        self.depot = depot
        self.params = params
        self.path = depot.staging_dir / params.lease
        self._counter = itertools.count()
        self._shards: set[str] = set()
        self._can_clone = True
        with contextlib.ExitStack() as stack:
            self._fd = os.open(self.path, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
            stack.callback(os.close, self._fd)
            lease = depot.leases_dir / f"{params.lease}.lease"
            self._lease_fd = os.open(lease, os.O_WRONLY | os.O_APPEND | os.O_CLOEXEC)
            stack.callback(os.close, self._lease_fd)
            self._cleanup = stack.pop_all()

    @classmethod
    def attach(cls, params: StagingParams) -> Staging:
        """For a reader process: the same area, by path."""
        return cls(open_depot(Path(os.fsdecode(unescape(params.depot)))), params)

    def close(self) -> None:
        self._cleanup.close()

    @property
    def dir_fd(self) -> int:
        return self._fd

    def claim(self, blobs: Sequence[tuple[Digest, int]]) -> list[bool]:
        """Rely on (digest, size) that are thought to be there. False: missing, or of another size.

        Logged in the lease and touched under the shared lock, so that a collector that is at work
        keeps them.
        """
        size_of = self.depot.blobs.size
        result: list[bool] = []
        for start in range(0, len(blobs), LOCK_BATCH):
            batch = blobs[start : start + LOCK_BATCH]
            with self.depot.locks.shared():
                self.log(digest for digest, _ in batch)
                result += [
                    size_of(digest) == size and self._touch(digest) for digest, size in batch
                ]
        return result

    def claim_present(self, digest: Digest, size: int) -> bool:
        """Rely on one blob if it is there (and, where asked for, if its bytes are right)."""
        if self.depot.blobs.size(digest) != size:
            return False
        if self.params.check_existing and not self._is_sound(digest, size):
            return False
        return self.claim([(digest, size)])[0]

    def _is_sound(self, digest: Digest, size: int) -> bool:
        try:
            fd = self.depot.blobs.open(digest, size)
        except (CastfsError, OSError):
            return False
        try:
            return digest_fd(fd) == digest
        except ReadError:
            return False  # an own copy takes its place
        finally:
            os.close(fd)

    def log(self, digests: Iterable[Digest]) -> None:
        """Say in the lease that these are relied on. Call it while the store is held shared."""
        raw = bytes.fromhex("".join(digests))
        if raw and os.write(self._lease_fd, raw) != len(raw):
            # Half a digest in the middle would shift all that follow; the session is discarded.
            raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    def _touch(self, digest: Digest) -> bool:
        """Make a blob young. False where that is refused: the caller stores an own copy over it."""
        try:
            os.utime(self.depot.blobs.name(digest), dir_fd=self.depot.blobs.dir_fd)
        except (FileNotFoundError, PermissionError):
            return False
        return True

    def _create(self, name: str) -> int:
        flags = os.O_RDWR | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC
        fd = os.open(name, flags, BLOB_MODE, dir_fd=self._fd)
        if self.params.needs_chmod:
            os.fchmod(fd, BLOB_MODE)
        return fd

    def _shard(self, digest: str) -> str:
        """Where a finished blob waits: one of 256 directories, as in the store."""
        shard = digest[:2]
        if shard not in self._shards:
            atomic.ensure_dir(self.path / shard, self.depot.dir_mode, durable=False)
            self._shards.add(shard)
        return f"{shard}/{digest}"

    def stage_bytes(self, data: bytes, digest: Digest) -> StagedFile:
        """Stage content that fits in memory, whose digest the caller has just computed from these
        very bytes. Nothing is written if this session has it already."""
        name = self._shard(digest)
        try:
            fd = self._create(name)
        except FileExistsError:
            return StagedFile(digest, len(data), new=False)
        try:
            view = memoryview(data)
            while view:
                view = view[os.write(fd, view) :]
            if self.params.each_alone:
                os.fsync(fd)
        except BaseException:
            # It has the name under which a commit would take it for whole.
            os.unlink(name, dir_fd=self._fd)
            raise
        finally:
            os.close(fd)
        return StagedFile(digest, len(data), new=True)

    def stage_file(self, source_fd: int) -> StagedFile:
        """Stage the rest of an open file, hashing the very bytes that are stored.

        Where the filesystem can share extents the file is cloned first and the clone is hashed.
        Runs of zeros in a sparse file stay holes.
        """
        name = f"part-{os.getpid()}-{next(self._counter)}"
        fd = self._create(name)
        try:
            digest, size = self._fill(source_fd, fd)
            if self.params.each_alone:
                os.fsync(fd)
            final = self._shard(digest)
            new = not (self.is_staged(digest) or self.claim_present(digest, size))
            if new:
                os.rename(name, final, src_dir_fd=self._fd, dst_dir_fd=self._fd)
            else:
                os.unlink(name, dir_fd=self._fd)
        except BaseException:
            with contextlib.suppress(FileNotFoundError):
                os.unlink(name, dir_fd=self._fd)
            raise
        finally:
            os.close(fd)
        return StagedFile(digest, size, new=new)

    def is_staged(self, digest: str) -> bool:
        try:
            os.stat(self.depot.blobs.name(digest), dir_fd=self._fd)
        except FileNotFoundError:
            return False
        return True

    def _fill(self, source_fd: int, fd: int) -> tuple[Digest, int]:
        state = hashlib.sha256()
        size = 0
        if self._can_clone:
            self._can_clone = syscalls.clone_file(source_fd, fd)
            if self._can_clone:
                for chunk in iter_chunks(fd):
                    state.update(chunk)
                    size += len(chunk)
                return Digest(state.hexdigest()), size
        status = os.fstat(source_fd)
        sparse = status.st_blocks * _BLOCK < status.st_size
        for chunk in iter_chunks(source_fd):
            state.update(chunk)
            size += len(chunk)
            # As bytes: comparing a memoryview takes four times as long as hashing it.
            if sparse and chunk.tobytes() == _ZEROS[: len(chunk)]:
                os.lseek(fd, len(chunk), os.SEEK_CUR)
                continue
            view = chunk
            while view:
                view = view[os.write(fd, view) :]
        if sparse:
            os.ftruncate(fd, size)
        return Digest(state.hexdigest()), size
