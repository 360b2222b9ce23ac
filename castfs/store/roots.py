"""The files from which all is reached: records, the trash, leases. Nothing else lies among them."""

from __future__ import annotations

import os
import re
from dataclasses import dataclass
from pathlib import Path

from castfs.errors import DamageError
from castfs.paths import display
from castfs.store.depot import Depot
from castfs.store.trash import TRASH_NAME

_RECORD = re.compile(r"[0-9a-f]{24}\.json")
_LEASE = re.compile(r"([rw]-[0-9a-f]{16})\.(lease|json)")
STOPPED_HINT = "`castfs gc` deletes nothing as long as that is so; see `castfs verify`"
#: What an NFS client makes of a file that is deleted while it is open.
_SILLY_RENAME = ".nfs"


@dataclass(frozen=True, slots=True)
class RootNames:
    """Names of files: records, the trash, leases with their manifests."""

    records: frozenset[str] = frozenset()
    trash: frozenset[str] = frozenset()
    leases: frozenset[str] = frozenset()


def list_roots(depot: Depot, known: RootNames | None = None) -> RootNames:
    """Call it while the store is held: exclusively, if all of it has to be true at one moment.

    Names that are `known` are not looked at again: there may be 100,000, listed fifty times a
    second. DamageError if a directory cannot be read, or names what is no root.
    """
    known = known or RootNames()
    return RootNames(
        records=_list(depot.snapshots_dir, _RECORD, known.records),
        trash=_list(depot.trash_dir, TRASH_NAME, known.trash),
        leases=_list(depot.leases_dir, _LEASE, known.leases),
    )


def _list(directory: Path, pattern: re.Pattern[str], known: frozenset[str]) -> frozenset[str]:
    try:
        names = frozenset(os.listdir(directory))
    except OSError as exc:
        raise unreadable_root(directory, exc) from exc
    silly = set()
    for name in names - known:
        if name.startswith(_SILLY_RENAME):
            silly.add(name)
        elif not pattern.fullmatch(name):
            raise _unknown(directory / name)
    return names - silly if silly else names


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
