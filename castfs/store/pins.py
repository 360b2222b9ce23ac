"""Pins: how a reader keeps a snapshot whole while it reads. Every reader of blobs takes one.

A reader that may write the store holds a lease with its own link of the manifest. One that may not
(a read-only medium, somebody else's store) holds a shared flock on the manifest, and on the record
where it knows one; the collector and permanent deletion need those exclusively. Where neither works
the reader is told that nothing protects it.
"""

from __future__ import annotations

import contextlib
import errno
import fcntl
import os
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path

from castfs import atomic
from castfs.digest import Digest
from castfs.errors import DamageError, NotFoundError, StoreError
from castfs.store.depot import Depot
from castfs.store.failures import hint_for
from castfs.store.leases import Lease, released
from castfs.store.locks import open_lock, try_flock
from castfs.store.staging import BLOB_MODE

_FULL = (errno.ENOSPC, errno.EDQUOT)


@dataclass(frozen=True)
class Pin:
    """What is held. Nothing keeps a collector away unless `protected`; `beat` shows life."""

    protected: bool
    beat: Callable[[], None] = lambda: None


@contextlib.contextmanager
def pin_manifest(
    depot: Depot, manifest_id: Digest, *, purpose: str, record_id: str | None = None
) -> Iterator[Pin]:
    """Hold a manifest of the store, and all its blobs, until the context ends or the process dies.

    NotFoundError if the record was removed meanwhile, DamageError if the manifest is not there.
    """
    if depot.writable:
        lease = Lease(depot.leases_dir, kind="reader", purpose=purpose, mode=depot.file_mode)
        with released(lease, depot.locks):
            if _lease_manifest(depot, lease, manifest_id, record_id):
                yield Pin(protected=True, beat=lease.beat)
                return
    with _hold_files(depot, manifest_id, record_id) as pin:
        yield pin


def _lease_manifest(depot: Depot, lease: Lease, manifest_id: Digest, record_id: str | None) -> bool:
    """False if there is no space for a lease: a full store must be readable all the same."""
    with depot.locks.shared():
        _check_present(depot, manifest_id, record_id)
        try:
            lease.acquire()
            lease.add_manifest(depot.manifest_path(manifest_id))
        except OSError as exc:
            lease.release()
            if exc.errno in _FULL:
                return False
            raise _no_lease(depot, exc) from exc
    return True


@contextlib.contextmanager
def pin_foreign(depot: Depot, chunks: list[bytes], *, purpose: str) -> Iterator[Pin]:
    """Hold the blobs of a manifest that the store does not have (a file that somebody gave).

    The caller checks afterwards that every blob is there: they may have been collected before.
    """
    if depot.writable:
        lease = Lease(depot.leases_dir, kind="reader", purpose=purpose, mode=depot.file_mode)
        with released(lease, depot.locks):
            if _lease_foreign(depot, lease, chunks):
                yield Pin(protected=True, beat=lease.beat)
                return
    yield Pin(protected=False)


def _lease_foreign(depot: Depot, lease: Lease, chunks: list[bytes]) -> bool:
    """False if there is no space for it."""
    temp = None
    try:
        # Written before the lock is taken, which nobody holds while a disk works.
        temp = atomic.write_temp(depot.staging_dir, chunks, mode=BLOB_MODE)
        with depot.locks.shared():
            lease.acquire()
            temp.replace(lease.manifest_path)
    except OSError as exc:
        lease.release()
        if exc.errno in _FULL:
            return False
        raise _no_lease(depot, exc) from exc
    finally:
        if temp is not None:
            temp.unlink(missing_ok=True)
    return True


def _no_lease(depot: Depot, exc: OSError) -> StoreError:
    return StoreError(
        f"cannot write a lease in {depot.leases_dir}: {exc.strerror}",
        hint=hint_for(exc, "free some space, or make the store read-only for this user"),
    )


def _check_present(depot: Depot, manifest_id: Digest, record_id: str | None) -> None:
    if record_id is not None and not depot.record_path(record_id).exists():
        raise NotFoundError(f"snapshot {record_id} was removed", hint="see `castfs list`")
    if not depot.manifest_path(manifest_id).is_file():
        raise DamageError(
            f"manifest {manifest_id} is missing from {depot.manifests_dir}",
            hint="ingest the same tree again, or import its manifest",
        )


@contextlib.contextmanager
def _hold_files(depot: Depot, manifest_id: Digest, record_id: str | None) -> Iterator[Pin]:
    with contextlib.ExitStack() as stack:
        with contextlib.ExitStack() as locked:
            # Without the lock files (a copy on a read-only medium that lacks them) there is no
            # collector either that could be kept away.
            with contextlib.suppress(StoreError):
                locked.enter_context(depot.locks.shared())
            _check_present(depot, manifest_id, record_id)
            paths = [depot.manifest_path(manifest_id)]
            if record_id is not None:
                paths.append(depot.record_path(record_id))
            held = [_hold(stack, path) for path in paths]
        yield Pin(protected=all(held))


def _hold(stack: contextlib.ExitStack, path: Path) -> bool:
    try:
        fd = open_lock(path)
    except OSError:
        return False
    stack.callback(os.close, fd)
    try:
        return try_flock(fd, fcntl.LOCK_SH)
    except OSError as exc:
        if exc.errno in (errno.ENOLCK, errno.EOPNOTSUPP, errno.ENOSYS, errno.EINVAL):
            return False
        raise
