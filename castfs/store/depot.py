"""A store on disk: its layout, its format version, opening and creating it. docs/FORMAT.md owns it.

`Depot` is the directory with its primitive verbs; `castfs.Store` is what users call.
"""

from __future__ import annotations

import contextlib
import errno
import functools
import grp
import os
import re
import secrets
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import msgspec

from castfs import atomic
from castfs.digest import Digest
from castfs.errors import DamageError, NoStoreError, StoreError
from castfs.paths import display
from castfs.regular import read_regular
from castfs.store.blobs import BlobDir
from castfs.store.locks import StoreLocks
from castfs.store.records import Record, decode_record

FORMAT = "castfs-store"
VERSION = 1
MARKER = "castfs.json"
#: Features without which a store cannot be used; none exist yet.
KNOWN_FEATURES: frozenset[str] = frozenset()

_DIRECTORIES = (
    "blobs", "manifests", "snapshots", "trash", "leases", "staging", "quarantine", "cache",
    "names", "notes", "runs",
)  # fmt: skip
_MANIFEST = re.compile(r"[0-9a-f]{64}\.json")
_SHARD = re.compile(r"[0-9a-f]{2}")
_LOCK_FILES = ("gate", "store", "gc.lock", "catalog.lock")


class Marker(msgspec.Struct, frozen=True, kw_only=True):
    """`castfs.json`. Unknown keys are allowed; unknown required features are not."""

    format: str
    version: int
    id: str
    required: tuple[str, ...] = ()
    optional: tuple[str, ...] = ()
    #: Group whose members share the store, by name; None for a private store.
    group: str | None = None


@dataclass(frozen=True)
class Depot:
    """An opened store. Cheap to make; holds a descriptor once blobs are read."""

    path: Path
    marker: Marker

    @functools.cached_property
    def locks(self) -> StoreLocks:
        return StoreLocks(self.path)

    @functools.cached_property
    def blobs(self) -> BlobDir:
        return BlobDir(self.path / "blobs")

    @property
    def leases_dir(self) -> Path:
        return self.path / "leases"

    @property
    def staging_dir(self) -> Path:
        return self.path / "staging"

    @property
    def manifests_dir(self) -> Path:
        return self.path / "manifests"

    @property
    def snapshots_dir(self) -> Path:
        return self.path / "snapshots"

    @property
    def trash_dir(self) -> Path:
        return self.path / "trash"

    @property
    def dir_mode(self) -> int:
        """Mode of the directories that are made here: the user's own, or the group's (set-gid)."""
        return 0o2770 if self.marker.group else 0o700

    @property
    def file_mode(self) -> int:
        """Mode of leases and other files that their owner alone writes."""
        return 0o640 if self.marker.group else 0o600

    @functools.cached_property
    def writable(self) -> bool:
        """May this process add a lease (and so everything else)?"""
        return os.access(self.leases_dir, os.W_OK | os.X_OK, effective_ids=True)

    @property
    def index_dir(self) -> Path:
        """Compiled manifests. May not exist."""
        return self.path / "cache" / "indexes"

    @property
    def quarantine_dir(self) -> Path:
        return self.path / "quarantine"

    @property
    def collector_lock(self) -> Path:
        return self.path / "gc.lock"

    def stamp_ns(self) -> int:
        """Now, in nanoseconds, by the clock that stamps the store's files.

        Never `time.time()`: a server has its own clock, and file stamps lag by a tick.
        """
        os.utime(self.collector_lock)
        return os.stat(self.collector_lock).st_mtime_ns

    def manifest_path(self, manifest_id: str) -> Path:
        return self.manifests_dir / manifest_id[:2] / f"{manifest_id}.json"

    def read_manifest(self, manifest_id: Digest) -> bytes:
        """The bytes of a manifest. DamageError if a record names one that is not there."""
        try:
            raw = read_regular(self.manifest_path(manifest_id))
        except OSError as exc:
            raise DamageError(
                f"manifest {manifest_id} cannot be read: {exc.strerror}",
                hint="ingest the same tree again, or import its manifest",
            ) from exc
        if raw is None:
            raise DamageError(f"manifest {manifest_id} is no file", hint="move it out of the store")
        return raw

    def iter_manifest_ids(self) -> Iterator[Digest]:
        for shard in sorted(_names(self.manifests_dir)):
            if not _SHARD.fullmatch(shard):
                continue  # what another member was about to make may be closed to us
            for name in sorted(_names(self.manifests_dir / shard)):
                if _MANIFEST.fullmatch(name) and name.startswith(shard):
                    yield Digest(name[:64])

    def iter_record_ids(self) -> Iterator[str]:
        """Ids of the records, newest first."""
        for name in sorted(_names(self.snapshots_dir), reverse=True):
            if name.endswith(".json"):
                yield name.removesuffix(".json")

    def record_path(self, record_id: str) -> Path:
        return self.snapshots_dir / f"{record_id}.json"

    def read_record(self, record_id: str) -> Record:
        """FileNotFoundError if it is gone; DamageError if it cannot be read."""
        path = self.record_path(record_id)
        try:
            raw = read_regular(path)
        except FileNotFoundError:
            raise
        except OSError as exc:
            shown = display(os.fsencode(path))
            raise DamageError(f"snapshot record {shown} cannot be read: {exc.strerror}") from exc
        if raw is None:
            raise DamageError(f"snapshot record {display(os.fsencode(path))} is no file")
        return decode_record(raw, record_id=record_id, where=display(os.fsencode(path)))

    def iter_records(self, damaged: list[DamageError] | None = None) -> Iterator[Record]:
        """The records, newest first. One that is removed meanwhile is passed over.

        DamageError at the first that cannot be read; with a list, it goes there instead.
        """
        for record_id in self.iter_record_ids():
            try:
                record = self.read_record(record_id)
            except FileNotFoundError:
                continue
            except DamageError as exc:
                if damaged is None:
                    raise
                damaged.append(exc)
            else:
                yield record


