"""The threads of the fast lane: every request of a mount comes by here, and every reply.

`_serve` reads requests from the device and answers most of them at once. What it does not know goes
through the socket to libfuse, whose replies `_copy` takes back. Reads that need a disk are replied
to by the threads of `Files`.

Each request gets exactly one reply. Whatever ends one of the threads ends the mount: readers of a
mount that nobody serves could not be killed.
"""

from __future__ import annotations

import contextlib
import errno
import logging
import os
import select
import threading
import time
from collections import deque
from collections.abc import Callable
from pathlib import Path

from castfs import fuse
from castfs.errors import MountError
from castfs.fuse import Opcode
from castfs.lane.ahead import ReadAhead
from castfs.lane.answers import Answers
from castfs.lane.files import Files
from castfs.lane.pace import Pace, has_spare_cpu
from castfs.lane.passthrough import Passthrough
from castfs.lane.storing import SIZE_MAX, Storing
from castfs.lane.wiring import Wires
from castfs.view import Contents, SnapshotView
from castfs.view.errnos import errno_of, is_expected

log = logging.getLogger("castfs.lane")

#: The largest request: 256 pages and their header (FUSE_MAX_MAX_PAGES of fs/fuse/fuse_i.h); the
#: device refuses to be read with less than it might send.
_REQUEST_MAX = (1 << 20) + (1 << 16)
#: Requests that libfuse has at once: their replies must never fill the socket, because libfuse
#: would wait with Python's lock in its hand.
_PASSED_ON_MAX = 32
#: Reading the device fails with these when a request was taken back; there will be others.
_GO_ON = (errno.EINTR, errno.ENOENT)
#: Reads of that many pages are asked for ahead; the kernel's default is 12.
_MAX_BACKGROUND = 64
_CONGESTION_THRESHOLD = 48
#: Blobs that are passed through may lie on a disk's own filesystem, not on a stacked one: so one
#: more can be stacked on this mount, as containers do.
_STACK_DEPTH = 1
#: How often a reader is looked at that got a signal while it waits, in milliseconds.
_LOOK_AGAIN_MS = 100

#: How long threads may take to end that wait for something outside.
_GRACE_SECONDS = 5.0

_HEADER_SIZE = fuse.IN_HEADER.size
_REPLY_SIZE = fuse.OUT_HEADER.size


