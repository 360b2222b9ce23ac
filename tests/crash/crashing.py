"""A program: verbs that fail at counted calls on the store, in one process for speed.

    crashing.py JOB...

A JOB is JSON, see `Job`. It answers with a JSON line for each thing that there is to look at. For a
failure of one call the store is copied, the verb forked on the copy, and its n-th call of those
that can fail so is not made (a write: by half): the process is killed, or the call raises. For a
power cut the verb runs once, and the image that the store lies on is copied before the calls.
"""

from __future__ import annotations

import errno
import itertools
import json
import os
import random
import signal
import subprocess
import sys
import traceback
from collections.abc import Iterator
from pathlib import Path
from typing import Any, NoReturn

import msgspec

import castfs
from castfs import syscalls
from castfs.errors import CastfsError
from castfs.gc import holds
from castfs.ingest import readers
from castfs.repository import removing, taking
from castfs.store import WriteSession
from castfs.verify import verify_store
from tests.crash.acting import act
from tests.crash.calls import Call, Shim
from tests.crash.images import Copier, Neighbour

#: Imported before the fork: importing is no call that is to be counted.
LOADED = (removing, taking, verify_store, WriteSession)

NAMING = ("link", "mkdir", "rename", "replace", "rmdir", "unlink")
KILL, FULL, BROKEN, CUT = "kill", "ENOSPC", "EIO", "cut"


class Job(msgspec.Struct, frozen=True, kw_only=True):
    """`steps` are verbs with their arguments. Of the points `sample` are chosen by `seed`, all for
    None. `unsynced` is done before, see `Scenario`. `image` is the file to copy for a power cut,
    `beside` whether somebody else syncs what is his before. `each_alone`: as where syncfs cannot be
    relied on. `with_readers`: in processes of their own. `each_state`: killed only where
    the next one finds something else than before."""

    steps: list[list[str]]
    store: str
    source: str
    failure: str
    sample: int | None = None
    seed: int = 0
    unsynced: list[tuple[str, str]] = []
    image: str = ""
    beside: bool = False
    each_alone: bool = False
    with_readers: bool = False
    each_state: bool = False


def answer(**fields: Any) -> None:
    os.write(1, json.dumps(fields).encode() + b"\n")


def die() -> NoReturn:
    os.kill(os.getpid(), signal.SIGKILL)
    raise AssertionError("still alive")


# One call fails ----------------------------------------------------------------------------------


#: Of a file whose medium is broken all of these fail, and not only the first.
LOOKING = ("open", "pread", "read", "readv")


class Failing:
    """Counts the calls that can fail in a way, and makes the chosen one do so."""

    def __init__(self, failure: str, point: int, *, each_state: bool = False) -> None:
        self.calls: list[Call] = []
        self._failure = failure
        self._point = point
        self._each_state = each_state
        self._broken: str | None = None

    def __call__(self, call: Call) -> None:
        if not self._counts(call):
            return
        self.calls.append(call)
        looks = self._failure == BROKEN and call.name in LOOKING and not call.fills
        if looks and call.path == self._broken:
            raise call.error(errno.EIO)
        if len(self.calls) != self._point:
            return
        if looks:
            self._broken = call.path
        call.half()
        if self._failure == KILL:
            die()
        raise call.error(errno.ENOSPC if self._failure == FULL else errno.EIO)

    def _counts(self, call: Call) -> bool:
        if self._failure == KILL:
            return call.alters or not self._each_state
        return call.fills if self._failure == FULL else call.fails


def attempt(job: Job, copy: Path, point: int) -> dict[str, Any]:
    """What became of the verb, in a process of its own."""
    ours, theirs = os.pipe()
    pid = os.fork()
    if pid == 0:
        os.close(ours)
        failing = Failing(job.failure, point, each_state=job.each_state)
        with open(theirs, "wb") as file:
            file.write(json.dumps(run_steps(job, copy, failing)).encode())
        os._exit(0)
    os.close(theirs)
    with open(ours, "rb") as file:
        said = file.read()
    _, status = os.waitpid(pid, 0)
    # The readers of a dead ingest end by themselves: this process is their parent now.
    while True:
        try:
            os.wait()
        except ChildProcessError:
            break
    if os.WIFSIGNALED(status) and os.WTERMSIG(status) == signal.SIGKILL:
        return {"outcome": "killed", "error": "", "code": -9, "calls": []}
    assert status == 0, status
    result: dict[str, Any] = json.loads(said)
    return result


