"""A command that goes on: a round, a pause, until it is told to end."""

from __future__ import annotations

import contextlib
import os
import signal
import socket
import threading
from collections.abc import Callable, Iterator
from types import FrameType

from castfs.cli import output
from castfs.cli.process import describe_os_error
from castfs.errors import CastfsError


class _Stop(BaseException):
    """SIGTERM, SIGINT or SIGHUP. Raised where the round is, which is safe at any point."""


def run_rounds(round_: Callable[[], object], every_seconds: float) -> int:
    """A round at once and then one every so often. One that fails is reported; the next comes all
    the same. Ends with 0 when it is asked to."""
    done = threading.Event()
    with contextlib.suppress(_Stop), _stopped_by_signals():
        notify("READY=1")
        while True:
            try:
                round_()
                notify("STATUS=waiting for the next round")
            except BrokenPipeError:
                raise  # nobody reads what rounds print any more
            except (CastfsError, OSError) as exc:
                text = str(exc) if isinstance(exc, CastfsError) else describe_os_error(exc)
                output.note(f"castfs: {text}")
                notify(f"STATUS=the last round failed: {text}")
            done.wait(min(every_seconds, threading.TIMEOUT_MAX))
    notify("STOPPING=1")
    return 0


@contextlib.contextmanager
def _stopped_by_signals() -> Iterator[None]:
    def stop(number: int, frame: FrameType | None) -> None:
        for each in previous:
            signal.signal(each, signal.SIG_IGN)
        raise _Stop

    previous = {
        number: signal.signal(number, stop)
        for number in (signal.SIGTERM, signal.SIGINT, signal.SIGHUP)
    }
    try:
        yield
    finally:
        for number, handler in previous.items():
            signal.signal(number, handler)


def notify(text: str) -> None:
    """Tell the service manager that started us (sd_notify(3)), if one did."""
    path = os.environ.get("NOTIFY_SOCKET", "")
    if not path.startswith(("/", "@")):
        return
    # A leading @ stands for the NUL of Linux's abstract names.
    address = "\0" + path[1:] if path.startswith("@") else path
    with (
        contextlib.suppress(OSError),
        socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM | socket.SOCK_CLOEXEC) as sock,
    ):
        sock.sendto(output.one_line(text).encode(), address)
