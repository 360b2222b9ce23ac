"""A program: ingests, collectors, removals, mounts and restores on one store, and SIGKILL for any.

    stress.py PLACE --seed N [--seconds N] [--steps N] [--replay LOG] [--kill 0.2] ...

PLACE is a new directory. Its `log.jsonl` has every decision with its time (`--replay` makes them
again) and how each process ended, `run/` what each had to say. Prints one line of JSON; the exit
code is 1, with the reason on stderr, if anything was not as it must be.
"""

from __future__ import annotations

import argparse
import contextlib
import functools
import gc
import json
import os
import select
import shutil
import signal
import sys
import time
import traceback
from collections import Counter
from collections.abc import Callable, Collection
from dataclasses import asdict, dataclass, fields
from pathlib import Path
from typing import Any

import castfs
from tests.gc import stress_children as processes
from tests.gc.stress_children import Child, Shake, command
from tests.gc.stress_deciding import SLOTS, Deciding, Drawn, Parameters, Replayed, Step
from tests.gc.stress_trees import RIGHT, UNREADABLE, Source, compare
from tests.gc.stress_world import LIVE, REMOVED, Broken, Mount, Taken, World

#: Far above what any of these takes, also on a machine that does other things.
PATIENCE = 60.0
#: A check takes about 3 ms.
_CHECK_SECONDS = 0.02
NOT_FOUND, BUSY = 4, 11
#: How a process may end that was sent SIGKILL or SIGTERM.
_SIGNALLED = (-signal.SIGKILL, -signal.SIGTERM, 128 + signal.SIGTERM)

#: Called with the exit code; returns the codes that are right.
Ended = Callable[[int], Collection[int]]


@dataclass
class Task:
    step: Step
    child: Child
    ended: Ended


