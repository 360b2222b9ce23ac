"""A program: operations on a store that stop wherever another process could come between.

    stepping.py FD

Requests come over the socket FD, each with the descriptor of another socket. A process is forked
for each; over its own socket it says where it stopped, and goes on when it is told to. So the
interleaving is chosen by whoever asks, while locks, leases and deaths are real ones.

It stops before it takes the store's lock, before it syncs, and where a new phase of its work
begins; what it does between two stops others see at once or not at all.
"""

from __future__ import annotations

import contextlib
import dataclasses
import fcntl
import hashlib
import itertools
import json
import os
import secrets
import signal
import socket
import sys
import time
import traceback
from collections.abc import Callable, Iterator, Sequence
from typing import Any

import castfs
from castfs import syscalls
from castfs.catalog import catalog, opening
from castfs.digest import Digest
from castfs.errors import CastfsError
from castfs.gc import GcOptions, holds, tracker
from castfs.ingest import ScanOptions
from castfs.progress import Progress
from castfs.repository import Store, removing, taking
from castfs.retention import Policy
from castfs.store import Staging, WriteSession
from castfs.store.locks import StoreLocks, try_flock

MESSAGE_MAX = 1 << 17
#: Imported before the fork, which is what makes an operation cheap.
LOADED = (removing, taking)


class Stops(Progress):
    """Tells where the operation is and waits for the word to go on."""

    def __init__(self, channel: socket.socket) -> None:
        self._channel = channel
        #: What the operation believes to be in the store, beyond what is there to see.
        self.relied: set[str] = set()
        self.parent: str | None = None
        #: Does nobody else change the catalog meanwhile?
        self.has_catalog = False

    def say(self, **message: Any) -> None:
        message |= {"relied": sorted(self.relied), "parent": self.parent, "pid": os.getpid()}
        message["has_catalog"] = self.has_catalog
        self._channel.send(json.dumps(message, default=str).encode())

    def stop(self, where: str, **more: Any) -> str:
        self.say(at=where, **more)
        word = self._channel.recv(MESSAGE_MAX).decode()
        if not word:
            os._exit(1)  # nobody is interested any more
        if word == "interrupt":
            raise KeyboardInterrupt
        return word

    def phase(self, name: str, **_: Any) -> None:
        self.stop(name)


def replace(place: Any, name: str, value: Any) -> Any:
    old = getattr(place, name)
    setattr(place, name, value)
    return old


def arrange(stops: Stops, request: dict[str, Any]) -> None:
    """Put the stops in, and take out what depends on chance or on the machine's clock."""

    @contextlib.contextmanager
    def held(locks: StoreLocks, operation: int) -> Iterator[None]:
        stops.stop("shared" if operation == fcntl.LOCK_SH else "exclusive")
        with take(locks, operation):
            yield

    def wait(fd: int, *_: object) -> None:
        while not try_flock(fd, fcntl.LOCK_EX):
            stops.stop("busy")

    @contextlib.contextmanager
    def locked(*args: Any, **kwargs: Any) -> Iterator[None]:
        stops.stop("catalog")
        with lock(*args, **kwargs):
            stops.has_catalog = True
            try:
                yield
            finally:
                stops.has_catalog = False

    def claim(staging: Staging, blobs: Sequence[tuple[Digest, int]]) -> list[bool]:
        result: list[bool] = claimed(staging, blobs)
        stops.relied |= {digest for (digest, _), there in zip(blobs, result, strict=True) if there}
        return result

    def commit(session: WriteSession, digests: Sequence[Digest]) -> None:
        committed(session, digests)
        stops.relied |= set(digests)

    def pin_parent(session: WriteSession, record_id: str, manifest_id: Digest) -> Any:
        path = pinned(session, record_id, manifest_id)
        stops.parent = manifest_id if path else None
        return path

    replace(opening, "_wait", wait)
    lock = replace(catalog, "locked", locked)
    take = replace(StoreLocks, "_held", held)
    claimed = replace(Staging, "claim", claim)
    committed = replace(WriteSession, "_commit_batch", commit)
    pinned = replace(WriteSession, "pin_parent", pin_parent)
    # A killed process leaves the page cache, so syncing would show nothing here.
    replace(syscalls, "syncfs", lambda fd: stops.stop("syncfs") and None)
    replace(os, "fsync", lambda fd: None)
    # One file in a batch: others may come between any two.
    replace(holds, "BATCH_SECONDS", 0.0)
    replace(holds, "PAUSE_SECONDS", 0.0)
    replace(tracker, "_INLINE_RECORDS", request["inline"])

    counter = itertools.count()
    number = request["number"]
    replace(
        secrets,
        "token_hex",
        lambda size: hashlib.sha256(f"{number} {next(counter)}".encode()).hexdigest()[: 2 * size],
    )
    offset_ns = request["clock"] * 1_000_000_000
    now_ns = time.time_ns
    replace(time, "time_ns", lambda: now_ns() + offset_ns)
    replace(time, "time", lambda: (now_ns() + offset_ns) / 1e9)


