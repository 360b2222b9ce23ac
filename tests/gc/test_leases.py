"""Whose leases are alive, and what becomes of those that are not."""

from __future__ import annotations

import contextlib
import json
import os
import signal
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from castfs import atomic, syscalls
from castfs.errors import DamageError, StoreError
from castfs.gc import planning, unfinished
from castfs.gc.planning import Planner
from castfs.gc.sweep import Sweep
from castfs.store import Depot, WriteSession, pin_foreign, pin_manifest
from castfs.store.leases import HEARTBEAT_LIMIT_SECONDS, Lease
from tests.gc.acting import (
    HOUR_NS,
    LITTER,
    LOST,
    MORE,
    SHARED,
    Scene,
    Step,
    age,
    digest_of,
    gc,
    has,
    is_free,
    listing,
    locks_are_free,
    manifest_of,
    publish,
    rely_on,
)
from tests.gc.as_nobody import let_nobody_pass
from tests.store.checking import assert_idle, check_store
from tests.store.processes import python_environment

W, R = "w-0123456789abcdef", "r-0123456789abcdef"
LIMIT_NS = HEARTBEAT_LIMIT_SECONDS * 10**9


def header(**fields: Any) -> bytes:
    known = {
        "kind": "writer", "boot_id": syscalls.boot_id(), "pid": 1, "host": "elsewhere",
        "purpose": "test", "started_at": 0.0, "stamp_ns": 2 * 10**18,
    }  # fmt: skip
    return json.dumps({**known, **fields}).encode() + b"\n"


def write_lease(depot: Depot, data: bytes, *, name: str = W, age_ns: int = 0) -> Path:
    """A lease that nobody holds, with something staged, and a log of LOST."""
    path = depot.leases_dir / f"{name}.lease"
    path.write_bytes(data)
    now = path.stat().st_mtime_ns
    os.utime(path, ns=(now, now - age_ns))
    staging = depot.staging_dir / name
    staging.mkdir()
    (staging / "part").write_bytes(b"staged")
    return path


LOG = bytes.fromhex(digest_of(LOST))


