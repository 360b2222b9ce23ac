"""Stores that several users write: root in somebody's own, members in their group's."""

from __future__ import annotations

import grp
import os
import stat
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

import castfs
from castfs import atomic
from castfs.progress import Progress
from castfs.repository import Store
from castfs.store import ensure_depot, pin_foreign
from castfs.store.leases import decode_header
from tests.gc.as_nobody import NOBODY, collect_as_nobody, give_to_nobody
from tests.store.checking import assert_idle, check_store


class EachPhase(Progress):
    def __init__(self, act: Callable[[], object]) -> None:
        self._act = act

    def phase(self, name: str, **_: object) -> None:
        self._act()

    def advance(self, count: int, size: int = 0) -> None:
        self._act()


# Root in another user's ----------------------------------------------------------------------


@pytest.mark.needs_root
def test_what_root_makes_in_somebodys_store_is_theirs(store: Store, source: Path) -> None:
    """They can use it, go on in it, and clear it if root is killed."""
    give_to_nobody(store.path)
    seen: set[str] = set()

    def look() -> None:
        for path in store.path.rglob("*"):
            status = path.lstat()
            if path.is_dir() or path.suffix == ".lease":
                assert (status.st_uid, status.st_gid) == (NOBODY, NOBODY), path
                assert stat.S_IMODE(status.st_mode) & 0o077 == 0, path
                seen.add(str(path.relative_to(store.path)))

    taken = store.ingest(source, progress=EachPhase(look))
    with store.resolve(taken.id).pinned("test"):
        look()
    with pin_foreign(store.depot, [b"{}"], purpose="test"):
        look()
    look()
    manifest = store.depot.manifest_path(taken.manifest_id)
    for pattern in (
        "leases/w-*.lease",
        "leases/r-*.lease",
        "staging/w-*",
        "staging/w-*/??",
        "blobs/??",
        f"manifests/{manifest.parent.name}",
    ):
        assert any(Path(path).match(pattern) for path in seen), pattern
    check_store(store.path)
    assert_idle(store.path)
    # It is all in their power.
    store.remove_for_good(taken.id)
    for path in (*store.path.glob("blobs/??/*"), manifest):
        os.utime(path, (0, 0))
    store.ingest(source / "sub")
    assert collect_as_nobody(store.path) == {"left": [], "deleted": 3}


@pytest.mark.needs_root
def test_what_root_makes_in_its_own_store_is_its_own(store: Store, source: Path) -> None:
    store.ingest(source)
    assert {path.lstat().st_uid for path in store.path.rglob("*")} == {0}


# A group's -----------------------------------------------------------------------------------


@pytest.fixture
def group_store(tmp_path: Path) -> Store:
    path = tmp_path / "group"
    ensure_depot(path, group=grp.getgrgid(os.getgid()).gr_name)
    return castfs.open(path)


@pytest.fixture(params=[0o000, 0o022, 0o077])
def umask(request: pytest.FixtureRequest) -> Iterator[int]:
    before = os.umask(request.param)
    try:
        yield request.param
    finally:
        os.umask(before)


#: Whatever makes a name, or changes a mode.
CALLS = (
    "mkdir",
    "open",
    "chmod",
    "fchmod",
    "chown",
    "fchown",
    "rename",
    "replace",
    "link",
    "write",
)


def test_nothing_of_a_groups_store_is_ever_without_its_mode(
    group_store: Store, source: Path, umask: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Looked at after each system call, so wherever a writer is killed: only who made a directory
    could mend it, and a collector that cannot open a lease stops."""
    store = group_store
    seen: set[str] = set()

    def look() -> None:
        for path in store.path.rglob("*"):
            try:
                mode = stat.S_IMODE(path.lstat().st_mode)
            except FileNotFoundError:
                continue
            if path.is_dir() and not path.name.startswith("tmp-"):
                assert mode == 0o2770, (path, oct(mode))
            elif path.suffix == ".lease":
                assert mode == 0o640, (path, oct(mode))
                assert decode_header(path.read_bytes()) is not None, path
            else:
                continue
            seen.add(path.parent.name)

    for name in CALLS:
        original = getattr(os, name)

        def call(*args: Any, original: Any = original, **kwargs: Any) -> Any:
            result = original(*args, **kwargs)
            if not is_looking:
                is_looking.append(True)
                try:
                    look()
                finally:
                    is_looking.clear()
            return result

        monkeypatch.setattr(os, name, call)
    is_looking: list[bool] = []
    taken = store.ingest(source)
    with store.resolve(taken.id).pinned("test"):
        pass
    assert seen >= {"group", "blobs", "manifests", "staging", "leases"}
    assert_idle(store.path)


@pytest.mark.parametrize("content", [True, False])
def test_two_that_make_a_directory_at_once(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, content: bool
) -> None:
    """The other was faster, and may have put something there."""
    path = tmp_path / "ab"
    original = Path.rename

    def rename(temp: Path, target: Path) -> Path:
        target.mkdir()
        target.chmod(0o2770)
        if content:
            (target / "blob").touch()
        return original(temp, target)

    monkeypatch.setattr(Path, "rename", rename)
    atomic.ensure_dir(path, 0o2770)
    assert stat.S_IMODE(path.stat().st_mode) == 0o2770
    assert [each.name for each in path.iterdir()] == (["blob"] if content else [])
    assert list(tmp_path.glob("tmp-*")) == []
