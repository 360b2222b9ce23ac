"""Where content goes that was read: into a write session's staging area, or nowhere."""

from __future__ import annotations

import hashlib
from typing import Protocol

from castfs.digest import Digest, digest_bytes, iter_chunks
from castfs.store import StagedFile, Staging


class Sink(Protocol):
    """Takes content and names it. Belongs to one process and one thread."""

    def take_bytes(self, data: bytes) -> StagedFile:
        """Content that fits in memory."""
        ...

    def take_file(self, fd: int) -> StagedFile:
        """The rest of an open file."""
        ...


class StoreSink:
    """Stages what the store does not have."""

    def __init__(self, staging: Staging) -> None:
        self._staging = staging

    def take_bytes(self, data: bytes) -> StagedFile:
        digest = digest_bytes(data)
        if self._staging.claim_present(digest, len(data)):
            return StagedFile(digest, len(data), new=False)
        return self._staging.stage_bytes(data, digest)

    def take_file(self, fd: int) -> StagedFile:
        return self._staging.stage_file(fd)


class HashSink:
    """Stores nothing: a directory is only to be compared."""

    def take_bytes(self, data: bytes) -> StagedFile:
        return StagedFile(digest_bytes(data), len(data), new=False)

    def take_file(self, fd: int) -> StagedFile:
        state = hashlib.sha256()
        size = 0
        for chunk in iter_chunks(fd):
            state.update(chunk)
            size += len(chunk)
        return StagedFile(Digest(state.hexdigest()), size, new=False)
