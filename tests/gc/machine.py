"""A store's history: ingests, removals, readers, collectors, deaths, in any interleaving.

After every step all that somebody may want to read is there, and nothing went that is too young; in
the end what nobody can read is gone. What must be there is known without asking castfs, from
`tests.gc.model`.
"""

from __future__ import annotations

import shutil
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any, TypeVar

from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, rule

import castfs
from castfs.verify import VerifyOptions
from tests.gc.model import Model, Snapshot
from tests.gc.operations import Operation, Operations
from tests.gc.watching import Clock, age, describe, digest_of, read_disk, write_tree
from tests.store.checking import assert_idle, check_store

HOUR = 3600
DAY = 24 * HOUR
CONTENTS = st.sampled_from([b"", *(b"%d" % i * 5 for i in range(6))]) | st.binary(max_size=50)
NAMES = st.sampled_from(["a", "b", "c", "d/e", "d/f", "d/g"])
TREES = st.dictionaries(NAMES, CONTENTS, max_size=6)
#: For so many stops an operation goes on; None: to its end, which few have so far to.
STEPS = st.integers(0, 24).map(lambda steps: None if steps > 16 else steps)
TO_THE_END = None
PAUSES = st.integers(0, 16)
#: How far off the machine's clock is. The store's files know nothing of it.
CLOCKS = st.sampled_from([0, HOUR, -40 * DAY, 400 * DAY])
WAITS = st.sampled_from([2 * HOUR, 31 * DAY])
#: `inline`: how many roots a collector looks at without letting go of the store.
COLLECTIONS: st.SearchStrategy[dict[str, Any]] = st.fixed_dictionaries(
    {
        "grace_seconds": st.sampled_from([0, HOUR]),
        "trash_age_seconds": st.sampled_from([0, 30 * DAY]),
        "force": st.booleans(),
        "clock": CLOCKS,
        "inline": st.sampled_from([0, 64]),
    }
)
OVERTAKING_A_COLLECTOR = [
    "ingest_again", "ingest_again", "undelete", "read_what_is_gone", "read_what_is_gone",
    "remove_for_good", "advance", "interrupt", "kill", "step_the_clock",
]  # fmt: skip
OVERTAKING_A_WRITER = ["step_the_clock", "step_the_clock", "collect", "remove_for_good", "advance"]

#: What must be possible for some of them.
NEEDS = {"ingest_again": "ingest", "read_what_is_gone": "read"}

T = TypeVar("T")


def pick(data: st.DataObject, among: Sequence[T]) -> T:
    """Drawn by its number, which is the same in each run."""
    return among[data.draw(st.integers(0, len(among) - 1))]


