"""Two lock files, taken in order; leases: what they say, and how long they hold."""

from __future__ import annotations

import fcntl
import hashlib
import json
import os
import re
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

import castfs
from castfs import syscalls
from castfs.errors import BusyError, StoreError
from castfs.progress import Progress
from castfs.repository import Store
from castfs.store import Depot, WriteSession, locks
from castfs.store.leases import HEARTBEAT_SECONDS, Lease
from castfs.store.locks import try_flock
from tests.store.checking import assert_idle, check_store, hash_blobs, read_records
from tests.store.processes import (
    Holder,
    is_waiting_for_flock,
    is_waiting_for_others,
    lock_holder,
    python_environment,
    wait_until,
)


def is_free(path: Path) -> bool:
    """Would an exclusive flock be had at once?"""
    with path.open("rb") as file:
        return try_flock(file.fileno(), fcntl.LOCK_EX)


def leases(store: Path) -> list[Path]:
    return sorted((store / "leases").iterdir())


class AtPhase(Progress):
    def __init__(self, phase: str, act: Callable[[], object]) -> None:
        self._phase = phase
        self._act = act

    def phase(self, name: str, **_: object) -> None:
        if name == self._phase:
            self._act()


# Locks ---------------------------------------------------------------------------------------


def test_shared_lets_go_of_the_gate_and_exclusive_keeps_it(depot: Depot) -> None:
    gate, store = depot.path / "gate", depot.path / "store"
    with depot.locks.shared():
        assert is_free(gate)
        assert not is_free(store)
        with depot.locks.shared():
            assert not is_free(store)
    with depot.locks.exclusive():
        assert not is_free(gate)
        assert not is_free(store)
    assert is_free(gate)
    assert is_free(store)


def test_an_error_inside_lets_go(depot: Depot) -> None:
    for how in (depot.locks.shared, depot.locks.exclusive):
        with pytest.raises(OSError, match="inside"), how():
            raise OSError("inside")
        assert is_free(depot.path / "store")
        assert is_free(depot.path / "gate")


def test_a_waiting_collector_stops_newcomers_and_is_not_starved(
    depot: Depot, collector: Holder
) -> None:
    """It has the gate while it waits for the last of those who hold the store."""
    with lock_holder(depot.path) as newcomer:
        with depot.locks.shared():
            collector.ask("exclusive")
            wait_until(lambda: is_waiting_for_others(depot.path, collector.pid), "the collector")
            newcomer.ask("shared")
            wait_until(lambda: is_waiting_for_flock(newcomer.pid), "the newcomer")
        collector.wait_held()
        assert is_waiting_for_flock(newcomer.pid)
        collector.let_go()
        newcomer.wait_held()


