"""In which order things go, and what a collector leaves that was killed on the way."""

from __future__ import annotations

import errno
import os
from pathlib import Path
from typing import Any

import pytest

import castfs
from castfs import syscalls
from castfs.errors import StoreError
from castfs.gc import tracker
from castfs.store import Depot
from tests.gc.acting import (
    Scene,
    blob_names,
    gc,
    into_trash_long_ago,
    is_free,
    listing,
    needed_blobs,
)
from tests.store.checking import assert_idle, check_store
from tests.store.processes import run_python

W = "w-0123456789abcdef"


@pytest.fixture
def everything(scene: Scene) -> Scene:
    """Something of each kind to delete."""
    store = scene.store
    into_trash_long_ago(store, scene.lost.id)
    (store.depot.leases_dir / f"{W}.lease").write_bytes(b"dead")
    (store.depot.staging_dir / W / "ab").mkdir(parents=True)
    (store.depot.staging_dir / W / "ab" / "staged").write_bytes(b"x")
    return scene


class Trace:
    """What is done to the store, as words; each only when it changes."""

    def __init__(self, store: Path, patch: pytest.MonkeyPatch) -> None:
        self._store = str(store)
        self.calls: list[str] = []
        for module, names in (
            (os, ("unlink", "rename", "rmdir", "fsync", "utime")),
            (syscalls, ("syncfs",)),
            (tracker, ("list_roots",)),
        ):
            for name in names:
                self._wrap(patch, module, name)

    def _wrap(self, patch: pytest.MonkeyPatch, module: Any, name: str) -> None:
        original = getattr(module, name)

        def call(*args: Any, **kwargs: Any) -> Any:
            place = "" if module is tracker else self._place(args[0], kwargs.get("dir_fd"))
            self.calls.append(f"{name} {place}".strip())
            return original(*args, **kwargs)

        patch.setattr(module, name, call)

    def _place(self, path: Any, dir_fd: int | None) -> str:
        where = os.readlink(f"/proc/self/fd/{dir_fd}") if dir_fd is not None else ""
        if isinstance(path, int):
            path = os.readlink(f"/proc/self/fd/{path}")
        inside = os.path.relpath(os.path.join(where, os.fspath(path)), self._store)
        return inside.split("/")[0] if "/" in inside else inside

    def without_repetitions(self) -> list[str]:
        calls = [call for call in self.calls if call != "list_roots"]
        return [call for n, call in enumerate(calls) if n == 0 or call != calls[n - 1]]


def test_the_order(everything: Scene, monkeypatch: pytest.MonkeyPatch) -> None:
    """Trash, what the dead left, sync, manifests, blobs: so whatever dies when, nothing leads to
    what is not there."""
    trace = Trace(everything.store.path, monkeypatch)
    gc(everything.store)
    calls = trace.without_repetitions()
    assert calls[:3] == ["utime gc.lock", "unlink trash", "fsync trash"]
    assert calls[3:5] == ["rename leases", "rename staging"]
    assert calls[-3:] == ["syncfs .", "unlink manifests", "unlink blobs"]
    # In between rmtree, by short names.
    assert {call.split()[0] for call in calls[5:-3]} <= {"unlink", "rmdir"}
    # The stamp is older than the first list, and each batch of manifests and blobs has one.
    assert trace.calls[:2] == ["utime gc.lock", "list_roots"]
    first = trace.calls.index("unlink manifests")
    assert trace.calls[first - 1] == "list_roots"
    assert trace.calls[trace.calls.index("unlink blobs") - 1] == "list_roots"
    # One sync, after the list of roots on which the plan rests.
    sync = trace.calls.index("syncfs .")
    assert trace.calls.count("syncfs .") == 1
    assert "list_roots" in trace.calls[:sync]
    assert_idle(everything.store.path)