class Stress:
    def __init__(self, place: Path, parameters: Parameters, deciding: Deciding) -> None:
        self._place = place
        self._deciding = deciding
        for name in ("sources", "mounts", "copies", "run"):
            (place / name).mkdir(parents=True)
        self._log = (place / "log.jsonl").open("w", buffering=1)
        self._write(parameters=asdict(parameters))
        store = castfs.open(place / "store", create=True).path
        sources = [
            Source(place / "sources" / f"{n}", file_count=parameters.files, pool=parameters.pool)
            for n in range(parameters.sources)
        ]
        for number, source in enumerate(sources):
            source.change(parameters.seed * 1000 + number)
        self._world = World(store, sources)
        self._tasks: dict[str, Task] = {}
        self._codes: dict[int, int] = {}
        self._steps = 0
        self._forgotten: Counter[int] = Counter()
        self.counts: Counter[str] = Counter()
        self._checked = 0.0
        self._started = time.monotonic()

    def _write(self, **values: Any) -> None:
        self._log.write(json.dumps(values) + "\n")

    @property
    def _elapsed(self) -> float:
        return round(time.monotonic() - self._started, 4)

    # The loop ----------------------------------------------------------------------------------

    def run(self, *, seconds: float, steps: int | None) -> None:
        try:
            while not self._is_over(seconds, steps):
                for slot in SLOTS:
                    if slot not in self._tasks:
                        self._begin(slot)
                self._wait()
                self._send_signals()
                self._end()
                if self._elapsed > self._checked + _CHECK_SECONDS:
                    self._world.check()
                    self._checked = self._elapsed
        finally:
            self._kill_all()
        self._end()
        self._finish()

    def _is_over(self, seconds: float, steps: int | None) -> bool:
        if isinstance(self._deciding, Replayed) and self._deciding.is_over and not self._tasks:
            return True
        return self._elapsed > seconds or self._steps == steps

    def _begin(self, slot: str) -> None:
        step = self._deciding.next(slot, self._world, self._elapsed)
        if step is None:
            return
        self._steps += 1
        step = {**step, "n": step.get("n", self._steps), "slot": slot, "at": self._elapsed}
        self._write(step=step)
        call, ended = getattr(self, f"_{step['do']}")(step)
        child = processes.start(self._run_path(step), call, Shake(**step["shake"]))
        self._tasks[slot] = Task(step, child, ended)

    def _run_path(self, step: Step) -> Path:
        return self._place / "run" / f"{step['n']} {step['do']}"

    def _wait(self) -> None:
        """Until a process ends, or for so long that signals are sent in time."""
        poll = select.poll()
        with contextlib.ExitStack() as stack:
            for task in self._tasks.values():
                with contextlib.suppress(ProcessLookupError):
                    fd = os.pidfd_open(task.child.pid)
                    stack.callback(os.close, fd)
                    poll.register(fd, select.POLLIN)
            poll.poll(5)

    def _send_signals(self) -> None:
        now = time.monotonic()
        for task in self._tasks.values():
            age = now - task.child.started
            if "kill" in task.step and not task.child.signalled and age > task.step["kill"]:
                task.child.send(task.step["signal"])
            if age > PATIENCE:
                raise Broken(f"step {task.step} hangs")

    def _end(self) -> None:
        self._codes.update(processes.reap())
        for slot, task in list(self._tasks.items()):
            code = self._codes.pop(task.child.pid, None)
            if code is not None:
                del self._tasks[slot]
                self._judge(task, code)

    def _judge(self, task: Task, code: int) -> None:
        self._write(ended=task.step["n"], code=code, at=self._elapsed)
        outcome = "killed" if code in _SIGNALLED else str(code)
        self.counts[f"{task.step['do']} {outcome}"] += 1
        right = task.ended(code)
        if code not in right and not (task.child.signalled and code in _SIGNALLED):
            raise Broken(
                f"step {task.step} ended with {code}, not with one of {list(right)}: "
                f"{task.child.errors}"
            )
        if "Traceback" in task.child.errors:
            raise Broken(f"step {task.step} has a bug: {task.child.errors}")

    def _castfs(self, verb: str, *args: object) -> Callable[[], int]:
        return command("--store", self._world.store, verb, *args)

    # Ingests -----------------------------------------------------------------------------------

    def _ingest(self, step: Step) -> tuple[Callable[[], int], Ended]:
        source = self._world.sources[step["source"]]
        if not source.users:
            if "change" in step:
                source.change(step["change"])
            elif "again" in step:
                source.assign(self._world.taken[step["again"]].files)
        source.users += 1
        files = dict(source.files)
        self._world.sought[step["n"]] = files
        forgotten = self._forgotten[step["source"]]
        forgetting = self._is_forgetting(step["source"])

        def ended(code: int) -> Collection[int]:
            source.users -= 1
            if code == 0:
                taken = self._take(step, files)
                if forgetting or forgotten != self._forgotten[step["source"]]:
                    self._world.begin_move(taken)
                    self._world.end_move(taken, None)
            return (0,)

        arguments = ["--json", "--message", f"step {step['n']}", *step["flags"], source.path]
        return self._castfs("ingest", *arguments), ended

    def _take(self, step: Step, files: dict[str, int]) -> Taken:
        result = json.loads(self._run_path(step).with_suffix(".out").read_text())
        taken = Taken(step["n"], result["id"], result["manifest_id"], step["source"], files)
        self._world.taken[step["n"]] = taken
        for task in self._tasks.values():
            if task.step["do"] == "forget" and task.step["source"] == step["source"]:
                task.step.setdefault("also", []).append(taken)
                self._world.begin_move(taken)
        return taken

    def _is_forgetting(self, source: int) -> bool:
        return any(
            task.step["do"] == "forget" and task.step["source"] == source
            for task in self._tasks.values()
        )

    # Collectors --------------------------------------------------------------------------------

    def _gc(self, step: Step) -> tuple[Callable[[], int], Ended]:
        return self._castfs("gc", *_ALL, *step["flags"]), lambda code: (0, BUSY)

    def _verify(self, step: Step) -> tuple[Callable[[], int], Ended]:
        return self._castfs("verify", "--data"), lambda code: (0,)

    # Removals ----------------------------------------------------------------------------------

    def _move(
        self, step: Step, to: frozenset[str], *args: object
    ) -> tuple[Callable[[], int], Ended]:
        taken = self._world.taken[step["of"]]
        was = taken.states
        self._world.begin_move(taken)

        def ended(code: int) -> Collection[int]:
            contested = taken.contested or taken.busy > 1
            states = {0: to, NOT_FOUND: was}.get(code)
            self._world.end_move(taken, states)
            return (0,) if was == LIVE and not contested else (0, NOT_FOUND)

        return self._castfs(*map(str, args), taken.id), ended

    def _rm(self, step: Step) -> tuple[Callable[[], int], Ended]:
        return self._move(step, REMOVED, "rm")

    def _permanent(self, step: Step) -> tuple[Callable[[], int], Ended]:
        return self._move(step, REMOVED, "rm", "--permanent", "--yes")

    def _purge(self, step: Step) -> tuple[Callable[[], int], Ended]:
        world = self._world
        together = [world.taken[number] for number in step["all"]]
        undisturbed = all(taken.is_live for taken in together)
        for taken in together:
            world.begin_move(taken)

        def ended(code: int) -> Collection[int]:
            alone = undisturbed and not any(t.contested or t.busy > 1 for t in together)
            for taken in together:
                world.end_move(taken, REMOVED if alone and code == 0 else None)
            return (0,) if alone else (0, NOT_FOUND)

        ids = [taken.id for taken in together]
        return self._castfs("rm", "--permanent", "--yes", *ids), ended

    def _undelete(self, step: Step) -> tuple[Callable[[], int], Ended]:
        call, ended = self._move(step, LIVE, "undelete")
        # What is not in the trash cannot come back.
        return call, lambda code: {*ended(code), NOT_FOUND}

    def _forget(self, step: Step) -> tuple[Callable[[], int], Ended]:
        world, source = self._world, step["source"]
        affected = [t for t in world.taken.values() if t.source == source]
        for taken in affected:
            world.begin_move(taken)
        contested = any(taken.busy > 1 for taken in affected)

        def ended(code: int) -> Collection[int]:
            self._forgotten[source] += 1
            affected.extend(step.pop("also", []))
            disturbed = contested or any(taken.contested or taken.busy > 1 for taken in affected)
            for taken in affected:
                world.end_move(taken, None)
            return (0, NOT_FOUND) if disturbed else (0,)

        last, path = step["last"], world.sources[source].path
        return self._castfs("forget", "--keep-last", last, "--source", path), ended

    # Mounts ------------------------------------------------------------------------------------

    def _reader(self, taken: Taken) -> Callable[[], Collection[int]]:
        """The codes of a process that reads a snapshot from now on."""
        epoch, was_live = taken.epoch, taken.is_live

        def codes() -> Collection[int]:
            undisturbed = was_live and not taken.busy and epoch == taken.epoch
            return (0,) if undisturbed else (0, NOT_FOUND)

        return codes

    def _mount(self, step: Step) -> tuple[Callable[[], int], Ended]:
        world, taken = self._world, self._world.taken[step["of"]]
        mount = Mount(step["n"], self._place / "mounts" / f"{step['n']}", taken)
        mount.place.mkdir()
        world.mounts[mount.step] = mount
        codes = self._reader(taken)

        def ended(code: int) -> Collection[int]:
            if code == 0:
                output = self._run_path(step).with_suffix(".out").read_text()
                mount.pid, mount.alive = json.loads(output)["pid"], True
            else:
                # Of a killed one the daemon may go on; it is ended with all others.
                del world.mounts[mount.step]
            return codes()

        return self._castfs("mount", "--json", taken.id, mount.place), ended

    def _read(self, step: Step) -> tuple[Callable[[], int], Ended]:
        mount = self._world.mounts[step["of"]]

        def ended(code: int) -> Collection[int]:
            return (RIGHT, UNREADABLE) if mount.ending else (RIGHT,)

        return functools.partial(compare, mount.place, mount.taken.files), ended

    def _umount(self, step: Step) -> tuple[Callable[[], int], Ended]:
        mount = self._world.mounts[step["of"]]
        mount.ending = True

        def ended(code: int) -> Collection[int]:
            if code == 0:
                self._gone(mount)
            else:
                mount.ending = False
            return (0, BUSY)

        return self._castfs("umount", mount.place), ended

    def _kill(self, step: Step) -> tuple[Callable[[], int], Ended]:
        mount = self._world.mounts[step["of"]]
        mount.ending = True
        os.kill(mount.pid, signal.SIGKILL)
        wait_for_end(mount.pid)

        def ended(code: int) -> Collection[int]:
            self._gone(mount)
            return (0, NOT_FOUND)  # its guard was first

        return self._castfs("umount", mount.place), ended

    def _term(self, step: Step) -> tuple[Callable[[], int], Ended]:
        """It unmounts itself, however many read it."""
        mount = self._world.mounts[step["of"]]
        mount.ending = True
        os.kill(mount.pid, signal.SIGTERM)

        def ended(code: int) -> Collection[int]:
            self._gone(mount)
            return (0,)

        return functools.partial(wait_for_end, mount.pid), ended

    def _gone(self, mount: Mount) -> None:
        mount.alive = False
        del self._world.mounts[mount.step]

    # Restores ----------------------------------------------------------------------------------

    def _restore(self, step: Step) -> tuple[Callable[[], int], Ended]:
        return self._copy(step, lambda taken, copy: self._castfs("restore", taken.id, copy))

    def _export(self, step: Step) -> tuple[Callable[[], int], Ended]:
        def call(taken: Taken, copy: Path) -> Callable[[], int]:
            archive = copy.with_suffix(".tar")
            export = self._castfs("export", taken.id, archive)

            def both() -> int:
                code = export()
                if code == 0:
                    shutil.unpack_archive(archive, copy, filter="data")
                    archive.unlink()
                return code

            return both

        return self._copy(step, call)

    def _copy(
        self, step: Step, make: Callable[[Taken, Path], Callable[[], int]]
    ) -> tuple[Callable[[], int], Ended]:
        taken = self._world.taken[step["of"]]
        copy = self._place / "copies" / f"{step['n']}"
        call = make(taken, copy)
        codes = self._reader(taken)

        def both() -> int:
            # Another number than what a command may end with.
            return call() or (20 if compare(copy, taken.files, remove=True) else 0)

        return both, lambda code: codes()

    # The end -----------------------------------------------------------------------------------

    def _kill_all(self) -> None:
        for task in self._tasks.values():
            task.child.send(signal.SIGKILL)
        for mount in self._world.mounts.values():
            mount.ending = True
        deadline = time.monotonic() + PATIENCE
        # Each that dies may leave children to this process.
        while pids := processes.children():
            for pid in pids:
                with contextlib.suppress(ProcessLookupError):
                    os.kill(pid, signal.SIGKILL)
                wait_for_end(pid)
            self._codes.update(processes.reap())
            if time.monotonic() > deadline:
                raise Broken(f"processes {pids} do not end")
        processes.detach_all(self._place / "mounts")

    def _finish(self) -> None:
        self._world.check()
        for words in (("gc", *_ALL), ("verify", "--data")):
            self._steps += 1
            step: Step = {"n": self._steps, "do": words[0], "shake": {}}
            child = processes.start(self._run_path(step), self._castfs(*words), Shake())
            wait_for_end(child.pid)
            code = dict(processes.reap())[child.pid]
            self._judge(Task(step, child, lambda code: (0,)), code)
        self._world.check_end()
        for log in (self._place / ".user").rglob("*.log"):
            text = log.read_text(errors="replace")
            if "Traceback" in text or "missing" in text:
                raise Broken(f"a mount had trouble: {text}")
        self.counts["checks"] = self._world.checks
        self.counts["steps"] = self._steps


