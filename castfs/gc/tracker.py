"""Keeps the marks up with the roots while others add and remove them."""

from __future__ import annotations

import contextlib
import os
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path

from castfs import syscalls
from castfs.digest import RAW_SIZE, Digest
from castfs.errors import ManifestError
from castfs.gc.holds import Holds
from castfs.gc.liveness import LiveLease, probe_lease
from castfs.gc.marks import Marks
from castfs.gc.plan import Keeper
from castfs.manifest import ID_WITHIN, peek_id
from castfs.store import Depot
from castfs.store.roots import RootNames, list_roots, unreadable_root
from castfs.store.trash import TrashName, parse_trash_name, read_trashed

#: What is read while the store is held: about 5 ms. More is read outside, and then looked at again.
_INLINE_RECORDS = 64
_INLINE_BYTES = 512 * 1024


@dataclass(frozen=True, slots=True)
class _Found:
    """A manifest that a root leads to, and where it can be read; `done` is called once it is
    marked. A lease's own manifest may vanish with it, that of a record may not."""

    manifest_id: str
    path: Path
    keeper: Keeper
    done: Callable[[], None]
    is_leased: bool = False

    @property
    def size(self) -> int:
        try:
            return self.path.stat().st_size
        except OSError:
            return 0  # reading it will tell


@dataclass(slots=True)
class News:
    """What was not there, or not as long, when roots were last looked at."""

    records: list[str] = field(default_factory=list)
    trash: list[str] = field(default_factory=list)
    pinned: list[LiveLease] = field(default_factory=list)
    logs: list[tuple[LiveLease, int]] = field(default_factory=list)

    def __bool__(self) -> bool:
        return bool(self.records or self.trash or self.pinned or self.logs)

    @property
    def is_short(self) -> bool:
        files = len(self.records) + len(self.trash) + len(self.pinned)
        logged = sum(size - lease.read_to for lease, size in self.logs)
        return files <= _INLINE_RECORDS and logged <= _INLINE_BYTES


