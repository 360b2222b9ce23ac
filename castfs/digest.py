"""SHA-256 digests: the names of blobs and manifests.

A `Digest` is 64 lower-case hexadecimal characters, checked where it is made. hashlib's SHA-256 is
OpenSSL's (SHA-NI where the CPU has it, about 1.5 GB/s) and releases the GIL above 2,047 bytes.
"""

from __future__ import annotations

import hashlib
import os
import re
from collections.abc import Iterator
from typing import NewType

Digest = NewType("Digest", str)

#: Bytes of a raw digest, as leases store it.
RAW_SIZE = 32
#: What one read asks for when a large file is hashed: larger reads gained nothing.
CHUNK_SIZE = 1 << 20

_HEX = re.compile(r"[0-9a-f]{64}")


def parse_digest(text: str) -> Digest:
    """`text` as a Digest; ValueError unless it is 64 lower-case hex digits."""
    if not _HEX.fullmatch(text):
        raise ValueError(f"not a SHA-256 digest: {text[:80]!r}")
    return Digest(text)


def digest_bytes(data: bytes | memoryview) -> Digest:
    return Digest(hashlib.sha256(data).hexdigest())


class ReadError(OSError):
    """Reading failed, so that who also writes can tell which of the two it was."""


def iter_chunks(fd: int) -> Iterator[memoryview]:
    """The rest of file `fd`, a piece at a time. Each piece is valid until the next is asked for.
    ReadError."""
    buffer = memoryview(bytearray(CHUNK_SIZE))
    while True:
        try:
            count = os.readv(fd, [buffer])
        except OSError as exc:
            raise ReadError(exc.errno, exc.strerror) from exc
        if not count:
            return
        yield buffer[:count]


def digest_fd(fd: int) -> Digest:
    """Digest of what `fd` has from its current offset to its end."""
    state = hashlib.sha256()
    for chunk in iter_chunks(fd):
        state.update(chunk)
    return Digest(state.hexdigest())
