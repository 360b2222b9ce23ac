"""`castfs mount SNAPSHOT DIRECTORY -- COMMAND`: a mount that lives as long as a command."""

from __future__ import annotations

import contextlib
import logging
import os
import signal
from collections.abc import Callable, Sequence

from castfs import settings
from castfs.errors import MountBusyError, NotFoundError, UsageError
from castfs.mount import registry
from castfs.mount.launching import start_mount, stop_process
from castfs.mount.request import MountRequest, MountStatus
from castfs.mount.unmounting import unmount

log = logging.getLogger("castfs.mount")

_FORWARDED = (signal.SIGINT, signal.SIGTERM, signal.SIGHUP, signal.SIGQUIT)
#: What Python ignores, and its children are not to (as subprocess's restore_signals).
_IGNORED = (signal.SIGPIPE, signal.SIGXFSZ)
#: siginfo_t.si_code of a signal that a terminal sent, to the command as well (sigaction(2)).
_SI_KERNEL = 0x80
#: What a shell returns for a command that it does not find, or cannot execute.
_NOT_FOUND, _NOT_EXECUTABLE = 127, 126


def run_in_mount(
    request: MountRequest,
    argv: Sequence[str],
    *,
    on_ready: Callable[[MountStatus], None] = lambda status: None,
) -> int:
    """Mount, run `argv` in the current directory, unmount; the command's exit status as a shell
    gives it (128 + n for signal n, 127 not found, 126 not executable).

    The command finds the mount point in $CASTFS_MOUNT. Signals that are sent to this process are
    passed on to it. What is still in use afterwards is unmounted lazily. Main thread only.
    """
    if not argv:
        raise UsageError("there is no command to run", hint="give one after `--`")
    mounted: list[MountStatus] = []

    def ready(status: MountStatus) -> None:
        mounted.append(status)
        on_ready(status)

    # A signal may come between any two steps.
    try:
        return _run(argv, start_mount(request, on_ready=ready))
    finally:
        for status in mounted:
            _end(status, request)


def _run(argv: Sequence[str], status: MountStatus) -> int:
    environment = settings.child_environment(CASTFS_MOUNT=str(status.mountpoint))
    waited = {*_FORWARDED, signal.SIGCHLD}
    before = signal.pthread_sigmask(signal.SIG_BLOCK, waited)
    try:
        try:
            pid = os.posix_spawnp(
                argv[0], list(argv), environment, setsigmask=before, setsigdef=_IGNORED
            )
        except ValueError:
            log.error("castfs: the command has no name")
            return _NOT_FOUND
        except OSError as exc:
            log.error("castfs: cannot run %s: %s", argv[0], exc.strerror)
            return _NOT_FOUND if isinstance(exc, FileNotFoundError) else _NOT_EXECUTABLE
        return _wait(pid, waited)
    finally:
        signal.pthread_sigmask(signal.SIG_SETMASK, before)


def _wait(pid: int, signals: set[signal.Signals]) -> int:
    while True:
        done, result = os.waitpid(pid, os.WNOHANG)
        if done:
            code = os.waitstatus_to_exitcode(result)
            return code if code >= 0 else 128 - code
        info = signal.sigwaitinfo(signals)
        if info.si_signo != signal.SIGCHLD and info.si_code != _SI_KERNEL:
            os.kill(pid, info.si_signo)


def _end(status: MountStatus, request: MountRequest) -> None:
    try:
        unmount(status.mountpoint)
    except MountBusyError:
        with contextlib.suppress(NotFoundError):
            unmount(status.mountpoint, lazy=True)
    except NotFoundError:
        # Unmounted by the command itself, or moved with the directory that it is in: then its
        # process knows where to.
        if registry.is_alive(status):
            stop_process(status.pid, request)
