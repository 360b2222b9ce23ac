"""A store with snapshots of known files, and what ought to be found when one content is hurt."""

from __future__ import annotations

import errno
import hashlib
import os
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pytest

import castfs
from castfs.digest import Digest
from castfs.repository import Store
from castfs.verify import VerifyOptions, VerifyResult

#: A name that is no text.
ODD = b"caf\xe9\n"


@dataclass
class World:
    """`files` has what each snapshot holds: id → path → content."""

    store: Store
    source: Path
    files: dict[str, dict[bytes, bytes]] = field(default_factory=dict)
    manifests: dict[str, str] = field(default_factory=dict)

    @property
    def path(self) -> Path:
        return self.store.path

    def write(self, name: str | bytes, content: bytes) -> None:
        path = Path(os.fsdecode(os.path.join(os.fsencode(self.source), os.fsencode(name))))
        path.parent.mkdir(exist_ok=True)
        path.write_bytes(content)

    def take(self) -> str:
        """A snapshot of the source as it is now."""
        taken = self.store.ingest(self.source)
        self.manifests[taken.id] = taken.manifest_id
        self.files[taken.id] = {
            os.fsencode(path.relative_to(self.source)): path.read_bytes()
            for path in self.source.rglob("*")
            if path.is_file()
        }
        return taken.id

    def blob(self, content: bytes) -> Path:
        digest = Digest(hashlib.sha256(content).hexdigest())
        return self.path / "blobs" / self.store.depot.blobs.name(digest)

    def hurt_by(self, *contents: bytes) -> set[tuple[str, bytes]]:
        """Every place that has one of these."""
        return {
            (snapshot, path)
            for snapshot, files in self.files.items()
            for path, content in files.items()
            if content in contents
        }

    def manifest(self, snapshot: str) -> Path:
        return self.store.depot.manifest_path(self.manifests[snapshot])

    def verify(
        self,
        *words: str,
        data: bool = False,
        sample: float = 1.0,
        since: float | None = None,
        repair_from: Path | None = None,
    ) -> VerifyResult:
        options = VerifyOptions(data=data, sample=sample, since=since, repair_from=repair_from)
        return self.store.verify(*words, options=options)


@pytest.fixture
def world(tmp_path: Path) -> World:
    """Three snapshots, the last in the trash: `shared by all` is in two places of each; `one`,
    `two` and `three` only in one; the second has a name that is no text."""
    source = tmp_path / "source"
    source.mkdir()
    world = World(castfs.open(tmp_path / "store", create=True), source)
    world.write("shared", b"shared by all")
    world.write("sub/shared", b"shared by all")
    world.write("file", b"one")
    world.take()
    world.write("file", b"two")
    world.write(ODD, b"odd")
    world.take()
    Path(os.fsdecode(os.path.join(os.fsencode(source), ODD))).unlink()
    world.write("file", b"three")
    world.store.remove(world.take())
    return world


def found(result: VerifyResult) -> set[tuple[str, bytes]]:
    """Where it says that files are hurt; each place once."""
    places = [(hurt.snapshot, hurt.path) for hurt in result.hurt]
    assert len(places) == len(set(places))
    return set(places)


def change(path: Path, content: bytes) -> None:
    """As a bad disk does: in the very file."""
    path.chmod(0o644)
    path.write_bytes(content)
    path.chmod(0o444)


def fail_reading(monkeypatch: pytest.MonkeyPatch, inode: int) -> None:
    """The disk reports an error wherever this process reads the file with `inode`."""

    def failing(read: Callable[[int, Any], Any]) -> Callable[[int, Any], Any]:
        def call(fd: int, what: Any) -> Any:
            if os.fstat(fd).st_ino == inode:
                raise OSError(errno.EIO, os.strerror(errno.EIO))
            return read(fd, what)

        return call

    monkeypatch.setattr(os, "read", failing(os.read))
    monkeypatch.setattr(os, "readv", failing(os.readv))
