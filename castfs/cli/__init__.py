"""The command line: one file for each verb, loaded when it is typed.

`main` is the entry point of the `castfs` program. It prints results to stdout, everything else to
stderr, and returns the exit code; `castfs help exit-codes` lists those.
"""

from __future__ import annotations

import gc
from collections.abc import Sequence

__all__ = ["main"]


def main(argv: Sequence[str] | None = None) -> int:
    """Run one command. `argv` is without the program's name; by default that of the process."""
    # A command keeps nearly all that it builds until it ends; looking through it for garbage every
    # 700 objects costs a tenth of an unchanged ingest.
    gc.set_threshold(100_000, 50, 100)
    try:
        # Loading click takes 50 ms, in which Ctrl-C must not give a traceback either.
        from castfs.cli.process import run
    except KeyboardInterrupt:
        return 130
    return run(argv)
