"""Many processes at once, and processes that are killed: whole versions, in order."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
from pathlib import Path

import pytest

import castfs
from castfs.catalog import rebuild
from castfs.verify import VerifyOptions
from tests.catalog.conftest import Versions, numbers
from tests.store.processes import python_environment, run_python

_LOG = """
import sys
from pathlib import Path
import castfs
store, tree, count = castfs.open(sys.argv[1]), Path(sys.argv[2]), int(sys.argv[3])
print("ready", flush=True)
sys.stdin.readline()
for number in range(count):
    (tree / "file").write_text(f"{tree} {number}")
    result = store.ingest(tree, name="m", aliases=["newest"])
    print(result.version, flush=True)
"""


def start(store: castfs.Store, tree: Path, count: int) -> subprocess.Popen[str]:
    tree.mkdir()
    return subprocess.Popen(
        [sys.executable, "-P", "-c", _LOG, store.path, tree, str(count)],
        env=python_environment(CASTFS_THREADS="1"),
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )


def test_ten_processes(store: castfs.Store, tmp_path: Path) -> None:
    processes = [start(store, tmp_path / f"tree{number}", 2) for number in range(10)]
    for process in processes:
        assert process.stdout is not None
        assert process.stdout.readline() == "ready\n"
    given = []
    for process in processes:
        assert process.stdin is not None
        process.stdin.write("\n")
        process.stdin.flush()
    for process in processes:
        out, err = process.communicate(timeout=60)
        assert (process.returncode, err) == (0, "")
        mine = [int(line) for line in out.split()]
        assert mine == sorted(mine)
        given += mine
    assert sorted(given) == list(range(1, 21))
    assert numbers(store) == list(range(1, 21))
    ids = [each.id for each in store.iter_versions("m")]
    assert len(set(ids)) == 20
    assert store.aliases("m").aliases == {"newest": 20}, "the alias of the last that came"
    events = [event.version for event in store.aliases("m").history]
    assert events == list(range(20, 0, -1))
    assert store.verify(options=VerifyOptions(data=True)).status == "clean"


#: Ingests a version in a forked process that is killed before its n-th call on the store, for each
#: n until one is not reached.
_KILLED = """
import json, os, signal, sys
from pathlib import Path
import castfs
from castfs import syscalls
from castfs.repository import publishing, taking
from tests.crash.calls import Shim
path, tree = Path(sys.argv[1]), Path(sys.argv[2])
first, step = int(sys.argv[3]), int(sys.argv[4])
sys.path.insert(0, "")
syscalls.syncfs = lambda fd: None
os.fsync = lambda fd: None

def attempt(point):
    pid = os.fork()
    if pid == 0:
        count = 0
        def before(call):
            nonlocal count
            count += call.changes
            if count == point:
                os.kill(os.getpid(), signal.SIGKILL)
        store = castfs.open(path)
        Shim(path, before).install()
        store.ingest(tree, name="m", aliases=["newest"], tags=[str(point)])
        os._exit(0)
    return os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1])

for point in range(first, 1000, step):
    (tree / "model.bin").write_text(f"content {point}")
    code = attempt(point)
    store = castfs.open(path)
    versions = [each.record for each in store.iter_versions("m")]
    print(json.dumps([code, [each.version for each in versions], store.aliases("m").aliases]))
    for each in versions:
        store.resolve(each.id).manifest
    if code == 0:
        break
"""


@pytest.mark.parametrize("first", [1, 2, 3])
def test_a_killed_process_leaves_no_half_version(versions: Versions, first: int) -> None:
    """Killed before every third call that changes the store."""
    store = versions.store
    versions.make()
    store.set_alias("m:v1", "newest")
    said = run_python(_KILLED, store.path, versions.tree, first, 3, timeout=110, CASTFS_THREADS="1")
    rows = [castfs_json(line) for line in said.splitlines()]
    assert len(rows) > 10
    assert {code for code, *_ in rows[:-1]} == {-signal.SIGKILL}
    assert rows[-1][0] == 0
    known: list[int] = [1]
    for _, found, aliases in rows:
        assert found[: len(known)] == known, "a version is gone, or its number"
        assert len(found) - len(known) in (0, 1)
        assert found == sorted(set(found))
        assert aliases["newest"] in found
        known = found
    highest = max(known)
    assert versions.make() == [highest + 1], "the last one was not killed"
    assert store.verify(options=VerifyOptions(data=True)).status == "clean"
    assert rebuild(store.depot) == len(known) + 1


def castfs_json(line: str) -> tuple[int, list[int], dict[str, int]]:
    import json

    code, found, aliases = json.loads(line)
    return code, found, aliases


def test_killed_at_any_moment(store: castfs.Store, tmp_path: Path) -> None:
    """SIGKILL while versions are made one after the other."""
    said: list[int] = []
    for number in range(6):
        process = start(store, tmp_path / f"tree{number}", 1000)
        assert process.stdin is not None
        assert process.stdout is not None
        with process:
            process.stdin.write("\n")
            process.stdin.flush()
            assert process.stdout.readline() == "ready\n"
            # Another place in the loop each time, however fast the machine is.
            mine = [int(process.stdout.readline()) for _ in range(number + 1)]
            os.kill(process.pid, signal.SIGKILL)
            mine += [int(line) for line in process.stdout.read().splitlines() if line.isdigit()]
        assert not said or min(mine) > max(said)
        said += mine
    listed = [number for number in numbers(store) if number is not None]
    assert set(said) <= set(listed), "what was said to be made is there"
    assert len(listed) == len(set(listed))
    tree = tmp_path / "last"
    tree.mkdir()
    next_one = store.ingest(tree, name="m").version
    assert next_one is not None
    assert next_one > max(listed)
    assert store.verify(options=VerifyOptions(data=True)).status == "clean"
