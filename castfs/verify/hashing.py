"""Is each blob what its name says? Hashed here, or by several processes where there is much to do.

Processes, not threads: for small files the interpreter's lock changes hands more often than files
are read.
"""

from __future__ import annotations

import contextlib
import hashlib
import os
import stat
import subprocess
import sys
import threading
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from queue import SimpleQueue

import msgspec

from castfs import settings
from castfs.digest import CHUNK_SIZE, Digest, ReadError, iter_chunks
from castfs.errors import StoreError
from castfs.paths import escape, unescape
from castfs.store import BlobDir

#: What one process is given at a time: enough that asking costs nothing, little enough that the bar
#: moves and both end together.
_BATCH_FILES = 256
_BATCH_BYTES = 32 << 20
#: What this process hashes itself before it starts others, which costs about 80 ms.
_ALONE_FILES = 2000
_ALONE_BYTES = 100_000_000

_START = "from castfs.verify.hashing import main; main()"


class Suspect(msgspec.Struct, frozen=True):
    """A blob that is not what its name says, or whose content could not be read (`detail` says why
    then). The inode and mtime are those of the very file that was hashed."""

    digest: str
    device: int
    inode: int
    mtime_ns: int
    size: int
    detail: str | None


class Answer(msgspec.Struct, frozen=True):
    """What came of a batch: blobs and bytes that were hashed, and the suspects among them."""

    count: int
    bytes: int
    suspects: list[Suspect]


def hash_blobs(
    blobs: BlobDir, wanted: Sequence[tuple[Digest, int]], done: Callable[[Answer], None]
) -> None:
    """Hash the blobs `wanted` (digest, size); `done` gets the answers as they come, in this thread.

    A blob that is gone is passed over. StoreError if a process dies.
    """
    size = sum(size for _, size in wanted)
    count = settings.threads()
    if count == 1 or (len(wanted) <= _ALONE_FILES and size <= _ALONE_BYTES):
        for batch in _iter_batches(wanted):
            done(hash_batch(blobs, batch))
        return
    _hash_apart(blobs.path, list(_iter_batches(wanted)), min(count, len(wanted)), done)


def _iter_batches(wanted: Sequence[tuple[Digest, int]]) -> Iterator[list[Digest]]:
    batch: list[Digest] = []
    size = 0
    for digest, blob_size in wanted:
        batch.append(digest)
        size += blob_size
        if len(batch) >= _BATCH_FILES or size >= _BATCH_BYTES:
            yield batch
            batch, size = [], 0
    if batch:
        yield batch


def hash_batch(blobs: BlobDir, digests: Sequence[Digest]) -> Answer:
    suspects: list[Suspect] = []
    count = size = 0
    flags = os.O_RDONLY | os.O_CLOEXEC | os.O_NOFOLLOW | os.O_NONBLOCK
    for digest in digests:
        try:
            fd = os.open(blobs.name(digest), flags, dir_fd=blobs.dir_fd)
        except FileNotFoundError:
            continue
        except OSError as exc:
            suspects += _unopened(blobs, digest, exc)
            continue
        try:
            status = os.fstat(fd)
            detail = None
            try:
                actual = _digest(fd, status.st_size) if stat.S_ISREG(status.st_mode) else ""
            except (ReadError, OSError) as exc:
                actual, detail = "", exc.strerror or str(exc)
        finally:
            os.close(fd)
        count += 1
        size += status.st_size
        if actual != digest:
            suspects.append(_suspect(digest, status, detail))
    return Answer(count, size, suspects)


def _suspect(digest: Digest, status: os.stat_result, detail: str | None) -> Suspect:
    return Suspect(digest, status.st_dev, status.st_ino, status.st_mtime_ns, status.st_size, detail)


def _unopened(blobs: BlobDir, digest: Digest, error: OSError) -> list[Suspect]:
    """A symlink or socket is no blob, whatever it leads to; what cannot be looked at may be one."""
    try:
        status = os.stat(blobs.name(digest), dir_fd=blobs.dir_fd, follow_symlinks=False)
    except FileNotFoundError:
        return []
    except OSError:
        return [Suspect(digest, 0, 0, 0, 0, error.strerror)]
    return [_suspect(digest, status, error.strerror if stat.S_ISREG(status.st_mode) else None)]


def _digest(fd: int, size: int) -> str:
    if size < CHUNK_SIZE:
        data = os.read(fd, size + 1)
        if len(data) == size:
            return hashlib.sha256(data).hexdigest()
        os.lseek(fd, 0, os.SEEK_SET)
    state = hashlib.sha256()
    for chunk in iter_chunks(fd):
        state.update(chunk)
    return state.hexdigest()


# Several processes -------------------------------------------------------------------------------


def _hash_apart(
    path: Path, batches: Sequence[list[Digest]], count: int, done: Callable[[Answer], None]
) -> None:
    answers: SimpleQueue[Answer | None] = SimpleQueue()
    rest = iter(batches)
    lock = threading.Lock()  # guards `rest`

    def take() -> list[Digest] | None:
        with lock:
            return next(rest, None)

    with contextlib.ExitStack() as stack:
        for _ in range(count):
            process = stack.enter_context(_hasher(path))
            thread = threading.Thread(target=_feed, args=(process, take, answers))
            thread.start()
            stack.callback(thread.join)
            # First of all, when we are interrupted: a thread that waits for an answer gets none.
            stack.callback(process.kill)
        for _ in batches:
            answer = answers.get()
            if answer is None:
                raise StoreError(
                    "a process that hashes blobs ended",
                    hint="was it killed, for want of memory perhaps? CASTFS_THREADS=1 does without",
                )
            done(answer)


def _feed(
    process: subprocess.Popen[bytes],
    take: Callable[[], list[Digest] | None],
    answers: SimpleQueue[Answer | None],
) -> None:
    assert process.stdin is not None
    assert process.stdout is not None
    decoder = msgspec.json.Decoder(Answer)
    try:
        while (batch := take()) is not None:
            process.stdin.write("".join(batch).encode() + b"\n")
            process.stdin.flush()
            answers.put(decoder.decode(process.stdout.readline()))
    except (OSError, ValueError, msgspec.DecodeError):
        answers.put(None)


@contextlib.contextmanager
def _hasher(path: Path) -> Iterator[subprocess.Popen[bytes]]:
    with subprocess.Popen(
        [sys.executable, "-P", "-c", _START, escape(os.fsencode(path))],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        env=settings.interpreter_environment(),
        # Ctrl-C is for us: one that is still being loaded would print a traceback.
        process_group=0,
    ) as process:
        try:
            yield process
        finally:
            process.kill()
            assert process.stdin is not None
            # Writes what is left of a batch, which would fail instead of with the real error.
            with contextlib.suppress(OSError):
                process.stdin.close()


def main() -> None:
    """Answer lines of digests until stdin ends; `argv[1]` is the blobs' directory, escaped."""
    blobs = BlobDir(Path(os.fsdecode(unescape(sys.argv[1]))))
    encoder = msgspec.json.Encoder()
    with contextlib.suppress(BrokenPipeError):
        for line in sys.stdin.buffer:
            text = line.decode().strip()
            batch = [Digest(text[at : at + 64]) for at in range(0, len(text), 64)]
            sys.stdout.buffer.write(encoder.encode(hash_batch(blobs, batch)) + b"\n")
            sys.stdout.buffer.flush()
