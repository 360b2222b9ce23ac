"""What must stay: the digests that roots lead to, and for whom."""

from __future__ import annotations

import os
from binascii import unhexlify
from collections.abc import Iterable
from pathlib import Path

from castfs.digest import RAW_SIZE, ReadError, iter_chunks
from castfs.errors import ManifestError
from castfs.gc.plan import Keeper
from castfs.manifest import iter_references
from castfs.paths import display
from castfs.store.roots import STOPPED_HINT, unreadable_root


class Marks:
    """`keeper` of a raw digest (32 bytes), None if nobody needs it. About 120 bytes for each."""

    def __init__(self) -> None:
        self._digests: dict[bytes, Keeper] = {}
        self._manifests: dict[str, Keeper] = {}

    def keeper(self, digest: bytes) -> Keeper | None:
        return self._digests.get(digest)

    def has_manifest(self, manifest_id: str) -> bool:
        """Is all marked that it refers to?"""
        return manifest_id in self._manifests

    def keeps_manifest(self, manifest_id: str) -> bool:
        """Does a root lead to it, or has a writer logged its id?"""
        return manifest_id in self._manifests or unhexlify(manifest_id) in self._digests

    def mark_log(self, raw: bytes, keeper: Keeper) -> None:
        """What a lease's owner has logged."""
        size = len(raw) - len(raw) % RAW_SIZE
        self._mark((raw[at : at + RAW_SIZE] for at in range(0, size, RAW_SIZE)), keeper)

    def mark_manifest(self, manifest_id: str, path: Path, keeper: Keeper) -> None:
        """All that the manifest in file `path` refers to.

        FileNotFoundError if it is gone; DamageError if it cannot be read or is another one.
        """
        if manifest_id in self._manifests:
            return
        try:
            fd = os.open(path, os.O_RDONLY | os.O_CLOEXEC | os.O_NONBLOCK)
        except FileNotFoundError:
            raise
        except OSError as exc:
            raise unreadable_root(path, exc) from exc
        try:
            for found in iter_references(manifest_id, iter_chunks(fd)):
                self._mark(map(unhexlify, found), keeper)
        except ReadError as exc:
            raise unreadable_root(path, exc) from exc
        except ManifestError as exc:
            raise ManifestError(
                f"{display(os.fsencode(path))}: {exc.message}", hint=STOPPED_HINT
            ) from exc
        finally:
            os.close(fd)
        self._manifests[manifest_id] = keeper

    def _mark(self, digests: Iterable[bytes], keeper: Keeper) -> None:
        known = self._digests
        for digest in digests:
            if digest not in known:
                known[digest] = keeper
