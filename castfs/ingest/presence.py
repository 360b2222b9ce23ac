"""Are the blobs of the last snapshot still there? Asked by another process while this one walks.

An unchanged tree of 100,000 files costs about as much looking at blobs as looking at files, and the
two can be done at once.
"""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Mapping
from pathlib import Path

from castfs import settings
from castfs.digest import RAW_SIZE
from castfs.manifest import blob_sizes
from castfs.regular import read_regular
from castfs.store import BlobDir

#: Below this many blobs this process is done before another has started.
_ALONE_BLOBS = 5000

_START = "from castfs.ingest.presence import main; main()"


class PresenceCheck:
    """A context manager around one question. The manifest is pinned for as long as it is open."""

    def __init__(self, blobs: BlobDir, manifest: Path, *, alone: bool) -> None:
        """DamageError if the manifest cannot be read. `alone`: ask no other process."""
        self._blobs = blobs
        self._sizes = blob_sizes(read_regular(manifest) or b"")
        self._process: subprocess.Popen[bytes] | None = None
        if not alone and len(self._sizes) >= _ALONE_BLOBS:
            # -P: nothing is to be imported from the caller's directory.
            self._process = subprocess.Popen(
                [sys.executable, "-P", "-c", _START, str(blobs.path), str(manifest)],
                stdin=subprocess.DEVNULL,
                stdout=subprocess.PIPE,
                stderr=subprocess.DEVNULL,
                env=settings.interpreter_environment(),
            )

    def __enter__(self) -> PresenceCheck:
        return self

    def __exit__(self, *_: object) -> None:
        if self._process is not None and self._process.returncode is None:
            self._process.kill()
            self._process.communicate()

    @property
    def digests(self) -> Mapping[str, int]:
        """What is asked about: digest → size."""
        return self._sizes

    def wait(self) -> frozenset[str]:
        """The digests whose blob is missing or has another size."""
        if self._process is not None:
            output, _ = self._process.communicate()
            if self._process.returncode == 0:
                starts = range(0, len(output), RAW_SIZE)
                return frozenset(output[start : start + RAW_SIZE].hex() for start in starts)
        return find_bad(self._blobs, self._sizes)


def find_bad(blobs: BlobDir, sizes: Mapping[str, int]) -> frozenset[str]:
    size_of = blobs.size
    return frozenset(digest for digest, size in sizes.items() if size_of(digest) != size)


def main() -> None:
    """The other process: `argv` has the blobs' directory and the manifest."""
    blobs, manifest = map(Path, sys.argv[1:])
    bad = find_bad(BlobDir(blobs), blob_sizes(manifest.read_bytes()))
    sys.stdout.buffer.write(b"".join(map(bytes.fromhex, bad)))
