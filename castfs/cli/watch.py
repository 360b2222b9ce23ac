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
from castfs.cli.ingest import EXIT_SKIPPED
from castfs.cli.invocation import Invocation, verb
from castfs.cli.run_word import RUN
from castfs.cli.units import format_count, format_size
from castfs.cli.words import DURATION, NAME, PATH
from castfs.errors import SourceError

if TYPE_CHECKING:
    from castfs.runs.watching import WatchReport

#: timeout(1) signals a process and then its group: that is one request to end.
_SAME_SIGNAL_SECONDS = 0.2


@verb("watch")
@click.argument("directory", metavar="DIR", type=PATH)
@click.option("--name", type=NAME, help="Keep each file as NAME/<path>. [default: DIR's own name]")
@click.option("--run", "run_id", type=RUN, help="Keep them for this run, under its path.")
@click.option(
    "--pattern", "patterns", metavar="PATTERN", multiple=True,
    help="Keep only what matches, as in .gitignore; a directory with `/` at its end is kept whole.",
)  # fmt: skip
@click.option("--interval", type=DURATION, default="10s", help="Between looks. [default: 10s]")
@click.option(
    "--min-age", type=DURATION, default="1s", help="Not changed for so long. [default: 1s]"
)
@click.option("--once", is_flag=True, help="Look once, and take what is complete then.")
@click.option(
    "--json", "as_json", is_flag=True, help="Print a line of JSON for each file instead of text."
)
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
) -> int:
    """Keep the files that a program writes in DIR, each as versions of a name of its own.

    A file is taken when two looks have found it the same and it has not changed for --min-age; a
    log whenever it has changed, once a minute at most. By default that is what matches *.pth *.pt
    *.ckpt *.onnx *.log *.json *.txt *.csv *.png. Ctrl-C or SIGTERM ends it, with a last look; a
    second one ends it at once. What was taken is remembered in the store: the next `castfs watch`
    of DIR goes on from there. A store that does not exist is created. It prints path, size and
    version of what it has taken.

    The exit code is 4 when the run is removed, and 3 if the last look (with --once the only one)
    could not take something.

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
    store = invocation.open_store(create=run_id is None)  # where none was, there is no run either
    if store.created:
        output.note(f"created store at {store.path}")
    watch = DirectoryWatch(
        store, directory, name=name, run_id=run_id, patterns=patterns, min_age_sec=min_age
    )
    if once:
        return tell(watch.finish(), as_json)
    with ended_by_signals() as ended:
        while not ended.wait(interval):
            tell(watch.scan_once(should_stop=ended.is_set), as_json)
        output.note("looking a last time; interrupt again to end at once")
        return tell(watch.finish(), as_json)


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


def tell(report: WatchReport, as_json: bool) -> int:
    """What was taken and what failed, a line each. Returns the exit code, if it was the last."""
    for taken in report.taken:
        if as_json:
            output.write(encode_document(taken).replace(b"\n", b"") + b"\n")
        else:
            size = format_size(taken.size_bytes)
            output.line(output.one_line(f"{taken.key} {size} {taken.word}"))
    for failed in report.failed:
        output.note(output.one_line(f"not taken: {failed.key}: {failed.reason}"))
    if report.waiting and not as_json:
        output.note(f"{format_count(len(report.waiting), 'file')} not complete yet")
    output.flush()
    return EXIT_SKIPPED if report.failed else 0
