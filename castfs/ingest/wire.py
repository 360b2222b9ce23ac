"""How an ingest and its reader processes talk: length-prefixed msgpack over a socket pair.

A job names files of one directory, whose descriptor travels with it (so paths may be of any length
and no symlink can get between). The answer has one item for each name.
"""

from __future__ import annotations

import socket

import msgspec

from castfs.ingest.reading import TakenFile
from castfs.store import StagingParams


class Setup(msgspec.Struct, frozen=True):
    """The first message. Without `staging` files are only hashed."""

    staging: StagingParams | None
    xattrs: bool


class Job(msgspec.Struct, frozen=True):
    names: list[bytes]


class Refusal(msgspec.Struct, frozen=True, tag=True):
    """A file that cannot be taken."""

    reason: str
    vanished: bool


class Taken(msgspec.Struct, frozen=True, tag=True):
    file: TakenFile


class Failure(msgspec.Struct, frozen=True, tag=True):
    """The store failed: the whole ingest ends. `errno` 0: `message` and `hint` are for the user."""

    errno: int
    message: str
    hint: str | None


class Answer(msgspec.Struct, frozen=True):
    items: list[Taken | Refusal]
    failure: Failure | None = None


_LENGTH = 4
encoder = msgspec.msgpack.Encoder()


def send(sock: socket.socket, message: msgspec.Struct, fds: tuple[int, ...] = ()) -> None:
    payload = encoder.encode(message)
    data = memoryview(len(payload).to_bytes(_LENGTH, "little") + payload)
    sent = socket.send_fds(sock, [data], list(fds)) if fds else sock.send(data)
    sock.sendall(data[sent:])


def receive(sock: socket.socket, *, with_fd: bool = False) -> tuple[bytearray, int | None]:
    """The next message's bytes, and the descriptor that came with it. EOFError at the end."""
    fds: list[int] = []
    if with_fd:
        head, fds, _, _ = socket.recv_fds(sock, _LENGTH, 1, socket.MSG_CMSG_CLOEXEC)
        data = bytearray(head)
    else:
        data = bytearray()
    _fill(sock, data, _LENGTH)
    length = int.from_bytes(data, "little")
    payload = bytearray()
    _fill(sock, payload, length)
    return payload, fds[0] if fds else None


def _fill(sock: socket.socket, data: bytearray, length: int) -> None:
    while len(data) < length:
        more = sock.recv(length - len(data))
        if not more:
            raise EOFError
        data += more
