"""Who reads: this thread at first, reader processes once there is enough to do.

Processes, not threads: reading small files is mostly short system calls, each of which gives up the
interpreter's lock and wants it back, and on two CPUs two threads spent more time handing it over
than reading (8,762 files: 30 futex calls a file, no gain over one thread).
"""

from __future__ import annotations

import contextlib
import select
import socket
import subprocess
import sys
from collections import deque
from collections.abc import Sequence
from dataclasses import dataclass, field

import msgspec

from castfs import settings
from castfs.errors import StoreError
from castfs.ingest.reader import read_names
from castfs.ingest.sink import HashSink, Sink, StoreSink
from castfs.ingest.wire import Answer, Failure, Job, Refusal, Setup, Taken, receive, send
from castfs.store import WriteSession

#: Files and bytes that this thread reads itself before it calls for help: starting a reader costs
#: about 80 ms, in which 1,500 small files or 100 MB are read here.
_ALONE_FILES = 1500
_ALONE_BYTES = 100_000_000
#: Jobs that wait at one reader: enough that it is never idle, few enough to fit in the socket.
_QUEUE = 3

#: Ctrl-C reaches the whole process group; the ingest itself decides what it means. Not `-m`: this
#: module has imported the reader itself, and runpy warns of that.
_START = (
    "import signal; signal.signal(signal.SIGINT, signal.SIG_IGN); "
    "from castfs.ingest.reader import main; main()"
)

#: What became of a job: its ticket, and an item for each name.
Done = tuple[int, list[Taken | Refusal]]


@dataclass
class _Reader:
    process: subprocess.Popen[bytes]
    sock: socket.socket
    tickets: deque[int] = field(default_factory=deque)


class Readers:
    """A context manager. `submit` a directory's files, `collect` what is done; in one thread."""

    def __init__(self, session: WriteSession | None, *, xattrs: bool, count: int) -> None:
        """`session` None: files are only hashed. `count` 1: everything is read in this thread."""
        self._setup = Setup(session.params if session else None, xattrs)
        self._sink: Sink = StoreSink(session.staging) if session else HashSink()
        self._count = count if count > 1 else 0
        self._readers: list[_Reader] = []
        self._done: list[Done] = []
        self._files_alone = 0
        self._bytes_alone = 0
        self._decoder = msgspec.msgpack.Decoder(Answer)
        self._poll = select.poll()
        self._by_fd: dict[int, _Reader] = {}

    def __enter__(self) -> Readers:
        return self

    def __exit__(self, *_: object) -> None:
        for reader in self._readers:
            reader.sock.close()
        for reader in self._readers:
            with contextlib.suppress(subprocess.TimeoutExpired):
                reader.process.wait(timeout=5)
                continue
            reader.process.kill()
            reader.process.wait()

    def submit(self, ticket: int, dir_fd: int, names: Sequence[bytes], size: int) -> None:
        """Read `names`, about `size` bytes, in directory `dir_fd`, which stays the caller's."""
        if not self._readers and self._has_enough(len(names), size):
            self._start()
        if not self._readers:
            items = read_names(dir_fd, names, self._sink, xattrs=self._setup.xattrs)
            self._done.append((ticket, items))
            return
        reader = min(self._readers, key=lambda reader: len(reader.tickets))
        while len(reader.tickets) >= _QUEUE:
            self._receive(timeout=None)
            reader = min(self._readers, key=lambda reader: len(reader.tickets))
        self._send(reader, Job(list(names)), (dir_fd,))
        reader.tickets.append(ticket)

    def collect(self, *, wait: bool = False) -> list[Done]:
        """What is done by now; with `wait`, everything that was submitted."""
        self._receive(timeout=0)
        while wait and any(reader.tickets for reader in self._readers):
            self._receive(timeout=None)
        done, self._done = self._done, []
        return done

    def _has_enough(self, files: int, size: int) -> bool:
        self._files_alone += files
        self._bytes_alone += size
        return self._count > 0 and (
            self._files_alone > _ALONE_FILES or self._bytes_alone > _ALONE_BYTES
        )

    def _start(self) -> None:
        for _ in range(self._count):
            ours, theirs = socket.socketpair()
            with theirs, contextlib.ExitStack() as stack:
                stack.callback(ours.close)
                # -P: the caller's directory may be the very one that is ingested, and nothing in it
                # is to be imported.
                process = subprocess.Popen(
                    [sys.executable, "-P", "-c", _START, str(theirs.fileno())],
                    pass_fds=(theirs.fileno(),),
                    stdin=subprocess.DEVNULL,
                    stdout=subprocess.DEVNULL,
                    env=settings.interpreter_environment(),
                    # Ctrl-C is for us: one that is still being loaded would print a traceback.
                    process_group=0,
                )
                stack.pop_all()
            reader = _Reader(process, ours)
            self._readers.append(reader)
            self._by_fd[ours.fileno()] = reader
            self._poll.register(ours, select.POLLIN)
            self._send(reader, self._setup)

    def _send(self, reader: _Reader, message: Setup | Job, fds: tuple[int, ...] = ()) -> None:
        try:
            send(reader.sock, message, fds)
        except ConnectionError as exc:
            raise self._died(reader) from exc

    def _receive(self, timeout: int | None) -> None:
        if not self._readers:
            return
        for fd, _ in self._poll.poll(timeout):
            reader = self._by_fd[fd]
            try:
                data, _ = receive(reader.sock)
            except (EOFError, ConnectionError) as exc:
                raise self._died(reader) from exc
            answer = self._decoder.decode(data)
            if answer.failure is not None:
                _raise(answer.failure)
            self._done.append((reader.tickets.popleft(), answer.items))

    def _died(self, reader: _Reader) -> StoreError:
        code = reader.process.wait()
        return StoreError(
            f"a reader process ended with status {code}; nothing was stored",
            hint="was it killed, for want of memory perhaps? CASTFS_THREADS=1 does without",
        )


def _raise(failure: Failure) -> None:
    if failure.errno:
        raise OSError(failure.errno, failure.message)
    raise StoreError(failure.message, hint=failure.hint)
