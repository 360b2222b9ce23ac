"""What other programs say about two directories."""

from __future__ import annotations

import os
import subprocess
from pathlib import Path

#: Everything that a restore promises, and for what is no directory the link count.
_FORMAT = r"%P\t%y\t%m\t%T@\t%l\0"
_FILES = r"%P\t%s\t%n\0"


def listing(directory: Path) -> set[bytes]:
    """Path, type, mode, time and link target of the directory and all below it, by find(1)."""
    shown = _run("find", str(directory), "-printf", _FORMAT)
    files = _run("find", str(directory), "!", "-type", "d", "-printf", _FILES)
    return {*shown.split(b"\0"), *files.split(b"\0")}


def assert_same(source: Path, copy: Path) -> None:
    """diff, find and rsync see no difference, the directories' own metadata included."""
    _run("diff", "-r", "--no-dereference", str(source), str(copy))
    assert listing(source) == listing(copy)
    assert changes_by_rsync(source, copy) == b""


def changes_by_rsync(source: Path, copy: Path, *more: str) -> bytes:
    """What rsync would change in `copy`: hard links and checksums too, owners only with `-og`."""
    options = ("-rlptHni", "--checksum", "--delete", *more)
    return _run("rsync", *options, f"{source}/", f"{copy}/")


def fingerprint(directory: Path) -> dict[str, tuple[int, int, int, bytes]]:
    """Mode, mtime, ctime and content of all in a directory: did anybody touch it?"""
    result = {}
    for where, dirs, files in os.walk(directory):
        for name in (".", *dirs, *files):
            path = Path(where, name)
            status = path.lstat()
            content = path.read_bytes() if path.is_file() and not path.is_symlink() else b""
            result[str(path)] = (status.st_mode, status.st_mtime_ns, status.st_ctime_ns, content)
    return result


def temporary_files(directory: Path) -> list[Path]:
    return [path for path in directory.rglob("*") if path.name.startswith(".castfs-")]


def _run(*command: str) -> bytes:
    done = subprocess.run(command, capture_output=True, timeout=60, check=False)
    assert done.returncode == 0, (command, done.stdout[-500:], done.stderr[-500:])
    assert done.stderr == b""
    return done.stdout
