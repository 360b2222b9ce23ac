"""Whose leases are alive."""

from __future__ import annotations

import fcntl
import os
from dataclasses import dataclass
from typing import Literal

from castfs import syscalls
from castfs.errors import DamageError
from castfs.gc.plan import Keeper
from castfs.paths import display
from castfs.store import Depot
from castfs.store.leases import HEADER_MAX, HEARTBEAT_LIMIT_SECONDS, decode_header
from castfs.store.locks import open_lock, try_flock
from castfs.store.roots import STOPPED_HINT, unreadable_root


@dataclass(slots=True)
class LiveLease:
    """A lease whose owner lives. `read_to` is where what was not looked at yet begins."""

    id: str
    kind: Literal["writer", "reader"]
    stamp_ns: int
    read_to: int

    @property
    def keeper(self) -> Keeper:
        return Keeper.INGESTS if self.kind == "writer" else Keeper.READERS


def probe_lease(
    depot: Depot, lease_id: str, *, now_ns: int, local: bool
) -> tuple[LiveLease | None, int]:
    """The lease if its owner lives, and a descriptor to close, which holds the flock otherwise.

    Call it while the store is held exclusively. DamageError if nobody can tell. The flock decides
    where all who could hold it run on this kernel; elsewhere the heartbeat does. FileNotFoundError.
    """
    path = depot.leases_dir / f"{lease_id}.lease"
    try:
        fd = open_lock(path)
    except FileNotFoundError:
        raise
    except OSError as exc:
        raise unreadable_root(path, exc) from exc
    try:
        dead = try_flock(fd, fcntl.LOCK_EX)
        decoded = decode_header(os.pread(fd, HEADER_MAX, 0))
        status = os.fstat(fd)
        if dead and not local and (decoded is None or decoded[0].boot_id != syscalls.boot_id()):
            # One that is ahead by as much was stamped by a wrong clock.
            dead = abs(now_ns - status.st_mtime_ns) > HEARTBEAT_LIMIT_SECONDS * 1_000_000_000
        if dead:
            return None, fd
        if decoded is not None:
            header, start = decoded
            return LiveLease(lease_id, header.kind, header.stamp_ns, start), fd
        if local:
            raise DamageError(
                f"{display(os.fsencode(path))} is in use, but nobody can tell for what",
                hint=STOPPED_HINT,
            )
        # Torn before its owner relied on anything: another machine's, so it may not be removed yet.
        return LiveLease(lease_id, "reader", status.st_mtime_ns, status.st_size), fd
    except OSError as exc:
        os.close(fd)
        raise unreadable_root(path, exc) from exc
    except BaseException:
        os.close(fd)
        raise
