"""A bar on a terminal for what lasts longer than a second; nothing in a pipe."""

from __future__ import annotations

import sys
import threading
from types import TracebackType
from typing import TYPE_CHECKING, Literal

from castfs.progress import SILENT, Progress

if TYPE_CHECKING:
    from rich.progress import Progress as RichProgress
    from rich.progress import TaskID

#: Seconds after which a bar is worth looking at.
_DELAY = 1.0

Unit = Literal["files", "bytes"]


class Bar(Progress):
    """A context in which an operation shows a bar on stderr. `progress_bar` makes it."""

    def __init__(self) -> None:
        # Guards all below: the timer's thread starts the bar, the operation's moves it.
        self._lock = threading.Lock()
        self._timer = threading.Timer(_DELAY, self._start)
        self._timer.daemon = True
        self._rich: RichProgress | None = None
        self._task: TaskID | None = None
        self._ended = False
        self._name = ""
        self._total: int | None = None
        self._unit: Unit = "files"
        self._count = 0
        self._size = 0

    def __enter__(self) -> Bar:
        self._timer.start()
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        exc: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self._timer.cancel()
        with self._lock:
            self._ended = True
            rich, self._rich = self._rich, None
        if rich is not None:
            rich.stop()

    def phase(self, name: str, *, total: int | None = None, unit: Unit = "files") -> None:
        with self._lock:
            self._name, self._total, self._unit = name, total, unit
            self._count = self._size = 0
            if self._rich is not None:
                self._replace_task(self._rich)

    def advance(self, count: int, size: int = 0) -> None:
        with self._lock:
            self._count += count
            self._size += size
            if self._rich is not None and self._task is not None:
                self._rich.update(self._task, completed=self._done, detail=self._detail)

    @property
    def _done(self) -> int:
        return self._size if self._unit == "bytes" else self._count

    @property
    def _detail(self) -> str:
        from castfs.cli.units import format_size

        size = format_size(self._size) if self._size else ""
        if self._unit == "bytes":
            return size
        count = f"{self._count:,}"
        if self._total is not None:
            count += f"/{self._total:,}"
        return f"{count} {size}".rstrip()

    def _start(self) -> None:
        # 150 ms of importing in this thread, without the lock.
        from rich.console import Console
        from rich.progress import BarColumn, SpinnerColumn, TextColumn, TimeElapsedColumn
        from rich.progress import Progress as RichProgress

        bar = RichProgress(
            SpinnerColumn(),
            TextColumn("{task.description}"),
            BarColumn(),
            TextColumn("{task.fields[detail]}"),
            TimeElapsedColumn(),
            console=Console(stderr=True),
            transient=True,  # the summary says the same in the end
        )
        with self._lock:
            if self._ended:
                return
            self._rich = bar
            self._replace_task(bar)
            bar.start()

    def _replace_task(self, bar: RichProgress) -> None:
        if self._task is not None:
            bar.remove_task(self._task)
        self._task = bar.add_task(
            self._name, total=self._total, completed=self._done, detail=self._detail
        )


class Silent(Progress):
    """The context where nobody looks."""

    def __enter__(self) -> Progress:
        return SILENT

    def __exit__(self, *args: object) -> None:
        return None


def progress_bar(*, quiet: bool = False) -> Bar | Silent:
    """Shows a bar if stderr is a terminal, and only once the operation has lasted a second."""
    if quiet or sys.stderr is None or not sys.stderr.isatty():
        return Silent()
    return Bar()
