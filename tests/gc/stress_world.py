"""What a store that many processes work on must hold, as far as one can know from outside."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path

from castfs.manifest import decode_manifest
from tests.gc.stress_trees import Files, Source, content, digest
from tests.store.checking import assert_idle, check_store, hash_blobs, read_records

LIVE = frozenset({"live"})
REMOVED = frozenset({"trash", "gone"})


class Broken(AssertionError):
    """The store, or a process that works on it, does what it must not do."""


@dataclass(eq=False)
class Taken:
    """A snapshot whose ingest reported success. `states` are those that it may be in; `busy` counts
    the processes that may move it, `epoch` rises with each of them; `moved` orders the last moves.
    """

    step: int
    id: str
    manifest: str
    source: int
    files: dict[str, int]
    states: frozenset[str] = LIVE
    busy: int = 0
    contested: bool = False
    epoch: int = 0
    moved: int = 0

    @property
    def is_live(self) -> bool:
        return self.states == LIVE and not self.busy


@dataclass(eq=False)
class Mount:
    """`ending` once somebody has been told to end it: what readers see then is no matter."""

    step: int
    place: Path
    taken: Taken
    pid: int = 0
    alive: bool = False
    ending: bool = False


class World:
    def __init__(self, store: Path, sources: list[Source]) -> None:
        self.store = store
        self.sources = sources
        self.taken: dict[int, Taken] = {}
        self.mounts: dict[int, Mount] = {}
        #: What each ingest found, also those that were killed.
        self.sought: dict[int, dict[str, int]] = {}
        self.checks = 0
        self._moves = 0

    def live(self) -> list[Taken]:
        return [taken for taken in self.taken.values() if taken.is_live]

    def removed(self) -> list[Taken]:
        """The last removed last."""
        found = [t for t in self.taken.values() if t.states <= REMOVED and not t.busy]
        return sorted(found, key=lambda taken: taken.moved)

    def alive(self) -> list[Mount]:
        return [mount for mount in self.mounts.values() if mount.alive and not mount.ending]

    # Moves of records --------------------------------------------------------------------------

    def begin_move(self, taken: Taken) -> None:
        taken.contested = taken.busy > 0 or taken.contested
        taken.busy += 1
        taken.epoch += 1

    def end_move(self, taken: Taken, states: frozenset[str] | None) -> None:
        """`states` that the move must have led to, None where nobody can tell."""
        taken.busy -= 1
        taken.epoch += 1
        if taken.busy:
            taken.contested = True
            return
        found = LIVE if self.record_path(taken).exists() else REMOVED
        if states is not None and not taken.contested and not states & found:
            raise Broken(f"snapshot of step {taken.step} is {set(found)} instead of {set(states)}")
        self._moves += 1
        taken.moved = self._moves
        taken.states = found
        taken.contested = False

    def record_path(self, taken: Taken) -> Path:
        return self.store / "snapshots" / f"{taken.id}.json"

    # What must be there now --------------------------------------------------------------------

    def check(self) -> None:
        """Everything that is certainly reachable is there. A content that is lost may come back
        with the next ingest, so this is looked at as often as possible."""
        self.checks += 1
        wanted: dict[int, str] = {}
        for taken in self.live():
            for path in (self.record_path(taken), self.manifest_path(taken)):
                if not path.exists():
                    raise Broken(f"{path} of step {taken.step} is gone")
            wanted |= dict.fromkeys(taken.files.values(), f"snapshot of step {taken.step}")
        for mount in self.alive():
            wanted |= dict.fromkeys(mount.taken.files.values(), f"mount of step {mount.step}")
        for number, who in wanted.items():
            self._check_blob(number, who)

    def _check_blob(self, number: int, who: str) -> None:
        name = digest(number)
        path = self.store / "blobs" / name[:2] / name
        try:
            size = path.stat().st_size
        except FileNotFoundError:
            raise Broken(f"blob {name} of a {who} is gone") from None
        if size != len(content(number)):
            raise Broken(f"blob {name} of a {who} has {size} bytes")

    def manifest_path(self, taken: Taken) -> Path:
        return self.store / "manifests" / taken.manifest[:2] / f"{taken.manifest}.json"

    # The end -----------------------------------------------------------------------------------

    def check_end(self) -> None:
        """After the last collection: what is to be there is there and right, and nothing else."""
        check_store(self.store)
        assert_idle(self.store)
        records = read_records(self.store)
        missing = {t.id for t in self.live()} - {record["id"] for record in records}
        if missing:
            raise Broken(f"snapshots {missing} are gone")
        needed: set[str] = set()
        for record in records:
            step = int(record["message"].removeprefix("step "))
            needed |= self._check_record(record["manifest"], self.sought[step])
        if set(hash_blobs(self.store)) != needed:
            raise Broken("the last collection left contents that nobody needs")
        manifests = {path.stem for path in (self.store / "manifests").glob("??/*")}
        if manifests != {record["manifest"] for record in records}:
            raise Broken("the last collection left manifests that nobody needs")
        for room in ("trash", "quarantine"):
            if any((self.store / room).iterdir()):
                raise Broken(f"the {room} is not empty")

    def _check_record(self, manifest_id: str, files: Files) -> set[str]:
        path = self.store / "manifests" / manifest_id[:2] / f"{manifest_id}.json"
        tree = decode_manifest(path.read_bytes()).tree
        found = {where.decode(): file.sha256 for where, file in tree.files.items()}
        if found != {where: digest(number) for where, number in files.items()}:
            raise Broken(f"manifest {manifest_id} is not what its ingest found")
        return set(found.values())


def newest(taken: Iterable[Taken], source: int) -> Taken | None:
    return max((t for t in taken if t.source == source), key=lambda t: t.step, default=None)
