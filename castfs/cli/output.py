"""Everything that is printed goes through here: results to stdout, notes to stderr.

stdout is written as bytes, UTF-8 whatever the locale, because names are bytes: in a pipe they come
out as they are, on a terminal without control characters.
"""

from __future__ import annotations

import contextlib
import io
import os
import sys
from collections.abc import Iterable, Iterator
from typing import BinaryIO

from castfs.errors import SourceError, TargetError
from castfs.paths import display


def is_terminal() -> bool:
    """Is stdout one?"""
    return sys.stdout is not None and sys.stdout.isatty()


def write(data: str | bytes) -> None:
    """Results, to stdout. BrokenPipeError if its reader is gone; TargetError on a full disk."""
    raw = data if isinstance(data, bytes) else data.encode(errors="surrogateescape")
    write_bytes(raw)


def write_bytes(data: bytes | memoryview) -> None:
    stream = binary_stdout()
    rest = memoryview(data)
    with _explained():
        while rest:
            # Under PYTHONUNBUFFERED this is a raw stream, whose writes may be short.
            rest = rest[stream.write(rest) :]


def line(text: str | bytes = "") -> None:
    raw = text if isinstance(text, bytes) else text.encode(errors="surrogateescape")
    write_bytes(raw + b"\n")


def lines(texts: Iterable[str | bytes]) -> None:
    for text in texts:
        line(text)


def binary_stdout() -> BinaryIO:
    if sys.stdout is None:
        raise TargetError("stdout is closed", hint="redirect it to a file or a pipe")
    return sys.stdout.buffer


def binary_stdin() -> BinaryIO:
    if sys.stdin is None:
        raise SourceError("stdin is closed", hint="redirect it from a file or a pipe")
    return sys.stdin.buffer


def flush() -> None:
    if sys.stdout is not None:
        with _explained():
            sys.stdout.flush()


@contextlib.contextmanager
def _explained() -> Iterator[None]:
    try:
        yield
    except BrokenPipeError:
        raise
    except OSError as exc:
        abandon()
        raise TargetError(f"cannot write to stdout: {os.strerror(exc.errno or 0)}") from exc


def abandon() -> None:
    """Send what is still buffered nowhere: the interpreter would complain of it at its end."""
    with contextlib.suppress(OSError, ValueError, AttributeError, io.UnsupportedOperation):
        null = os.open(os.devnull, os.O_WRONLY | os.O_CLOEXEC)
        try:
            os.dup2(null, sys.stdout.fileno())
        finally:
            os.close(null)


def shown_name(raw: bytes) -> bytes:
    """A file's name as it is in a pipe, and harmless on a terminal."""
    return display(raw).encode() if is_terminal() else raw


def one_line(text: str) -> str:
    """`text` without control characters or line breaks."""
    try:
        return display(text.encode(errors="surrogateescape"))
    except UnicodeEncodeError:  # a lone surrogate that no byte stands for
        return display(text.encode(errors="backslashreplace"))


def note(text: str) -> None:
    """One line on stderr, whatever `text` holds."""
    note_text(one_line(text))


def note_text(text: str) -> None:
    """Lines on stderr. Nobody can be told when that fails."""
    with contextlib.suppress(OSError, ValueError):
        if sys.stderr is not None:
            sys.stderr.write(text + "\n")
            sys.stderr.flush()
