"""Blobs for READ: what memory holds is read at once, the rest by threads of their own.

The kernel does not say any more when a file is opened or closed, so descriptors are kept for a
while. One is closed when the last who reads from it lets go.
"""

from __future__ import annotations

import errno
import itertools
import logging
import threading
from collections.abc import Callable
from queue import SimpleQueue

from castfs.digest import Digest
from castfs.view import Contents, OpenFile
from castfs.view.errnos import errno_of, is_expected

log = logging.getLogger("castfs.lane")

#: Descriptors that are kept at most: more gained nothing, and others want some, too.
_KEPT_MAX = 1024
#: How long a thread may take that has nothing to do.
_END_SECONDS = 0.1
#: Threads that wait for disks, or hash blobs. Disks gain nothing above that.
_THREADS = 16

#: Called with the unique of a request and what is read, or a negative errno.
ReadReply = Callable[[int, bytes | bytearray | int], None]
#: Called by each thread with what it does: sees to what becomes of the mount if that fails.
Run = Callable[[Callable[[], None]], None]

#: unique, a file or the inode of one that is to be opened, offset, size.
_Job = tuple[int, OpenFile | int, int, int]


class Files:
    """`open` and `read_later` belong to the lane's thread; replies come from others."""

    def __init__(
        self,
        contents: Contents,
        reply: ReadReply,
        run: Run,
        *,
        descriptors: int,
        is_local: bool = True,
    ) -> None:
        """`descriptors` is how many the process may have. `is_local`: opening a blob never waits
        for another machine or process."""
        self._contents = contents
        self._is_local = is_local
        self._reply = reply
        self._run = run
        self._kept: dict[int, OpenFile] = {}
        self._kept_max = max(1, min(_KEPT_MAX, descriptors // 4))
        self._jobs: SimpleQueue[_Job | None] = SimpleQueue()
        #: By what a thread opens (an inode) or hashes (a digest): reads that wait for it.
        self._others: dict[int | Digest, list[_Job]] = {}
        self._closed = False
        self._guard = threading.Lock()
        self._threads: list[threading.Thread] = []
        #: Threads that wait for a job; too many, once there are all threads.
        self._idle = threading.Semaphore(0)

    def open(self, ino: int) -> OpenFile | None:
        """The file of an inode; None where `read_later` must open it, because that may take long:
        nothing else would be answered. OSError as `Contents.open`."""
        file = self._kept.get(ino)
        # A local blob is opened here: handing it to a thread takes longer than opening it.
        if file is None and self._is_local:
            file = self._open(ino)
        return file

    def _open(self, ino: int) -> OpenFile:
        if len(self._kept) >= self._kept_max:
            self.let_go(1)
        try:
            file = self._contents.open(ino)
        except OSError as exc:
            if exc.errno not in (errno.EMFILE, errno.ENFILE) or not self._kept:
                raise
            self.let_go()
            file = self._contents.open(ino)
        self._kept[ino] = file
        return file

    def let_go(self, count: int | None = None) -> None:
        """Of those that are kept, the ones that were opened first, or all. From any thread."""
        for ino in list(itertools.islice(self._kept, count)):
            self._kept.pop(ino, None)

    def read_later(self, unique: int, file: OpenFile | int, offset: int, size: int) -> None:
        """Have a thread read, and reply. A number is an inode's that is to be opened first."""
        self._put((unique, file, offset, size))

    def _put(self, job: _Job) -> None:
        if not self._idle.acquire(blocking=False) and len(self._threads) < _THREADS:
            self._start_thread()
        self._jobs.put(job)

    def _start_thread(self) -> None:
        """RuntimeError if there is none at all, and there can be none."""
        thread = threading.Thread(
            target=self._run, args=(self._work,), name="castfs reads", daemon=True
        )
        try:
            thread.start()
        except RuntimeError:  # a limit of processes
            if not self._threads:
                raise
            return
        self._threads.append(thread)

    def _work(self) -> None:
        while (job := self._jobs.get()) is not None:
            unique, file, offset, size = job
            if isinstance(file, int):
                file = self._kept.get(file, file)
            if isinstance(file, OpenFile) and file.trusted:
                self._reply(unique, self._read(file, offset, size))
            elif self._is_first(file, job):
                self._reply(unique, self._read(file, offset, size))
                self._begin_others(file)
            del job, file
            self._idle.release()

    def _is_first(self, file: OpenFile | int, job: _Job) -> bool:
        """A blob may have to be hashed, or opened far away. Others who want it wait for that
        without a thread: one large file would have them all."""
        key = file if isinstance(file, int) else file.digest
        with self._guard:
            if key in self._others:
                self._others[key].append(job)
                return False
            self._others[key] = []
            return True

    def _begin_others(self, file: OpenFile | int) -> None:
        key = file if isinstance(file, int) else file.digest
        with self._guard:
            others = self._others.pop(key)
        for job in others if not self._closed else ():
            self._put(job)

    def _read(self, file: OpenFile | int, offset: int, size: int) -> bytes | bytearray | int:
        ino = _ino_of(file)
        try:
            if isinstance(file, int):
                file = self._kept.get(ino) or self._open(ino)
            return self._contents.read(file, offset, size)
        except Exception as exc:  # as in the lane: there must be a reply
            if not is_expected(exc):
                log.exception("a read failed")
            # It is opened again next time: somebody may have healed the blob.
            self._kept.pop(ino, None)
            return -errno_of(exc)

    def close(self) -> bool:
        """No more reads: those that are under way end by themselves. Have all ended?"""
        self._closed = True
        for _ in self._threads:
            self._jobs.put(None)
        self._kept.clear()
        for thread in self._threads:
            thread.join(_END_SECONDS)
        return not any(thread.is_alive() for thread in self._threads)


def _ino_of(file: OpenFile | int) -> int:
    return file if isinstance(file, int) else file.ino