_ALL = ("--grace", "0s", "--trash-age", "0s", "--force")


def wait_for_end(pid: int) -> int:
    """0 once a process has ended (reaped or not)."""
    try:
        fd = os.pidfd_open(pid)
    except ProcessLookupError:
        return 0
    poll = select.poll()
    poll.register(fd, select.POLLIN)
    ended = poll.poll(PATIENCE * 1000)
    os.close(fd)
    return 0 if ended else 1


def set_environment(place: Path) -> None:
    for name in ("CACHE", "CONFIG", "DATA", "RUNTIME", "STATE"):
        directory = place / ".user" / name.lower()
        directory.mkdir(parents=True, mode=0o700)
        variable = "XDG_RUNTIME_DIR" if name == "RUNTIME" else f"XDG_{name}_HOME"
        os.environ[variable] = str(directory)
    os.environ |= {"HOME": str(place / ".user"), "CASTFS_THREADS": "2"}


def main() -> int:
    parser = argparse.ArgumentParser()
    parser.add_argument("place", type=Path)
    parser.add_argument("--seconds", type=float, default=20)
    parser.add_argument("--steps", type=int)
    parser.add_argument("--replay", type=Path)
    for field in fields(Parameters):
        kind = float if field.type == "float" else int
        parser.add_argument(f"--{field.name}", type=kind, default=field.default)
    options = vars(parser.parse_args())
    place, seconds = options.pop("place").absolute(), options.pop("seconds")
    steps, replay = options.pop("steps"), options.pop("replay")
    parameters = Parameters(**options)
    set_environment(place)
    # So that a run that is ended early ends what it has started, too.
    signal.signal(signal.SIGTERM, lambda number, frame: sys.exit(128 + number))
    processes.adopt_orphans()
    processes.load_commands()
    gc.freeze()  # what a fork shares stays shared
    deciding = Replayed.read(replay) if replay else Drawn(parameters)
    stress = Stress(place, parameters, deciding)
    started = time.monotonic()
    try:
        stress.run(seconds=seconds, steps=steps)
    except AssertionError:
        traceback.print_exc()
        print(f"failed: {parameters}; see {place}/log.jsonl", file=sys.stderr)  # noqa: T201
        return 1
    took = round(time.monotonic() - started, 1)
    print(json.dumps({"seconds": took, **stress.counts}, sort_keys=True))  # noqa: T201
    return 0


if __name__ == "__main__":
    sys.exit(main())
