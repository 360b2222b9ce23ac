"""A group's store, which two users change: in turns, at once, and where one was killed."""

from __future__ import annotations

import json
import os
import stat
from collections.abc import Iterator
from pathlib import Path

import pytest

import castfs
from castfs.store import ensure_depot
from castfs.verify import VerifyOptions
from tests.catalog.conftest import numbers
from tests.catalog.members import FIRST, LOAD, SECOND, Member, group, member
from tests.gc.as_nobody import let_nobody_pass
from tests.store.checking import check_store
from tests.store.processes import run_python

pytestmark = pytest.mark.needs_root


@pytest.fixture
def shared(tmp_path: Path) -> castfs.Store:
    path = tmp_path / "shared"
    ensure_depot(path, group=group().gr_name)
    # A user's, as whoever made it is one.
    for each in (path, *path.rglob("*")):
        os.chown(each, FIRST[0], group().gr_gid)
    let_nobody_pass(path)
    return castfs.open(path)


@pytest.fixture
def ann(shared: castfs.Store) -> Iterator[Member]:
    with member(shared.path, FIRST) as found:
        yield found


@pytest.fixture
def bob(shared: castfs.Store) -> Iterator[Member]:
    with member(shared.path, SECOND) as found:
        yield found


class Trees:
    """Each with another content; all may read them."""

    def __init__(self, place: Path) -> None:
        self._place = place
        self._count = 0

    def __call__(self) -> Path:
        self._count += 1
        path = self._place / f"tree{self._count}"
        (path / "sub").mkdir(parents=True)
        (path / "same").write_text("in all of them")
        (path / "sub" / "file").write_text(f"content {self._count}")
        return path


@pytest.fixture
def trees(tmp_path: Path) -> Trees:
    return Trees(tmp_path)


def check_modes(store: castfs.Store) -> None:
    """Whatever one has made, the other may go on with."""
    gid = group().gr_gid
    for path in (store.path, *store.path.rglob("*")):
        status = path.lstat()
        assert status.st_gid == gid, path
        if path.name.startswith("tmp-"):
            continue  # it is cleared away, see below
        if path.is_dir():
            assert stat.S_IMODE(status.st_mode) == 0o2770, path
        elif path.name.startswith("catalog.db") or path.name in ("gate", "store", "catalog.lock"):
            assert stat.S_IMODE(status.st_mode) == 0o660, path
        else:
            assert status.st_mode & 0o040, path


def check_sound(store: castfs.Store) -> None:
    check_modes(store)
    check_store(store.path)
    assert store.verify(options=VerifyOptions(data=True)).status == "clean"


def test_in_turns(shared: castfs.Store, ann: Member, bob: Member, trees: Trees) -> None:
    assert ann.json("ingest", trees(), "--name", "m", "--alias", "best")["version"] == 1
    assert bob.json("ingest", trees(), "--name", "m", "--alias", "best")["version"] == 2
    last = trees()
    assert ann.json("ingest", last, "--name", "m", "--tag", "a")["version"] == 3
    assert bob.json("ingest", last, "--name", "m", "--tag", "b")["unchanged"]
    check_sound(shared)
    # What the other has made.
    bob("tag", "m:v1", "good")
    ann("tag", "m:v1", "better")
    bob("tag", "-d", "m:v1", "good")
    ann("meta", "m:v2", "acc=0.5")
    bob("meta", "m:v2", "acc=0.6", "--unset", "acc", code=2)
    bob("meta", "m:v2", "loss=0.6", "--unset", "acc")
    ann("alias", "m:v1", "best")
    bob("alias", "m:v3", "best")
    bob("reference", "raw", "s3://bucket/raw")
    ann("reference", "raw", "s3://bucket/raw2", "--alias", "best")
    shown = ann.json("show", "m:v1")
    assert shown == bob.json("show", "m:v1")
    events = [(each["version"], each["by"]) for each in bob.json("alias", "m")["history"]]
    assert [version for version, _ in events] == [3, 1, 2, 1]
    assert len({by for _, by in events}) == 2
    check_sound(shared)
    # Away, and back.
    ann("rm", "m:v2")
    bob("undelete", "m:v2")
    bob("rm", "m:v1", "m:v2")
    ann("undelete", "--all-versions", "m")
    ann("rm", "m:v2")
    bob("rm", "--permanent", "--yes", "m:v1", "m:v2")
    assert ann.json("ingest", trees(), "--name", "m")["version"] == 4
    before = ann.json("log")
    for each, other in ((ann, bob), (bob, ann)):
        each("catalog", "rebuild")
        assert each.json("log") == other.json("log") == before
        check_modes(shared)
    ann("gc", "--grace", "0s")
    check_sound(shared)
    bob("gc", "--grace", "0s")
    assert numbers(shared) == [3, 4]
    check_sound(shared)


def test_the_database_of_another(
    shared: castfs.Store, ann: Member, bob: Member, trees: Trees
) -> None:
    """Deleted, and damaged."""
    ann("ingest", trees(), "--name", "m")
    for each, other in ((ann, bob), (bob, ann)):
        for path in shared.path.glob("catalog.db*"):
            path.unlink()
        each.json("versions", "m")
        other("ingest", trees(), "--name", "m")
        (shared.path / "catalog.db").write_bytes(b"no database")
        other("alias", "m:latest", "best")
        each("alias", "m:v1", "best")
        check_sound(shared)
    assert numbers(shared) == [1, 2, 3]


