"""Leases: files that say "what I name is in use", held by flock for as long as their owner lives.

A lease is `leases/<id>.lease`: one JSON line, then 32 bytes for each digest that its owner relies
on. Beside it may stand `leases/<id>.json`, a link or copy of a manifest that is in use whole. The
kernel drops the flock when the owner dies, so nothing has to be refreshed on one machine; on a
network filesystem the heartbeat (the file's mtime) speaks for owners on other machines.
"""

from __future__ import annotations

import contextlib
import errno
import fcntl
import os
import secrets
import shutil
import socket
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Literal

import msgspec

from castfs import atomic, syscalls
from castfs.errors import CastfsError, StoreError
from castfs.regular import read_regular
from castfs.store.locks import StoreLocks

#: How often an owner touches its lease, in seconds, and after how long without that others give
#: it up where they cannot test its flock.
HEARTBEAT_SECONDS = 600.0
HEARTBEAT_LIMIT_SECONDS = 24 * 3600
#: Bytes that certainly hold a header: a purpose names one path, of four times PATH_MAX at most.
HEADER_MAX = 1 << 16


class LeaseHeader(msgspec.Struct, frozen=True, kw_only=True):
    """The first line. `boot_id` decides whether the flock can be tested here; pid and host are for
    people (a container has its own). `stamp_ns` is when it began, by the store's clock."""

    kind: Literal["writer", "reader"]
    boot_id: str
    pid: int
    host: str
    purpose: str
    started_at: float
    stamp_ns: int = 0


_header_decoder = msgspec.json.Decoder(LeaseHeader)


def decode_header(raw: bytes) -> tuple[LeaseHeader, int] | None:
    """The header of a lease's first bytes and where its digests begin; None if it is torn."""
    line, newline, _ = raw.partition(b"\n")
    try:
        return (_header_decoder.decode(line), len(line) + 1) if newline else None
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError):
        return None


def is_relied_on(directory: Path, digest: str) -> bool:
    """Has a writer, alive or dead, said that it relies on that blob? OSError.

    Call it while the store is held exclusively.
    """
    raw = bytes.fromhex(digest)
    for path in directory.glob("w-*"):
        try:
            content = read_regular(path) or b""  # what is no file waits for ever, and says nothing
        except FileNotFoundError:
            continue
        if (raw if path.suffix == ".lease" else digest.encode()) in content:
            return True
    return False


class Lease:
    """A lease of this process. `acquire` it under the shared lock, after the last fork.

    See to it that it is `released` before: a signal may come at any moment. The descriptor is
    close-on-exec and must not be inherited: the flock lives as long as any copy.
    """

    def __init__(
        self,
        directory: Path,
        *,
        kind: Literal["writer", "reader"],
        purpose: str,
        mode: int,
    ) -> None:
        self._directory = directory
        self._kind = kind
        self._purpose = purpose
        self._mode = mode
        self.id = f"{kind[0]}-{secrets.token_hex(8)}"
        self.path = directory / f"{self.id}.lease"
        self.manifest_path = directory / f"{self.id}.json"
        self._last_beat = time.monotonic()
        # Made aside: whatever the umask and whenever this process is killed, a lease under its name
        # is whole, and the group's collector can open it.
        self._temp = directory.parent / "staging" / f"{self.id}.tmp"
        self._fd = -1

    def acquire(self) -> None:
        """Make the file and lock it. OSError, and then nothing is left of it."""
        flags = os.O_RDWR | os.O_CREAT | os.O_EXCL | os.O_APPEND | os.O_CLOEXEC
        try:
            self._fd = os.open(self._temp, flags, self._mode)
            fcntl.flock(self._fd, fcntl.LOCK_EX | fcntl.LOCK_NB)
            os.fchmod(self._fd, self._mode)
            atomic.give_to_owner_of(self._directory, self._fd)
            header = LeaseHeader(
                kind=self._kind,
                boot_id=syscalls.boot_id(),
                pid=os.getpid(),
                host=socket.gethostname(),
                purpose=self._purpose,
                started_at=time.time(),
                stamp_ns=os.fstat(self._fd).st_mtime_ns,
            )
            self._write(msgspec.json.encode(header) + b"\n")
            self._temp.rename(self.path)
        except BaseException:
            self._unlink()
            self.release()
            raise

    @property
    def is_held(self) -> bool:
        """Is it acquired and not yet released?"""
        return self._fd >= 0

    def _write(self, data: bytes) -> None:
        # A short write would leave half a digest in the middle; the session is discarded then.
        if os.write(self._fd, data) != len(data):
            raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    def add_manifest(self, source: Path) -> None:
        """Rely on a whole manifest: link it beside the lease, or copy it where links are refused.

        Call it while the store is held shared. FileNotFoundError if it is gone.
        """
        try:
            os.link(source, self.manifest_path)
        except FileNotFoundError:
            raise
        except OSError:
            # Another owner's file (protected_hardlinks), another filesystem, too many links.
            try:
                shutil.copyfile(source, self._temp)
                self._temp.chmod(0o444)
                self._temp.replace(self.manifest_path)
            finally:
                self._temp.unlink(missing_ok=True)

    def beat(self) -> None:
        """Show that the owner lives. Cheap to call often."""
        now = time.monotonic()
        if now - self._last_beat >= HEARTBEAT_SECONDS:
            self._last_beat = now
            os.utime(self._fd)

    def check(self) -> None:
        """StoreError if somebody removed the lease: what it protected may be gone."""
        # Its name and not its link count: a collector renames what it gives up before it deletes.
        try:
            held = os.path.samestat(os.stat(self.path), os.fstat(self._fd))
        except FileNotFoundError:
            held = False
        if not held:
            raise StoreError(
                f"the lease {self.path.name} was removed while in use; nothing was committed",
                hint="run the command again",
            )

    def release(self) -> None:
        """Give the lease up. Idempotent."""
        if self._fd < 0:
            return
        self._unlink()
        fd, self._fd = self._fd, -1
        # Some network filesystems say only now what became of a write; nobody needs it any more.
        with contextlib.suppress(OSError):
            os.close(fd)

    def _unlink(self) -> None:
        # The lease goes last: its manifest alone would be a file that nobody explains.
        for path in (self._temp, self.manifest_path, self.path):
            with contextlib.suppress(OSError):
                path.unlink(missing_ok=True)


@contextlib.contextmanager
def released(lease: Lease, locks: StoreLocks) -> Iterator[None]:
    """Release a lease at the end, if it was acquired within."""
    try:
        yield
    finally:
        if lease.is_held:
            # Dropping a root is a move of a root. If the lock cannot be had any more (the store
            # was deleted), closing the descriptor is enough: the flock goes with it.
            with contextlib.ExitStack() as stack:
                with contextlib.suppress(CastfsError):
                    stack.enter_context(locks.shared())
                lease.release()
