"""Readers that have a file open, and whether its server is asked when they read."""

from __future__ import annotations

import contextlib
import hashlib
import os
import platform
import re
import select
import signal
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.lane.serving import ask, finish
from tests.mount.conftest import PATIENCE, wait_until

_READER = """
import hashlib, mmap, os, sys
fd = os.open(sys.argv[1], os.O_RDONLY)
size = os.fstat(fd).st_size
if "forget" in sys.argv:
    os.posix_fadvise(fd, 0, 0, os.POSIX_FADV_DONTNEED)
mapped = mmap.mmap(fd, size, prot=mmap.PROT_READ) if "map" in sys.argv else b""
if "closed" in sys.argv:
    mapped = mmap.mmap(fd, size, prot=mmap.PROT_READ)
    os.close(fd)
print("open", flush=True)
for line in sys.stdin:
    try:
        print(hashlib.sha256(mapped or os.pread(fd, size + 1, 0)).hexdigest(), flush=True)
    except OSError as exc:
        print(exc.strerror, flush=True)
"""


def passthrough_is_possible() -> bool:
    """Whether the kernel can do it, and where these tests have their stores."""
    release = tuple(map(int, re.findall(r"\d+", platform.release())[:2]))
    directory = tempfile.gettempdir()
    stat = subprocess.run(["stat", "-f", "-c", "%T", directory], check=True, stdout=subprocess.PIPE)
    return release >= (6, 9) and stat.stdout != b"overlayfs\n"


needs_passthrough = pytest.mark.skipif(
    not passthrough_is_possible(), reason="takes Linux 6.9 and a TMPDIR that is no overlay"
)


class Reader:
    """A process that has a file open, and reads all of it whenever it is told to."""

    def __init__(self, path: Path, *how: str) -> None:
        self._process = subprocess.Popen(
            [sys.executable, "-S", "-c", _READER, path, *how],
            bufsize=0, stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=subprocess.PIPE,
        )  # fmt: skip
        assert self.line() == "open"

    def tell(self) -> None:
        assert self._process.stdin is not None
        self._process.stdin.write(b"read\n")

    def has_read(self, seconds: float = 0) -> bool:
        assert self._process.stdout is not None
        return bool(select.select([self._process.stdout], [], [], seconds)[0])

    def is_waiting(self) -> bool:
        """For a page, or a reply."""
        stat = Path(f"/proc/{self._process.pid}/stat").read_text()
        return stat.rpartition(")")[2].split()[0] == "D"

    def line(self) -> str:
        assert self._process.stdout is not None
        assert self.has_read(PATIENCE), "the reader hangs"
        return self._process.stdout.readline().decode().strip()

    def read(self) -> str:
        """What sha256sum says of what it reads, or an error's text."""
        self.tell()
        return self.line()

    def close(self) -> None:
        assert finish(self._process).code == 0


@contextlib.contextmanager
def reading(path: Path, *how: str) -> Iterator[Reader]:
    reader = Reader(path, *how)
    try:
        yield reader
    finally:
        reader.close()


@contextlib.contextmanager
def stopped(pid: int) -> Iterator[None]:
    """A server that answers nothing."""
    os.kill(pid, signal.SIGSTOP)
    try:
        stat = Path(f"/proc/{pid}/stat")
        wait_until(lambda: stat.read_text().rpartition(")")[2].split()[0] == "T")
        yield
    finally:
        os.kill(pid, signal.SIGCONT)


def is_passed_through(pid: int, path: Path, *how: str) -> bool:
    """Can a file whose pages the kernel has not kept be read while its server answers nothing?"""
    ask("cat", path.parent / "small")  # from now on the kernel knows that there is no FLUSH
    with reading(path, "forget", *how) as reader:
        with stopped(pid):
            reader.tell()
            wait_until(lambda: reader.has_read(0.3) or reader.is_waiting())
            passed = reader.has_read(1)  # the blob may come from a disk
        assert reader.line() == hashlib.sha256(path.read_bytes()).hexdigest()
    return passed