def test_a_holder_that_is_stopped_does_not_stop_newcomers(
    depot: Depot, collector: Holder, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A shell's ^Z at the wrong moment. Who waits for it to go on lets others through the gate."""
    monkeypatch.setattr(locks, "_TRIES", 10**9)
    monkeypatch.setattr(locks, "_TRY_SECONDS", 0.05)
    collector.hold("shared")
    os.kill(collector.pid, signal.SIGSTOP)
    alone = threading.Event()

    def hold_alone() -> None:
        with depot.locks.exclusive():
            alone.set()

    thread = threading.Thread(target=hold_alone)
    thread.start()
    try:
        wait_until(lambda: is_waiting_for_others(depot.path, os.getpid()), "the one that waits")
        with lock_holder(depot.path) as newcomer:
            killer = threading.Timer(20, os.kill, (newcomer.pid, signal.SIGKILL))
            killer.start()
            try:
                for _ in range(3):
                    newcomer.hold("shared")
                    newcomer.let_go()
            finally:
                killer.cancel()
        assert not alone.is_set()
    finally:
        os.kill(collector.pid, signal.SIGCONT)
        collector.let_go()
        thread.join()
    assert alone.is_set()


def test_a_holder_that_is_stopped_is_named_in_the_end(
    depot: Depot, collector: Holder, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(locks, "_TRIES", 3)
    monkeypatch.setattr(locks, "_TRY_SECONDS", 0.02)
    collector.hold("shared")
    os.kill(collector.pid, signal.SIGSTOP)
    # Where it is waited for without end this ends all the same.
    killer = threading.Timer(20, os.kill, (collector.pid, signal.SIGKILL))
    killer.start()
    try:
        with pytest.raises(BusyError) as caught, depot.locks.exclusive():
            pass
    finally:
        killer.cancel()
    assert re.search(rf"\b{collector.pid}\b", str(caught.value))
    assert caught.value.exit_code == 11
    assert is_free(depot.path / "gate")
    os.kill(collector.pid, signal.SIGCONT)
    collector.let_go()
    with depot.locks.exclusive():
        assert not is_free(depot.path / "store")


@pytest.mark.parametrize("name", ["gate", "store"])
def test_a_lock_file_that_is_missing_is_said(depot: Depot, name: str) -> None:
    (depot.path / name).unlink()
    with pytest.raises(StoreError, match="cannot lock"), depot.locks.shared():
        pass


@pytest.mark.parametrize("phase", ["reading", "writing to disk"])
def test_a_collector_at_work_delays_an_ingest_and_no_more(
    store: Store, source: Path, collector: Holder, phase: str
) -> None:
    """From there on it holds the lock; the ingest waits, with nothing under its final name."""
    released = threading.Event()

    def let_go() -> None:
        wait_until(lambda: is_waiting_for_flock(os.getpid()), "the ingest")
        assert hash_blobs(store.path) == {}
        assert read_records(store.path) == []
        released.set()
        collector.let_go()

    thread = threading.Thread(target=let_go)

    def begin() -> None:
        collector.hold()
        thread.start()

    store.ingest(source, progress=AtPhase(phase, begin))
    thread.join()
    assert released.is_set()
    check_store(store.path)
    assert_idle(store.path)


def test_an_ingest_does_not_begin_while_a_collector_works(
    store: Store, source: Path, collector: Holder
) -> None:
    collector.hold()

    def let_go() -> None:
        wait_until(lambda: is_waiting_for_flock(os.getpid()), "the ingest")
        assert_idle(store.path)  # not even its lease
        collector.let_go()

    thread = threading.Thread(target=let_go)
    thread.start()
    store.ingest(source)
    thread.join()


_COLLECT = """
import sys, time
from pathlib import Path
from castfs.store.locks import StoreLocks
locks = StoreLocks(Path(sys.argv[1]))
while True:
    with locks.exclusive():
        print(end=".", flush=True)
        end = time.monotonic() + 0.02
        while time.monotonic() < end:
            pass
    time.sleep(0.005)
"""


def test_batches_of_a_collector_and_ingests_take_turns(store: Store, source: Path) -> None:
    with subprocess.Popen(
        [sys.executable, "-P", "-c", _COLLECT, store.path],
        env=python_environment(),
        stdout=subprocess.PIPE,
    ) as busy:
        try:
            assert busy.stdout is not None
            assert busy.stdout.read(1) == b"."
            for number in range(5):
                (source / "new").write_bytes(b"%d" % number)
                store.ingest(source)
            # It was not starved either.
            assert busy.stdout.read(10) == b"." * 10
        finally:
            busy.kill()
    check_store(store.path)


def test_no_lock_is_held_while_files_are_read_or_synced(
    store: Store, source: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    seen: list[tuple[str, bool]] = []
    for name in ("syncfs", "filesystem_magic"):
        original = getattr(syscalls, name)

        def call(fd: int, name: str = name, original: Any = original) -> object:
            seen.append((name, is_free(store.path / "store")))
            return original(fd)

        monkeypatch.setattr(syscalls, name, call)
    for name in ("fsync", "readv", "read"):
        original = getattr(os, name)

        def io(*args: object, name: str = name, original: Any = original) -> object:
            seen.append((name, is_free(store.path / "store")))
            return original(*args)

        monkeypatch.setattr(os, name, io)
    result = store.ingest(source)
    snapshot = store.resolve(result.id)
    with snapshot.pinned("test"):
        pass
    # A manifest from elsewhere, which is written into the lease.
    copy = source.with_name("copy.json")
    store.depot.manifest_path(result.manifest_id).rename(copy)
    with store.resolve(str(copy)).pinned("test"):
        pass
    assert {name for name, _ in seen} >= {"syncfs", "fsync", "readv", "read"}
    assert [name for name, free in seen if not free] == []


# Leases --------------------------------------------------------------------------------------


def read_lease(path: Path) -> tuple[dict[str, Any], list[str]]:
    header, _, rest = path.read_bytes().partition(b"\n")
    assert len(rest) % 32 == 0
    return json.loads(header), [rest[at : at + 32].hex() for at in range(0, len(rest), 32)]


def test_what_a_running_ingest_leaves_in_its_lease(store: Store, source: Path) -> None:
    digests = {
        hashlib.sha256(path.read_bytes()).hexdigest()
        for path in source.rglob("*")
        if path.is_file()
    }
    seen: list[tuple[dict[str, Any], list[str]]] = []

    def look() -> None:
        [path] = leases(store.path)
        assert path.name.startswith("w-")
        assert path.suffix == ".lease"
        assert path.stat().st_mode & 0o7777 == 0o600
        assert not is_free(path)
        assert (store.path / "staging" / path.stem).is_dir()
        seen.append(read_lease(path))

    class Watch(Progress):
        def phase(self, name: str, **_: object) -> None:
            look()

        def advance(self, count: int, size: int = 0) -> None:
            look()

    store.ingest(source, progress=Watch())
    header = seen[0][0]
    assert header["kind"] == "writer"
    assert header["boot_id"] == Path("/proc/sys/kernel/random/boot_id").read_text().strip()
    assert header["pid"] == os.getpid()
    assert header["purpose"] == f"ingest {source}"
    assert seen[0][1] == []
    assert set(seen[-1][1]) == digests
    assert_idle(store.path)


def test_blobs_are_logged_before_they_are_relied_on(
    store: Store, source: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A touch or a rename in blobs/ finds its digest in the lease, and the lock held."""
    (source / "known").write_bytes(b"known")
    store.ingest(source / "known")
    checked: list[str] = []

    def check(name: object) -> None:
        digest = os.path.basename(os.fspath(name))  # type: ignore[call-overload]
        if len(digest) == 64:
            [path] = leases(store.path)
            assert digest in read_lease(path)[1]
            assert not is_free(store.path / "store")
            assert is_free(store.path / "gate")
            checked.append(digest)

    for function in ("utime", "rename"):
        original = getattr(os, function)

        def call(name: object, *args: object, original: Any = original, **kwargs: object) -> object:
            if kwargs.get("dir_fd") == store.depot.blobs.dir_fd or "dst_dir_fd" in kwargs:
                check(name)
            return original(name, *args, **kwargs)

        monkeypatch.setattr(os, function, call)
    store.ingest(source)
    assert len(set(checked)) == 5


@pytest.mark.parametrize("how", ["unlink", "rename", "rename and unlink", "replace"])
@pytest.mark.parametrize("phase", ["reading", "writing to disk"])
def test_a_lease_that_was_taken_away_ends_the_ingest(
    store: Store, source: Path, how: str, phase: str
) -> None:
    def take_away() -> None:
        [path] = leases(store.path)
        if how == "unlink":
            path.unlink()
        elif how == "replace":
            path.rename(store.path / "quarantine" / "old")
            path.write_bytes(b"")
        else:
            path.rename(store.path / "quarantine" / "old")
            if how == "rename and unlink":
                (store.path / "quarantine" / "old").unlink()

    with pytest.raises(StoreError, match="lease"):
        store.ingest(source, progress=AtPhase(phase, take_away))
    assert read_records(store.path) == []
    check_store(store.path)
    assert store.ingest(source).file_count == 4


def test_a_parents_manifest_is_pinned_by_the_ingest_of_the_same_tree(
    store: Store, source: Path
) -> None:
    first = store.ingest(source)
    manifest = store.depot.manifest_path(first.manifest_id)
    seen: list[bool] = []

    def look() -> None:
        [held] = (path for path in leases(store.path) if path.suffix == ".json")
        seen.append(held.samefile(manifest))

    store.ingest(source, progress=AtPhase("reading", look))
    assert seen == [True]
    assert_idle(store.path)


_HANG = """
import os, sys, castfs
from castfs.progress import Progress

class Stop(Progress):
    def phase(self, name, **_):
        if name == "writing to disk":
            os.write(1, b"ready")
            sys.stdin.read()

castfs.open(sys.argv[1]).ingest(sys.argv[2], progress=Stop())
"""


def test_a_lease_is_free_once_its_owner_is_dead(store: Store, source: Path) -> None:
    with subprocess.Popen(
        [sys.executable, "-P", "-c", _HANG, store.path, source],
        env=python_environment(),
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
    ) as process:
        assert process.stdout is not None
        assert process.stdout.read(5) == b"ready"
        [lease] = leases(store.path)
        assert not is_free(lease)
        process.send_signal(signal.SIGKILL)
        process.wait()
        assert is_free(lease)
    # The leftovers disturb nobody.
    assert lease.exists()
    assert store.ingest(source).file_count == 4
    check_store(store.path)


def test_a_lease_is_not_inherited(depot: Depot) -> None:
    lease = Lease(depot.leases_dir, kind="reader", purpose="test", mode=0o600)
    lease.acquire()
    with subprocess.Popen(["cat"], stdin=subprocess.PIPE, close_fds=False) as child:
        lease_path = lease.path
        kept = lease_path.with_name("kept")
        os.link(lease_path, kept)
        lease.release()
        assert is_free(kept)
        assert child.poll() is None
        child.stdin.close()  # type: ignore[union-attr]
    kept.unlink()


def test_a_lease_that_cannot_be_written_is_not_left_behind(
    depot: Depot, monkeypatch: pytest.MonkeyPatch
) -> None:
    for short in (False, True):

        def write(fd: int, data: bytes, short: bool = short) -> int:
            if short:
                return len(data) - 1
            raise OSError(28, "No space left on device")

        with monkeypatch.context() as patch:
            patch.setattr("castfs.store.leases.os.write", write)
            with pytest.raises(OSError, match="No space left"):
                Lease(depot.leases_dir, kind="writer", purpose="test", mode=0o600).acquire()
    assert_idle(depot.path)


def test_the_heartbeat(depot: Depot, monkeypatch: pytest.MonkeyPatch) -> None:
    """Every ten minutes at most, however often it is called."""
    clock = [1000.0]
    monkeypatch.setattr("castfs.store.leases.time.monotonic", lambda: clock[0])
    lease = Lease(depot.leases_dir, kind="reader", purpose="test", mode=0o600)
    lease.acquire()
    os.utime(lease.path, ns=(0, 0))
    clock[0] += HEARTBEAT_SECONDS - 1
    lease.beat()
    assert lease.path.stat().st_mtime_ns == 0
    clock[0] += 1
    lease.beat()
    assert lease.path.stat().st_mtime_ns > 0
    os.utime(lease.path, ns=(0, 0))
    lease.beat()
    assert lease.path.stat().st_mtime_ns == 0
    lease.release()
    lease.release()
    assert_idle(depot.path)


def test_the_heart_beats_while_readers_work(
    store: Store, source: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Nobody writes to the lease for as long as only new files are read."""
    clock = [time.monotonic()]

    def monotonic() -> float:
        clock[0] += HEARTBEAT_SECONDS
        return clock[0]

    beats: list[str] = []
    original = os.utime

    def utime(path: Any, *args: Any, **kwargs: Any) -> None:
        if isinstance(path, int):
            beats.append(os.readlink(f"/proc/self/fd/{path}"))
        original(path, *args, **kwargs)

    def in_reading() -> None:
        monkeypatch.setattr("castfs.store.leases.time.monotonic", monotonic)
        monkeypatch.setattr(os, "utime", utime)

    at_commit: list[int] = []

    class Watch(Progress):
        def phase(self, name: str, **_: object) -> None:
            if name == "reading":
                in_reading()
            else:
                at_commit.append(len(beats))

    store.ingest(source, progress=Watch())
    assert at_commit[0] >= 2
    assert {Path(name).suffix for name in beats} == {".lease"}


def test_a_session_left_without_publish_discards_all(depot: Depot) -> None:
    with WriteSession(depot, purpose="test") as session:
        session.stage_bytes(b"content")
    assert_idle(depot.path)
    assert hash_blobs(depot.path) == {}


def test_two_stores_in_one_process(tmp_path: Path, source: Path) -> None:
    """Threads with an ingest each, into one store."""
    store = castfs.open(tmp_path / "store", create=True)
    results: list[str] = []

    def run() -> None:
        results.append(store.ingest(source).manifest_id)

    threads = [threading.Thread(target=run) for _ in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert len(results) == 4
    assert len(set(results)) == 1
    check_store(store.path)
    assert_idle(store.path)
