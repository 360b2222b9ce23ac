"""The process that serves a mount: from a request to the end of the mount.

Only this module and `operations` import pyfuse3 and trio, which takes 170 ms; whoever launches a
mount imports neither.
"""

from __future__ import annotations

import contextlib
import fcntl
import logging
import os
import resource
import signal
import tempfile
import time
from collections.abc import AsyncIterator, Callable, Iterator, Sequence
from dataclasses import replace
from pathlib import Path

import pyfuse3
import trio

from castfs.errors import MountError
from castfs.lane import FastLane, device_descriptors, intercept, passthrough_pays
from castfs.mount import registry
from castfs.mount.guard import Guard, guarded
from castfs.mount.loading import Loaded, loaded
from castfs.mount.mountinfo import FILESYSTEM_TYPE, SOURCE_PREFIX, find_mount, read_mounts
from castfs.mount.operations import make_operations
from castfs.mount.options import MountOptions
from castfs.mount.request import MountRequest, MountStatus
from castfs.mount.unmounting import detach, detach_dead
from castfs.mount.wording import shown

log = logging.getLogger("castfs.mount")

#: How often pin and index are told that we live; they write when their own intervals have passed.
BEAT_SECONDS = 60.0
#: How long a fresh mount may take to answer its own process.
ANSWER_SECONDS = 10.0
#: How long requests in flight may take after a signal, before they are given up with the mount.
GRACE_SECONDS = 5.0
#: Requests that are served at once; the kernel itself sends at most 12 read-aheads besides those
#: that processes wait for (FUSE_DEFAULT_MAX_BACKGROUND).
MAX_TASKS = 256
#: Doubles sequential first reads; the kernel's default for FUSE is 128 (needs root).
READ_AHEAD_KB = 1024

_SIGNALS = (signal.SIGINT, signal.SIGTERM, signal.SIGHUP, signal.SIGQUIT)


def serve(request: MountRequest, on_ready: Callable[[MountStatus], None]) -> MountStatus:
    """Mount, call `on_ready` once the mount answers, and return when the mount has ended.

    It ends by SIGINT, SIGTERM, SIGHUP, SIGQUIT or an unmount from outside. Runs in the main thread,
    because signals do. The mount point has been prepared (`preflight`). After an error nothing is
    mounted.
    """
    status = _describe(request)
    warnings: list[str] = []
    # The entry outlives the pin: whoever waits for the entry's lock finds the pin gone.
    with (
        _many_descriptors(),
        registry.entered(status),
        loaded(request) as snapshot,
        guarded(request) as guard,
    ):
        if snapshot.pin is not None and not snapshot.pin.protected:
            warnings.append(_unprotected(request))
        server = _Server(
            request,
            snapshot,
            guard,
            lambda more: on_ready(replace(status, warnings=(*warnings, *more))),
        )
        trio.run(server.run)
        guard.end()
        if server.failure is not None:
            raise server.failure
    return status


