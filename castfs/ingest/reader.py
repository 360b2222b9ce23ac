"""A reader process. Reads, hashes and stages what it is told.

It ends when its socket does, so it cannot outlive the ingest that started it by more than one file.
"""

from __future__ import annotations

import contextlib
import errno
import os
import socket
import sys
from collections.abc import Iterable

import msgspec

from castfs.errors import CastfsError
from castfs.ingest.reading import Unreadable, take_file
from castfs.ingest.sink import HashSink, Sink, StoreSink
from castfs.ingest.wire import Answer, Failure, Job, Refusal, Setup, Taken, receive, send
from castfs.store import Staging


def read_names(
    dir_fd: int, names: Iterable[bytes], sink: Sink, *, xattrs: bool
) -> list[Taken | Refusal]:
    """One item for each name. OSError and StoreError are the store's."""
    items: list[Taken | Refusal] = []
    for name in names:
        try:
            items.append(Taken(take_file(dir_fd, name, sink, xattrs=xattrs)))
        except Unreadable as exc:
            items.append(Refusal(exc.reason, exc.vanished))
    return items


def serve(sock: socket.socket) -> None:
    """Answer jobs until the other side closes."""
    decoder = msgspec.msgpack.Decoder(Job)
    setup = msgspec.msgpack.decode(receive(sock)[0], type=Setup)
    sink: Sink | None = None if setup.staging else HashSink()
    while True:
        data, dir_fd = receive(sock, with_fd=True)
        try:
            if dir_fd is None:
                raise OSError(errno.EMFILE, os.strerror(errno.EMFILE))
            if sink is None and setup.staging:
                sink = StoreSink(Staging.attach(setup.staging))
            assert sink is not None
            job = decoder.decode(data)
            answer = Answer(read_names(dir_fd, job.names, sink, xattrs=setup.xattrs))
        except OSError as exc:
            answer = Answer([], Failure(exc.errno or errno.EIO, exc.strerror or str(exc), None))
        except CastfsError as exc:
            answer = Answer([], Failure(0, exc.message, exc.hint))
        finally:
            if dir_fd is not None:
                os.close(dir_fd)
        send(sock, answer)


def main() -> None:
    """`argv[1]` is the number of the inherited socket."""
    with (
        socket.socket(fileno=int(sys.argv[1])) as sock,
        contextlib.suppress(EOFError, ConnectionError),
    ):
        serve(sock)