# Operations --------------------------------------------------------------------------------------


def ingest(store: Store, stops: Stops, source: str, rehash: bool = False) -> dict[str, Any]:
    result = store.ingest(source, options=ScanOptions(rehash=rehash), progress=stops)
    return {"id": result.id, "manifest": result.manifest_id}


def gc(store: Store, stops: Stops, dry_run: bool, **options: Any) -> dict[str, Any]:
    collect = store.plan_gc if dry_run else store.gc
    found = dataclasses.asdict(collect(GcOptions(**options), progress=stops))
    for name in ("store", "dry_run", "seconds", "longest_hold_seconds"):
        del found[name]
    return found


def read(store: Store, stops: Stops, word: str) -> dict[str, Any]:
    """Hold a snapshot, and read all of it as often as that is asked for."""
    snapshot = store.resolve(word)
    files = sorted(snapshot.manifest.tree.files)
    with snapshot.pinned("test"):
        if any(snapshot.blobs.size(snapshot.manifest.tree.files[f].digest) is None for f in files):
            return {"missing": True}
        contents = None
        while stops.stop("pinned", contents=contents) != "finish":
            contents = {}
            for path in files:
                with snapshot.open(path) as file:
                    contents[path.decode()] = file.read().hex()
    return {}


def remove(store: Store, stops: Stops, ids: list[str]) -> dict[str, Any]:
    return {"ids": [record.id for record in store.remove(*ids)]}


def purge(store: Store, stops: Stops, ids: list[str]) -> dict[str, Any]:
    return {"ids": [record.id for record in store.remove_for_good(*ids)]}


def undelete(store: Store, stops: Stops, ids: list[str]) -> dict[str, Any]:
    return {"ids": [record.id for record in store.undelete(*ids)]}


def forget(store: Store, stops: Stops, last: int) -> dict[str, Any]:
    groups = store.forget(Policy(last=last)).groups
    return {"ids": [record.id for group in groups for record in group.removed]}


OPERATIONS: dict[str, Callable[..., dict[str, Any]]] = {
    function.__name__: function for function in (ingest, gc, read, remove, purge, undelete, forget)
}


def perform(request: dict[str, Any], channel: socket.socket) -> None:
    stops = Stops(channel)
    arrange(stops, request)
    try:
        store = castfs.open(request["store"])
        stops.say(result=OPERATIONS[request["kind"]](store, stops, **request["arguments"]))
    except (CastfsError, KeyboardInterrupt) as exc:
        stops.say(error=type(exc).__name__, message=str(exc))
    except BaseException:
        stops.say(error="bug", message=traceback.format_exc())


def main() -> None:
    control = socket.socket(fileno=int(sys.argv[1]))
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    while True:
        raw, fds, _, _ = socket.recv_fds(control, MESSAGE_MAX, 1)
        with contextlib.suppress(ChildProcessError):
            while os.waitpid(-1, os.WNOHANG if raw else 0)[0]:
                pass
        if not raw:
            return
        if os.fork() == 0:
            control.close()
            perform(json.loads(raw), socket.socket(fileno=fds[0]))
            os._exit(0)
        os.close(fds[0])


if __name__ == "__main__":
    main()
