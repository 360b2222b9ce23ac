"""What is done next: drawn from a seed, or read from the log of a run."""

from __future__ import annotations

import json
import random
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Protocol

from tests.gc.stress_world import Taken, World, newest

#: One decision, as it stands in the log. `do` names it, `of` is the step that took the snapshot or
#: made the mount that it is about.
Step = dict[str, Any]

SLOTS = (
    "ingest 1", "ingest 2", "ingest 3", "ingest 4", "ingest 5", "collect 1", "collect 2",
    "remove 1", "remove 2", "mount 1", "mount 2", "read 1", "read 2",
)  # fmt: skip
#: How slow they may be: whole collections fit into slow ingests, and ingests into slow collections.
_PACES = {"ingest": (0, 0, 1, 15), "gc": (0, 0, 1, 5)}


@dataclass(frozen=True, kw_only=True)
class Parameters:
    """`kill`: the part of all processes that is killed; `live`: snapshots that are kept around;
    `pause`: see `Shake`, in seconds."""

    seed: int
    kill: float = 0.2
    pause: float = 0.004
    live: int = 12
    mounts: int = 4
    sources: int = 8
    files: int = 40
    pool: int = 1000


class Deciding(Protocol):
    def next(self, slot: str, world: World, elapsed: float) -> Step | None: ...


class Drawn:
    """Each slot draws from numbers of its own."""

    def __init__(self, parameters: Parameters) -> None:
        self._parameters = parameters
        self._rng = {slot: random.Random(f"{parameters.seed} {slot}") for slot in SLOTS}
        self._undelete: dict[str, int] = {}

    def next(self, slot: str, world: World, elapsed: float) -> Step | None:
        rng = self._rng[slot]
        step: Step | None = getattr(self, f"_{slot.split()[0]}")(rng, world, slot)
        if step is None:
            return None
        step["shake"] = {
            "seed": rng.randrange(2**32),
            "pause": self._parameters.pause * rng.choice(_PACES.get(step["do"], (0, 1))),
            **step.get("shake", {}),
        }
        if rng.random() < self._parameters.kill * step.pop("risk", 1):
            step["kill"] = round(rng.expovariate(1 / step.pop("lasts")), 4)
            step["signal"] = rng.choice((9, 9, 9, 15))
        step.pop("lasts", None)
        return step

    def _ingest(self, rng: random.Random, world: World, slot: str) -> Step:
        source = rng.randrange(len(world.sources))
        step: Step = {"do": "ingest", "source": source, "lasts": 0.15, "flags": []}
        kind = rng.random()
        removed = world.removed()
        if kind < 0.5:
            step["change"] = rng.randrange(2**32)
        elif kind < 0.8 and removed:
            # What was just removed is what a collector is after.
            step["again"] = rng.choice(removed[-3:]).step
        if rng.random() < 0.1:
            step["flags"] = [rng.choice(("--rehash", "--check-existing"))]
        step["shake"] = {"aged": rng.random() < 0.8, "readers": rng.random() < 0.08}
        return step

    def _collect(self, rng: random.Random, world: World, slot: str) -> Step | None:
        # The second one finds the store busy nearly always.
        if slot == "collect 2" and rng.random() < 0.95:
            return None
        flags = ["--dry-run"] if rng.random() < 0.05 else []
        shake = {"batch": rng.choice((0.0, 0.001, 0.02))}
        return {"do": "gc", "flags": flags, "shake": shake, "lasts": 0.2}

    def _remove(self, rng: random.Random, world: World, slot: str) -> Step | None:
        back = self._undelete.pop(slot, None)
        if back is not None:
            return {"do": "undelete", "of": back, "lasts": 0.02}
        live, removed = world.live(), world.removed()
        if len(live) < self._parameters.live * rng.random():
            recent = removed[-5:]
            return (
                {"do": "undelete", "of": rng.choice(recent).step, "lasts": 0.02} if recent else None
            )
        if rng.random() < 0.1:
            source, last = rng.randrange(len(world.sources)), rng.randrange(1, 4)
            return {"do": "forget", "source": source, "last": last, "lasts": 0.03}
        if rng.random() < 0.3 and (together := self._all_of_one(rng, world, live)):
            return {"do": "purge", "all": [taken.step for taken in together], "lasts": 0.02}
        if rng.random() < 0.15:
            live = [taken for taken in world.taken.values() if taken.busy] or live
        target = self._target(rng, world, live)
        do = "rm" if rng.random() < 0.6 else "permanent"
        if do == "rm" and rng.random() < 0.5:
            self._undelete[slot] = target.step
        return {"do": do, "of": target.step, "lasts": 0.02}

    def _all_of_one(self, rng: random.Random, world: World, live: list[Taken]) -> list[Taken]:
        """All snapshots of a directory that is being ingested, so that nobody else has its
        contents."""
        used = [number for number, source in enumerate(world.sources) if source.users]
        chosen = rng.choice(used) if used else None
        return [taken for taken in live if taken.source == chosen]

    def _target(self, rng: random.Random, world: World, live: list[Taken]) -> Taken:
        """Rather one that somebody relies on just now: a parent, or what is mounted."""
        kind = rng.random()
        relied: list[Taken] = []
        if kind < 0.45:
            parents = [newest(live, n) for n, s in enumerate(world.sources) if s.users]
            relied = [taken for taken in parents if taken is not None]
        elif kind < 0.75:
            relied = [mount.taken for mount in world.mounts.values() if mount.taken.is_live]
        return rng.choice(relied or live)

    def _mount(self, rng: random.Random, world: World, slot: str) -> Step | None:
        # Starting one costs as much as ten ingests.
        if rng.random() < 0.98:
            return None
        alive, live = world.alive(), world.live()
        if len(world.mounts) < self._parameters.mounts and live:
            return {"do": "mount", "of": rng.choice(live[-6:]).step, "lasts": 0.5, "risk": 0.5}
        if not alive:
            return None
        how = rng.choice(("umount", "umount", "kill", "term"))
        return {"do": how, "of": rng.choice(alive).step, "risk": 0}

    def _read(self, rng: random.Random, world: World, slot: str) -> Step | None:
        alive, live = world.alive(), world.live()
        kind = rng.random()
        if kind < 0.6 and alive:
            return {"do": "read", "of": rng.choice(alive).step, "lasts": 0.05}
        if 0.6 <= kind < 0.62:
            return {"do": "verify", "lasts": 0.1}
        do = rng.choice(("restore", "export"))
        return {"do": do, "of": rng.choice(live[-8:]).step, "lasts": 0.05} if live else None


class Replayed:
    """The same decisions at about the same times, each as soon as what it is about is there."""

    def __init__(self, lines: Iterable[str]) -> None:
        found = [json.loads(line) for line in lines]
        self._steps = [line["step"] for line in found if "step" in line]

    @classmethod
    def read(cls, log: Path) -> Replayed:
        return cls(log.read_text().splitlines())

    @property
    def is_over(self) -> bool:
        return not self._steps

    def next(self, slot: str, world: World, elapsed: float) -> Step | None:
        step = next((step for step in self._steps if step["slot"] == slot), None)
        if step is None or elapsed < step["at"]:
            return None
        if elapsed > step["at"] + 2 or self._is_ready(step, world):
            self._steps.remove(step)
            return dict(step) if self._is_ready(step, world) else None
        return None

    def _is_ready(self, step: Step, world: World) -> bool:
        if step["do"] in ("read", "umount", "kill", "term"):
            return step["of"] in {mount.step for mount in world.alive()}
        about = [step[key] for key in ("of", "again") if key in step] + step.get("all", [])
        return all(number in world.taken for number in about)
