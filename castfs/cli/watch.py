"""`castfs watch`: what a program writes, kept while it runs."""

from __future__ import annotations

import contextlib
import signal
import threading
import time
from collections.abc import Iterator
from pathlib import Path
from types import FrameType
from typing import TYPE_CHECKING

import click

from castfs.cli import output
from castfs.cli.documents import encode_document
from castfs.cli.invocation import Invocation, json_option, verb
from castfs.cli.units import format_count, format_size
from castfs.cli.words import DURATION, NAME, PATH, TEXT
from castfs.errors import SourceError

if TYPE_CHECKING:
    from castfs.runs.outputs import ScanReport

#: timeout(1) signals a process and then its group: that is one request to end.
_SAME_SIGNAL_SECONDS = 0.2


@verb("watch")
@click.argument("directory", metavar="DIR", type=PATH)
@click.option("--name", type=NAME, help="Keep each file as NAME/<path>. [default: DIR's own name]")
@click.option("--run", "run_id", type=TEXT, help="Keep them for this run, under its path.")
@click.option(
    "--pattern", "patterns", metavar="PATTERN", multiple=True,
    help="Keep only what matches, as in .gitignore; a directory with `/` at its end is kept whole.",
)  # fmt: skip
@click.option("--interval", type=DURATION, default="10s", help="Between looks. [default: 10s]")
@click.option(
    "--min-age", type=DURATION, default="1s", help="Not changed for so long. [default: 1s]"
)
@click.option("--once", is_flag=True, help="Look once, and take what is complete then.")
@json_option
def command(
    invocation: Invocation,
    *,
    directory: Path,
    name: str | None,
    run_id: str | None,
    patterns: tuple[str, ...],
    interval: float,
    min_age: float,
    once: bool,
    as_json: bool,
) -> None:
    """Keep the files that a program writes in DIR, each as versions of a name of its own.

    A file is taken when two looks have found it the same and it has not changed for --min-age; a
    log whenever it has changed, once a minute at most. By default that is what matches *.pth *.pt
    *.ckpt *.onnx *.log *.json *.txt *.csv *.png. Ctrl-C or SIGTERM ends it, with a last look; a
    second one ends it at once. What was taken is remembered in the store: the next `castfs watch`
    of DIR goes on from there. It ends with exit code 4 when the run is removed.

    \b
    Examples:
      castfs watch ./outputs --name resnet
      castfs watch ./outputs --run 20260115_100000_abc123 --pattern 'checkpoints/*/'
      castfs watch ./outputs --once --min-age 0
    """
    from castfs.runs.watching import DirectoryWatch

    if name is not None and run_id is not None:
        raise click.UsageError("--name and --run exclude each other")
    if not directory.is_dir():
        raise SourceError(f"{directory} is no directory", hint="name the directory of the outputs")
    store = invocation.open_store(create=True)
    watch = DirectoryWatch(
        store, directory, name=name, run_id=run_id, patterns=patterns, min_age_sec=min_age
    )
    if once:
        tell(watch.finish(), as_json)
        return
    with ended_by_signals() as ended:
        while not ended.wait(interval):
            tell(watch.scan_once(should_stop=ended.is_set), as_json)
        output.note("looking a last time; interrupt again to end at once")
        tell(watch.finish(), as_json)


@contextlib.contextmanager
def ended_by_signals() -> Iterator[threading.Event]:
    """Set by the first SIGTERM or SIGINT; the second one does what it does to every command."""
    ended = threading.Event()
    first_at = 0.0
    before = {number: signal.getsignal(number) for number in (signal.SIGTERM, signal.SIGINT)}

    def end(number: int, frame: FrameType | None) -> None:
        nonlocal first_at
        now = time.monotonic()
        if not ended.is_set():
            first_at = now
            ended.set()
        elif now - first_at > _SAME_SIGNAL_SECONDS:
            for each, handler in before.items():
                signal.signal(each, handler)
            signal.raise_signal(signal.Signals(number))

    for number, handler in before.items():
        if handler is not signal.SIG_IGN:
            signal.signal(number, end)
    try:
        yield ended
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)


def tell(report: ScanReport, as_json: bool) -> None:
    """What was taken and what failed, a line each."""
    for taken in report.taken:
        if as_json:
            output.write(encode_document(taken).replace(b"\n", b"") + b"\n")
        else:
            output.line(output.one_line(f"{taken.key} {format_size(taken.size_bytes)} {taken.id}"))
    for failed in report.failed:
        output.note(output.one_line(f"not taken: {failed.key}: {failed.reason}"))
    if report.waiting and not as_json:
        output.note(f"{format_count(len(report.waiting), 'file')} not complete yet")
    output.flush()
