"""Operations in other processes, one step at a time. stepping.py is the program behind it."""

from __future__ import annotations

import itertools
import json
import os
import select
import signal
import socket
import subprocess
import sys
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from tests.store.processes import ROOT, python_environment

_MESSAGE_MAX = 1 << 17
#: Far above what any step takes.
_PATIENCE = 60.0


@dataclass(eq=False)
class Operation:
    """One that goes on when it is told to, and what is known of it."""

    number: int
    kind: str
    arguments: dict[str, Any]
    channel: socket.socket
    #: By the clock of files: before it began, and after it had looked at that clock itself.
    began_ns: int
    latest_ns: int = 0
    #: Records that it may move or delete, or the one that it has made.
    ids: list[str] = field(default_factory=list)
    #: What it ingests or reads: path → content.
    tree: dict[str, bytes] = field(default_factory=dict)
    manifest: str = ""
    #: What a writer counts on: digests, and a whole manifest.
    relied: set[str] = field(default_factory=set)
    parent: str | None = None
    #: Of `relied`, what was known at the last look.
    seen: set[str] = field(default_factory=set)
    is_pinned: bool = False
    #: Told to let go of everything.
    is_ending: bool = False
    #: Others moved some of `ids`, or there was nothing to keep at some moment.
    is_overtaken: bool = False
    saw_no_roots: bool = False
    #: Another collector was at work.
    is_hindered: bool = False
    #: What a collector has deleted so far.
    gone: set[str] = field(default_factory=set)
    expired: set[str] = field(default_factory=set)
    #: The last that it said.
    message: dict[str, Any] = field(default_factory=dict)
    _process: int = -1

    def __repr__(self) -> str:
        return f"{self.kind} {self.number}"

    @property
    def deletes(self) -> bool:
        return self.kind == "gc" and not self.arguments["dry_run"]

    @property
    def outcome(self) -> tuple[Any, ...]:
        return tuple(map(self.message.get, ("result", "error", "message")))

    @property
    def is_over(self) -> bool:
        return "at" not in self.message

    def say(self, word: str) -> None:
        self.channel.send(word.encode())

    def hear(self) -> None:
        """Returns when it has stopped, or is over."""
        self.message = json.loads(self.channel.recv(_MESSAGE_MAX) or b'{"error": "bug"}')
        assert self.message.get("error") != "bug", self.message.get("message", "it died")
        if self._process < 0 and not self.is_over:
            self._process = os.pidfd_open(self.message["pid"])
        self.relied = set(self.message["relied"])
        self.parent = self.message["parent"]
        self.is_pinned = self.message.get("at") == "pinned"
        if self.is_over:
            self.close()

    def kill(self) -> None:
        """Returns when its locks are free."""
        signal.pidfd_send_signal(self._process, signal.SIGKILL)
        poll = select.poll()
        poll.register(self._process, select.POLLIN)
        assert poll.poll(_PATIENCE * 1000)
        self.close()

    def close(self) -> None:
        """It ends by itself at its next stop."""
        self.channel.close()
        if self._process >= 0:
            os.close(self._process)
            self._process = -1


class Operations:
    """Starts them. A context manager."""

    def __init__(self) -> None:
        self._numbers = itertools.count(1)
        self._control, theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
        program = Path(__file__).with_name("stepping.py")
        with theirs:
            self._process = subprocess.Popen(
                [sys.executable, "-P", program, str(theirs.fileno())],
                env=python_environment(),
                pass_fds=[theirs.fileno()],
                cwd=ROOT,
            )

    def __enter__(self) -> Operations:
        return self

    def __exit__(self, *_: object) -> None:
        self._control.close()
        assert self._process.wait(_PATIENCE) == 0

    def start(
        self,
        kind: str,
        store: Path,
        *,
        began_ns: int,
        clock: int = 0,
        inline: int = 64,
        **arguments: Any,
    ) -> Operation:
        """`hear` it next. `clock`: what the machine's clock is off by, in seconds."""
        number = next(self._numbers)
        request = {
            "number": number,
            "kind": kind,
            "store": str(store),
            "clock": clock,
            "inline": inline,
            "arguments": arguments,
        }
        ours, theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
        with theirs:
            ours.settimeout(_PATIENCE)
            socket.send_fds(self._control, [json.dumps(request).encode()], [theirs.fileno()])
        return Operation(number, kind, arguments, ours, began_ns)