def test_at_once(shared: castfs.Store, ann: Member, bob: Member, trees: Trees) -> None:
    for _ in range(6):
        for each in (ann, bob):
            each.ask("ingest", trees(), "--name", "m", "--alias", "best", "--json")
            each.ask("alias", "m:v1", "first")
            each.ask("rm", "--force", "m:latest")
            each.ask("catalog", "rebuild")
    given = []
    for each in (ann, bob):
        for _ in range(6):
            code, out, err = each.answer()
            assert code == 0, err
            given.append(json.loads(out)["version"])
            for code, _, err in (each.answer(), each.answer(), each.answer()):
                # v1, or the latest, may just have been removed by the other.
                assert code in (0, 4), err
    assert sorted(given) == list(range(1, 13))
    assert numbers(shared) == list(range(1, 13))
    check_sound(shared)


#: Before every third (say) of its calls that change the store one is killed, and the other goes on.
_KILLED = """
import signal
from pathlib import Path
from castfs import syscalls
from tests.crash.calls import Shim
from tests.gc.as_nobody import let_nobody_pass
tree, step, users = Path(sys.argv[3]), int(sys.argv[4]), json.loads(sys.argv[5])
syscalls.syncfs = lambda fd: None
os.fsync = lambda fd: None

def run_as(user, work):
    let_nobody_pass(Path(store))
    pid = os.fork()
    if pid == 0:
        become(*user)
        work()
        sys.stdout.flush()
        os._exit(0)
    return os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1])

def change(number):
    (tree / "sub" / "file").write_text(f"changed {number}")

def be_killed():
    count = 0
    def before(call):
        nonlocal count
        count += call.alters
        if count == point:
            os.kill(os.getpid(), signal.SIGKILL)
    Shim(Path(store), before).install()
    change(point)
    opened = castfs.open(store)
    opened.ingest(tree, name="m", aliases=["best"], tags=["x"])
    opened.remove("m:v1", force=True)
    with castfs.init("p", "n", store=opened) as run:
        run.use_artifact("m:latest")
        run.log_artifact(castfs.Artifact("made").add_dir(tree))

def go_on():
    opened = castfs.open(store)
    change(-point)
    taken = opened.ingest(tree, name="m", aliases=["best"])
    if list(opened.iter_deleted()):
        opened.undelete("m:v1")
    opened.tag("m:v1", str(point))
    with castfs.catalog.reading(opened.depot) as catalog:
        runs = [run.id for run in catalog.iter_runs()]
    for run_id in runs:
        castfs.find_run(run_id, store=opened).finish()
        castfs.runs.removing.remove_run(opened.depot, run_id)
    opened.gc(castfs.GcOptions(grace_seconds=0))
    versions = list(opened.iter_versions("m"))
    aliases = opened.aliases("m")
    castfs.catalog.rebuild(opened.depot)
    assert (versions, aliases) == (list(opened.iter_versions("m")), opened.aliases("m"))
    numbers = [version.record.version for version in versions]
    print(json.dumps({"taken": taken.version, "versions": numbers, **aliases.aliases}))

for point in range(1, 2000, step):
    first, second = users[::1 if point // step % 2 else -1]
    code = run_as(first, be_killed)
    assert run_as(second, go_on) == 0, point
    if code == 0:
        break
    assert code == -signal.SIGKILL, (point, code)
"""


@pytest.mark.timeout(600)
@pytest.mark.parametrize("step", [41, pytest.param(1, marks=pytest.mark.slow)])
def test_one_is_killed(shared: castfs.Store, trees: Trees, step: int) -> None:
    source = trees()
    for path in (source, *source.rglob("*")):
        path.chmod(0o777)
    with member(shared.path, FIRST) as first:
        assert first.json("ingest", source, "--name", "m")["version"] == 1
    said = run_python(
        LOAD + _KILLED, shared.path, group().gr_gid, source, step, json.dumps([FIRST, SECOND]),
        timeout=600, CASTFS_THREADS="1", XDG_CACHE_HOME="/proc/none",
    )  # fmt: skip
    rows = [json.loads(line) for line in said.splitlines()]
    assert len(rows) > 5
    known = [1]
    for row in rows:
        versions = row["versions"]
        assert versions[: len(known)] == known, "a version is gone, or its number"
        assert versions == sorted(set(versions))
        assert versions[-1] == row["taken"] == row["best"]
        assert row["taken"] > known[-1]
        known = versions
    check_sound(shared)


def test_what_was_about_to_be_made(shared: castfs.Store, ann: Member, bob: Member) -> None:
    """One was killed before a directory had its mode: the other's collector clears it away, once it
    is old, and goes on until then."""
    left = [shared.path / room / f"tmp-{1:016x}" for room in ("manifests", "blobs", ".", "runs")]
    for path in left:
        path.mkdir(0o700)
        os.chown(path, FIRST[0], group().gr_gid)
    bob("gc", "--grace", "0s")
    bob("list")
    bob("verify")
    assert all(path.exists() for path in left)
    for path in left:
        os.utime(path, (0, 0))
    said = bob("gc", "--grace", "0s")
    assert [path for path in left if path.exists()] == [], said