def _names(directory: Path) -> list[str]:
    try:
        return os.listdir(directory)
    except (FileNotFoundError, NotADirectoryError):
        return []
    except OSError as exc:
        shown = display(os.fsencode(directory))
        raise DamageError(f"{shown} cannot be read: {exc.strerror}") from exc


def open_depot(path: Path) -> Depot:
    """The store at `path`. NoStoreError if there is none; StoreError if it is of another kind."""
    path = path.absolute()
    try:
        raw = (path / MARKER).read_bytes()
    except (FileNotFoundError, NotADirectoryError) as exc:
        raise NoStoreError(
            f"no store at {path}",
            hint="give another with --store or $CASTFS_STORE, or make one with `castfs init`",
        ) from exc
    except OSError as exc:
        raise StoreError(f"cannot read the store at {path}: {exc.strerror}") from exc
    try:
        marker = msgspec.json.decode(raw, type=Marker)
    except (msgspec.DecodeError, RecursionError, UnicodeDecodeError) as exc:
        raise StoreError(f"{path / MARKER} is not a store's description: {exc}") from exc
    if marker.format != FORMAT or marker.version != VERSION:
        raise StoreError(
            f"the store at {path} has format {marker.format} version {marker.version}; "
            f"this castfs reads {FORMAT} version {VERSION}",
            hint="use the castfs that wrote it, or a newer one",
        )
    unknown = sorted(set(marker.required) - KNOWN_FEATURES)
    if unknown:
        raise StoreError(
            f"the store at {path} needs features that this castfs does not know: "
            + ", ".join(unknown),
            hint="use a newer castfs",
        )
    return Depot(path, marker)


def find_depot_above(path: Path) -> Depot | None:
    """The store that file `path` lies in, if any."""
    for parent in Path(os.path.realpath(path)).parents:
        if (parent / MARKER).is_file():
            return open_depot(parent)
    return None


def ensure_depot(path: Path, *, group: str | None = None) -> tuple[Depot, bool]:
    """Open the store at `path`, or create it. Returns it and whether it was created.

    The marker is written last, by an exclusive link: of two creators one wins, and what a crash
    left behind is completed by the next try.
    """
    path = path.absolute()
    with contextlib.suppress(NoStoreError):
        return open_depot(path), False
    gid = _find_group(group) if group else None
    try:
        _make_directories(path, gid)
        marker = Marker(format=FORMAT, version=VERSION, id=secrets.token_hex(16), group=group)
        created = _write_marker(path, marker)
    except OSError as exc:
        raise StoreError(f"cannot create a store at {path}: {exc.strerror}") from exc
    return open_depot(path), created


def _find_group(name: str) -> int:
    try:
        return grp.getgrnam(name).gr_gid
    except KeyError as exc:
        raise StoreError(f"there is no group {name}", hint="see `getent group`") from exc


def _make_directories(path: Path, gid: int | None) -> None:
    mode = 0o700 if gid is None else 0o2770
    path.parent.mkdir(parents=True, exist_ok=True)
    existing = set(os.listdir(path)) if path.is_dir() else set()
    # The marker may be there by now: another creator was faster.
    ours = {*_DIRECTORIES, *_LOCK_FILES, MARKER}
    strangers = {n for n in existing if not n.startswith("tmp-")} - ours
    if strangers:
        raise StoreError(
            f"{path} is not a store and not empty (it has {min(strangers)})",
            hint="choose an empty or new directory",
        )
    if path.is_dir():
        if gid is not None:
            os.chown(path, -1, gid)
        path.chmod(mode)
    for directory in (path, *(path / name for name in _DIRECTORIES)):
        atomic.ensure_dir(directory, 0o700)
        if gid is not None:
            os.chown(directory, -1, gid)
            directory.chmod(mode)
    for name in _LOCK_FILES:
        fd = os.open(path / name, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
        try:
            os.fchmod(fd, 0o600 if gid is None else 0o660)
        finally:
            os.close(fd)


def _write_marker(path: Path, marker: Marker) -> bool:
    temp = atomic.write_temp(
        path, [msgspec.json.format(msgspec.json.encode(marker), indent=1), b"\n"], mode=0o444
    )
    try:
        os.link(temp, path / MARKER)
    except FileExistsError:
        return False
    except OSError as exc:
        # FAT and some network filesystems have no links; a rename cannot tell who won, but there
        # the store was empty a moment ago.
        if exc.errno not in (errno.EPERM, errno.EOPNOTSUPP, errno.ENOSYS):
            raise
        temp.replace(path / MARKER)
    finally:
        temp.unlink(missing_ok=True)
        atomic.fsync_dir(path)
    return True
