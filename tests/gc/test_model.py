"""Random histories of a store, and some with mounts; `tests.gc.machine` has the steps."""

from __future__ import annotations

import itertools
import os
from collections.abc import Callable
from pathlib import Path

import pytest
from hypothesis import HealthCheck, Phase, settings
from hypothesis import strategies as st
from hypothesis.stateful import (
    RuleBasedStateMachine,
    initialize,
    precondition,
    rule,
    run_state_machine_as_test,
)

from castfs.mount import unmount
from tests.gc.machine import STEPS, TREES, StoreMachine, pick
from tests.gc.model import Snapshot
from tests.gc.operations import Operations
from tests.mount.conftest import wait_for_exit


class Mount:
    """A snapshot that is mounted, perhaps taken away from its place with a file open."""

    def __init__(self, snapshot: Snapshot, mountpoint: Path, pid: int) -> None:
        self.snapshot = snapshot
        self.mountpoint = mountpoint
        self.pid = pid
        self.open: tuple[int, bytes] | None = None

    def read(self) -> None:
        """All its bytes, or those of the open file."""
        if self.open is not None:
            fd, content = self.open
            os.posix_fadvise(fd, 0, 0, os.POSIX_FADV_DONTNEED)
            assert os.pread(fd, 100, 0) == content
            return
        found = {
            str(path.relative_to(self.mountpoint)): path.read_bytes()
            for path in self.mountpoint.rglob("*")
            if path.is_file()
        }
        assert found == self.snapshot.tree

    @property
    def can_detach(self) -> bool:
        return self.open is None and bool(self.snapshot.tree)

    def detach(self) -> None:
        """A file stays open, so what serves it goes on."""
        path, content = max(self.snapshot.tree.items())
        self.open = os.open(self.mountpoint / path, os.O_RDONLY | os.O_CLOEXEC), content
        assert unmount(self.mountpoint, lazy=True).served

    def end(self) -> None:
        if self.open is not None:
            os.close(self.open[0])
            self.open = None
        else:
            assert not unmount(self.mountpoint).served
        assert wait_for_exit(self.pid)


class MountMachine(StoreMachine):
    """The same with mounts, which take a while."""

    def __init__(self, base: Path, operations: Operations) -> None:
        super().__init__(base, operations)
        self.mounts: list[Mount] = []
        self.was_second = False

    def mount(self, snapshot: Snapshot) -> None:
        mountpoint = self.base / f"mnt-{self.was_second:d}"
        mountpoint.mkdir()
        status = self.store.mount(snapshot.id, mountpoint)
        assert status.pid is not None
        self.mounts.append(Mount(snapshot, mountpoint, status.pid))
        self.model.mounted.append(snapshot.manifest)

    @initialize(trees=st.tuples(TREES, TREES))
    def fill(self, trees: tuple[dict[str, bytes], dict[str, bytes]]) -> None:
        super().fill(trees)
        self.mount(self.model.live[0])

    @precondition(lambda self: self.model.live and not self.was_second)
    @rule(data=st.data())
    def mount_a_second(self, data: st.DataObject) -> None:
        self.was_second = True
        self.mount(pick(data, self.model.live))

    @precondition(lambda self: self.mounts)
    @rule(data=st.data())
    def read_a_mount(self, data: st.DataObject) -> None:
        pick(data, self.mounts).read()

    @precondition(lambda self: self.mounts)
    @rule(data=st.data(), steps=STEPS)
    def remove_what_is_mounted(self, data: st.DataObject, steps: int | None) -> None:
        manifest_id = pick(data, self.mounts).snapshot.manifest
        ids = [
            each.id for each in self.model.live + self.model.trashed if each.manifest == manifest_id
        ]
        if ids:
            self.start("purge", steps, affects=ids, ids=ids)

    @precondition(lambda self: any(each.can_detach for each in self.mounts))
    @rule(data=st.data())
    def take_a_mount_away(self, data: st.DataObject) -> None:
        pick(data, [each for each in self.mounts if each.can_detach]).detach()

    @precondition(lambda self: self.mounts)
    @rule(data=st.data())
    def unmount(self, data: st.DataObject) -> None:
        self.end(pick(data, self.mounts))

    def end(self, mount: Mount) -> None:
        mount.read()
        self.mounts.remove(mount)
        self.model.mounted.remove(mount.snapshot.manifest)
        mount.end()

    def finish(self) -> None:
        for mount in list(self.mounts):
            self.end(mount)
        super().finish()

    def teardown(self) -> None:
        try:
            super().teardown()
        finally:
            for mount in self.mounts:
                mount.end()


def run(
    machine: Callable[[Path, Operations], RuleBasedStateMachine],
    base: Path,
    *,
    examples: float,
    steps: int,
) -> None:
    """`examples`: so many for each one of a usual test."""
    numbers = itertools.count()
    with Operations() as operations:

        def make() -> RuleBasedStateMachine:
            return machine(base / f"{next(numbers)}", operations)

        run_state_machine_as_test(
            make,  # type: ignore[arg-type]  # "a class or a function", says its docstring
            settings=settings(
                max_examples=max(1, round(settings().max_examples * examples)),
                stateful_step_count=steps,
                # What fails is a history of a dozen draws; making it shorter takes minutes.
                phases=[Phase.explicit, Phase.reuse, Phase.generate],
                suppress_health_check=list(HealthCheck),
            ),
        )


@pytest.fixture(autouse=True)
def no_syncing(monkeypatch: pytest.MonkeyPatch) -> None:
    """What is killed leaves the page cache, so syncing shows nothing here."""
    monkeypatch.setattr(os, "fsync", lambda fd: None)


@pytest.mark.timeout(3600)  # the larger profile has a thousand histories
def test_nothing_that_can_be_read_is_ever_lost(tmp_path: Path) -> None:
    run(StoreMachine, tmp_path, examples=0.45, steps=15)


@pytest.mark.timeout(3600)
@pytest.mark.mounted
def test_mounts_keep_what_they_show(tmp_path: Path) -> None:
    run(MountMachine, tmp_path, examples=0.04, steps=12)
