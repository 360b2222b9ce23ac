"""Pins: how a reader keeps a snapshot whole, and what it does where it may not write."""

from __future__ import annotations

import contextlib
import errno
import fcntl
import os
import resource
import signal
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

import castfs
from castfs.digest import Digest
from castfs.errors import DamageError, NotFoundError, StoreError
from castfs.manifest import encode_manifest
from castfs.repository import Snapshot, Store
from castfs.store import pin_foreign, pin_manifest
from castfs.store.locks import try_flock
from tests.store.checking import assert_idle
from tests.store.processes import python_environment


@pytest.fixture
def snapshot(store: Store, source: Path) -> Snapshot:
    return store.resolve(store.ingest(source).id)


def held(store: Store) -> list[Path]:
    return sorted((store.path / "leases").iterdir())


def is_free(path: Path) -> bool:
    with path.open("rb") as file:
        return try_flock(file.fileno(), fcntl.LOCK_EX)


def files_of(snapshot: Snapshot) -> list[Path]:
    """The manifest and the record."""
    assert snapshot.depot is not None
    assert snapshot.record is not None
    depot = snapshot.depot
    return [depot.manifest_path(snapshot.manifest.id), depot.record_path(snapshot.record.id)]


def test_a_pin_is_a_lease_with_a_link_of_the_manifest(store: Store, snapshot: Snapshot) -> None:
    with snapshot.pinned("looking") as protected:
        assert protected
        manifest, lease = held(store)
        assert (manifest.suffix, lease.suffix) == (".json", ".lease")
        assert manifest.stem == lease.stem
        assert lease.name.startswith("r-")
        assert manifest.samefile(files_of(snapshot)[0])
        assert b'"looking"' in lease.read_bytes()
        assert not is_free(lease)
        with snapshot.pinned("again"):
            assert len(held(store)) == 4
    assert_idle(store.path)


def test_an_error_while_reading_ends_the_pin(store: Store, snapshot: Snapshot) -> None:
    with pytest.raises(ZeroDivisionError), snapshot.pinned("test"):
        raise ZeroDivisionError
    assert_idle(store.path)


def test_a_pin_outlives_the_removal_of_what_it_pins(store: Store, snapshot: Snapshot) -> None:
    with snapshot.pinned("test"):
        for path in files_of(snapshot):
            path.unlink()
        [manifest] = (path for path in held(store) if path.suffix == ".json")
        assert b"".join(encode_manifest(snapshot.manifest)) == manifest.read_bytes()
    assert_idle(store.path)


def test_a_store_that_vanishes_is_no_error_at_the_end(store: Store, snapshot: Snapshot) -> None:
    with snapshot.pinned("test"):
        subprocess.run(["rm", "-rf", store.path], check=True)


