"""The files from which all is reached: records, the trash, leases. Nothing else lies among them."""

from __future__ import annotations

import os
import re
from dataclasses import dataclass
from pathlib import Path

from castfs.errors import DamageError
from castfs.paths import display
from castfs.store.depot import Depot
from castfs.store.trash import TrashName, parse_trash_name

_RECORD = re.compile(r"[0-9a-f]{24}\.json")
_LEASE = re.compile(r"([rw]-[0-9a-f]{16})\.(lease|json)")
STOPPED_HINT = "`castfs gc` deletes nothing as long as that is so; see `castfs verify`"
#: What an NFS client makes of a file that is deleted while it is open.
_SILLY_RENAME = ".nfs"


@dataclass(frozen=True, slots=True)
class RootNames:
    """Ids of records, names in the trash, ids of leases, and of those with a manifest."""

    records: frozenset[str]
    trash: frozenset[TrashName]
    leases: frozenset[str]
    pinned: frozenset[str]


def list_roots(depot: Depot) -> RootNames:
    """Call it while the store is held: exclusively, if all of it has to be true at one moment.

    DamageError if a directory cannot be read, or names what is no root.
    """
    records = set()
    for name in _list(depot.snapshots_dir):
        if not _RECORD.fullmatch(name):
            raise _unknown(depot.snapshots_dir / name)
        records.add(name[:24])
    trash = set()
    for name in _list(depot.trash_dir):
        parsed = parse_trash_name(name)
        if parsed is None:
            raise _unknown(depot.trash_dir / name)
        trash.add(parsed)
    leases: dict[str, set[str]] = {"lease": set(), "json": set()}
    for name in _list(depot.leases_dir):
        match = _LEASE.fullmatch(name)
        if match is None:
            raise _unknown(depot.leases_dir / name)
        leases[match[2]].add(match[1])
    return RootNames(
        frozenset(records), frozenset(trash), frozenset(leases["lease"]), frozenset(leases["json"])
    )


def _list(directory: Path) -> list[str]:
    try:
        return [name for name in os.listdir(directory) if not name.startswith(_SILLY_RENAME)]
    except OSError as exc:
        raise unreadable_root(directory, exc) from exc


def _unknown(path: Path) -> DamageError:
    return DamageError(
        f"{display(os.fsencode(path))} is no file of castfs, but lies among what keeps contents",
        hint="move it out of the store; `castfs gc` deletes nothing as long as it is there",
    )


def unreadable_root(path: Path, exc: OSError) -> DamageError:
    """Whatever it leads to might be needed."""
    return DamageError(
        f"{display(os.fsencode(path))} cannot be read: {exc.strerror}", hint=STOPPED_HINT
    )
