"""Reading blobs whole: are they all there, and is each what its name says?"""

from __future__ import annotations

import hashlib
import os
from collections.abc import Iterable, Iterator

from castfs.digest import CHUNK_SIZE, Digest, iter_chunks
from castfs.errors import BlobError
from castfs.paths import display
from castfs.store.blobs import BlobDir

_HEAL = "ingest the same file again to heal it, or bring the blob from another store"


def check_present(blobs: BlobDir, wanted: Iterable[tuple[bytes, Digest, int]]) -> None:
    """Every (path, digest, size) has a blob of that size. One BlobError counts those that lack it.

    Costs one stat for each distinct digest; contents are not looked at.
    """
    sizes: dict[str, int | None] = {}
    bad: list[tuple[bytes, Digest, int]] = []
    for path, digest, size in wanted:
        if digest not in sizes:
            sizes[digest] = blobs.size(digest)
        if sizes[digest] != size:
            bad.append((path, digest, size))
    if not bad:
        return
    path, digest, size = bad[0]
    actual = sizes[digest]
    state = "missing" if actual is None else f"{actual} bytes long instead of {size}"
    others = f", and those of {len(bad) - 1} more files are bad too" if len(bad) > 1 else ""
    raise BlobError(
        f"the blob of {display(path)} in {blobs.path} is {state} ({digest}){others}",
        digest=digest,
        hint="ingest the same files again to heal them, or name the store that has them",
    )


def open_blob(blobs: BlobDir, path: bytes, digest: Digest, size: int) -> int:
    """`BlobDir.open` with `path` in the message, and with one error for whatever goes wrong."""
    try:
        return blobs.open(digest, size)
    except BlobError as exc:
        raise BlobError(f"{display(path)}: {exc.message}", digest=digest, hint=exc.hint) from exc
    except OSError as exc:
        raise unreadable(path, digest, exc) from exc


def read_blob(fd: int, path: bytes, digest: Digest, size: int, *, verify: bool = True) -> bytes:
    """All bytes of an opened blob that fits in memory. BlobError unless they are the right ones."""
    try:
        data = os.read(fd, size + 1)
        # One read returns all that a local file has; a network file system may return less.
        while len(data) < size and (more := os.read(fd, size - len(data))):
            data += more
    except OSError as exc:
        raise unreadable(path, digest, exc) from exc
    if len(data) != size or (verify and hashlib.sha256(data).hexdigest() != digest):
        raise damaged(path, digest)
    return data


def iter_verified(
    fd: int, path: bytes, digest: Digest, size: int, *, verify: bool = True
) -> Iterator[memoryview]:
    """The bytes of an opened blob, a piece at a time; each is valid until the next is asked for.

    BlobError after the last piece if what was read is not what the digest names, so nothing may be
    believed before the iterator has ended.
    """
    state = hashlib.sha256()
    done = 0
    chunks = iter_chunks(fd)
    while True:
        try:
            chunk = next(chunks, None)
        except OSError as exc:
            raise unreadable(path, digest, exc) from exc
        if chunk is None:
            break
        done += len(chunk)
        if done > size:
            break
        if verify:
            state.update(chunk)
        yield chunk
    if done != size or (verify and state.hexdigest() != digest):
        raise damaged(path, digest)


def iter_blob(blobs: BlobDir, path: bytes, digest: Digest, size: int) -> Iterator[memoryview]:
    """The verified bytes of a blob. One of at most 1 MiB is verified before any of it is given."""
    fd = open_blob(blobs, path, digest, size)
    try:
        if size <= CHUNK_SIZE:
            yield memoryview(read_blob(fd, path, digest, size))
        else:
            yield from iter_verified(fd, path, digest, size)
    finally:
        os.close(fd)


def damaged(path: bytes, digest: Digest) -> BlobError:
    return BlobError(
        f"{display(path)}: blob {digest} has other content than its name says",
        digest=digest,
        hint=_HEAL,
    )


def unreadable(path: bytes, digest: Digest, exc: OSError) -> BlobError:
    return BlobError(
        f"{display(path)}: blob {digest} cannot be read: {exc.strerror}", digest=digest, hint=_HEAL
    )