def test_it_lists_roots_before_each_batch(
    everything: Scene, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("castfs.gc.holds.BATCH_SECONDS", 0)
    trace = Trace(everything.store.path, monkeypatch)
    gc(everything.store)
    start = trace.calls.index("syncfs .") + 1
    assert trace.calls[start:] == [
        *["list_roots", "unlink manifests"] * 2,
        *["list_roots", "unlink blobs"] * 3,
    ]


def test_where_syncfs_is_no_good_the_directories_of_records_are_synced(
    everything: Scene, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(syscalls, "has_reliable_syncfs", lambda fd: False)
    trace = Trace(everything.store.path, monkeypatch)
    gc(everything.store)
    calls = trace.without_repetitions()
    assert "syncfs ." not in calls
    assert calls[-4:] == ["fsync snapshots", "fsync trash", "unlink manifests", "unlink blobs"]


@pytest.mark.parametrize("reliable", [True, False])
@pytest.mark.parametrize("code", [errno.EIO, errno.ENOSPC])
def test_a_sync_that_fails_ends_it_before_any_content_is_deleted(
    everything: Scene, monkeypatch: pytest.MonkeyPatch, code: int, reliable: bool
) -> None:
    """What is gone may come back, and would lead to nothing."""
    store = everything.store
    contents = {k: v for k, v in listing(store.path).items() if k[:4] in ("blob", "mani")}

    def fail(fd: int) -> None:
        raise OSError(code, os.strerror(code))

    with monkeypatch.context() as patch:
        patch.setattr(syscalls, "has_reliable_syncfs", lambda fd: reliable)
        patch.setattr(syscalls, "syncfs", fail)
        patch.setattr(os, "fsync", fail)
        with pytest.raises(StoreError):
            gc(store)
    assert {k: v for k, v in listing(store.path).items() if k[:4] in ("blob", "mani")} == contents
    gc(store)
    assert blob_names(store.path) == needed_blobs(store.path)


def test_the_stamp_is_set_while_no_root_was_looked_at_and_the_collector_is_alone(
    garbage: Scene, monkeypatch: pytest.MonkeyPatch
) -> None:
    original = Depot.stamp_ns
    seen: list[bool] = []

    def stamp_ns(depot: Depot) -> int:
        seen.append(is_free(depot.collector_lock))
        return original(depot)

    monkeypatch.setattr(Depot, "stamp_ns", stamp_ns)
    gc(garbage.store)
    assert seen == [False]


# Killed --------------------------------------------------------------------------------------

_KILL = """
import os, shutil, signal, sys
from pathlib import Path
import castfs, castfs.gc
from castfs import syscalls
from castfs.gc import holds
from castfs.store import open_depot

holds.BATCH_SECONDS = holds.PAUSE_SECONDS = 0
OPERATIONS = [(os, name) for name in ("unlink", "rename", "rmdir", "fsync", "utime", "close")]
OPERATIONS.append((syscalls, "syncfs"))

def collect(store, fatal):
    depot, count = open_depot(store), 0
    def wrap(module, name):
        original = getattr(module, name)
        def call(*args, **kwargs):
            nonlocal count
            count += 1
            if count == fatal:
                os.kill(os.getpid(), signal.SIGKILL)
            return original(*args, **kwargs)
        setattr(module, name, call)
    for module, name in OPERATIONS:
        wrap(module, name)
    castfs.gc.collect(depot)

template, fatal = Path(sys.argv[1]), 0
while True:
    fatal += 1
    copy = template.with_name(f"killed {fatal}")
    shutil.copytree(template, copy)
    pid = os.fork()
    if pid == 0:
        collect(copy, fatal)
        os._exit(0)
    status = os.waitpid(pid, 0)[1]
    print(copy, int(os.WIFSIGNALED(status)))
    if status == 0:
        break
    assert os.WTERMSIG(status) == signal.SIGKILL
"""


@pytest.fixture
def killed(everything: Scene) -> list[Path]:
    """Copies in which a collector was killed, each before another operation; the last was not."""
    path = everything.store.path
    lines = run_python(_KILL, path).splitlines()
    assert [line[-1] for line in lines] == ["1"] * (len(lines) - 1) + ["0"]
    return [Path(line[:-2]) for line in lines]


def test_what_was_killed_is_completed_by_the_next(everything: Scene, killed: list[Path]) -> None:
    # At least: the stamp, an unlink each of the trash and of what is staged, manifests, blobs.
    assert len(killed) > 20
    names = {str(p.relative_to(killed[-1])) for p in killed[-1].rglob("*")}
    for copy in killed:
        store = castfs.open(copy)
        check_records(store.path)
        result = gc(store)
        assert result.snapshot_count == 1
        check_store(copy)
        assert {str(p.relative_to(copy)) for p in copy.rglob("*")} == names
        assert_idle(copy)


def check_records(store: Path) -> None:
    """Everything that a record leads to is there, in the trash or not."""
    depot = castfs.open(store).depot
    assert needed_blobs(store) <= blob_names(store)
    for path in depot.trash_dir.iterdir():
        path.rename(depot.snapshots_dir / path.name.rpartition("-")[2])
        assert needed_blobs(store) <= blob_names(store)
        (depot.snapshots_dir / path.name.rpartition("-")[2]).rename(path)
