"""Rolling outputs: the newest state of a file or directory, of each run its own.

    <archive_root>/<category>/rolling/<run id>/<SHA-1 of the key>_<name>

A new state takes the place of the last one when it is whole, and on the medium.
"""

from __future__ import annotations

import contextlib
import hashlib
import json
import os
import secrets
import shutil
import stat
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from castfs import atomic, syscalls
from castfs.compat.runicorn.assets.failures import WrongKindError
from castfs.compat.runicorn.assets.writing import make_dirs
from castfs.digest import digest_fd, iter_chunks
from castfs.errors import UsageError
from castfs.paths import check_name
from castfs.store.failures import store_errors

#: Lies in a directory that was copied whole.
COMPLETE = ".complete"


def archive_file_overwrite(
    src: Path, archive_root: Path, *, category: str, run_id: str, key: str
) -> dict[str, Any]:
    """`fingerprint_kind` ("sha256"), `fingerprint`, `archive_path`. ValueError if it is no file."""
    if not Path(src).is_file():
        raise WrongKindError(f"archive_file_overwrite expects a file, got: {src}")
    place = _place(Path(src), archive_root, category, run_id, key)
    digest, _ = _copy_file(Path(src), place)
    return {"fingerprint_kind": "sha256", "fingerprint": digest, "archive_path": str(place)}


def archive_file_overwrite_stat(
    src: Path, archive_root: Path, *, category: str, run_id: str, key: str
) -> dict[str, Any]:
    """The same of a log, whose `fingerprint` is its size and time (`fingerprint_kind` "stat");
    besides `size_bytes`, `mtime`: those of before it was copied, since it grows meanwhile."""
    if not Path(src).is_file():
        raise WrongKindError(f"archive_file_overwrite_stat expects a file, got: {src}")
    place = _place(Path(src), archive_root, category, run_id, key)
    _, status = _copy_file(Path(src), place)
    said = {"size_bytes": status.st_size, "mtime": status.st_mtime}
    fingerprint = json.dumps(said, ensure_ascii=False, sort_keys=True)
    return {
        "fingerprint_kind": "stat", "fingerprint": fingerprint, "archive_path": str(place), **said,
    }  # fmt: skip


def archive_dir_overwrite(
    src: Path, archive_root: Path, *, category: str, run_id: str, key: str
) -> dict[str, Any]:
    """`fingerprint_kind` ("sha256_manifest"), `fingerprint` (over names and contents),
    `archive_path`, `file_count`, `total_size_bytes`. Symlinks stay what they are; FIFOs, sockets
    and devices stay out. ValueError if it is no directory."""
    if not Path(src).is_dir():
        raise WrongKindError(f"archive_dir_overwrite expects a directory, got: {src}")
    place = _place(Path(src), archive_root, category, run_id, key)
    with store_errors(place.parent), _replaced_dir(place) as temp:
        # The copy is hashed: the original may change meanwhile.
        shutil.copytree(src, temp, symlinks=True, ignore=_special, dirs_exist_ok=True)
        lines, size = [], 0
        for parent, _, names in os.walk(temp):
            for name in names:
                path = Path(parent, name)
                if not path.is_symlink():
                    size += path.stat().st_size
                    relative = os.fsencode(path.relative_to(temp))
                    lines.append(b"%s\0%s\0" % (relative, _digest_of(path).encode()))
        (temp / COMPLETE).write_text("ok\n")
    return {
        "fingerprint_kind": "sha256_manifest",
        "fingerprint": hashlib.sha256(b"".join(sorted(lines))).hexdigest(),
        "archive_path": str(place),
        "file_count": len(lines),
        "total_size_bytes": size,
    }


def check_category(category: str) -> None:
    try:
        check_name(os.fsencode(category))
    except ValueError as exc:
        raise UsageError(
            f"bad category: {exc}", hint="use code, datasets, pretrained or outputs"
        ) from None


def safe_leaf(name: str) -> str:
    """A name as Runicorn makes one of a run's id or a path."""
    return "".join(c if c.isalnum() or c in "-_." else "_" for c in name)[:80]


def _place(src: Path, archive_root: Path, category: str, run_id: str, key: str) -> Path:
    check_category(category)
    run = safe_leaf(run_id)
    if run.strip(".") == "":
        raise UsageError(f"{run_id!r} is no run's id", hint="give the run's own")
    directory = Path(archive_root) / category / "rolling" / run
    make_dirs(directory)
    digest = hashlib.sha1(key.encode(errors="surrogateescape"), usedforsecurity=False).hexdigest()
    return directory / f"{digest}_{safe_leaf(src.name)}"


def _copy_file(src: Path, place: Path) -> tuple[str, os.stat_result]:
    """The digest of what was copied, and what the file looked like before."""
    state = hashlib.sha256()
    fd = os.open(src, os.O_RDONLY | os.O_NONBLOCK | os.O_CLOEXEC)
    try:
        status = os.fstat(fd)

        def hashed() -> Iterator[bytes]:
            for chunk in iter_chunks(fd):
                state.update(chunk)
                yield bytes(chunk)

        with store_errors(place.parent):
            temp = atomic.write_temp(place.parent, hashed(), mode=stat.S_IMODE(status.st_mode))
            try:
                os.utime(temp, ns=(status.st_atime_ns, status.st_mtime_ns))
                temp.replace(place)
            finally:
                temp.unlink(missing_ok=True)
            atomic.fsync_dir(place.parent)
    finally:
        os.close(fd)
    return state.hexdigest(), status


@contextlib.contextmanager
def _replaced_dir(place: Path) -> Iterator[Path]:
    """A directory to fill, which then takes the place."""
    temp = place.with_name(f".{place.name}_tmp_{secrets.token_hex(4)}")
    gone = place.with_name(f".{place.name}_old_{secrets.token_hex(4)}")
    try:
        temp.mkdir()
        yield temp
        fd = os.open(place.parent, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
        try:
            syscalls.syncfs(fd)
        finally:
            os.close(fd)
        if os.path.lexists(place):
            place.rename(gone)
        temp.rename(place)
        atomic.fsync_dir(place.parent)
    finally:
        shutil.rmtree(temp, ignore_errors=True)
        shutil.rmtree(gone, ignore_errors=True)


def _special(directory: Any, names: list[str]) -> list[str]:
    """What is neither file nor directory nor symlink."""
    kinds = {name: os.lstat(os.path.join(directory, name)).st_mode for name in names}
    return [
        name
        for name, mode in kinds.items()
        if not (stat.S_ISREG(mode) or stat.S_ISDIR(mode) or stat.S_ISLNK(mode))
    ]


def _digest_of(path: Path) -> str:
    with path.open("rb") as file:
        return digest_fd(file.fileno())
