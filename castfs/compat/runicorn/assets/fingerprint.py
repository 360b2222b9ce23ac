"""What identifies a file or a directory: its content, or what stat(2) says of it."""

from __future__ import annotations

import hashlib
import os
from pathlib import Path
from typing import Any

from castfs.compat.runicorn.assets.failures import WrongKindError
from castfs.digest import CHUNK_SIZE, digest_bytes


def stat_fingerprint(path: Path) -> dict[str, Any]:
    """`size_bytes`, and `mtime` in seconds. OSError."""
    status = Path(path).stat()
    return {"size_bytes": status.st_size, "mtime": status.st_mtime}


def dir_stat_fingerprint(path: Path) -> dict[str, Any]:
    """`mtime` of the directory itself, and `file_count` and `total_size_bytes` of all below it,
    symlinks to directories left out. OSError: the directory cannot be read."""
    path = Path(path)
    count = size = 0
    for parent, _, names in os.walk(path):
        for name in names:
            try:
                status = os.stat(os.path.join(parent, name))
            except OSError:  # a symlink to nothing, or deleted meanwhile
                continue
            count, size = count + 1, size + status.st_size
    return {"mtime": path.stat().st_mtime, "file_count": count, "total_size_bytes": size}


def sha256_file(path: Path, chunk_size: int = CHUNK_SIZE) -> str:
    """SHA-256 of a file's content in hexadecimal, read `chunk_size` bytes at a time. OSError."""
    state = hashlib.sha256()
    with Path(path).open("rb", buffering=0) as file:
        while chunk := file.read(chunk_size):
            state.update(chunk)
    return state.hexdigest()


def sha256_bytes(data: bytes) -> str:
    return digest_bytes(data)


def content_fingerprint(path: Path) -> tuple[str, str]:
    """("sha256", digest) of a file. ValueError for anything else."""
    if not Path(path).is_file():
        raise WrongKindError(f"content_fingerprint expects a file, got: {path}")
    return "sha256", sha256_file(path)