def run_steps(job: Job, path: Path, before: Failing) -> dict[str, Any]:
    store = castfs.open(path)
    outcome, error, code = "done", "", 0
    Shim(path, before).install()
    try:
        for step in job.steps:
            act(store, job.source, step)
    except CastfsError as exc:
        outcome, error, code = "error", f"{type(exc).__name__}: {exc}", exc.exit_code
    except BaseException:
        outcome, error = "raised", traceback.format_exc()
    return {
        "outcome": outcome,
        "error": error,
        "code": code,
        "calls": [f"{call.name} {call.path}" for call in before.calls],
        "kinds": [call.kind for call in before.calls],
    }


def choose(kinds: list[str], count: int | None, seed: int) -> Iterator[int]:
    """Points, one of each kind of call after the other, until there are `count`."""
    if count is None:
        # How often is waited for others differs from run to run: the verb itself tells the end.
        yield from itertools.count(1)
    else:
        numbers = random.Random(seed)
        groups: dict[str, list[int]] = {}
        for number, kind in enumerate(kinds, 1):
            groups.setdefault(kind, []).append(number)
        for group in groups.values():
            numbers.shuffle(group)
        order = list(groups.values())
        numbers.shuffle(order)
        rounds = itertools.chain.from_iterable(itertools.zip_longest(*order))
        yield from itertools.islice((point for point in rounds if point), count)


def fail_at_points(job: Job) -> None:
    store = Path(job.store)

    planned: list[str] = []

    def run(point: int) -> dict[str, Any]:
        copy = store.with_name(f"{store.name}-{job.failure}-{point}")
        subprocess.run(["cp", "-a", store, copy], check=True)
        result = attempt(job, copy, point)
        calls = result["calls"] or planned  # the dead say nothing
        call = calls[point - 1] if 0 < point <= len(calls) else ""
        reached = bool(call) or result["outcome"] == "killed"
        answer(
            point=point, store=str(copy), call=call, reached=reached,
            outcome=result["outcome"], error=result["error"], code=result["code"],
            failure=job.failure,
        )  # fmt: skip
        return {**result, "reached": reached}

    undisturbed = run(0)
    planned += undisturbed["calls"]
    for point in choose(undisturbed["kinds"], job.sample, job.seed):
        if not run(point)["reached"] and job.sample is None:
            break


# The power is cut --------------------------------------------------------------------------------


def cut_at_points(job: Job) -> None:
    store = castfs.open(job.store)
    copier = Copier(Path(job.image))
    neighbour = Neighbour(Path(job.store)) if job.beside else None
    done = 0
    busy = False
    named = True

    def before(call: Call) -> None:
        nonlocal busy, named
        if not call.changes or busy:
            return
        busy = True
        # A neighbour's sync changes nothing that was not renamed, made or removed since the last.
        if named or neighbour is None:
            cut(f"{call.name} {call.path}")
        named = call.name in NAMING
        busy = False

    def cut(call: str) -> None:
        if neighbour is not None:
            neighbour.sync()
        copy = copier.copy()
        answer(image=str(copy) if copy else None, done=done, call=call)

    for source, target in job.unsynced:
        if target:
            (store.path / source).rename(store.path / target)
        else:
            (store.path / source).unlink()
    Shim(Path(job.store), before).install()
    for step in job.steps:
        act(store, job.source, step)
        done += 1
    busy = True
    # It has returned: now it must be there.
    cut("the end")


def main() -> None:
    jobs = [msgspec.json.decode(word.encode(), type=Job) for word in sys.argv[1:]]
    # Batches end by their number of files, or counting would depend on the machine's speed.
    holds.BATCH_SECONDS = 60.0
    holds.PAUSE_SECONDS = 0.0
    if any(job.with_readers for job in jobs):
        readers._ALONE_FILES = 0
    if any(job.each_alone for job in jobs):
        syscalls.has_reliable_syncfs = lambda fd: False
    # PR_SET_CHILD_SUBREAPER (prctl(2)): orphans become children of this process.
    syscalls._libc().prctl(36, 1, 0, 0, 0)
    for job in jobs:
        if job.failure == CUT:
            cut_at_points(job)
        else:
            # A dead process's files stay in the page cache, so these show nothing here.
            syscalls.syncfs = lambda fd: None
            os.fsync = lambda fd: None
            fail_at_points(job)


if __name__ == "__main__":
    main()