class RootTracker:
    """Roots that are gone stay marked: what they led to is left for the next collection."""

    def __init__(self, depot: Depot, marks: Marks, *, now_ns: int) -> None:
        self._depot = depot
        self._marks = marks
        self._now_ns = now_ns
        self.holds = Holds(depot)
        self.is_local = _is_local(depot)
        self._known = RootNames()
        #: Names of files whose manifests are marked.
        self._records: set[str] = set()
        self._trash: set[str] = set()
        self._pinned: set[str] = set()
        self.leases: dict[str, LiveLease] = {}
        #: In the trash for long enough to be no roots any more.
        self.expired: dict[str, TrashName] = {}

    @property
    def record_count(self) -> int:
        return len(self._records)

    @property
    def trash_count(self) -> int:
        return len(self._trash) + len(self.expired)

    @property
    def has_roots(self) -> bool:
        """Does anything lead to contents? An ingest that runs does not count: where nothing else
        does, the snapshots may have been lost, and an ingest is begun by any timer."""
        readers = any(lease.kind == "reader" for lease in self.leases.values())
        return bool(self._records or self._trash or self.expired or readers)

    def find_trash(self, *, deleted_before: int) -> list[TrashName]:
        """What went to the trash before that time."""
        with self.holds.exclusive():
            trash = list_roots(self._depot).trash
        names = [parsed for name in sorted(trash) if (parsed := parse_trash_name(name))]
        return [name for name in names if name.deleted_ns < deleted_before]

    def settle(self) -> None:
        """Mark until nothing is new, holding the store for moments only."""
        for _ in self.holds.in_batches([None], lambda _: None, self):
            pass

    def mark_unreferenced(self, manifest_id: Digest, keeper: Keeper) -> None:
        """A manifest that no root leads to, and that stays all the same with all it names. One that
        is damaged nobody can read anyway."""
        with contextlib.suppress(FileNotFoundError, ManifestError):
            path = self._depot.manifest_path(manifest_id)
            self._marks.mark_manifest(manifest_id, path, keeper)

    def keep_up(self, *, whatever: bool = False) -> bool:
        """Mark what is new if that is little (or `whatever` it is), while the store is held
        exclusively. False: let go of the store, `catch_up`, try again. DamageError."""
        news = self.survey()
        if not (news.is_short or whatever):
            return False
        found = list(self._follow(news, held=True))
        unread = [each for each in found if not self._marks.has_manifest(each.manifest_id)]
        if sum(each.size for each in unread) > _INLINE_BYTES and not whatever:
            return False
        self._mark(found)
        self._read_logs(news)
        return True

    def catch_up(self) -> None:
        """Mark what is new now, without holding the store. What vanishes is no matter: its place is
        looked at again."""
        with self.holds.exclusive():
            news = self.survey()
        self._mark(sorted(self._follow(news, held=False), key=lambda found: found.keeper))
        self._read_logs(news)

    def survey(self) -> News:
        """What is new. Call it while the store is held exclusively."""
        names = self._known = list_roots(self._depot, self._known)
        self._forget_gone(names)
        news = News(
            records=sorted(names.records - self._records),
            trash=sorted(names.trash - self._trash - self.expired.keys()),
        )
        for name in sorted(names.leases):
            lease_id, _, suffix = name.partition(".")
            if suffix == "lease":
                self._look_at_lease(lease_id, news)
        for name in sorted(names.leases - self._pinned):
            lease_id, _, suffix = name.partition(".")
            if suffix == "json" and lease_id in self.leases:
                news.pinned.append(self.leases[lease_id])
        return news

    def _look_at_lease(self, lease_id: str, news: News) -> None:
        lease = self.leases.get(lease_id) or self._probe(lease_id)
        if lease is not None:
            size = (self._depot.leases_dir / f"{lease_id}.lease").stat().st_size
            if size > lease.read_to:
                news.logs.append((lease, size))

    def _forget_gone(self, names: RootNames) -> None:
        for lease_id in [each for each in self.leases if f"{each}.lease" not in names.leases]:
            del self.leases[lease_id]
        # One that comes back under its name is a new root.
        self._records &= names.records
        self._trash &= names.trash
        self._pinned &= names.leases
        for name in self.expired.keys() - names.trash:
            del self.expired[name]

    def _probe(self, lease_id: str) -> LiveLease | None:
        lease, fd = probe_lease(self._depot, lease_id, now_ns=self._now_ns, local=self.is_local)
        os.close(fd)
        if lease is not None:
            self.leases[lease_id] = lease
        return lease

    def _follow(self, news: News, *, held: bool) -> Iterator[_Found]:
        """The manifests that new roots lead to. While the store is held nobody removes a root."""
        depot = self._depot
        for name in news.records:
            with _listed(depot.snapshots_dir / name, held=held):
                manifest_id = depot.read_record(name.removesuffix(".json")).manifest
                path = depot.manifest_path(manifest_id)
                done = partial(self._records.add, name)
                yield _Found(manifest_id, path, Keeper.SNAPSHOTS, done)
        for name in news.trash:
            parsed = parse_trash_name(name)
            assert parsed is not None  # list_roots has seen to that
            with _listed(depot.trash_dir / name, held=held):
                manifest_id = read_trashed(depot, parsed).manifest
                path = depot.manifest_path(manifest_id)
                yield _Found(manifest_id, path, Keeper.TRASH, partial(self._trash.add, name))
        for lease in news.pinned:
            path = depot.leases_dir / f"{lease.id}.json"
            with _listed(path, held=held):
                claimed = _peek(path)
                done = partial(self._pinned.add, f"{lease.id}.json")
                yield _Found(claimed, path, lease.keeper, done, is_leased=True)

    def _mark(self, found: Iterable[_Found]) -> None:
        for each in found:
            try:
                self._marks.mark_manifest(each.manifest_id, each.path, each.keeper)
            except FileNotFoundError as exc:
                if each.is_leased:
                    continue
                raise unreadable_root(each.path, exc) from exc
            each.done()

    def _read_logs(self, news: News) -> None:
        for lease, size in news.logs:
            path = self._depot.leases_dir / f"{lease.id}.lease"
            size -= (size - lease.read_to) % RAW_SIZE
            try:
                with path.open("rb") as file:
                    file.seek(lease.read_to)
                    raw = file.read(size - lease.read_to)
            except FileNotFoundError:
                continue
            except OSError as exc:
                raise unreadable_root(path, exc) from exc
            self._marks.mark_log(raw, lease.keeper)
            lease.read_to += len(raw)


@contextlib.contextmanager
def _listed(path: Path, *, held: bool) -> Iterator[None]:
    try:
        yield
    except FileNotFoundError as exc:
        if held:  # a symlink to what is not there, perhaps on a disk that is away
            raise unreadable_root(path, exc) from exc


def _peek(path: Path) -> str:
    """The id that a lease's manifest claims; "" if it claims none, which no manifest has."""
    try:
        fd = os.open(path, os.O_RDONLY | os.O_CLOEXEC | os.O_NONBLOCK)
        try:
            return peek_id(os.read(fd, ID_WITHIN)) or ""
        finally:
            os.close(fd)
    except FileNotFoundError:
        raise
    except OSError as exc:
        raise unreadable_root(path, exc) from exc


def _is_local(depot: Depot) -> bool:
    fd = os.open(depot.path, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    try:
        return syscalls.is_local(fd)
    finally:
        os.close(fd)