class _Server:
    """One mount from its beginning to its end. `failure` is what ended it, if not a wish."""

    def __init__(
        self,
        request: MountRequest,
        snapshot: Loaded,
        guard: Guard,
        on_ready: Callable[[Sequence[str]], None],
    ) -> None:
        self.failure: Exception | None = None
        self._request = request
        self._snapshot = snapshot
        self._guard = guard
        self._on_ready = on_ready
        self._device: tuple[int, int] | None = None
        #: Was it told to end, rather than unmounted from outside?
        self._told = False
        self._closed = False
        self._lane: FastLane | None = None
        self._warnings: list[str] = []

    async def run(self) -> None:
        # Signals are caught before there is a mount that they could leave behind.
        # What is ignored (nohup) stays so.
        caught = [each for each in _SIGNALS if signal.getsignal(each) is not signal.SIG_IGN]
        with trio.open_signal_receiver(*caught) as signals:
            operations = make_operations(self._snapshot.view, self._snapshot.contents)
            before = device_descriptors()
            try:
                _init(operations, self._request)
            except MountError as exc:
                self.failure = exc
                return
            try:
                if self._request.fast_lane:
                    self._start_lane(before)
                async with trio.open_nursery() as nursery:
                    scope = nursery.cancel_scope
                    nursery.start_soon(self._answer_requests, scope)
                    nursery.start_soon(self._make_ready, scope)
                    nursery.start_soon(self._end_on_signal, signals, scope)
                    nursery.start_soon(_beat, self._snapshot.beat)
            finally:
                self._close()

    def _start_lane(self, before: set[int]) -> None:
        token = trio.lowlevel.current_trio_token()

        def on_end(failure: Exception | None) -> None:
            with contextlib.suppress(trio.RunFinishedError):
                token.run_sync_soon(self._end, failure)

        limit, _ = resource.getrlimit(resource.RLIMIT_NOFILE)
        view, contents = self._snapshot.view, self._snapshot.contents
        try:
            with contextlib.ExitStack() as stack:
                wires = intercept(before)
                stack.callback(wires.restore)
                lane = FastLane(
                    wires,
                    view,
                    contents,
                    on_end,
                    descriptors=limit,
                    passthrough=_wants_passthrough(self._request.options, self._snapshot),
                )
                stack.pop_all()
                stack.callback(lane.stop)
                lane.start()
                stack.pop_all()
        except (MountError, OSError, RuntimeError, MemoryError) as exc:
            self._warnings.append(f"without the fast lane, so reads are slower: {exc}")
            log.warning("%s", self._warnings[-1])
            return
        self._lane = lane

    def _end(self, failure: Exception | None) -> None:
        """The lane serves no more."""
        if self._closed:
            return  # it saw what `_close` did, and libfuse's session is gone
        if failure is not None:
            self.failure = failure
            self._told = True
        pyfuse3.terminate()

    async def _answer_requests(self, scope: trio.CancelScope) -> None:
        try:
            await pyfuse3.main(max_tasks=MAX_TASKS)
        except Exception as exc:  # whatever it is, the mount is taken down in order
            log.exception("the mount ends")
            self.failure = MountError(f"the mount has failed: {exc}")
        scope.cancel()

    async def _make_ready(self, scope: trio.CancelScope) -> None:
        path = self._request.mountpoint
        try:
            with trio.fail_after(ANSWER_SECONDS):
                status = await trio.to_thread.run_sync(os.stat, path, abandon_on_cancel=True)
            self._device = os.major(status.st_dev), os.minor(status.st_dev)
            self._guard.tell_device(self._device)
            _raise_read_ahead(self._device)
            self._warn_of_passthrough()
            log.info("mounted %s at %s", self._request.manifest_id, shown(path))
        except trio.TooSlowError:
            self.failure = MountError(f"the new mount at {shown(path)} does not answer")
        except OSError as exc:
            self.failure = MountError(f"the new mount at {shown(path)} fails: {exc.strerror}")
        else:
            try:
                self._on_ready(self._warnings)
            except Exception as exc:  # the caller's own: it is raised again when the mount is gone
                self.failure = exc
        if self.failure is not None:
            scope.cancel()

    def _warn_of_passthrough(self) -> None:
        if self._request.options.passthrough and not (self._lane and self._lane.passes_through):
            self._warnings.append(
                "without passthrough, which takes root, Linux 6.9, a store on a local disk, "
                "the fast lane, and no `verify`"
            )
            log.warning("%s", self._warnings[-1])

    async def _end_on_signal(self, signals: AsyncIterator[int], scope: trio.CancelScope) -> None:
        async for number in signals:
            log.info("ending by signal %d", number)
            self._told = True
            pyfuse3.terminate()
            await trio.sleep(GRACE_SECONDS)
            scope.cancel()

    def _close(self) -> None:
        """Unmount unless that has happened: never what lies beneath, or was mounted there since."""
        self._closed = True
        if self._lane is not None:
            self._lane.let_go()
        mounted = find_mount(self._request.mountpoint)
        ours = (
            mounted is not None
            and mounted.is_castfs
            and mounted.manifest_id == self._request.manifest_id
            and self._device in (None, mounted.device)
        )
        if not ours and self._told:
            self._unmount_elsewhere()
        if self._lane is not None and not self._lane.stop() and ours:
            with contextlib.suppress(MountError):
                detach_dead(self._request.mountpoint)
                ours = False
        pyfuse3.close(unmount=ours)
        log.info("unmounted %s", shown(self._request.mountpoint))

    def _unmount_elsewhere(self) -> None:
        """The directory above the mount point may have been renamed.

        Only while the mount is there: later its device number may be another's.
        """
        for mounted in read_mounts():
            top = find_mount(mounted.mountpoint)
            same = mounted.device == self._device and mounted.is_castfs
            # What was mounted over it since is somebody else's, and would go instead.
            if same and top is not None and top.device == self._device:
                with contextlib.suppress(MountError):
                    detach(mounted.mountpoint, lazy=True)