@pytest.mark.parametrize(
    "data",
    [b"", b"{", header()[:-1], header()[:40], b"\n", b"\0" * 500, header(kind="other"), header()],
)
@pytest.mark.parametrize("network", [False, True])
def test_the_lease_of_a_dead_owner_is_no_root(
    garbage: Scene, data: bytes, network: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    """However torn its header is: nobody holds its flock. Where that cannot be trusted it has to be
    a day old."""
    store = garbage.store
    if network:
        monkeypatch.setattr(syscalls, "is_local", lambda fd: False)
    path = write_lease(store.depot, data + LOG, age_ns=LIMIT_NS + HOUR_NS if network else 0)
    result = gc(store, network_store=True)
    assert not path.exists()
    assert result.unfinished.count == 2
    assert not has(store, LOST)
    assert_idle(store.path)


@pytest.fixture
def dead_parent(scene: Scene) -> Scene:
    """A dead lease with a manifest beside it, whose record is gone."""
    path = write_lease(scene.store.depot, header())
    manifest = scene.store.depot.manifest_path(scene.lost.manifest_id)
    os.link(manifest, path.with_suffix(".json"))
    scene.store.remove_for_good(scene.lost.id)
    return scene


def test_the_manifest_of_a_dead_lease_is_no_root(dead_parent: Scene) -> None:
    gc(dead_parent.store)
    assert not has(dead_parent.store, LOST)
    assert_idle(dead_parent.store.path)


def test_a_manifest_without_its_lease_is_no_root(dead_parent: Scene) -> None:
    (dead_parent.store.depot.leases_dir / f"{W}.lease").unlink()
    gc(dead_parent.store)
    assert not has(dead_parent.store, LOST)
    assert_idle(dead_parent.store.path)


# Other machines ------------------------------------------------------------------------------


@pytest.fixture
def network(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(syscalls, "is_local", lambda fd: False)


FOREIGN = header(boot_id="of another machine")


def test_on_a_local_filesystem_the_flock_decides_whatever_the_header_says(garbage: Scene) -> None:
    """It was written before a reboot, or in a store that was copied."""
    path = write_lease(garbage.store.depot, FOREIGN + LOG)
    gc(garbage.store)
    assert not path.exists()
    assert not has(garbage.store, LOST)


def test_a_local_owner_lives_whatever_the_header_says(
    garbage: Scene, monkeypatch: pytest.MonkeyPatch
) -> None:
    """And however old it is."""
    store = garbage.store
    with contextlib.ExitStack() as stack:
        with monkeypatch.context() as patch:
            patch.setattr(syscalls, "boot_id", lambda: "another")
            session = stack.enter_context(WriteSession(store.depot, purpose="test"))
        rely_on(session, [LOST])
        age(store.path)
        for path in store.depot.leases_dir.iterdir():
            os.utime(path, ns=(0, 0))
        gc(store)
        assert has(store, LOST)
        assert not has(store, MORE)
        session.commit_blobs()


@pytest.mark.parametrize("data", [FOREIGN, b"", FOREIGN[:50]])
@pytest.mark.parametrize(("beyond_ns", "lives"), [(-HOUR_NS, True), (HOUR_NS, False)])
def test_on_a_network_filesystem_another_machines_lease_lives_by_its_heartbeat(
    garbage: Scene, network: None, data: bytes, beyond_ns: int, lives: bool
) -> None:
    store = garbage.store
    path = write_lease(store.depot, data + LOG, age_ns=LIMIT_NS + beyond_ns)
    gc(store, network_store=True)
    assert path.exists() is lives
    assert (store.depot.staging_dir / W).exists() is lives
    # A torn one has protected nothing yet.
    assert has(store, LOST) is (lives and data == FOREIGN)
    assert not has(store, LITTER)


def test_the_heartbeat_is_looked_at_by_the_stores_clock(
    garbage: Scene, network: None, monkeypatch: pytest.MonkeyPatch
) -> None:
    store = garbage.store
    path = write_lease(store.depot, FOREIGN)
    original = Depot.stamp_ns
    monkeypatch.setattr(Depot, "stamp_ns", lambda depot: original(depot) + 23 * HOUR_NS)
    gc(store, network_store=True)
    assert path.exists()
    monkeypatch.setattr(Depot, "stamp_ns", lambda depot: original(depot) + 25 * HOUR_NS)
    gc(store, network_store=True)
    assert not path.exists()


def test_a_heart_that_beats_again(garbage: Scene, network: None, at: Callable[..., Step]) -> None:
    """Another machine was asleep for a day, and wakes up between the plan and its execution."""
    store = garbage.store
    path = write_lease(store.depot, FOREIGN + LOG, age_ns=LIMIT_NS + HOUR_NS)
    at(Sweep, "run", lambda: os.utime(path))
    gc(store, network_store=True)
    assert path.exists()
    assert (store.depot.staging_dir / W / "part").exists()
    assert has(store, LOST)
    assert not has(store, LITTER)


def test_on_a_network_filesystem_the_flock_decides_for_this_machine(
    garbage: Scene, network: None
) -> None:
    path = write_lease(garbage.store.depot, header() + LOG)
    gc(garbage.store, network_store=True)
    assert not path.exists()
    assert not has(garbage.store, LOST)


def test_a_manifest_that_another_machine_has_pinned(garbage: Scene, network: None) -> None:
    store = garbage.store
    path = write_lease(store.depot, header(boot_id="other", kind="reader"), name=R)
    os.link(store.depot.manifest_path(garbage.lost.manifest_id), path.with_suffix(".json"))
    assert gc(store, network_store=True).kept["readers"].count == 2
    assert has(store, LOST)


def test_a_network_filesystem_has_to_be_asked_for(garbage: Scene, network: None) -> None:
    before = listing(garbage.store.path)
    for dry_run in (False, True):
        with pytest.raises(StoreError, match="network-store") as caught:
            garbage.store.plan_gc() if dry_run else gc(garbage.store)
        assert caught.value.exit_code == 1
    assert listing(garbage.store.path) == before


# Leases that nobody can tell -----------------------------------------------------------------


def make_directory(path: Path) -> None:
    path.mkdir()


def make_loop(path: Path) -> None:
    path.symlink_to(path.name)


@pytest.mark.parametrize("make", [make_directory, make_loop])
def test_a_lease_that_cannot_be_opened(garbage: Scene, make: Callable[[Path], None]) -> None:
    path = garbage.store.depot.leases_dir / f"{W}.lease"
    make(path)
    before = listing(garbage.store.path)
    with pytest.raises(DamageError, match=W):
        gc(garbage.store)
    assert listing(garbage.store.path) == before


@pytest.mark.needs_root
def test_another_users_lease_that_may_not_be_opened(garbage: Scene) -> None:
    """Immutable attributes and the like aside, root may open all: so as somebody else."""
    store = garbage.store
    subprocess.run(["chown", "-R", "65534:65534", store.path], check=True)
    lease = write_lease(store.depot, header())
    lease.chmod(0o600)
    let_nobody_pass(store.path)
    before = listing(store.path)
    code = (
        "import os, sys; import castfs.gc; from castfs.repository import Store;"
        "from castfs.store import open_depot; from pathlib import Path;"
        "import castfs.manifest, castfs.verify;"
        "os.setgid(65534); os.setuid(65534)\n"
        "try: castfs.gc.collect(open_depot(Path(sys.argv[1])))\n"
        "except castfs.DamageError as exc: print(exc.message)"
    )
    done = subprocess.run(
        [sys.executable, "-P", "-c", code, store.path],
        env=python_environment(),
        capture_output=True,
        text=True,
        timeout=60,
    )
    assert done.stderr == ""
    assert W in done.stdout
    assert listing(store.path) == before


@pytest.mark.parametrize("data", [b"", header()[:30]])
def test_a_live_lease_that_says_nothing(garbage: Scene, data: bytes) -> None:
    """On one machine that cannot be: it was damaged, and what it protects is not known."""
    store = garbage.store
    lease = Lease(store.depot.leases_dir, kind="writer", purpose="test", mode=0o600)
    lease.acquire()
    try:
        lease.path.write_bytes(data)
        before = listing(store.path)
        with pytest.raises(DamageError, match=lease.id):
            gc(store)
        assert listing(store.path) == before
    finally:
        lease.release()


# The start of a lease ------------------------------------------------------------------------


@pytest.mark.parametrize(("before_ns", "stays"), [(HOUR_NS // 2, True), (2 * HOUR_NS, False)])
def test_what_a_writer_has_touched_since_it_began_stays(
    garbage: Scene, monkeypatch: pytest.MonkeyPatch, before_ns: int, stays: bool
) -> None:
    """A manifest that it found in place, five hours before the collector came. Grace counts from
    the begin of the writer."""
    store = garbage.store
    original = Depot.stamp_ns
    monkeypatch.setattr(Depot, "stamp_ns", lambda depot: original(depot) + 5 * HOUR_NS)
    manifest = manifest_of(store, garbage.lost.manifest_id)
    path = store.depot.manifest_path(manifest.id)
    with WriteSession(store.depot, purpose="test") as session:
        began = original(store.depot)
        os.utime(path, ns=(began, began - before_ns))
        for blob in store.path.glob("blobs/??/*"):
            if blob.read_bytes() == LITTER:
                os.utime(blob, ns=(began, began - before_ns))
        result = gc(store)
        assert path.exists() is stays
        assert has(store, LITTER) is stays
        # Not kept by the grace period, which is over, but for the ingest.
        assert result.kept["ingests"].count == (1 if stays else 0)
        rely_on(session, [SHARED, LOST, MORE])
        session.commit_blobs()
        publish(session, manifest)
    check_store(store.path)


def test_a_mount_of_months_does_not_stop_the_collector(garbage: Scene) -> None:
    """A reader's lease names all that it needs."""
    with garbage.store.resolve(garbage.kept.id).pinned("mount"):
        for path in garbage.store.depot.leases_dir.glob("*.lease"):
            path_header, _, rest = path.read_bytes().partition(b"\n")
            fields = {**json.loads(path_header), "stamp_ns": 0}
            path.write_bytes(json.dumps(fields).encode() + b"\n" + rest)
        assert gc(garbage.store).deleted.count == 3


# What the dead left --------------------------------------------------------------------------


_KILLED = """
import os, sys, castfs
from castfs.store import WriteSession
with WriteSession(castfs.open(sys.argv[1]).depot, purpose="test") as session:
    session.stage_bytes(b"staged")
    os.write(1, b"ready")
    sys.stdin.read()
"""


def test_a_killed_ingest_is_cleared_and_a_live_one_is_not(garbage: Scene) -> None:
    store = garbage.store
    with subprocess.Popen(
        [sys.executable, "-P", "-c", _KILLED, store.path],
        env=python_environment(),
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
    ) as process:
        assert process.stdout is not None
        assert process.stdout.read(5) == b"ready"
        result = gc(store)
        assert result.unfinished.count == 0
        [lease] = store.depot.leases_dir.iterdir()
        assert (store.depot.staging_dir / lease.stem).is_dir()
        process.send_signal(signal.SIGKILL)
        process.wait(30)
    result = gc(store)
    # The lease and the blob.
    assert result.unfinished.count == 2
    assert_idle(store.path)


@pytest.mark.parametrize(
    ("owner", "name"),
    [(planning, "measure"), (Planner, "_find_manifests"), (Sweep, "run"),
     (Sweep, "_clear_unfinished")],
)  # fmt: skip
def test_an_ingest_that_has_just_begun_is_left_alone(
    garbage: Scene, at: Callable[..., Step], owner: Any, name: str
) -> None:
    """It began after leases were looked at."""
    store = garbage.store
    session = WriteSession(store.depot, purpose="test")
    with contextlib.ExitStack() as stack:

        def begin() -> None:
            stack.enter_context(session)
            rely_on(session, [LOST])

        at(owner, name, begin)
        gc(store)
        assert session.staging.path.is_dir()
        record = publish_lost(garbage, session)
    assert store.depot.record_path(record).exists()
    check_store(store.path)
    assert_idle(store.path)


def publish_lost(scene: Scene, session: WriteSession) -> str:
    if not scene.store.depot.manifest_path(scene.lost.manifest_id).exists():
        scene.store.ingest(scene.lost_source)
    manifest = manifest_of(scene.store, scene.lost.manifest_id)
    rely_on(session, [SHARED, LOST, MORE])
    session.commit_blobs()
    return publish(session, manifest).id


def test_an_ingest_that_begins_before_the_unfinished_are_looked_for_is_none_of_them(
    garbage: Scene, at: Callable[..., Step]
) -> None:
    with contextlib.ExitStack() as stack:

        def begin() -> None:
            session = WriteSession(garbage.store.depot, purpose="test")
            stack.enter_context(session).stage_bytes(b"staged")

        at(Planner, "_cutoff", begin)
        result = garbage.store.plan_gc()
    assert result.unfinished.count == 0


def test_a_dead_lease_is_renamed_away_while_its_flock_is_held_and_deleted_outside(
    garbage: Scene, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Else somebody could open it and lock an inode without a name."""
    store = garbage.store
    lease = write_lease(store.depot, header())
    calls: list[tuple[str, str, bool, bool]] = []
    for name in ("rename", "unlink"):
        original = getattr(os, name)

        def call(
            path: Any, *args: Any, name: str = name, original: Any = original, **kwargs: Any
        ) -> Any:
            where = Path(os.fsdecode(path))
            if where.suffix == ".lease":
                alone = not is_free(store.path / "store") and not is_free(store.path / "gate")
                calls.append((name, where.parent.name, alone, is_free(where)))
            return original(path, *args, **kwargs)

        monkeypatch.setattr(os, name, call)
    gc(store)
    assert calls == [("rename", "leases", True, False), ("unlink", "staging", False, True)]
    assert not lease.exists()


def test_an_owner_whose_lease_is_taken_away_notices(garbage: Scene, network: None) -> None:
    """Another machine's, which was asleep for a day."""
    store = garbage.store
    with WriteSession(store.depot, purpose="test") as session:
        [lease] = store.depot.leases_dir.iterdir()
        # To this machine it looks as if nobody held it: locks do not work across machines here.
        away = lease.with_name(f"{W}.lease")
        lease.rename(away)
        lease_id, data = session.params.lease, away.read_bytes()
        away.unlink()
        (store.depot.leases_dir / f"{lease_id}.lease").write_bytes(
            data.replace(syscalls.boot_id().encode(), b"other")
        )
        os.utime(store.depot.leases_dir / f"{lease_id}.lease", ns=(0, 0))
        gc(store, network_store=True)
        with pytest.raises(StoreError, match="lease"):
            session.commit_blobs()


def test_the_record_appears_and_the_lease_goes_in_one_step(
    scene: Scene, at: Callable[..., Step]
) -> None:
    """In between a collector would find neither."""
    store = scene.store
    before = set(store.depot.iter_record_ids())
    seen: list[object] = []

    def look() -> None:
        [lease] = store.depot.leases_dir.glob("*.lease")
        held = not is_free(store.path / "store") and is_free(store.path / "gate")
        seen.append((held, is_free(lease), len(set(store.depot.iter_record_ids()) - before)))

    (scene.lost_source / "new").write_bytes(b"new")
    at(Lease, "release", look)
    store.ingest(scene.lost_source)
    assert seen == [(True, False, 1)]


def test_a_parent_whose_record_is_gone_is_none(garbage: Scene) -> None:
    """Though its manifest is there still."""
    depot = garbage.store.depot
    manifest = manifest_of(garbage.store, garbage.lost.manifest_id)
    with WriteSession(depot, purpose="test") as session:
        assert session.pin_parent(garbage.lost.id, manifest.id) is None
        assert list(depot.leases_dir.glob("*.json")) == []


@pytest.mark.parametrize("who", ["reader", "reader of a file", "parent"])
def test_every_move_of_a_lease_is_made_under_the_shared_lock(
    scene: Scene, who: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """So a collector that lists roots sees it before or after, with its manifest or not at all."""
    depot = scene.store.depot
    manifest = manifest_of(scene.store, scene.lost.manifest_id)
    calls: list[tuple[str, bool]] = []

    def watch(owner: Any, name: str) -> None:
        original = getattr(owner, name)

        def call(*args: Any, **kwargs: Any) -> Any:
            held = not is_free(depot.path / "store") and is_free(depot.path / "gate")
            calls.append((name, held))
            return original(*args, **kwargs)

        monkeypatch.setattr(owner, name, call)

    for name in ("acquire", "add_manifest", "release"):
        watch(Lease, name)
    with contextlib.ExitStack() as stack:
        if who == "reader":
            stack.enter_context(pin_manifest(depot, manifest.id, purpose="test"))
        elif who == "reader of a file":
            watch(os, "replace")
            stack.enter_context(pin_foreign(depot, [b"{}"], purpose="test"))
        else:
            session = stack.enter_context(WriteSession(depot, purpose="test"))
            assert session.pin_parent(scene.lost.id, manifest.id) is not None
    middle = "replace" if who == "reader of a file" else "add_manifest"
    assert calls == [("acquire", True), (middle, True), ("release", True)]


def test_an_owner_whose_lease_is_taken_away_at_the_last_moment_records_nothing(
    scene: Scene, at: Callable[..., Step]
) -> None:
    """The lease is looked at under the same hold of the lock in which the record appears."""
    store = scene.store
    manifest = manifest_of(store, scene.lost.manifest_id)
    with WriteSession(store.depot, purpose="test") as session:
        [lease] = store.depot.leases_dir.iterdir()
        # Its manifest is there already: this one is the record.
        at(atomic, "write_temp", lambda: lease.rename(store.depot.staging_dir / f"dead-{W}"))
        with pytest.raises(StoreError, match="lease"):
            publish(session, manifest)
    assert len(list(store.depot.iter_record_ids())) == 2


@pytest.fixture
def leftovers(garbage: Scene) -> dict[str, Path]:
    depot = garbage.store.depot
    old, dead = "0" * 16, depot.staging_dir / f"dead-{W}"
    paths = {
        "taken away before": dead,
        "taken away lease": depot.staging_dir / f"dead-{W}.lease",
        "probe": depot.blobs.path / f"probe-{W}",
        "copied manifest": depot.staging_dir / f"{R}.tmp",
        "old temporary": depot.staging_dir / f"tmp-{old}",
        "old marker": depot.path / f"tmp-{old}",
        "young temporary": depot.staging_dir / f"tmp-{'1' * 16}",
        "young marker": depot.path / f"tmp-{'1' * 16}",
        "strange": depot.staging_dir / "strange",
    }
    dead.mkdir()
    (dead / "part").write_bytes(b"x")
    for name, path in paths.items():
        if path != dead:
            path.write_bytes(b"x")
        if name.startswith("old"):
            os.utime(path, ns=(0, path.stat().st_mtime_ns - 25 * HOUR_NS))
    return paths


def test_what_is_cleared_and_what_may_be_somebodys(
    garbage: Scene, leftovers: dict[str, Path]
) -> None:
    result = gc(garbage.store)
    left = {name for name, path in leftovers.items() if path.exists()}
    assert left == {"young temporary", "young marker", "strange"}
    assert result.unfinished.count == 6


def test_the_probe_and_copy_of_a_live_lease_stay(garbage: Scene) -> None:
    depot = garbage.store.depot
    with WriteSession(depot, purpose="test") as session:
        paths = [
            depot.blobs.path / f"probe-{session.params.lease}",
            depot.staging_dir / f"{session.params.lease}.tmp",
        ]
        for path in paths:
            path.write_bytes(b"x")
        gc(garbage.store)
        assert [path.exists() for path in paths] == [True, True]
        for path in paths:
            path.unlink()


def test_an_owner_that_clears_its_staging_at_the_same_time(
    garbage: Scene, monkeypatch: pytest.MonkeyPatch
) -> None:
    """It has committed, so its lease is gone and its staging nobody's."""
    store = garbage.store
    for number in range(3):
        shard = store.depot.staging_dir / W / f"a{number}"
        shard.mkdir(parents=True)
        (shard / "staged").write_bytes(b"x")
    calls = 0
    original = os.scandir

    def scandir(path: Any = ".") -> Any:
        nonlocal calls
        where = os.readlink(f"/proc/self/fd/{path}") if isinstance(path, int) else str(path)
        if W in where and locks_are_free(store.depot):
            calls += 1
            if calls in (1, 4):
                [shard] = store.depot.staging_dir.glob(f"*{W}/a{2 if calls == 1 else 1}")
                result = original(path)
                (shard / "staged").unlink()
                shard.rmdir()
                return result
        return original(path)

    monkeypatch.setattr(os, "scandir", scandir)
    gc(store)
    assert calls >= 4
    assert_idle(store.path)


def test_leases_of_no_one_alive_stand_for_nothing_in_a_dry_run(garbage: Scene) -> None:
    write_lease(garbage.store.depot, header() + LOG)
    result = garbage.store.plan_gc()
    assert result.unfinished.count == 2
    assert result.deleted.count == 3
    assert unfinished.measure([garbage.store.depot.staging_dir / W]).count == 1
