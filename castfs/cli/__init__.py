"""The command line: one file for each verb, loaded when it is typed.

`program` is the entry point of the `castfs` program, and `main` is what it runs: it prints results
to stdout, everything else to stderr, and returns the exit code; `castfs help exit-codes` lists
those.
"""

from __future__ import annotations

import contextlib
import gc
import os
import sys
from collections.abc import Sequence
from typing import NoReturn

__all__ = ["main", "program"]


def program() -> NoReturn:
    """`main` as a process. It ends at once: whoever needs cleaning up is a context manager and has
    been left, and taking a million objects apart one by one lasts a second."""
    for fd in range(3):
        # A descriptor that is closed here would be the next file that is opened, and what is
        # written to stderr would land in it.
        try:
            os.fstat(fd)
        except OSError:
            os.open(os.devnull, os.O_RDWR)
    code = main()
    for stream in (sys.stdout, sys.stderr):
        # None where the descriptor was closed. An error has been reported, or nobody could read it.
        with contextlib.suppress(OSError, ValueError, AttributeError):
            stream.flush()
    os._exit(code)


def main(argv: Sequence[str] | None = None) -> int:
    """Run one command. `argv` is without the program's name; by default that of the process."""
    # A command keeps nearly all that it builds until it ends; looking through it for garbage every
    # 700 objects costs a tenth of an unchanged ingest.
    gc.set_threshold(1_000_000, 50, 100)
    try:
        # Loading click takes 50 ms, in which Ctrl-C must not give a traceback either.
        from castfs.cli.process import run
    except KeyboardInterrupt:
        return 130
    return run(argv)
