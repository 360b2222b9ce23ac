"""What dead processes left: leases, staging directories, temporary files, a probe."""

from __future__ import annotations

import contextlib
import errno
import os
import re
import shutil
from collections.abc import Iterator
from pathlib import Path

from castfs.gc.liveness import probe_lease
from castfs.gc.plan import Amount
from castfs.store import Depot

#: What was taken away from its name, to be deleted while the store is not held.
_DEAD = "dead-"
_OWNED = re.compile(r"([rw]-[0-9a-f]{16})(\.tmp)?")
_TEMPORARY = re.compile(r"tmp-[0-9a-f]{16}")
_PROBE = re.compile(r"probe-([rw]-[0-9a-f]{16})")
#: On a full disk a name may need more space; on an overlay a lower layer's directory stays there.
_CANNOT_RENAME = (errno.ENOSPC, errno.EDQUOT, errno.EXDEV)
#: A temporary file without a lease may be a reader's that is about to take one.
_TEMPORARY_AGE_NS = 24 * 3600 * 1_000_000_000


def find_unfinished(depot: Depot, live: set[str], *, now_ns: int) -> list[Path]:
    """Everything that belongs to no lease in `live`. A dead lease stands for its staging, too.

    Call it while the store is held exclusively.
    """
    found = [
        depot.leases_dir / name
        for name in sorted(os.listdir(depot.leases_dir))
        if (owned := _OWNED.match(name)) and owned[1] not in live
    ]
    for path in _iter_places(depot):
        owned = _OWNED.fullmatch(path.name) or _PROBE.fullmatch(path.name)
        if owned is not None:
            is_left = owned[1] not in live
        else:
            is_left = path.name.startswith(_DEAD) or _is_old(path, now_ns)
        if is_left:
            found.append(path)
    return found


def _iter_places(depot: Depot) -> Iterator[Path]:
    for name in sorted(os.listdir(depot.staging_dir)):
        if _OWNED.fullmatch(name) or _TEMPORARY.fullmatch(name) or name.startswith(_DEAD):
            yield depot.staging_dir / name
    for directory in (depot.blobs.path, depot.manifests_dir, depot.path / "runs", depot.path):
        for name in sorted(os.listdir(directory)) if directory.is_dir() else ():
            if _PROBE.fullmatch(name) or _TEMPORARY.fullmatch(name):
                yield directory / name


def _is_old(path: Path, now_ns: int) -> bool:
    with contextlib.suppress(FileNotFoundError):
        return path.stat().st_mtime_ns < now_ns - _TEMPORARY_AGE_NS
    return False


def measure(paths: list[Path]) -> Amount:
    """Files and bytes below `paths` that deleting them frees."""
    amount = Amount()
    for path in paths:
        # Not rglob: its owner may have committed, and be clearing it at this moment.
        inside = (os.path.join(where, name) for where, _, names in os.walk(path) for name in names)
        for file in map(Path, inside) if path.is_dir() else (path,):
            with contextlib.suppress(FileNotFoundError):
                status = file.lstat()
                amount = amount.plus(status.st_size if status.st_nlink == 1 else 0)
    return amount


def take_away(depot: Depot, path: Path, *, now_ns: int, local: bool) -> Path | None:
    """Rename `path`, if it is still nobody's, so that no owner can find it. Returns what is to be
    deleted. Call it while the store is held exclusively.

    The flock of a dead lease is held meanwhile: else its file could be removed while somebody who
    has just opened it takes it for alive.
    """
    owner = _OWNED.match(path.name) or _PROBE.fullmatch(path.name)
    fd = -1
    try:
        if owner is not None:
            with contextlib.suppress(FileNotFoundError):
                lease, fd = probe_lease(depot, owner[1], now_ns=now_ns, local=local)
                if lease is not None:
                    return None
        target = depot.staging_dir / f"{_DEAD}{path.name.removeprefix(_DEAD)}"
        try:
            path.rename(target)
        except PermissionError:
            # Another member's, who was killed before it had its mode: nothing is in it.
            path.rmdir()
            return None
        except OSError as exc:
            if exc.errno not in _CANNOT_RENAME:
                raise
            if path.is_dir():
                return path  # a dead writer's, which nobody looks for any more
            path.unlink()
            return None
    except FileNotFoundError:
        return None
    finally:
        if fd >= 0:
            os.close(fd)
    return target


def delete(paths: list[Path]) -> list[Path]:
    """Returns what could not be deleted."""
    return [path for path in paths if not _delete(path)]


def _delete(path: Path) -> bool:
    """An owner that has committed may be clearing it, too, and a reader of one that was killed may
    still write there: what is left then goes with the next collection."""
    try:
        if path.is_dir() and not path.is_symlink():
            shutil.rmtree(path)
        else:
            path.unlink(missing_ok=True)
    except OSError as exc:
        if path.is_dir() and not path.is_symlink():
            shutil.rmtree(path, ignore_errors=True)
        return exc.errno in (errno.ENOENT, errno.ENOTEMPTY)
    return True
