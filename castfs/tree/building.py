"""Compiling a manifest file without keeping what that takes: a large one by a process of its own.

A million entries take about 900 MiB while they are compiled, of which a mount that goes on for
weeks would keep a good part.
"""

from __future__ import annotations

import contextlib
import errno
import gc
import hashlib
import os
import subprocess
import sys
from collections.abc import Iterator
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import BinaryIO

import msgspec

from castfs import settings
from castfs.digest import Digest
from castfs.errors import ManifestError, StoreError
from castfs.manifest import parse_manifest, read_manifest_bytes
from castfs.paths import display
from castfs.tree.compiler import write_index
from castfs.tree.presentation import Presentation

#: Starting a process takes about 100 ms, in which 4 MiB (15,000 entries) are compiled here.
_ALONE_BYTES = 4 << 20
#: What its exit status says if `file` takes no more: compiling again would end the same way.
_UNWRITABLE = 3
_START = "from castfs.tree.building import main; main()"


@dataclass(frozen=True, slots=True, kw_only=True)
class ManifestFile:
    """A file to compile. `manifest_id` is what its tree must have; `sha256` what its bytes must
    have, where the file is not the store's own. Either may be None."""

    path: Path
    manifest_id: str | None = None
    sha256: str | None = None

    def write_index(self, file: BinaryIO, presentation: Presentation) -> None:
        """ManifestError, NotFoundError, OSError of `file`."""
        try:
            size = self.path.stat().st_size
        except OSError:
            size = 0  # whoever reads it says what is wrong
        if size > _ALONE_BYTES and _in_process(self, file, presentation):
            return
        file.seek(0)
        file.truncate()
        with without_collector():
            self._compile(file, presentation)

    def _compile(self, file: BinaryIO, presentation: Presentation) -> None:
        raw = read_manifest_bytes(self.path)
        if self.sha256 is not None and hashlib.sha256(raw).hexdigest() != self.sha256:
            raise self._changed()
        manifest = parse_manifest(raw)
        del raw
        if self.manifest_id is not None and manifest.id != self.manifest_id:
            raise self._changed()
        write_index(file, manifest.tree, presentation, Digest(manifest.id))

    def _changed(self) -> ManifestError:
        return ManifestError(
            f"{display(os.fsencode(self.path))} holds another manifest than before",
            hint="was it replaced just now? run the command again",
        )


class _Job(msgspec.Struct, frozen=True):
    fd: int
    #: As its bytes in hex digits.
    path: str
    manifest_id: str | None
    sha256: str | None
    presentation: dict[str, int | None]


def _in_process(source: ManifestFile, file: BinaryIO, presentation: Presentation) -> bool:
    """False if it failed: compiling once more here says why."""
    fd = file.fileno()
    job = _Job(
        fd,
        os.fsencode(source.path).hex(),
        source.manifest_id,
        source.sha256,
        asdict(presentation),
    )
    try:
        done = subprocess.run(
            [sys.executable, "-P", "-c", _START],
            input=msgspec.json.encode(job),
            stdout=subprocess.DEVNULL,
            stderr=subprocess.DEVNULL,
            pass_fds=(fd,),
            env=settings.interpreter_environment(),
            check=False,
        )
    except OSError:
        return False
    if done.returncode == _UNWRITABLE:
        raise OSError(errno.ENOSPC, "the index cannot be written")
    if done.returncode < 0:
        raise StoreError(
            f"compiling the manifest was ended by signal {-done.returncode}",
            hint="is there enough memory? it takes about 1 KiB for each entry",
        )
    return done.returncode == 0


def main() -> None:
    """The other process."""
    job = msgspec.json.decode(sys.stdin.buffer.read(), type=_Job)
    source = ManifestFile(
        path=Path(os.fsdecode(bytes.fromhex(job.path))),
        manifest_id=job.manifest_id,
        sha256=job.sha256,
    )
    presentation = msgspec.convert(job.presentation, Presentation)
    with open(job.fd, "w+b") as file, without_collector():
        try:
            source._compile(file, presentation)
            file.flush()
        except OSError:
            os._exit(_UNWRITABLE)
        os._exit(0)  # taking the tree apart takes as long as it looks


@contextlib.contextmanager
def without_collector() -> Iterator[None]:
    """Building millions of objects that all stay would make Python's collector look at them again
    and again: a third of the time."""
    enabled = gc.isenabled()
    gc.disable()
    try:
        yield
    finally:
        if enabled:
            gc.enable()
