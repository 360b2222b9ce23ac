"""What the fixtures of these tests are, and hooks into an ingest that is under way."""

from __future__ import annotations

from collections.abc import Callable
from typing import Protocol

import pytest

from castfs.ingest import readers, reading
from castfs.ingest.reading import TakenFile
from castfs.ingest.sink import Sink
from castfs.progress import Progress
from castfs.repository import Snapshot
from castfs.repository.results import IngestResult

Ingest = Callable[..., IngestResult]
Take = Callable[..., Snapshot]


class ReadNames(list[bytes]):
    def __init__(self, monkeypatch: pytest.MonkeyPatch) -> None:
        def take(dir_fd: int, name: bytes, sink: Sink, *, xattrs: bool) -> TakenFile:
            self.append(name)
            return reading.take_file(dir_fd, name, sink, xattrs=xattrs)

        monkeypatch.setattr("castfs.ingest.reader.take_file", take)

    def pop_all(self) -> list[bytes]:
        names = sorted(self)
        self.clear()
        return names


class Hook(Protocol):
    def __call__(self) -> object: ...


def before_reading(monkeypatch: pytest.MonkeyPatch, act: Hook) -> None:
    """`act` once, after the directory was listed and before its files are opened."""
    original = readers.Readers.submit
    pending = [act]

    def submit(self: readers.Readers, *args: object) -> None:
        while pending:
            pending.pop()()
        original(self, *args)  # type: ignore[arg-type]

    monkeypatch.setattr(readers.Readers, "submit", submit)


class AtPhase(Progress):
    """`act` when the ingest begins a phase: "reading", "writing to disk"."""

    def __init__(self, phase: str, act: Hook) -> None:
        self._phase = phase
        self._act = act

    def phase(self, name: str, **_: object) -> None:
        if name == self._phase:
            self._act()
