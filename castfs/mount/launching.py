"""Starting a mount, in the background or here. Imports neither pyfuse3 nor trio."""

from __future__ import annotations

import contextlib
import json
import os
import select
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

from castfs.errors import MountError
from castfs.mount import registry
from castfs.mount.daemon import decode_error
from castfs.mount.mountinfo import find_mount
from castfs.mount.preflight import (
    check_blob_dir,
    check_device,
    check_free,
    check_privileges,
    prepare_mountpoint,
)
from castfs.mount.request import MountRequest, MountStatus
from castfs.mount.unmounting import detach_dead
from castfs.mount.wording import shown

#: How long a mount may take to be ready, in seconds: a million entries take about 10.
READY_SECONDS = 300.0
#: How long a process that is not wanted any more may take to unmount and end.
_STOP_SECONDS = 10.0
#: How long Python may take to start: 20 ms, more from a slow network filesystem.
_START_SECONDS = 60.0


def start_mount(
    request: MountRequest,
    *,
    foreground: bool = False,
    on_ready: Callable[[MountStatus], None] = lambda status: None,
    timeout: float = READY_SECONDS,
) -> MountStatus:
    """Mount a snapshot and return once it answers; `foreground`: once it has been unmounted.

    `on_ready` is called in either case when the mount answers. Errors of every kind come from here,
    one line each, and mean that nothing is mounted. In the foreground this must be the main thread:
    SIGINT, SIGTERM and SIGHUP end the mount, and the call returns as usual.
    """
    request = request.absolute()
    euid = os.geteuid()
    check_device()
    check_privileges(request.options, euid=euid)
    check_blob_dir(request.blob_dir)
    registry.ensure_directory()
    registry.remove_old_logs(time.time())
    mountpoint, warnings = prepare_mountpoint(request, euid=euid)
    request = replace(request, mountpoint=mountpoint)
    with contextlib.ExitStack() as stack:
        stack.enter_context(registry.starting(request.mountpoint))
        check_free(request.mountpoint)
        if not foreground:
            try:
                status = _start_daemon(request, timeout)
                status = replace(status, warnings=warnings + status.warnings)
                on_ready(status)
            except BaseException:
                # A signal may come at any moment, also after the mount was ready.
                _take_back(request)
                raise
            return status
        from castfs.mount.serving import serve

        def ready(status: MountStatus) -> None:
            stack.close()
            on_ready(replace(status, warnings=warnings + status.warnings))

        return serve(request, ready)


def _start_daemon(request: MountRequest, timeout: float) -> MountStatus:
    log_path = registry.log_path(request.mountpoint)
    request_read, request_write = os.pipe()
    ready_read, ready_write = os.pipe()
    with contextlib.ExitStack() as stack:
        stack.callback(os.close, ready_read)
        try:
            _spawn(request.mountpoint, log_path, request_read, ready_write)
            # A pipe holds 64 KiB, a request some thousand bytes: this does not wait.
            os.write(request_write, request.encode())
        finally:
            for fd in (request_read, request_write, ready_write):
                os.close(fd)
        return _wait_until_ready(request, log_path, ready_read, timeout)


def _spawn(mountpoint: Path, log_path: Path, request_fd: int, ready_fd: int) -> None:
    """Start the process, which detaches itself: what is waited for here is only its parent."""
    program = Path(__file__).with_name("__main__.py")
    command: list[str | Path] = [
        sys.executable,
        "-P",
        program,
        f"{request_fd}",
        f"{ready_fd}",
        mountpoint,
    ]
    flags = os.O_WRONLY | os.O_CREAT | os.O_TRUNC | os.O_APPEND | os.O_CLOEXEC
    log_fd = os.open(log_path, flags, 0o600)
    try:
        subprocess.run(
            command,
            stdin=subprocess.DEVNULL,
            stdout=subprocess.DEVNULL,
            stderr=log_fd,
            pass_fds=(request_fd, ready_fd),
            start_new_session=True,
            check=True,
            timeout=_START_SECONDS,
        )
    except (OSError, subprocess.SubprocessError) as exc:
        raise MountError(
            f"the mount process cannot be started: {exc}", hint=f"see {shown(log_path)}"
        ) from exc
    finally:
        os.close(log_fd)


def _wait_until_ready(
    request: MountRequest, log_path: Path, fd: int, timeout: float
) -> MountStatus:
    pid: int | None = None
    try:
        for message in _iter_messages(fd, time.monotonic() + timeout):
            pid = message.get("pid", pid)
            if "ready" in message:
                return MountStatus.decode(json.dumps(message["ready"]).encode())
            if "error" in message:
                error = decode_error(message["error"])
                error.hint = error.hint or f"see {shown(log_path)}"
                raise error
    except TimeoutError:
        stop_process(pid, request)
        raise MountError(
            f"the mount was not ready after {timeout:.0f} s", hint=f"see {shown(log_path)}"
        ) from None
    except BaseException:
        # An error of the daemon's own, and it has ended; or Ctrl-C here, and it must not go on.
        stop_process(pid, request)
        raise
    raise MountError("the mount process has died", hint=_last_line(log_path))


def _iter_messages(fd: int, deadline: float) -> Iterator[dict[str, Any]]:
    """The lines that arrive until the other end is closed. TimeoutError after `deadline`."""
    poll = select.poll()
    poll.register(fd, select.POLLIN)
    buffered = b""
    while True:
        if not poll.poll(max(0.0, deadline - time.monotonic()) * 1000):
            raise TimeoutError
        data = os.read(fd, 65536)
        if not data:
            return
        *lines, buffered = (buffered + data).split(b"\n")
        for line in lines:
            yield json.loads(line)


def _take_back(request: MountRequest) -> None:
    """End what serves the place, which nobody else can have taken meanwhile."""
    entry = registry.find_entry(request.mountpoint)
    if entry is not None and entry[1]:
        stop_process(entry[0].pid, request)


def stop_process(pid: int | None, request: MountRequest) -> None:
    """End a mount process that nobody waits for any more, and its mount with it."""
    if pid is None:
        return
    with contextlib.suppress(OSError):
        fd = os.pidfd_open(pid)
        try:
            poll = select.poll()
            poll.register(fd, select.POLLIN)
            for number in (signal.SIGTERM, signal.SIGKILL):
                signal.pidfd_send_signal(fd, number)
                if poll.poll(_STOP_SECONDS * 1000):
                    break
        finally:
            os.close(fd)
    mounted = find_mount(request.mountpoint)
    if mounted is not None and mounted.is_castfs and mounted.manifest_id == request.manifest_id:
        with contextlib.suppress(MountError):
            detach_dead(request.mountpoint)


def _last_line(log_path: Path) -> str:
    with contextlib.suppress(OSError):
        lines = log_path.read_text(errors="replace").strip().splitlines()
        if lines:
            return f"its last words: {lines[-1]}"
    return f"see {shown(log_path)}"
