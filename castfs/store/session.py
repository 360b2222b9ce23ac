"""Writing to the store: one session for each ingest, import or heal. Blobs get in no other way.

    lease → staging → syncfs → renames → syncfs → manifest → record (and the lease goes)

Nothing stands under its final name before its bytes are on the medium, and nothing refers to
anything that is not: after a crash at any point the store holds the old state or the new one.
"""

from __future__ import annotations

import contextlib
import errno
import os
import shutil
import stat
from collections.abc import Callable, Container, Iterable, Sequence
from pathlib import Path
from types import TracebackType
from typing import Self

from castfs import atomic, syscalls
from castfs.digest import Digest, ReadError, digest_bytes, iter_chunks
from castfs.errors import StoreError
from castfs.paths import escape
from castfs.store.depot import Depot
from castfs.store.failures import as_store_error, store_errors
from castfs.store.leases import Lease, released
from castfs.store.records import Record, encode_record
from castfs.store.staging import BLOB_MODE, LOCK_BATCH, StagedFile, Staging, StagingParams


class WriteSession:
    """A context manager. Leaving it without `publish` discards everything that was staged.

    It belongs to the thread that opened it; reader processes attach to its `params`.
    """

    def __init__(self, depot: Depot, *, purpose: str, check_existing: bool = False) -> None:
        self.depot = depot
        self._purpose = purpose
        self._check_existing = check_existing
        #: Written, and not published yet: id → where.
        self._records: dict[str, Path] = {}
        self._cleanup = contextlib.ExitStack()

    def __enter__(self) -> Self:
        try:
            with store_errors(self.depot.path):
                self._open()
                return self
        except BaseException:
            with contextlib.suppress(OSError):
                self._cleanup.close()
            raise

    def _open(self) -> None:
        # Each thing is seen to before it is made: a signal may come between any two lines.
        stack = self._cleanup
        # Opened before the first byte is staged, so that it reports every write error since.
        self._sync_fd = os.open(self.depot.path, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
        stack.callback(os.close, self._sync_fd)
        self._each_alone = not syscalls.has_reliable_syncfs(self._sync_fd)
        self._lease = Lease(
            self.depot.leases_dir,
            kind="writer",
            purpose=self._purpose,
            mode=self.depot.file_mode,
        )
        stack.enter_context(released(self._lease, self.depot.locks))
        with self.depot.locks.shared():
            self._lease.acquire()
        path = self.depot.staging_dir / self._lease.id
        stack.callback(shutil.rmtree, path, ignore_errors=True)
        # Any member's collector must be able to clear it.
        atomic.ensure_dir(path, self.depot.dir_mode, durable=False)
        self.params = StagingParams(
            depot=escape(os.fsencode(self.depot.path)),
            lease=self._lease.id,
            needs_chmod=self._probe(path),
            each_alone=self._each_alone,
            check_existing=self._check_existing,
        )
        self.staging = Staging(self.depot, self.params)
        stack.callback(self.staging.close)

    def __exit__(
        self,
        kind: type[BaseException] | None,
        exc: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        # What is left to do is no matter any more, whether the session was committed or not.
        with contextlib.suppress(OSError):
            self._cleanup.close()
        if isinstance(exc, OSError) and (error := as_store_error(exc, self.depot.path)):
            raise error from exc

    def _probe(self, staging: Path) -> bool:
        """Can staging be renamed into blobs? Returns whether the umask changes a mode of 0444."""
        name = f"probe-{self._lease.id}"
        flags = os.O_CREAT | os.O_EXCL | os.O_WRONLY | os.O_CLOEXEC
        fd = os.open(staging / name, flags, BLOB_MODE)
        needs_chmod = stat.S_IMODE(os.fstat(fd).st_mode) != BLOB_MODE
        os.close(fd)
        target = self.depot.blobs.path / name
        self._cleanup.callback(target.unlink, missing_ok=True)
        try:
            (staging / name).rename(target)
        except OSError as exc:
            if exc.errno != errno.EXDEV:
                raise
            raise StoreError(
                f"staging and blobs of {self.depot.path} lie on different filesystems",
                hint="keep the whole store on one",
            ) from exc
        target.unlink()
        return needs_chmod

    def pin_parent(self, record_id: str, manifest_id: Digest) -> Path | None:
        """Hold an older manifest whole, as a reader would. Returns where it lies from now on.

        The collector keeps what a lease's manifest names, so its blobs need no logging or touching:
        presence and size are all that has to be seen to. None if the record is gone meanwhile.
        """
        with self.depot.locks.shared():
            if not self.depot.record_path(record_id).exists():
                return None
            try:
                self._lease.add_manifest(self.depot.manifest_path(manifest_id))
            except FileNotFoundError:
                return None
        return self._lease.manifest_path

    def beat(self) -> None:
        """Show that the session lives while others work for it. Cheap to call often."""
        self._lease.beat()

    def claim(self, blobs: Sequence[tuple[Digest, int]]) -> list[bool]:
        """Rely on (digest, size) that should be there. False: missing, or of another size."""
        self._lease.beat()
        return self.staging.claim(blobs)

    def has_staged(self, digest: str) -> bool:
        """Will the commit put this content into the store?"""
        return self.staging.is_staged(digest)

    def stage_file(self, source_fd: int) -> StagedFile:
        """Stage the rest of an open file; see `Staging.stage_file`."""
        self._lease.beat()
        return self.staging.stage_file(source_fd)

    def stage_bytes(self, data: bytes) -> StagedFile:
        """Stage content that is in memory."""
        return self.staging.stage_bytes(data, digest_bytes(data))

    def commit_blobs(
        self,
        progress: Callable[[int], None] = lambda count: None,
        *,
        wanted: Container[str] | None = None,
    ) -> None:
        """Put what is staged (of it, what is `wanted`) under its final name, durably.

        What was staged from a file that then changed is not wanted. `progress` gets the counts of
        batches.
        """
        with store_errors(self.depot.path):
            self._lease.check()
            self._sync()
            # By path: a btrfs directory that was opened earlier lists what was in it then (kernel
            # 6.5, commit 9b378f6ad48c), so through dir_fd nothing would be committed.
            shards = [name for name in sorted(os.listdir(self.staging.path)) if len(name) == 2]
            blobs = self.depot.blobs
            for shard in shards:
                atomic.ensure_dir(blobs.path / shard, self.depot.dir_mode, durable=False)
                names = [
                    Digest(name)
                    for name in os.listdir(self.staging.path / shard)
                    if wanted is None or name in wanted
                ]
                for start in range(0, len(names), LOCK_BATCH):
                    batch = names[start : start + LOCK_BATCH]
                    self._commit_batch(batch)
                    progress(len(batch))
            # Always, also when nothing was staged: a blob that was claimed may be another
            # writer's rename that is not on the medium yet.
            if self._each_alone:
                for shard in os.listdir(blobs.path):
                    if len(shard) == 2:
                        atomic.fsync_dir(blobs.path / shard)
                os.fsync(blobs.dir_fd)
            self._sync()

    def _commit_batch(self, digests: Sequence[Digest]) -> None:
        blobs = self.depot.blobs
        staging_fd = self.staging.dir_fd
        with self.depot.locks.shared():
            self.staging.log(digests)
            self._lease.beat()
            for digest in digests:
                # A rename keeps the mtime; a blob staged hours ago must not look hours old. What
                # stands there by now was wrong, or is another writer's same bytes.
                name = blobs.name(digest)
                os.utime(name, dir_fd=staging_fd)
                os.rename(name, name, src_dir_fd=staging_fd, dst_dir_fd=blobs.dir_fd)

    def _sync(self) -> None:
        self._lease.beat()
        if not self._each_alone:
            syscalls.syncfs(self._sync_fd)

    def publish(
        self,
        manifest_id: Digest,
        manifest: Iterable[bytes],
        record: Record,
        *,
        is_sound: Callable[[Iterable[memoryview]], bool],
    ) -> bool:
        """`publish_manifest` and `publish_record`."""
        new = self.publish_manifest(manifest_id, manifest, is_sound=is_sound)
        self.publish_record(record)
        return new

    def publish_manifest(
        self,
        manifest_id: Digest,
        manifest: Iterable[bytes],
        *,
        is_sound: Callable[[Iterable[memoryview]], bool],
    ) -> bool:
        """Write the manifest if the store has none of that id. Returns whether it is new.

        It stays as long as the session does, then until a collector finds that nothing refers to
        it. `is_sound` looks at the bytes of the one that is there, a piece at a time: a damaged one
        is replaced.
        """
        with store_errors(self.depot.path):
            new = self._publish_manifest(manifest_id, manifest, is_sound)
            self._lease.check()
        return new

    def publish_record(self, record: Record) -> None:
        """Record a manifest that was published, and release the lease. Takes milliseconds."""
        self.publish_records([record])

    def stage_records(self, records: Sequence[Record]) -> None:
        """Write and sync them, so that `publish_records` has only to rename them."""
        with store_errors(self.depot.path):
            for record in records:
                if record.id not in self._records:
                    chunks = [encode_record(record)]
                    temp = atomic.write_temp(self.staging.path, chunks, mode=BLOB_MODE)
                    self._records[record.id] = temp

    def publish_records(self, records: Sequence[Record]) -> None:
        """Several at one moment."""
        self.stage_records(records)
        with store_errors(self.depot.path):
            temps = [self._records[record.id] for record in records]
            made: list[Path] = []
            try:
                with self.depot.locks.shared():
                    self._lease.check()
                    for record in records:
                        self._check_manifest(record)
                    for record, temp in zip(records, temps, strict=True):
                        made.append(temp.replace(self.depot.record_path(record.id)))
                    self._lease.release()
                atomic.fsync_dir(self.depot.snapshots_dir)
            except BaseException:
                # Nobody was told of them, and a power cut might take them back.
                with contextlib.suppress(OSError, StoreError), self.depot.locks.shared():
                    for path in made:
                        path.unlink()
                raise

    def _check_manifest(self, record: Record) -> None:
        """Between the two only its time protects a manifest, and clocks step."""
        if not self.depot.manifest_path(record.manifest).exists():
            raise StoreError(
                f"manifest {record.manifest} was deleted before its snapshot was recorded",
                hint="run the command again",
            )

    def _publish_manifest(
        self,
        manifest_id: Digest,
        manifest: Iterable[bytes],
        is_sound: Callable[[Iterable[memoryview]], bool],
    ) -> bool:
        path = self.depot.manifest_path(manifest_id)
        new = False
        if not (_is_sound_file(path, is_sound) and self._rely_on(manifest_id)):
            atomic.ensure_dir(path.parent, self.depot.dir_mode)
            temp = atomic.write_temp(self.staging.path, manifest, mode=BLOB_MODE)
            with self.depot.locks.shared():
                self.staging.log([manifest_id])
                new = not path.exists()
                temp.replace(path)
        # Always: what is there may be another writer's directory or rename of a moment ago.
        atomic.fsync_dir(path.parent)
        atomic.fsync_dir(path.parent.parent)
        return new

    def _rely_on(self, manifest_id: Digest) -> bool:
        """Make a manifest that is there young, until the record leads to it. Logged as blobs are:
        clocks step. False where it is gone, or another owner's."""
        with self.depot.locks.shared():
            self.staging.log([manifest_id])
            try:
                os.utime(self.depot.manifest_path(manifest_id))
            except (FileNotFoundError, PermissionError):
                return False
        return True


def _is_sound_file(path: Path, is_sound: Callable[[Iterable[memoryview]], bool]) -> bool:
    try:
        fd = os.open(path, os.O_RDONLY | os.O_CLOEXEC | os.O_NONBLOCK)
    except OSError:
        return False
    try:
        return is_sound(iter_chunks(fd))
    except ReadError:
        return False
    finally:
        os.close(fd)
