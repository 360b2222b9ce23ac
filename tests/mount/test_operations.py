"""The adapter's own decisions, without a mount."""

from __future__ import annotations

import errno
import inspect
import logging

import pyfuse3
import pytest
import trio
import trio.testing

from castfs.errors import BlobError
from castfs.mount import serving
from castfs.mount.operations import SnapshotOperations, XattrOperations, answered
from castfs.view.errnos import errno_of


@pytest.mark.parametrize(
    ("exc", "expected"),
    [
        (OSError(errno.ENOTDIR, ""), errno.ENOTDIR),
        (OSError(errno.ESTALE, ""), errno.ESTALE),
        (OSError(errno.ENODATA, ""), errno.ENODATA),
        (OSError(errno.EMFILE, ""), errno.ENFILE),
        (OSError(errno.EACCES, ""), errno.EIO),
        (OSError(errno.EAGAIN, ""), errno.EIO),
        (OSError("no number"), errno.EIO),
        (BlobError("missing", digest="0" * 64), errno.EIO),
        (MemoryError(), errno.ENOMEM),
        (KeyError("a bug"), errno.EIO),
    ],
)
def test_errnos(exc: Exception, expected: int) -> None:
    assert errno_of(exc) == expected


@pytest.mark.parametrize("exc", [RuntimeError("a bug"), OSError(errno.EIO, "disk"), MemoryError()])
def test_every_exception_becomes_an_errno(exc: Exception, caplog: pytest.LogCaptureFixture) -> None:
    @answered
    async def handler() -> None:
        raise exc

    with pytest.raises(pyfuse3.FUSEError) as caught:
        trio.run(handler)
    assert caught.value.errno == errno_of(exc)
    bugs = [record for record in caplog.records if record.levelno >= logging.ERROR]
    assert [bool(record.exc_info) for record in bugs] == [True] * isinstance(exc, RuntimeError)


def test_errnos_and_cancellation_pass() -> None:
    @answered
    async def refuse() -> None:
        raise pyfuse3.FUSEError(errno.ENOTEMPTY)

    @answered
    async def wait() -> None:
        await trio.sleep_forever()

    async def cancelled() -> bool:
        with trio.move_on_after(0) as scope:
            await wait()
        return scope.cancelled_caught

    with pytest.raises(pyfuse3.FUSEError) as caught:
        trio.run(refuse)
    assert caught.value.errno == errno.ENOTEMPTY
    assert trio.run(cancelled)


#: What the kernel is told once that it need not ask (ENOSYS), or that nothing has to be done for.
NOT_HANDLED = {"init", "forget", "stacktrace", "flush", "fsync", "fsyncdir", "access", "poll"}


def test_every_request_is_thought_of() -> None:
    names = {name for name, _ in inspect.getmembers(pyfuse3.Operations, inspect.isfunction)}
    ours = {name for name in vars(SnapshotOperations) if not name.startswith("_")}
    xattr = {"getxattr", "listxattr"}
    assert names - ours - NOT_HANDLED == xattr
    assert xattr <= vars(XattrOperations).keys()
    assert ours - names == {"supports_dot_lookup", "enable_writeback_cache", "enable_acl"}


def test_the_pin_is_kept_alive() -> None:
    beats: list[float] = []

    def beat() -> None:
        beats.append(1)
        if len(beats) == 2:
            raise OSError(errno.EIO, "for once")

    async def five_minutes() -> None:
        with trio.move_on_after(5 * serving.BEAT_SECONDS + 1):
            await serving._beat(beat)

    # The clock jumps when nothing has happened for 0.1 s: the thread of a beat is done by then.
    trio.run(five_minutes, clock=trio.testing.MockClock(autojump_threshold=0.1))
    assert len(beats) == 5