class StoreMachine(RuleBasedStateMachine):
    """Its steps are drawn inside a few rules: Hypothesis leaves rules out of whole histories."""

    def __init__(self, base: Path, operations: Operations) -> None:
        super().__init__()
        self.base = base
        base.mkdir()
        copies = base / "manifests"
        copies.mkdir()
        self.store = castfs.open(base / "store", create=True)
        self.clock = Clock(base / "clock")
        self.model = Model(self.store.path, copies, read_disk(self.store.path))
        self.begin = operations.start
        self.sources: dict[Path, dict[str, bytes]] = {base / "source-1": {}, base / "source-2": {}}
        self.former: list[dict[str, bytes]] = []

    @initialize(trees=st.tuples(TREES, TREES))
    def fill(self, trees: tuple[dict[str, bytes], dict[str, bytes]]) -> None:
        for source, tree in zip(self.sources, trees, strict=True):
            self.take(source, tree)

    @rule(data=st.data())
    def step(self, data: st.DataObject) -> None:
        self.do_something(data)

    @rule(data=st.data(), first=st.sampled_from(["remove", "remove_for_good", ""]))
    def overtake_a_collector(self, data: st.DataObject, first: str) -> None:
        """Others come between two of its steps, while it has something to delete."""
        self.do_if_possible(data, first, TO_THE_END)
        running = list(self.running)
        self.collect_hastily(data, data.draw(PAUSES))
        for _ in range(data.draw(st.integers(1, 3))):
            self.do_if_possible(data, data.draw(st.sampled_from(OVERTAKING_A_COLLECTOR)))
        self.end_all_but(running)

    @rule(data=st.data(), first=st.sampled_from(["remove_for_good", ""]))
    def overtake_a_writer(self, data: st.DataObject, first: str) -> None:
        """The same while it counts on something, perhaps on what nobody else needs."""
        self.do_if_possible(data, first, TO_THE_END)
        running = list(self.running)
        again = data.draw(st.booleans())
        name = "ingest_again" if again else "ingest"
        self.do_if_possible(data, name, data.draw(PAUSES))
        for name in data.draw(st.lists(st.sampled_from(OVERTAKING_A_WRITER), max_size=2)):
            self.do_if_possible(data, name)
        self.collect_hastily(data, TO_THE_END)
        self.end_all_but(running)

    def do_if_possible(self, data: st.DataObject, name: str, *arguments: int | None) -> None:
        if NEEDS.get(name, name) in self.possible():
            getattr(self, name)(data, *arguments)

    def end_all_but(self, running: list[Operation]) -> None:
        for operation in list(self.running):
            if not (operation in running or operation.is_pinned):
                self.go_on(operation, TO_THE_END)

    def do_something(self, data: st.DataObject) -> None:
        getattr(self, data.draw(st.sampled_from(self.possible())))(data)

    def possible(self) -> list[str]:
        """The names of what can be done now, the more frequent ones several times."""
        kinds = {each.kind for each in self.running}
        live, trashed = self.model.live, self.model.trashed
        conditions = {
            "ingest": self.idle_sources,
            "remove": live,
            "remove_for_good": live or trashed,
            "undelete": trashed,
            "forget": live,
            "read": self.model.snapshots,
            "read_on": self.pinned,
            "advance": self.moving,
            "kill": self.running,
            "interrupt": self.running,
            "wait": kinds <= {"ingest", "read"},
            "collect": True,
            "foretell": "gc" not in kinds,
            "step_the_clock": True,
            "verify": True,
        }
        weights = {"ingest": 4, "collect": 3, "advance": 3, "undelete": 3, "remove": 2, "read": 2}
        return [
            name
            for name, condition in conditions.items()
            for _ in range(weights.get(name, 1) if condition else 0)
        ]

    # How it goes on -----------------------------------------------------------------------------

    @property
    def running(self) -> list[Operation]:
        return self.model.operations

    @property
    def pinned(self) -> list[Operation]:
        return [each for each in self.running if each.is_pinned]

    @property
    def moving(self) -> list[Operation]:
        return [each for each in self.running if not each.is_pinned]

    def start(
        self,
        kind: str,
        steps: int | None,
        *,
        affects: list[str] | None = None,
        tree: dict[str, bytes] | None = None,
        manifest: str = "",
        **arguments: Any,
    ) -> Operation:
        before_ns = self.clock.tick()
        is_hindered = kind == "gc" and any(each.kind == "gc" for each in self.running)
        operation = self.begin(kind, self.store.path, began_ns=before_ns, **arguments)
        operation.ids, operation.tree = affects or [], tree or {}
        operation.manifest = manifest
        operation.is_hindered = is_hindered
        operation.saw_no_roots = not (self.model.live or self.model.trashed)
        self.running.append(operation)
        operation.hear()
        operation.latest_ns = self.clock.now_ns()
        self.go_on(operation, steps, before_ns)
        return operation

    def go_on(self, operation: Operation, steps: int | None, before_ns: int = 0) -> None:
        """To its end, its pin, or for so many stops."""
        if operation not in self.running:
            return  # another one has waited for it
        before_ns = before_ns or self.clock.now_ns()
        while not (operation.is_over or operation.is_pinned or steps == 0):
            if operation.kind == "forget" and not operation.message["has_catalog"]:
                # It has not looked yet.
                operation.ids = self.model.find_unkept(operation.arguments["last"])
            operation.say("go")
            operation.hear()
            steps = None if steps is None else steps - 1
            if operation.message.get("at") == "busy":
                break
        before = self.model.disk
        if operation.is_over:
            self.running.remove(operation)
        self.model.observe(operation, before_ns)
        if operation.is_over:
            self.model.check_end(operation, before)
        elif operation.message.get("at") == "busy" and steps != 0:
            # It waits for another one, which has to go on first.
            for each in list(self.running):
                while each in self.running and each.message["has_catalog"]:
                    self.go_on(each, 1)
            self.go_on(operation, steps)

    def advance(self, data: st.DataObject) -> None:
        self.go_on(pick(data, self.moving), data.draw(STEPS))

    # Writers --------------------------------------------------------------------------------------

    @property
    def idle_sources(self) -> list[Path]:
        busy = {each.arguments["source"] for each in self.running if each.kind == "ingest"}
        return [source for source in self.sources if str(source) not in busy]

    def ingest(self, data: st.DataObject, *steps: int | None) -> None:
        """What is there, what was there at some time, or something new."""
        self.ingest_one_of(data, st.sampled_from(self.former) | TREES, *steps)

    def ingest_again(self, data: st.DataObject, *steps: int | None) -> None:
        """What nobody may need any more at that time."""
        self.ingest_one_of(data, st.sampled_from(self.former), *steps)

    def ingest_one_of(
        self, data: st.DataObject, trees: st.SearchStrategy[dict[str, bytes]], *steps: int | None
    ) -> None:
        source = pick(data, self.idle_sources)
        tree = data.draw(st.just(self.sources[source]) | trees)
        steps = steps or (data.draw(STEPS),)
        self.take(source, tree, *steps, rehash=data.draw(st.booleans()), clock=data.draw(CLOCKS))

    def take(
        self, source: Path, tree: dict[str, bytes], steps: int | None = None, **arguments: Any
    ) -> None:
        self.former.append(tree)
        self.clock.tick()  # a change that is as old as what was read before is not seen
        write_tree(source, tree)
        self.sources[source] = tree
        self.start("ingest", steps, tree=tree, source=str(source), **arguments)

    # Removals -------------------------------------------------------------------------------------

    def remove(self, data: st.DataObject, *steps: int | None) -> None:
        ids = [pick(data, self.model.live).id]
        self.start("remove", *(steps or [data.draw(STEPS)]), affects=ids, ids=ids)

    def remove_for_good(self, data: st.DataObject, *steps: int | None) -> None:
        ids = [pick(data, self.model.live + self.model.trashed).id]
        self.start("purge", *(steps or [data.draw(STEPS)]), affects=ids, ids=ids)

    def undelete(self, data: st.DataObject) -> None:
        ids = [pick(data, self.model.trashed).id]
        self.start("undelete", data.draw(STEPS), affects=ids, ids=ids)

    def forget(self, data: st.DataObject) -> None:
        last = data.draw(st.integers(1, 2))
        self.start("forget", data.draw(STEPS), affects=self.model.find_unkept(last), last=last)

    # Readers --------------------------------------------------------------------------------------

    def read(self, data: st.DataObject) -> None:
        """By its id, or by a manifest outside the store, which may not have it any more."""
        snapshot = pick(data, list(self.model.snapshots.values()))
        by_id = snapshot in self.model.live and data.draw(st.booleans())
        self.start_reader(snapshot, snapshot.id if by_id else str(snapshot.file), data.draw(STEPS))

    def read_what_is_gone(self, data: st.DataObject) -> None:
        """Its contents may still be there."""
        live = self.model.live
        gone = [each for each in self.model.snapshots.values() if each not in live]
        if gone:
            self.start_reader(gone[-1], str(gone[-1].file), TO_THE_END)

    def start_reader(self, snapshot: Snapshot, word: str, steps: int | None) -> None:
        manifest = snapshot.manifest
        self.start("read", steps, tree=snapshot.tree, manifest=manifest, word=word)

    def read_on(self, data: st.DataObject) -> None:
        reader = pick(data, self.pinned)
        reader.say("read")
        reader.hear()
        contents = {path: content.hex() for path, content in reader.tree.items()}
        assert reader.message["contents"] == contents
        if data.draw(st.booleans()):
            self.end_reader(reader, data.draw(STEPS))

    def end_reader(self, reader: Operation, steps: int | None) -> None:
        reader.say("finish")
        reader.is_ending = True
        reader.hear()
        self.go_on(reader, steps)

    # Collectors -----------------------------------------------------------------------------------

    def collect(self, data: st.DataObject) -> None:
        self.collect_with(data, data.draw(COLLECTIONS), data.draw(STEPS))

    def collect_hastily(self, data: st.DataObject, steps: int | None) -> None:
        """Whatever nobody needs goes at once."""
        self.collect_with(data, data.draw(COLLECTIONS) | {"grace_seconds": 0}, steps)

    def collect_with(self, data: st.DataObject, options: dict[str, Any], steps: int | None) -> None:
        was_quiet = self.model.is_quiet()
        is_read = any(each.is_pinned for each in self.running) or bool(self.model.mounted)
        was_needless = self.model.is_needless() and not is_read
        dry_run = data.draw(st.sampled_from([False] * 4 + [True]))
        collector = self.start("gc", steps, dry_run=dry_run, **options)
        if collector.is_over and was_quiet:
            is_refused = collector.message.get("error") is not None
            assert is_refused == (was_needless and not options["force"])
            if not (is_refused or dry_run):
                self.model.check_collected(collector)

    def foretell(self, data: st.DataObject) -> None:
        """A dry run changes nothing, and says what a real one then does."""
        options = data.draw(COLLECTIONS)
        before = describe(self.store.path)
        foretold = self.start("gc", None, dry_run=True, **options)
        assert describe(self.store.path) == before
        done = self.start("gc", None, dry_run=False, **options)
        assert foretold.outcome == done.outcome

    # Whatever happens -----------------------------------------------------------------------------

    def kill(self, data: st.DataObject) -> None:
        operation = pick(data, self.running)
        operation.kill()
        self.running.remove(operation)
        self.model.observe(None, self.clock.now_ns())

    def interrupt(self, data: st.DataObject) -> None:
        self.break_off(pick(data, self.running), data.draw(STEPS))

    def break_off(self, operation: Operation, steps: int | None) -> None:
        operation.say("interrupt")
        operation.is_ending = True
        operation.hear()
        self.go_on(operation, steps)

    def wait(self, data: st.DataObject) -> None:
        self.let_pass(data.draw(WAITS))

    def let_pass(self, seconds: int) -> None:
        """Collectors and removals have looked at the clock already, and would not know."""
        self.model.shift(seconds)
        age(self.store.path, seconds)
        self.model.observe(None, self.clock.now_ns())

    def step_the_clock(self, data: st.DataObject) -> None:
        """Contents were written or touched while it was wrong. What is in use is safe."""
        seconds = data.draw(WAITS)
        self.model.shift(seconds, only_contents=True)
        age(self.store.path, seconds, only_contents=True)

    def verify(self, data: st.DataObject) -> None:
        result = self.store.verify(options=VerifyOptions(data=True))
        assert (result.problems, result.bad_blobs, result.hurt) == ((), (), ())

    # The end --------------------------------------------------------------------------------------

    def teardown(self) -> None:
        try:
            # A step that failed has said what is wrong.
            if sys.exc_info()[0] is None:
                self.finish()
        finally:
            for operation in self.running:
                operation.close()
            shutil.rmtree(self.base)

    def finish(self) -> None:
        """All that is running ends in some way, and then nothing is left but what can be read."""
        for operation in list(self.running):
            if operation not in self.running:
                continue
            if operation.number % 3 == 0:
                operation.kill()
                self.running.remove(operation)
            elif operation.number % 3 == 1:
                self.break_off(operation, None)
            else:
                self.go_on(operation, None)
                if operation.is_pinned:
                    self.end_reader(operation, None)
        self.model.observe(None, self.clock.now_ns())
        self.let_pass(2 * DAY)
        everything: dict[str, Any] = {"grace_seconds": 0, "trash_age_seconds": 0, "force": True}
        self.model.check_collected(self.start("gc", None, dry_run=False, **everything))
        assert self.start("gc", None, dry_run=False, **everything).gone == set()
        live = self.model.live
        assert self.model.disk.trash == {}
        assert self.model.disk.manifests.keys() == {each.manifest for each in live}
        assert self.model.disk.blobs.keys() == {
            digest_of(content) for each in live for content in each.tree.values()
        }
        assert_idle(self.store.path)
        check_store(self.store.path)