@pytest.mark.parametrize("writable", [True, False])
def test_what_is_gone_cannot_be_pinned(
    store: Store, snapshot: Snapshot, writable: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    if not writable:
        monkeypatch.setattr(os, "access", lambda *args, **kwargs: False)
    manifest, record = files_of(snapshot)
    depot, identity = store.depot, snapshot.manifest.id
    record.rename(record.with_suffix(".gone"))
    with pytest.raises(NotFoundError, match="was removed"), snapshot.pinned("test"):
        pass
    with pin_manifest(depot, identity, purpose="test"):
        pass
    manifest.unlink()
    with (
        pytest.raises(DamageError, match="missing"),
        pin_manifest(depot, identity, purpose="test"),
    ):
        pass
    assert_idle(store.path)


@pytest.mark.parametrize("code", [errno.EPERM, errno.EMLINK, errno.EXDEV])
def test_where_links_are_refused_the_manifest_is_copied(
    store: Store, snapshot: Snapshot, code: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Another owner's file under fs.protected_hardlinks, too many links, another filesystem."""

    def link(*args: object, **kwargs: object) -> None:
        raise OSError(code, os.strerror(code))

    monkeypatch.setattr(os, "link", link)
    with snapshot.pinned("test"):
        [manifest] = (path for path in held(store) if path.suffix == ".json")
        assert not manifest.samefile(files_of(snapshot)[0])
        assert manifest.read_bytes() == files_of(snapshot)[0].read_bytes()
        assert manifest.stat().st_mode & 0o7777 == 0o444
    assert_idle(store.path)


def test_a_manifest_from_elsewhere_is_pinned_too(
    store: Store, snapshot: Snapshot, tmp_path: Path
) -> None:
    for path in files_of(snapshot):
        path.unlink()
    chunks = list(encode_manifest(snapshot.manifest))
    copy = tmp_path / "copy.json"
    copy.write_bytes(b"".join(chunks))
    foreign = store.resolve(str(copy))
    with foreign.pinned("test") as protected:
        assert protected
        manifest, lease = held(store)
        assert manifest.read_bytes() == copy.read_bytes()
        assert not is_free(lease)
    assert_idle(store.path)


@pytest.mark.parametrize("code", [errno.EIO, errno.ENOSPC])
@pytest.mark.parametrize("fail", ["write", "flock", "fsync"])
def test_a_foreign_pin_that_fails_leaves_nothing(
    store: Store, fail: str, code: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A full store can be read all the same, though unprotected."""

    def no(*args: object) -> int:
        raise OSError(code, os.strerror(code))

    with monkeypatch.context() as patch:
        if fail == "flock":
            original = fcntl.flock
            patch.setattr(
                fcntl, "flock", lambda fd, op: no() if op & fcntl.LOCK_NB else original(fd, op)
            )
        else:
            patch.setattr(os, fail, no)
        refused = pytest.raises(StoreError, match="cannot write a lease")
        with (
            contextlib.nullcontext() if code == errno.ENOSPC else refused,
            pin_foreign(store.depot, [b"{}"], purpose="test") as pin,
        ):
            assert not pin.protected
    assert_idle(store.path)


@pytest.fixture
def read_only(store: Store, snapshot: Snapshot) -> Iterator[Store]:
    """The same store through a read-only bind mount."""
    path = store.path.with_name("read-only")
    path.mkdir()
    subprocess.run(["mount", "--bind", store.path, path], check=True)
    try:
        subprocess.run(["mount", "-o", "remount,bind,ro", path], check=True)
        yield castfs.open(path)
    finally:
        subprocess.run(["umount", "-l", path], check=True, timeout=10)


@pytest.mark.needs_root
def test_a_reader_that_may_not_write_holds_the_files_themselves(
    store: Store, snapshot: Snapshot, read_only: Store
) -> None:
    reader = read_only.resolve(snapshot.id)
    with reader.pinned("test") as protected:
        assert protected
        assert_idle(store.path)
        # On the same inodes, seen from the writable side: a collector tries this.
        assert [is_free(path) for path in files_of(snapshot)] == [False, False]
        with reader.open("a") as file:
            assert file.read() == b"a" * 100
        # Shared: others read too.
        with read_only.resolve(snapshot.id).pinned("second"):
            pass
        assert [is_free(path) for path in files_of(snapshot)] == [False, False]
    assert [is_free(path) for path in files_of(snapshot)] == [True, True]


@pytest.mark.needs_root
def test_restore_from_a_read_only_store(
    snapshot: Snapshot, read_only: Store, source: Path, tmp_path: Path
) -> None:
    read_only.resolve(snapshot.id).restore(tmp_path / "restored")
    subprocess.run(["diff", "-r", source, tmp_path / "restored"], check=True)


def test_a_copy_without_lock_files_can_be_read(
    store: Store, snapshot: Snapshot, monkeypatch: pytest.MonkeyPatch
) -> None:
    """On a read-only medium that lacks them there is no collector to keep away."""
    monkeypatch.setattr(os, "access", lambda *args, **kwargs: False)
    for name in ("gate", "store", "gc.lock"):
        (store.path / name).unlink()
    with castfs.open(store.path).resolve(snapshot.id).pinned("test") as protected:
        assert protected


@pytest.mark.needs_root
def test_where_even_that_is_refused_the_reader_is_told(
    store: Store, snapshot: Snapshot, read_only: Store, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A filesystem without flock."""
    original = fcntl.flock

    def flock(fd: int, operation: int) -> None:
        if operation & fcntl.LOCK_NB:
            raise OSError(errno.EOPNOTSUPP, "Operation not supported")
        original(fd, operation)

    monkeypatch.setattr(fcntl, "flock", flock)
    with read_only.resolve(snapshot.id).pinned("test") as protected:
        assert not protected
    with pin_foreign(read_only.depot, [b"{}"], purpose="test") as pin:
        assert not pin.protected


_PIN = """
import os, sys, castfs
snapshot = castfs.open(sys.argv[1]).resolve(sys.argv[2])
with snapshot.pinned("test"):
    os.write(1, b"held")
    sys.stdin.read()
"""


@pytest.mark.parametrize("end", ["kill", "finish"])
def test_a_pin_ends_with_its_process(store: Store, snapshot: Snapshot, end: str) -> None:
    with subprocess.Popen(
        [sys.executable, "-P", "-c", _PIN, store.path, snapshot.id],
        env=python_environment(),
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
    ) as process:
        assert process.stdout is not None
        assert process.stdin is not None
        assert process.stdout.read(4) == b"held"
        [lease] = (path for path in held(store) if path.suffix == ".lease")
        assert not is_free(lease)
        if end == "finish":
            process.stdin.close()
            assert process.wait(30) == 0
            assert_idle(store.path)
        else:
            process.send_signal(signal.SIGKILL)
            process.wait(30)
            assert is_free(lease)


def test_a_manifest_id_that_the_store_has_not(store: Store) -> None:
    with (
        pytest.raises(DamageError),
        pin_manifest(store.depot, Digest("ab" * 32), purpose="test"),
    ):
        pass
    assert_idle(store.path)


def test_more_pins_than_files_that_may_be_open(store: Store, snapshot: Snapshot) -> None:
    """Wherever in the taking of a pin the limit is met."""
    before = resource.getrlimit(resource.RLIMIT_NOFILE)
    assert snapshot.record is not None
    said = []
    free = os.open("/", os.O_RDONLY)
    os.close(free)
    for spare in range(8):
        resource.setrlimit(resource.RLIMIT_NOFILE, (free + spare, before[1]))
        try:
            with snapshot.pinned("looking") as protected:
                assert protected
        except StoreError as exc:
            said.append(exc.hint)
        finally:
            resource.setrlimit(resource.RLIMIT_NOFILE, before)
    assert said
    assert all(hint is not None and "ulimit -n" in hint for hint in said), said
    assert held(store) == []
