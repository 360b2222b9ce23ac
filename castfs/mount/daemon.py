"""The background process: takes a request from one pipe and tells on another how it went.

Each message is one line of JSON with one key: `pid`, then `ready` (a MountStatus) or `error`.
"""

from __future__ import annotations

import contextlib
import gc
import json
import logging
import os
import signal
import sys
import traceback
from typing import Any

from castfs import errors
from castfs.errors import CastfsError, MountError
from castfs.mount.request import MountRequest, MountStatus


def main(request_fd: int, ready_fd: int) -> int:
    """Exit status 0 after a mount that ended as it should."""
    for fd in (request_fd, ready_fd):
        os.set_inheritable(fd, False)
    with open(request_fd, "rb") as pipe:
        raw = pipe.read()
    if not raw:
        return 1  # whoever asked for it was killed before saying for what
    request = MountRequest.decode(raw)
    os.chdir("/")
    for number in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP):
        signal.signal(number, _exit)
    logging.basicConfig(
        level=logging.INFO, format="%(asctime)s %(levelname)s %(name)s: %(message)s"
    )
    channel = _Channel(ready_fd)
    try:
        channel.send(pid=os.getpid())
        from castfs.mount.serving import serve

        serve(request, channel.tell_ready)
    except Exception as exc:  # whoever asked for the mount is told, and prints the line
        if not isinstance(exc, CastfsError):
            traceback.print_exc()
        else:
            logging.getLogger("castfs.mount").error("%s", exc)
        for number in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP):
            # Whoever is told ends this process, which is on its way out.
            signal.signal(number, signal.SIG_IGN)
        channel.tell_error(exc)
        return getattr(exc, "exit_code", 1)
    return 0


def _exit(number: int, _frame: object) -> None:
    """Before there is a mount: give up pin and entry on the way out."""
    sys.exit(128 + number)


class _Channel:
    """The pipe to whoever waits for the mount."""

    def __init__(self, fd: int) -> None:
        self._fd = fd

    def send(self, **message: Any) -> None:
        """MountError, which ends the mount, if nobody waits any more."""
        try:
            os.write(self._fd, json.dumps(message).encode() + b"\n")
        except BrokenPipeError:
            raise MountError("whoever asked for this mount has gone") from None

    def tell_ready(self, status: MountStatus) -> None:
        # What exists now stays for the life of the mount: the collector need never look at it.
        gc.freeze()
        self.send(ready=json.loads(status.encode()))
        self.close()

    def tell_error(self, exc: Exception) -> None:
        if self._fd >= 0:
            with contextlib.suppress(MountError):
                self.send(error=encode_error(exc))
            self.close()

    def close(self) -> None:
        os.close(self._fd)
        self._fd = -1


def encode_error(exc: Exception) -> dict[str, Any]:
    """An exception as JSON."""
    if not isinstance(exc, CastfsError):
        text = "".join(traceback.format_exception_only(exc)).strip().splitlines()[-1]
        return {"kind": None, "fields": {"message": f"the mount process failed: {text}"}}
    fields = {key: value for key, value in vars(exc).items() if isinstance(value, str | None)}
    return {"kind": type(exc).__name__, "fields": fields}


def decode_error(values: dict[str, Any]) -> CastfsError:
    """The exception again, of the class that it had; a MountError for what was a bug."""
    kind = getattr(errors, values["kind"]) if values["kind"] else MountError
    exc: CastfsError = kind.__new__(kind)
    CastfsError.__init__(exc, values["fields"]["message"], hint=values["fields"].get("hint"))
    vars(exc).update(values["fields"])
    return exc