class FastLane:
    """Serves from `start` on; `on_end` is called once, from a thread, when it does not any more.

    Its argument is what went wrong, None if the kernel has ended the connection.
    """

    def __init__(
        self,
        wires: Wires,
        view: SnapshotView,
        contents: Contents,
        on_end: Callable[[Exception | None], None],
        *,
        descriptors: int,
        passthrough: bool = False,
    ) -> None:
        """`descriptors` is how many the process may have; `passthrough` whether it is wanted."""
        self._wires = wires
        self._device = wires.device
        self._contents = contents
        self._on_end = on_end
        device, index = wires.device, view.index
        self._index = index
        self._passthrough = Passthrough(device, index, contents) if passthrough else None
        self._handlers = Answers(view, self._passthrough).handlers
        self._files = Files(
            contents,
            self._finish_read,
            self._run,
            descriptors=descriptors,
            is_local=contents.is_local,
        )
        self._pace = Pace(time.monotonic_ns, enabled=has_spare_cpu())
        self._buffer = memoryview(bytearray(_REQUEST_MAX))
        self._data = memoryview(bytearray(_REQUEST_MAX))
        #: Requests that a thread of `Files` has, with their processes; who takes one out replies.
        self._reading: dict[int, int] = {}
        #: Those of them that got a signal. The lane's thread alone.
        self._signalled: set[int] = set()
        self._looked = 0
        self._guard = threading.Lock()
        # Guarded by _guard, all three.
        self._passed_on = 0
        self._waiting: deque[bytes] = deque()
        self._ended = False
        self._offered = 0
        #: Set by `stop`: reads are answered at once with an error, and then nothing is.
        self._refusing = False
        self._stopping = False
        self._wake_read, self._wake_write = os.pipe2(os.O_CLOEXEC | os.O_NONBLOCK)
        self._threads = [
            threading.Thread(target=self._run, args=(work,), name=f"castfs {name}", daemon=True)
            for name, work in (("lane", self._serve), ("replies", self._copy))
        ]
        # Last: nobody would end its process if something else failed.
        self._storing = Storing(device, index, contents)
        self._ahead = ReadAhead(index, self._storing)

    def start(self) -> None:
        """RuntimeError if there can be no more threads; `stop` it then."""
        # The lane's last: what it has read from the device nobody else is told, INIT first of all.
        for thread in reversed(self._threads):
            thread.start()

    def stop(self) -> bool:
        """Serve no more, and give libfuse its device back; `on_end` is not called.

        False if something is stuck in the kernel with the device: the connection must be aborted.
        """
        with self._guard:
            self._ended = True
        # While requests are still answered: who stores ahead may wait for a page that a READ has,
        # and would keep the device open, which nothing but an abort ends then.
        self._refusing = True
        self._storing.end()
        deadline = time.monotonic() + _GRACE_SECONDS
        while self._storing.is_busy() and time.monotonic() < deadline:
            self._give_up_reads()
        self._storing.kill()
        self._give_up_reads()
        has_ended = not self._storing.is_busy()
        self._stopping = True
        os.write(self._wake_write, b"x")
        lane, copier = self._threads
        if lane.ident is not None:
            lane.join(_GRACE_SECONDS)  # it may wait for a store that hangs
        self._wires.restore()
        if copier.ident is not None:
            copier.join(_GRACE_SECONDS)
        self._wires.socket.close()
        os.close(self._wake_write)
        if not lane.is_alive():
            os.close(self._wake_read)
            self._storing.close()
            if self._files.close():
                self._wires.close_device()
        return has_ended

    @property
    def passes_through(self) -> bool:
        """Does the kernel read large files itself? Known once the mount has answered."""
        return self._passthrough is not None and self._passthrough.offered

    def let_go(self) -> None:
        """Close the blobs that are kept open: somebody else needs descriptors."""
        self._files.let_go()

    def _give_up_reads(self) -> None:
        for unique in list(self._reading):
            if self._reading.pop(unique, None) is not None:
                self._reply(unique, -errno.EIO)

    def _run(self, work: Callable[[], None]) -> None:
        failure: Exception | None = None
        try:
            work()
        except BaseException as exc:
            log.exception("the fast lane has failed")
            failure = MountError(f"the fast lane has failed: {exc}")
        with self._guard:
            if self._ended:
                return
            self._ended = True
        self._stopping = True
        self._on_end(failure)

    # Requests ----------------------------------------------------------------------------------

    def _serve(self) -> None:
        device, buffer, pace = self._device, self._buffer, self._pace
        poll = select.poll()
        poll.register(device, select.POLLIN)
        poll.register(self._wake_read, select.POLLIN)
        while not self._stopping:
            try:
                size = os.readv(device, [buffer])
            except BlockingIOError:
                while pace.may_wait_awake():
                    os.sched_yield()  # to who could work meanwhile, the reader first of all
                    if poll.poll(0):  # quicker than an exception
                        break
                else:
                    poll.poll(_LOOK_AGAIN_MS if self._signalled else None)
                    self._look_again()
                continue
            except OSError as exc:
                if exc.errno in _GO_ON:
                    continue
                log.info("the kernel has ended the connection: %s", exc.strerror)
                return
            self._answer(buffer[:size])
            pace.came()
            if self._signalled and pace.last - self._looked > _LOOK_AGAIN_MS * 10**6:
                self._look_again()

    def _answer(self, request: memoryview) -> None:
        length, opcode, unique, ino, _, _, pid, _ = fuse.IN_HEADER.unpack_from(request)
        try:
            if length != len(request):
                raise ValueError(f"a request of {length} bytes came as {len(request)}")
            if opcode == Opcode.READ:
                self._read(unique, ino, pid, request[_HEADER_SIZE:])
                return
            handler = self._handlers.get(opcode)
            if handler is None:
                self._pass_on(opcode, unique, request)
                return
            reply = handler(ino, request[_HEADER_SIZE:])
        except Exception as exc:  # whoever asked waits for a reply, whatever went wrong here
            if not is_expected(exc):
                log.exception("request %d of inode %d failed", opcode, ino)
            reply = -errno_of(exc)
        self._reply(unique, reply)
        if opcode == Opcode.READDIRPLUS and not isinstance(reply, int) and len(reply):
            _, offset, *_ = fuse.READ_IN.unpack_from(request, _HEADER_SIZE)
            if self._index.is_end(ino, offset + len(reply)):
                self._ahead.listed(ino)

    def _read(self, unique: int, ino: int, pid: int, body: memoryview) -> None:
        _, offset, size, *_ = fuse.READ_IN.unpack_from(body)
        if self._refusing:
            self._reply(unique, -errno.EIO)
            return
        file = self._files.open(ino)
        count = -1
        if file is not None and size <= len(self._data):
            count = self._contents.read_cached(file, offset, size, self._data)
        if count >= 0:
            self._reply(unique, self._data[:count])
        else:
            self._storing.was_asked_for(ino)
            self._reading[unique] = pid
            self._files.read_later(unique, file or ino, offset, size)
        if offset == 0 and 0 < ino <= self._index.inode_count and self._is_small(ino):
            self._ahead.read(ino)

    def _is_small(self, ino: int) -> bool:
        return self._index.attributes(ino).size <= SIZE_MAX

    def _pass_on(self, opcode: int, unique: int, request: memoryview) -> None:
        if opcode in (Opcode.FORGET, Opcode.BATCH_FORGET):
            return  # inode numbers are for ever; there is no reply
        if opcode == Opcode.INTERRUPT:
            self._interrupt(fuse.INTERRUPT_IN.unpack_from(request, _HEADER_SIZE)[0])
            return
        if opcode == Opcode.INIT:
            self._offered = _offers(request[_HEADER_SIZE:])
        with self._guard:
            if self._passed_on >= _PASSED_ON_MAX:
                self._waiting.append(bytes(request))
                return
            self._passed_on += 1
        self._wires.socket.send(request)

    def _interrupt(self, unique: int) -> None:
        """Somebody who waits for a disk has got a signal. Only SIGKILL is a reason to give up: a
        read of a file is not interrupted by others. The kernel tells of the first signal only."""
        pid = self._reading.get(unique)
        if not pid:
            return
        if not _is_being_killed(pid):
            self._signalled.add(unique)
        elif self._reading.pop(unique, None) is not None:
            self._reply(unique, -errno.EINTR)

    def _look_again(self) -> None:
        self._looked = time.monotonic_ns()
        signalled, self._signalled = self._signalled, set()
        for unique in signalled:
            self._interrupt(unique)

    # Replies -----------------------------------------------------------------------------------

    def _finish_read(self, unique: int, reply: bytes | bytearray | int) -> None:
        """Called by the threads of `Files`."""
        if self._reading.pop(unique, None) is not None:
            self._reply(unique, reply)

    def _reply(self, unique: int, reply: bytes | bytearray | memoryview | int) -> None:
        try:
            if isinstance(reply, int):
                os.write(self._device, fuse.OUT_HEADER.pack(_REPLY_SIZE, reply, unique))
            else:
                header = fuse.OUT_HEADER.pack(_REPLY_SIZE + len(reply), 0, unique)
                os.writev(self._device, [header, reply])
        except OSError as exc:
            self._replace(unique, exc)

    def _replace(self, unique: int, exc: OSError) -> None:
        """The device does not take a reply, and whoever waits for it must not wait for ever."""
        if exc.errno == errno.ENOENT:
            return  # nobody waits any more
        log.error("the kernel refuses a reply: %s", exc.strerror)
        with contextlib.suppress(OSError):
            os.write(self._device, fuse.OUT_HEADER.pack(_REPLY_SIZE, -errno.EIO, unique))

    def _copy(self) -> None:
        """Replies of libfuse, as they are."""
        buffer = memoryview(bytearray(_REQUEST_MAX))
        while size := self._wires.socket.recv_into(buffer):
            reply = buffer[:size]
            _, _, unique = fuse.OUT_HEADER.unpack_from(reply)
            if self._offered:
                self._amend(reply)
            try:
                os.write(self._device, reply)
            except OSError as exc:
                self._replace(unique, exc)
            with self._guard:
                if not self._waiting:
                    self._passed_on -= 1
                    continue
                request = self._waiting.popleft()
            self._wires.socket.send(request)

    def _amend(self, reply: memoryview) -> None:
        """Ask for more in the reply to INIT, of what the kernel has offered.

        And for one thing less: it sends reads past the page cache in a way in which it waits for
        them without telling of SIGKILL (fuse_direct_IO of fs/fuse/file.c).
        """
        offered, self._offered = self._offered, 0
        if len(reply) < _REPLY_SIZE + fuse.INIT_OUT.size:
            return
        fields = list(fuse.INIT_OUT.unpack_from(reply, _REPLY_SIZE))
        fields[3] |= offered & fuse.CACHE_SYMLINKS
        fields[3] &= ~fuse.ASYNC_DIO
        fields[4:6] = _MAX_BACKGROUND, _CONGESTION_THRESHOLD
        if self._passthrough and offered & fuse.PASSTHROUGH:
            fields[3] |= fuse.INIT_EXT
            fields[10] |= fuse.PASSTHROUGH >> 32
            fields[11] = _STACK_DEPTH
            self._passthrough.offered = True
        fuse.INIT_OUT.pack_into(reply, _REPLY_SIZE, *fields)


def _offers(body: memoryview) -> int:
    """What the kernel offers in INIT: flags, and above them flags2 (Linux 5.17)."""
    flags: int
    _, _, _, flags = fuse.INIT_IN.unpack_from(body)
    if flags & fuse.INIT_EXT:
        flags |= fuse.INIT_FLAGS2.unpack_from(body, fuse.INIT_IN.size)[0] << 32
    return flags


def _is_being_killed(pid: int) -> bool:
    """Is SIGKILL pending? It is bit 8 of the two masks in proc_pid_status(5)."""
    with contextlib.suppress(OSError, ValueError):
        for line in Path(f"/proc/{pid}/status").read_text().splitlines():
            if line.startswith(("SigPnd:", "ShdPnd:")) and int(line.split()[1], 16) & 1 << 8:
                return True
        return False
    return True  # it has gone
