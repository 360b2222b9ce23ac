"""The threads that write files, and the count of what they have done."""

from __future__ import annotations

import functools
import os
import threading
import time
from collections.abc import Callable, Iterable, Sequence
from concurrent.futures import FIRST_COMPLETED, Future, ThreadPoolExecutor, wait
from types import TracebackType
from typing import Self

from castfs.paths import RelPath
from castfs.progress import Progress
from castfs.restore.copying import Stopped

#: Between two calls of a Progress, in seconds: it may be called a few hundred times a second.
_INTERVAL = 0.01
#: Where a batch of files ends: so many, or so many bytes.
BATCH_COUNT = 64
BATCH_BYTES = 4 << 20
#: A batch of fewer bytes stays in the thread that runs the restore, because for small files threads
#: only fight for the GIL (20,000 files of 4 KiB on tmpfs: 0.8 s with one thread, 1.6 s with two) …
_WORTH_BYTES = 1 << 20
#: … unless the last one took longer than this for each file, in seconds: then the time goes to the
#: disk or the kernel, and waiting can be shared (slow ext4, 700 µs a file: a fifth less).
_WORTH_SECONDS = 250e-6

#: Writes the entries `paths` of one directory, given by its descriptor.
Work = Callable[[int, Sequence[RelPath]], None]


class Meter:
    """Counts from any thread; speaks to the Progress from the thread that made it alone."""

    def __init__(self, progress: Progress) -> None:
        self._progress = progress
        self._owner = threading.get_ident()
        self._guard = threading.Lock()
        self._count = 0
        self._size = 0
        self._next = 0.0

    def add(self, count: int, size: int) -> None:
        with self._guard:
            self._count += count
            self._size += size
        if threading.get_ident() == self._owner and time.monotonic() >= self._next:
            self.report()

    def report(self) -> None:
        with self._guard:
            count, size = self._count, self._size
            self._count = self._size = 0
        self._next = time.monotonic() + _INTERVAL
        if count or size:
            self._progress.advance(count, size)


class Workers:
    """Runs `work` on batches: in this thread, or in `threads` others where that pays.

    Leaving the context waits for all of them; when it is left by an exception, or one of them
    failed, `stop` is set so that the rest end soon, and the first failure is raised.
    """

    def __init__(
        self,
        work: Work,
        size_of: Callable[[RelPath], int],
        *,
        threads: int,
        stop: threading.Event,
        meter: Meter,
    ) -> None:
        self._work = work
        self._size_of = size_of
        self._stop = stop
        self._meter = meter
        self._limit = 4 * threads
        self._pool = ThreadPoolExecutor(threads, "castfs-restore") if threads > 1 else None
        self._slow = False
        self._pending: set[Future[None]] = set()

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        exc: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        if self._pool is None:
            return
        try:
            while exc is None and self._pending:
                self._collect()
        finally:
            if self._pending:
                self._stop.set()
            self._pool.shutdown(wait=True, cancel_futures=True)

    def run(self, dir_fd: int, paths: Iterable[RelPath]) -> None:
        """Write `paths`, which lie in the directory `dir_fd`; it may be closed after the return."""
        batch: list[RelPath] = []
        size = 0
        for path in paths:
            batch.append(path)
            size += self._size_of(path)
            if len(batch) >= BATCH_COUNT or size >= BATCH_BYTES:
                self._run_batch(dir_fd, batch, size)
                batch, size = [], 0
        if batch:
            self._run_batch(dir_fd, batch, size)

    def _run_batch(self, dir_fd: int, batch: list[RelPath], size: int) -> None:
        if self._pool is None or (size < _WORTH_BYTES and not self._slow):
            start = time.monotonic()
            self._work(dir_fd, batch)
            self._slow = time.monotonic() - start > len(batch) * _WORTH_SECONDS
            return
        while len(self._pending) >= self._limit:
            self._collect()
        own_fd = os.dup(dir_fd)
        future = self._pool.submit(self._work, own_fd, batch)
        # Also for what is cancelled before it began.
        future.add_done_callback(functools.partial(_close, own_fd))
        self._pending.add(future)

    def _collect(self) -> None:
        # The limit lets the bar move while large files are written.
        done, self._pending = wait(self._pending, timeout=0.1, return_when=FIRST_COMPLETED)
        self._meter.report()
        failures = [error for future in done if (error := future.exception()) is not None]
        for error in failures:
            self._stop.set()
            if not isinstance(error, Stopped):
                raise error


def _close(fd: int, _: Future[None]) -> None:
    os.close(fd)
