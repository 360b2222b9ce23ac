"""A command as a process: signals in, one line and an exit code out, whatever happens."""

from __future__ import annotations

import contextlib
import os
import signal
import sys
import threading
import traceback
from collections.abc import Iterator, Sequence
from types import FrameType
from typing import Any

import click

from castfs.cli import output
from castfs.cli.invocation import Invocation
from castfs.cli.verbs import PROGRAM, castfs
from castfs.errors import CastfsError, UnreadableError
from castfs.paths import display

#: What the scripts that `castfs completion` prints set to ask for completions.
COMPLETE_VARIABLE = "_CASTFS_COMPLETE"

#: The reader of our stdout went away before it had everything: what a shell reports for every
#: other program that writes to a closed pipe (128 + SIGPIPE).
EXIT_BROKEN_PIPE = 141
EXIT_INTERRUPTED = 130


class Terminated(BaseException):
    """SIGTERM or SIGHUP, raised in the main thread so that every context manager is left: staged
    files are discarded, leases released. Not an Exception, like KeyboardInterrupt."""

    def __init__(self, number: int) -> None:
        super().__init__(number)
        self.number = number


def run(argv: Sequence[str] | None = None) -> int:
    """Run the command and return its exit code; SystemExit passes through."""
    args = list(sys.argv[1:] if argv is None else argv)
    try:
        with signals_raised():
            try:
                code = run_group(args)
                output.flush()
            except SystemExit:
                raise
            except BaseException as exc:
                return report(exc)
    except (Terminated, KeyboardInterrupt) as exc:
        # It came when all was done, or while something else was being reported.
        return report(exc)
    return code


def run_group(args: list[str]) -> int:
    instruction = os.environ.get(COMPLETE_VARIABLE)
    if instruction:
        from click.shell_completion import shell_complete

        return shell_complete(
            castfs, {"obj": Invocation()}, PROGRAM, COMPLETE_VARIABLE, instruction
        )
    with castfs.make_context(PROGRAM, args, obj=Invocation()) as context:
        code = castfs.invoke(context)
    return code if isinstance(code, int) else 0


@contextlib.contextmanager
def signals_raised() -> Iterator[None]:
    """Raise Terminated on signals that ask a process to end, unless they are ignored (nohup)."""
    if threading.current_thread() is not threading.main_thread():
        yield
        return
    previous: dict[signal.Signals, Any] = {}

    def end(number: int, frame: FrameType | None) -> None:
        # timeout(1) and service managers signal the process and then its group: the second one must
        # not end the cleaning up.
        for each in previous:
            signal.signal(each, signal.SIG_IGN)
        raise Terminated(number)

    for number in (signal.SIGTERM, signal.SIGHUP):
        if signal.getsignal(number) is signal.SIG_DFL:
            previous[number] = signal.signal(number, end)
    try:
        yield
    finally:
        for number, handler in previous.items():
            signal.signal(number, handler)


def report(exc: BaseException) -> int:
    """Say what went wrong on stderr, in one line, and return the exit code."""
    match exc:
        case click.exceptions.Exit():
            return exc.exit_code
        case KeyboardInterrupt():
            complain("interrupted")
            return EXIT_INTERRUPTED
        case click.Abort():
            return report_no_answer(exc)
        case Terminated():
            complain(f"ended by {signal.Signals(exc.number).name}")
            return 128 + exc.number
        case BrokenPipeError():
            output.abandon()
            return EXIT_BROKEN_PIPE
        case click.ClickException():
            return report_usage(exc)
        case UnreadableError():
            for path, reason in exc.entries:
                output.note(f"{display(path) or '.'}: {reason}")
            complain(str(exc))
            return exc.exit_code
        case CastfsError():
            complain(str(exc))
            return exc.exit_code
        case OSError():
            complain(describe_os_error(exc))
            return 1
        case MemoryError():
            complain("out of memory")
            return 1
    # Anything else is a bug of ours, and its report needs the traceback.
    with contextlib.suppress(OSError):
        traceback.print_exception(exc)
    return 1


def report_no_answer(exc: click.Abort) -> int:
    """A question was answered with no, or not at all: Ctrl-C, Ctrl-D."""
    if exc.__context__ is not None:
        output.note_text("")  # the cursor is still behind the question
    if isinstance(exc.__context__, KeyboardInterrupt):
        complain("interrupted")
        return EXIT_INTERRUPTED
    complain("not confirmed; nothing was done")
    return 1


def report_usage(exc: click.ClickException) -> int:
    context = getattr(exc, "ctx", None)
    if isinstance(exc, click.exceptions.NoArgsIsHelpError):
        # What was typed is no mistake, but it did nothing either.
        output.note_text(exc.format_message())
        return exc.exit_code
    message = " ".join(exc.format_message().split()).rstrip(".")
    where = context.command_path if context is not None else PROGRAM
    hint = getattr(exc, "castfs_hint", None) or f"see `{where} --help`"
    complain(f"{message[:1].lower()}{message[1:]}; {hint}")
    return exc.exit_code


def describe_os_error(exc: OSError) -> str:
    if isinstance(exc, FileNotFoundError) and exc.filename is None and not _has_cwd():
        return "the current directory is gone; cd to one that is there"
    if exc.errno is None:
        return str(exc) or type(exc).__name__
    reason = os.strerror(exc.errno)
    if exc.filename is None:
        return reason
    name = exc.filename if isinstance(exc.filename, bytes) else str(exc.filename)
    return f"{display(os.fsencode(name))}: {reason}"


def _has_cwd() -> bool:
    try:
        os.getcwd()
    except FileNotFoundError:
        return False
    return True


def complain(text: str) -> None:
    output.note(f"{PROGRAM}: {text}")