def _wants_passthrough(options: MountOptions, snapshot: Loaded) -> bool:
    # Elsewhere opening a blob may take long, and nothing else would be answered meanwhile.
    if options.verify or os.geteuid() != 0 or not snapshot.contents.is_local:
        return False
    return (
        passthrough_pays(snapshot.view.index)
        if options.passthrough is None
        else options.passthrough
    )


async def _beat(beat: Callable[[], None]) -> None:
    while True:
        await trio.sleep(BEAT_SECONDS)
        try:
            await trio.to_thread.run_sync(beat, abandon_on_cancel=True)
        except OSError as exc:
            log.warning("cannot show the store that this mount is in use: %s", exc)


def _init(operations: pyfuse3.Operations, request: MountRequest) -> None:
    options = {
        "default_permissions",
        f"fsname={SOURCE_PREFIX}{request.manifest_id}",
        f"subtype={FILESYSTEM_TYPE.removeprefix('fuse.')}",
        *request.options.flags(),
    }
    if request.options.is_shared(os.geteuid()):
        options.add("allow_other")
    with tempfile.TemporaryFile() as said:
        try:
            with _stderr_into(said.fileno()):
                pyfuse3.init(operations, str(request.mountpoint), options)
        except RuntimeError as exc:
            said.seek(0)
            raise _explain(said.read().decode(errors="replace"), request.mountpoint) from exc


@contextlib.contextmanager
def _stderr_into(fd: int) -> Iterator[None]:
    """libfuse and fusermount3 write the reason of a failure there, and return none."""
    try:
        saved = fcntl.fcntl(2, fcntl.F_DUPFD_CLOEXEC, 3)
    except OSError:  # somebody closed it (2>&-)
        saved = os.open(os.devnull, os.O_WRONLY | os.O_CLOEXEC)
    os.dup2(fd, 2)
    try:
        yield
    finally:
        os.dup2(saved, 2)
        os.close(saved)


def _explain(said: str, mountpoint: Path) -> MountError:
    lines = [line.strip() for line in said.splitlines() if line.strip()]
    reason = lines[-1] if lines else "libfuse gives no reason"
    hint = None
    if "Operation not permitted" in reason:
        hint = (
            "in a container: start it with `--device /dev/fuse --cap-add SYS_ADMIN`; "
            "else: is fusermount3 installed set-uid root?"
        )
    elif "user_allow_other" in reason:
        hint = "leave allow_other away, or have root add that line"
    elif "too many FUSE filesystems" in reason:
        hint = "unmount some, or raise mount_max in /etc/fuse.conf"
    return MountError(f"cannot mount at {shown(mountpoint)}: {reason}", hint=hint)


def _describe(request: MountRequest) -> MountStatus:
    options = replace(request.options, allow_other=request.options.is_shared(os.geteuid()))
    return MountStatus(
        mountpoint=request.mountpoint,
        manifest_id=request.manifest_id,
        record_id=request.record_id,
        label=request.label or None,
        since=time.time(),
        pid=os.getpid(),
        store=request.store,
        options=str(options),
        log=registry.log_path(request.mountpoint),
    )


def _unprotected(request: MountRequest) -> str:
    return (
        f"this mount is not protected from a collector: the store {request.store} can neither "
        "be written nor locked"
    )


@contextlib.contextmanager
def _many_descriptors() -> Iterator[None]:
    """Every open file holds its blob's descriptor; the usual soft limit is 1,024. The program that
    mounts in the foreground has its own back afterwards."""
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    with contextlib.suppress(OSError, ValueError):
        resource.setrlimit(resource.RLIMIT_NOFILE, (hard, hard))
    try:
        yield
    finally:
        with contextlib.suppress(OSError, ValueError):
            resource.setrlimit(resource.RLIMIT_NOFILE, (soft, hard))


def _raise_read_ahead(device: tuple[int, int]) -> None:
    with contextlib.suppress(OSError):
        Path(f"/sys/class/bdi/{device[0]}:{device[1]}/read_ahead_kb").write_text(f"{READ_AHEAD_KB}")
